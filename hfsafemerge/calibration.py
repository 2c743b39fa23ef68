"""Calibration: how important each entry of a model is to its answers, from the gradients of a few examples."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.checkpoint import DTYPES, CheckpointWriter, TensorInfo, atomic_folder, disk_errors, in_words, not_finite, require_space
from hfsafemerge.errors import CheckpointError, DataError
from hfsafemerge.language_model import Tokens, TransformersModel, is_out_of_memory

StoredDtype = Literal["float32", "bfloat16"]
SHORT: Mapping[StoredDtype, str] = {"float32": "F32", "bfloat16": "BF16"}
SUMS = "gradients.float32"


def write_importance(
    model: TransformersModel,
    examples: Sequence[Tokens],
    tensors: Mapping[str, TensorInfo],
    folder: Path,
    *,
    dtype: StoredDtype = "float32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write S = |W| * sum_n |grad of L(x_n)| of every weight as safetensors; L is -log p a token of the answer, given the prompt.

    Magnitudes are added up example by example, so each goes through the model by itself. The sums are float32 in a file beside the
    folder that is mapped into memory, and a weight's gradient is added to it and freed as soon as it appears: the device holds the
    model, one example's activations and about one gradient. The folder appears when all is done: after a kill the model is begun
    anew, with the same bits where the device computes the same twice.

    Reference: the step location of arXiv:2502.16770, and the code of its authors (there the mean over the answer's tokens too).

    Args:
        model: the model, not quantized.
        examples: what its weights are to matter for, at least one.
        tensors: the tensors of its files; those of floats get scores. A tensor that no weight is made of gets zeros.
        folder: where to write; it must not hold anything to keep.
        dtype: of the scores on the disk. With bfloat16 more of them are equal, and of those the first ones come first.
        progress: told how many examples of how many are done.

    Raises:
        DataError: there are no examples, or one does not fit in memory or has no finite loss.
        CheckpointError: a score is not finite.
        OutOfDisk: there is no room for the scores and the sums.
    """
    if not examples:
        raise DataError(f"There are no examples to calibrate {model.name} with.")
    floats = {name: info for name, info in tensors.items() if DTYPES[info.dtype].is_floating_point}
    stored = {name: TensorInfo(SHORT[dtype], info.shape) for name, info in floats.items()}
    with atomic_folder(folder) as part:
        sums = AbsoluteGradients(model.model, part / SUMS)
        with sums.adding():
            for done, example in enumerate(examples, 1):
                _backward(model, example)
                progress(done, len(examples))
        writer = CheckpointWriter(part, stored)
        for name, info in stored.items():
            scores = sums.importance(name, info.shape)
            if found := not_finite(scores):
                raise CheckpointError(f"The importance of {name} in {model.name} came out with {found}. Set compute.dtype to float32.")
            writer.write(name, scores.to(DTYPES[info.dtype]))
        writer.finish()
        (part / SUMS).unlink()


class AbsoluteGradients:
    """The sum of each weight's gradients in magnitude, in a file as large as the model in float32."""

    def __init__(self, model: torch.nn.Module, file: Path) -> None:
        """Make room for all weights. Raises OutOfDisk."""
        self._parameters = dict(model.named_parameters())
        numbers = {name: parameter.numel() for name, parameter in self._parameters.items()}
        size = 4 * sum(numbers.values())
        require_space(file.parent, size)
        with disk_errors(file.parent), file.open("wb") as opened:
            if hasattr(os, "posix_fallocate"):  # else a full disk would end the process when a page is written
                os.posix_fallocate(opened.fileno(), 0, size)
            else:
                opened.truncate(size)
        whole = torch.from_numpy(np.memmap(file, dtype=np.float32, mode="r+"))
        self._sums = dict(zip(numbers, torch.split(whole, list(numbers.values())), strict=True))
        first = {id(parameter): name for name, parameter in self._parameters.items()}
        state = model.state_dict(keep_vars=True)  # names a tied weight as often as files may
        self._names = {name: first[id(tensor)] for name, tensor in state.items() if id(tensor) in first}

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Every gradient of a weight that appears in the block is added in magnitude, and freed."""

        def hook(total: Float[Tensor, "n"]) -> Callable[[Tensor], None]:
            def add(parameter: Tensor) -> None:
                gradient, parameter.grad = parameter.grad, None
                if gradient is not None:
                    total.add_(gradient.detach().reshape(-1).cpu().abs())

            return add

        handles = []
        for name, parameter in self._parameters.items():
            handles.append(parameter.register_post_accumulate_grad_hook(hook(self._sums[name])))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            for parameter in self._parameters.values():
                parameter.grad = None

    @torch.no_grad()
    def importance(self, name: str, shape: Sequence[int]) -> Float[Tensor, "*shape"]:
        """|W| times the sum, of a tensor by the name that it has in files; zeros if it is of no weight."""
        if name not in self._names:
            return torch.zeros(*shape)
        own = self._names[name]
        return self._parameters[own].detach().cpu().float().abs().mul_(self._sums[own].view(self._parameters[own].shape)).reshape(*shape)


def _backward(model: TransformersModel, example: Tokens) -> None:
    """The gradient of one example's loss. Raises DataError."""
    length = len(example.prompt) + len(example.answer)
    try:
        (batch,) = model.batched([example])
        with torch.enable_grad():
            loss = -model.answer_likelihood(batch).sum()
            torch.autograd.backward(loss)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        weights = sum(parameter.numel() * parameter.element_size() for parameter in model.model.parameters())
        raise DataError(f"The gradients of an example of {length} tokens don't fit beside {model.name} ({in_words(weights)}).") from error
    if not math.isfinite(value := float(loss.detach())):
        raise DataError(f"{model.name} gives the answer of an example a loss of {value}. Set compute.dtype to float32.")
