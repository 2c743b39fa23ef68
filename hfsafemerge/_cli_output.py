"""What the command line prints: results to stdout in the format asked for, all else to stderr."""

import sys
import time

# The formats and colours of the `hf` command. The module is private there, so it is used in this one file only.
from huggingface_hub.cli._output import out

from hfsafemerge.running import Event, clock

__all__ = ["Progress", "out"]

EVERY = 5.0  # seconds between lines about one stage where no terminal can be overwritten


class Progress:
    """Prints events to stderr: one line that is overwritten on a terminal, now and then a new line elsewhere."""

    def __init__(self) -> None:
        """Nothing has been printed yet."""
        self._terminal = sys.stderr.isatty()
        self._printed = 0.0
        self._open = False

    def __call__(self, event: Event) -> None:
        """Print an event, unless the last one was printed a moment ago."""
        if out.is_quiet():
            return
        milestone = not event.total or event.done >= event.total
        now = time.monotonic()
        if not milestone and now - self._printed < (0.1 if self._terminal else EVERY):
            return
        self._printed = now
        share = f" {event.done}/{event.total}" if event.total else ""
        left = f", {clock(event.eta)} left" if event.eta and not milestone else ""
        line = f"{event.stage}: {event.message}{share}{left}"
        if self._terminal:
            sys.stderr.write("\r\033[K" + line + ("\n" if milestone else ""))
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()
        self._open = self._terminal and not milestone

    def close(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
