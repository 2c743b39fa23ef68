"""What happens in a run, as whoever watches is told."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """One thing that happened: a stage began or ended, or it is at `done` of `total`. The command line and the Space print these."""

    stage: str
    message: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None  # seconds, from a step that knows better than the stage's pace so far

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far; None before there is one."""
        if self.left is not None:
            return self.left
        return self.seconds / self.done * (self.total - self.done) if self.done and self.total else None

    def __str__(self) -> str:
        share = f" {self.done}/{self.total}" if self.total else ""
        going = self.total and self.done < self.total
        return f"{self.stage}: {self.message}{share}" + (f", {clock(self.eta)} left" if self.eta and going else "")


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Tell nothing: the listener for whoever wants to see nothing of a run."""


def attention(listener: Listener) -> AbstractContextManager[Any]:
    """The time in which a listener listens: it is entered where it is a context, so that it knows how the work ended."""
    return listener if isinstance(listener, AbstractContextManager) else nullcontext()


def clock(seconds: float) -> str:
    """A time such as 42 s, 3 min or 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
