"""Commands of hfsafemerge, done in a process of their own: there the visitor's token is the one that the Hub's client finds."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hfsafemerge.errors import HubError
from space.environment import for_visitors, variables, without_secrets
from space.job import Job, error_line


def command(*words: object) -> list[str]:
    """The command with these words."""
    return [sys.executable, "-m", "hfsafemerge", *map(str, words)]


def answer(directory: Path, token: str | None, *words: object, timeout: float = 300.0) -> Any:
    """What a command says, as JSON.

    Args:
        directory: of the job; on a Space it has its own cache there.
        token: what to read and write the Hub with.
        words: of the command.
        timeout: in seconds.

    Raises:
        HubError: it failed; the message is the line that says why.
    """
    try:
        done = subprocess.run(
            command(*words, "--json"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=variables(Job(directory), token),
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise HubError(f"The Hub did not answer within {timeout:g} seconds. Try again in a minute.") from error
    if done.returncode != 0:
        said = for_visitors(error_line(without_secrets(done.stderr, token)), directory)
        raise HubError(said or f"`hfsafemerge {words[0]}` stopped with exit code {done.returncode}.")
    return json.loads(done.stdout) if done.stdout.strip() else None
