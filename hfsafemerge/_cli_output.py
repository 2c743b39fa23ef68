"""What the command line prints: results to stdout in the format asked for, all else to stderr."""

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The formats and colours of the `hf` command. The module is private there, so it is used in this one file only.
from huggingface_hub.cli._output import Output, OutputFormat
from huggingface_hub.cli._output import out as _of_hf

if TYPE_CHECKING:
    from hfsafemerge.running import Event

__all__ = ["Progress", "as_called", "as_extension", "out"]


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


# What moves the cursor, colours, or turns the order of letters: names in files of strangers may hold it, and no text here needs it.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def plain(text: str) -> str:
    """A text without control characters, so that a terminal shows it and does nothing else."""
    return CONTROL.sub("", text)


def _plain(value: Any) -> Any:
    return plain(value) if isinstance(value, str) else value


class Out(Output):
    """The output of `hf`, whose commands in what it says can be typed as they stand, and in which no foreign text steers a terminal."""

    def __init__(self) -> None:
        """The state is that of `hf`, whose command groups set it."""
        self.__dict__ = _of_hf.__dict__

    def error(self, message: str) -> None:
        """Print an error to stderr."""
        super().error(plain(as_called(message)))

    def warning(self, message: str) -> None:
        """Print a warning to stderr."""
        super().warning(plain(as_called(message)))

    def log(self, message: str) -> None:
        """Print a line to stderr, such as a hint; none in quiet mode."""
        super().log(plain(as_called(message)))

    def table(self, items: Sequence[dict[str, Any]], **how: Any) -> None:
        """Print rows to stdout."""
        as_json = self.mode is OutputFormat.json  # which escapes control characters itself
        super().table(items if as_json else [{key: _plain(value) for key, value in item.items()} for item in items], **how)

    def result(self, message: str, **data: Any) -> None:
        """Print what came of a command to stdout."""
        as_json = self.mode is OutputFormat.json
        super().result(plain(message), **(data if as_json else {key: _plain(value) for key, value in data.items()}))


out = Out()


class Progress:
    """Prints events to stderr: one line that is overwritten for a human at a terminal, now and then a new line elsewhere."""

    def __init__(self) -> None:
        """Nothing has been printed yet."""
        from hfsafemerge.running.notebook.progress import Lines  # which imports what every command that makes progress needs

        self._lines = Lines(overwrite=sys.stderr.isatty() and out.mode is OutputFormat.human)

    def __call__(self, event: "Event") -> None:
        """Print an event, unless the last one was printed a moment ago."""
        if not out.is_quiet():
            self._lines.show(replace(event, message=plain(event.message)))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()  # an error is said on a line of its own

    def close(self) -> None:
        """Leave the cursor at the beginning of a line."""
        self._lines.end("")
