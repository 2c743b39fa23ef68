"""Progress where somebody looks on: one display in a notebook, one line on a terminal, now and then a line anywhere else."""

import importlib
import math
import sys
import time
from html import escape
from types import TracebackType
from typing import Any, Protocol

from huggingface_hub.utils.tqdm import are_progress_bars_disabled

from hfsafemerge.errors import Cancelled
from hfsafemerge.running.events import Event, clock

OFTEN, SELDOM = 0.2, 5.0  # seconds between two tellings: where the last one is overwritten, and where it stays
STOPPED = "Stopped. The same call goes on from here."
MARKS = {"done": "✓", "stopped": "■", "failed": "✗"}


class Showing(Protocol):
    """A place to show progress in."""

    def show(self, event: Event) -> None:
        """Show an event in place of the last one. One in the middle of a step is left out if the last was shown a moment ago."""

    def end(self, how: str) -> None:
        """Nothing more comes: it is done, stopped or failed."""


class Pace:
    """How often it is told how far a step is."""

    def __init__(self, every: float) -> None:
        """Every so many seconds at most."""
        self._every, self._told = every, -math.inf

    def is_due(self, event: Event) -> bool:
        """Whether to tell an event now: always, unless it is in the middle of a step and the last was told a moment ago."""
        now = time.monotonic()
        if goes_on(event) and now - self._told < self._every:
            return False
        self._told = now
        return True


def goes_on(event: Event) -> bool:
    """Whether it is in the middle of a step."""
    return bool(event.total and event.done < event.total)


class Progress:
    """A listener that shows how far a run is, with the time left.

    In a notebook that is one display, updated in place, with a line for each stage; on a terminal one line of stderr that is
    overwritten; elsewhere a new line of stderr every five seconds at most. Made while huggingface_hub's progress bars are disabled
    (HF_HUB_DISABLE_PROGRESS_BARS=1, say) it shows nothing.
    """

    def __init__(self) -> None:
        """Where to show is found out when there is something to show."""
        self._silent = are_progress_bars_disabled()
        self._place: Showing | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if self._silent:
            return
        if self._place is None:
            self._place = Display() if in_notebook() else Lines(overwrite=sys.stderr.isatty())
        self._place.show(event)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Say how the work ended. What comes next is shown in a place of its own, such as the output of another cell."""
        if self._place is not None:
            stopped = isinstance(error, KeyboardInterrupt | Cancelled)
            self._place.end("stopped" if stopped else "failed" if error else "done")
        self._place = None


class Lines:
    """Lines of stderr."""

    def __init__(self, *, overwrite: bool) -> None:
        """With `overwrite`, as a terminal can, one line for all of a step."""
        self._overwrite, self._pace = overwrite, Pace(OFTEN if overwrite else SELDOM)
        self._open = False

    def show(self, event: Event) -> None:
        """Write an event, if it is due."""
        if not self._pace.is_due(event):
            return
        self._open = self._overwrite and goes_on(event)
        sys.stderr.write("\r\033[K" * self._overwrite + str(event) + "\n" * (not self._open))
        sys.stderr.flush()

    def end(self, how: str) -> None:
        """Leave the cursor at the beginning of a line."""
        sys.stderr.write("\n" * self._open + f"{STOPPED}\n" * (how == "stopped"))
        sys.stderr.flush()
        self._open = False


class Display:
    """One output of a notebook's cell: a line for each stage, with what it said last."""

    def __init__(self) -> None:
        """Nothing is shown before the first event."""
        self._pace = Pace(OFTEN)
        self._stages: dict[str, Event] = {}
        self._how = ""
        self._handle: Any = None

    def show(self, event: Event) -> None:
        """Show an event in its stage's line, if it is due."""
        if self._pace.is_due(event):
            self._stages[event.stage] = event
            self._draw()

    def end(self, how: str) -> None:
        """Say how it ended."""
        self._how = how
        if self._stages:
            self._draw()

    def _draw(self) -> None:
        if self._handle is None:
            self._handle = importlib.import_module("IPython.display").display(self, display_id=True)
        else:
            self._handle.update(self)

    def __repr__(self) -> str:
        return "\n".join([*map(str, self._stages.values()), *self._last_words()])

    def _repr_html_(self) -> str:
        rows = "".join(self._row(event) for event in self._stages.values())
        return f"<table>{rows}</table>" + "".join(f"<p>{words}</p>" for words in self._last_words())

    def _row(self, event: Event) -> str:
        done = event.message == "done"
        last = event.stage == list(self._stages)[-1]
        mark = MARKS["done"] if done else MARKS.get(self._how, "") if last else ""
        bar = f'<progress value="{event.done}" max="{event.total}"></progress> {event.done}/{event.total} ' if event.total else ""
        left = clock(event.seconds) if done else f"{clock(event.eta)} left" if event.eta and last and not self._how else ""
        cells = (mark, escape(event.stage), bar + escape(event.message), left)
        return "<tr>" + "".join(f'<td style="text-align: left">{cell}</td>' for cell in cells) + "</tr>"

    def _last_words(self) -> list[str]:
        return [STOPPED] if self._how == "stopped" else []


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which shows displays; IPython in a terminal does not."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
