"""Steps in threads that stop when one fails, or the user does not want them any more: none goes on with its gigabytes."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue

from hfsafemerge.errors import Cancelled

EVERY = 0.5  # seconds between two beats


class Stop:
    """Whether work that is under way is wanted no more."""

    def __init__(self) -> None:
        """It is wanted."""
        self.asked = False

    def require_wanted(self) -> None:
        """Raise Cancelled once it is wanted no more: to be called now and then by whatever takes long."""
        if self.asked:
            raise Cancelled("It was stopped. The same command goes on from here.")


def all_at_once(steps: Sequence[Callable[[], object]], threads: int, stop: Stop, beat: Callable[[], object] = lambda: None) -> None:
    """Do steps in threads that nothing waits for, each once; Ctrl-C ends the waiting at once.

    Args:
        steps: what to do; those that take long look at `stop`.
        threads: how many at a time.
        stop: is set when one of them fails, or on Ctrl-C.
        beat: is called after each step, and every half second.

    Raises:
        BaseException: what the first step to fail has raised, or `beat`.
    """
    todo: SimpleQueue[Callable[[], object]] = SimpleQueue()
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    for step in steps:
        todo.put(step)

    def work() -> None:
        with suppress(Empty):
            while not stop.asked:
                step = todo.get_nowait()
                try:
                    step()
                    ended.put(None)
                except BaseException as error:  # raised by who waits
                    ended.put(error)

    for _ in range(min(threads, len(steps))):
        threading.Thread(target=work, daemon=True).start()
    left = len(steps)
    try:
        while left:
            with suppress(Empty):
                error = ended.get(timeout=EVERY)
                left -= 1
                if error is not None:
                    raise error
            beat()
    except BaseException:  # the threads shall not go on by themselves
        stop.asked = True
        raise
