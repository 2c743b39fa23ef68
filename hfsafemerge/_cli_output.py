"""What the command line prints: results to stdout in the format asked for, all else to stderr."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

# The formats and colours of the `hf` command. The module is private there, so it is used in this one file only.
from huggingface_hub.cli._output import Output, OutputFormat
from huggingface_hub.cli._output import out as _of_hf

if TYPE_CHECKING:
    from hfsafemerge.running import Event

__all__ = ["Progress", "as_called", "as_extension", "out"]

EVERY = 5.0  # seconds between lines about one stage where no terminal can be overwritten


def as_extension() -> bool:
    """Whether `hf` started the command, as the extension that `hf extensions install` made of it."""
    path = Path(sys.argv[0])
    return path.stem == "hf-safemerge" and "extensions" in path.parts


def as_called(text: str) -> str:
    """A text whose commands begin with the name that the user reaches them by."""
    name = "hf safemerge" if as_extension() else Path(sys.argv[0]).stem
    if name not in ("hf safemerge", "hf-safemerge"):
        return text
    return text.replace("`hfsafemerge ", f"`{name} ").replace("$ hfsafemerge ", f"$ {name} ")


class Out(Output):
    """The output of `hf`, whose commands in what it says can be typed as they stand."""

    def __init__(self) -> None:
        """The state is that of `hf`, whose command groups set it."""
        self.__dict__ = _of_hf.__dict__

    def error(self, message: str) -> None:
        """Print an error to stderr."""
        super().error(as_called(message))

    def warning(self, message: str) -> None:
        """Print a warning to stderr."""
        super().warning(as_called(message))

    def log(self, message: str) -> None:
        """Print a line to stderr, such as a hint; none in quiet mode."""
        super().log(as_called(message))


out = Out()


class Progress:
    """Prints events to stderr: one line that is overwritten for a human at a terminal, now and then a new line elsewhere."""

    def __init__(self) -> None:
        """Nothing has been printed yet."""
        self._terminal = sys.stderr.isatty() and out.mode is OutputFormat.human
        self._printed = 0.0
        self._open = False

    def __call__(self, event: "Event") -> None:
        """Print an event, unless the last one was printed a moment ago."""
        if out.is_quiet():
            return
        milestone = not event.total or event.done >= event.total
        now = time.monotonic()
        if not milestone and now - self._printed < (0.1 if self._terminal else EVERY):
            return
        self._printed = now
        if self._terminal:
            sys.stderr.write(f"\r\033[K{event}" + ("\n" if milestone else ""))
        else:
            sys.stderr.write(f"{event}\n")
        sys.stderr.flush()
        self._open = self._terminal and not milestone

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()  # an error is said on a line of its own

    def close(self) -> None:
        """Leave the cursor at the beginning of a line."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False
