"""The directory of a job: what is in it, whose it is, and whether anybody works on it."""

import fcntl
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfsafemerge.errors import RunError
from space.accounts import HERE, Owner

CACHE = "hf"  # in the directory: the job's own cache of the Hub, where it has one


@dataclass(frozen=True)
class Job:
    """The directory of a job: job.json, recipe.yaml, log.txt, the run, and exit_code once its process has ended."""

    directory: Path

    @property
    def id(self) -> str:
        """The name that the job is found by."""
        return self.directory.name

    @property
    def recipe(self) -> Path:
        """The recipe; the lab's is written when the lab is ready."""
        return self.directory / "recipe.yaml"

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.directory / "run"

    @property
    def log(self) -> Path:
        """What the commands have printed."""
        return self.directory / "log.txt"

    @property
    def facts(self) -> dict[str, Any]:
        """job.json: whose it is, its process, when it was asked for, its steps, and what was chosen of the lab."""
        found: dict[str, Any] = json.loads((self.directory / "job.json").read_text())
        return found

    @property
    def owner(self) -> Owner:
        """Whose it is."""
        return Owner(self.facts["owner"])

    @property
    def exit_code(self) -> int | None:
        """That of the last command; None when the process still works, was killed or has not begun."""
        file = self.directory / "exit_code"
        return int(file.read_text()) if file.exists() else None

    @property
    def begun(self) -> bool:
        """Whether a process was ever started for it."""
        return (self.directory / "lock").exists()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked it to stop."""
        return (self.directory / "cancelled").exists()

    @property
    def published(self) -> str | None:
        """The address of the published model, if it was published."""
        file = self.run / "pushed.json"
        return str(json.loads(file.read_text())["model"]["url"]) if file.exists() else None

    @property
    def proposed(self) -> str | None:
        """The address of the pull request, if the model was proposed in one."""
        file = self.run / "pushed.json"
        return json.loads(file.read_text())["model"]["pull_request"] if file.exists() else None

    @property
    def kept_private(self) -> list[str]:
        """Why the published model was made private whatever was asked for; nothing where it was not."""
        file = self.run / "pushed.json"
        return list(json.loads(file.read_text())["private_because"]) if file.exists() else []

    def is_alive(self) -> bool:
        """Whether a process works on it: then its lock is held, also after this app was started again."""
        if not self.begun:
            return False
        with (self.directory / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def root() -> Path:
    """Where jobs are kept."""
    return Path(os.environ.get("HFSAFEMERGE_SPACE_RUNS", "space-runs")).resolve()


def every_job() -> list[Job]:
    """All jobs there are, whoever's."""
    return [Job(file.parent) for file in sorted(root().glob("*/job.json"))]


def find(job_id: str, owner: Owner = HERE) -> Job:
    """The job of that id, if it is the owner's or nobody's: who has the id of a job that nobody signed for may see it.

    Raises:
        RunError: there is none. Of another's job the same is said.
    """
    job = Job(root() / job_id)
    known = re.fullmatch(r"[0-9a-f]{32}", job_id) and (job.directory / "job.json").exists()
    if not known or job.owner.key not in (None, owner.key):
        raise RunError(f"There is no run {job_id[:40]!r} here. Start one, or take the address of the page that showed it.")
    return job


def error_line(printed: str) -> str:
    """The last line in which a command says why it stopped, or nothing."""
    lines = [line for line in printed.splitlines() if line.startswith("Error:")]
    return lines[-1].removeprefix("Error:").strip() if lines else ""
