"""What work changes in its process, and changes back: the threads of torch, the bars of libraries."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """On a CPU, sums of floats depend on the number of threads of torch; None leaves it as it is."""
    if count is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_bars() -> Iterator[None]:
    """No bars of transformers and datasets: our own progress is shown, and they would write over it."""
    import datasets
    from transformers.utils import logging  # its disable_progress_bar would take the bars of huggingface_hub along, and for good

    bars, before = not datasets.are_progress_bars_disabled(), logging.set_tqdm_hook(_disabled)
    if bars:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)
        if bars:
            datasets.enable_progress_bars()


def _disabled(make: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """A bar that is not shown."""
    return make(*given, **{**named, "disable": True})
