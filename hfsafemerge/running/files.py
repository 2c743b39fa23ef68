"""Files that are there whole or not at all, and a directory that one process works in."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from hfsafemerge.errors import RunError


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Work in a directory that nobody else works in meanwhile. Raises RunError where somebody does."""
    try:
        with FileLock(directory / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise RunError(f"Another process is working in {directory}. Wait for it, cancel it, or choose another directory.") from error
