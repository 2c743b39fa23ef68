"""The command line. Results go to stdout, everything else to stderr; heavy imports happen inside the commands."""

import errno
import gc
import os
from typing import NoReturn

import click

from hfsafemerge.cli import data, demo, evaluating, parts, publishing, rebuilding, stages
from hfsafemerge.cli.root import app, quiet_libraries
from hfsafemerge.errors import HfSafeMergeError

__all__ = ["app", "data", "demo", "evaluating", "main", "parts", "publishing", "rebuilding", "stages"]


def _in_group() -> NoReturn:
    """The command under torchrun: the first process does it, the others take their part in what models write."""
    from hfsafemerge.language_model.processes import leave, together

    quiet_libraries()  # those who follow load models too
    leave(together(lambda: app(standalone_mode=False)) or 0)


def main() -> int:
    """Run the command line. What a user can put right is one line on stderr; anything else shows its traceback."""
    from huggingface_hub.cli._output import out

    gc.set_threshold(50_000, 20, 100)  # what imports make stays; to look through it again and again takes a fifth of the start
    try:
        code: int | None = _in_group() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else app(standalone_mode=False)
    except HfSafeMergeError as error:
        out.error(str(error))
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        place = f" ({error.filename})" if error.filename else ""
        hint = "Make room, then run the same command again." if full else "Check the path and who may write there."
        out.error(f"{error.strerror or error}{place}. {hint}")
        return 1
    except (click.Abort, KeyboardInterrupt):
        out.error("Stopped. The same command goes on from here.")
        return 130
    return code or 0
