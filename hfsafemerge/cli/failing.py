"""How the command line ends when something went wrong: one line on stderr, and an exit code."""

import errno
import re
import tempfile
import traceback

import click
from huggingface_hub import constants, get_token
from huggingface_hub.cli._errors import format_known_exception
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from hfsafemerge._cli_output import out
from hfsafemerge.errors import HfSafeMergeError

FAILED, STOPPED = 1, 130  # usage errors are 2, which click says itself
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def report(error: BaseException) -> int:
    """Say on stderr what went wrong and what to do; the exit code. With HF_DEBUG=1 the traceback stands before it."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        stop = error.__cause__ if isinstance(error, click.Abort) and error.__cause__ is not None else error
        out.error(" ".join(["Stopped.", *getattr(stop, "__notes__", [])]))  # of what goes on, only who keeps it knows
        return STOPPED
    message = _known(error)
    if constants.HF_DEBUG:
        traceback.print_exception(error)
    out.error(_without_token(message) if message is not None else _unknown(error))
    return error.exit_code if isinstance(error, HfSafeMergeError) else FAILED


def _known(error: BaseException) -> str | None:
    """What a user can put right, in one line; None for anything else."""
    if isinstance(error, HfSafeMergeError):
        return str(error)
    if isinstance(error, (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled)):
        return " ".join((format_known_exception(error) or str(error)).split())
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        hint = "Make room, then run the same command again." if error.errno in FULL else "Check the path and who may write there."
        return f"{error.strerror or error}{place}. {hint}"
    return None


def _unknown(error: BaseException) -> str:
    """A fault of the program, in one line that says where its traceback is, since nobody can repeat hours of work to see it."""
    said = " ".join(_without_tokens("".join(traceback.format_exception_only(error))).split())
    try:
        with tempfile.NamedTemporaryFile("w", prefix="hfsafemerge-", suffix=".log", delete=False, encoding="utf-8") as file:
            file.write(_without_tokens("".join(traceback.format_exception(error))))
        return f"{said}. This should not happen: please report it with the traceback in {file.name}; HF_DEBUG=1 shows it here."
    except OSError:
        return f"{said}. This should not happen: please report it with the traceback, which HF_DEBUG=1 shows."


def _without_token(text: str) -> str:
    """Without the token of this user."""
    return text.replace(token, "hf_...") if (token := get_token()) else text


def _without_tokens(text: str) -> str:
    """Without anything that looks like a token; those of a sign-in hold dots, hyphens and underscores."""
    return re.sub(r"\bhf_[A-Za-z0-9_.\-]{5,}", "hf_...", _without_token(text))
