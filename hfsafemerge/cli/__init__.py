"""The command line. Results go to stdout, everything else to stderr; heavy imports happen inside the commands."""

import gc
import os
from typing import NoReturn

from hfsafemerge._cli_output import as_extension
from hfsafemerge.cli import data, demo, deploying, elsewhere, evaluating, parts, publishing, pulling, rebuilding, stages
from hfsafemerge.cli.failing import report
from hfsafemerge.cli.root import app, quiet_libraries

__all__ = ["app", "data", "demo", "deploying", "elsewhere", "evaluating", "main", "parts", "publishing", "pulling", "rebuilding", "stages"]


def _in_group() -> NoReturn:
    """The command under torchrun: the first process does it, the others take their part in what models write."""
    from hfsafemerge.language_model.processes import leave, together

    quiet_libraries()  # those who follow load models too
    leave(together(_do) or 0)


def _do() -> int:
    """Parse the command line and do what it says. Raises what that raises; a reader that leaves early ends it quietly."""
    name = "hf safemerge" if as_extension() and not any(key.endswith("_COMPLETE") for key in os.environ) else None
    code: int | None = app(standalone_mode=False, prog_name=name, windows_expand_args=False)
    return code or 0


def main() -> int:
    """Run the command line; the exit code. What went wrong is one line on stderr, and a traceback only with HF_DEBUG=1."""
    gc.set_threshold(50_000, 20, 100)  # what imports make stays; to look through it again and again takes a fifth of the start
    try:
        return _in_group() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else _do()
    except (Exception, KeyboardInterrupt) as error:
        return report(error)
