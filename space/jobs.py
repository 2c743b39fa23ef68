"""Jobs: each run has a directory and processes of its own, so that it outlives the page that started it, and this app."""

import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.errors import HubError, RunError
from hfsafemerge.running.directory import write_json
from space.accounts import on_space
from space.job import CACHE, Job, error_line, find, root

AT_ONCE = 2  # a run fills the memory that its models need, and a Space has two cores
GRACE = 8.0  # seconds in which a run may stop by itself
PACKAGE_PARENT = Path(__file__).resolve().parents[1]
SECRETS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET"})
_starting = threading.Lock()


def start(recipe: str | None, token: str | None = None) -> str:
    """Start a run in processes of its own and return its id at once.

    Args:
        recipe: a recipe that has been checked; None is the lab's.
        token: what to read models with, and to write with where the recipe says push.

    Raises:
        RunError: as many runs as this machine takes are going.
    """
    with _starting:
        going = [job for job in map(Job, root().glob("*")) if (job.directory / "lock").exists() and job.is_alive()]
        if len(going) >= AT_ONCE:
            raise RunError(f"{len(going)} runs are going, and no more fit on this machine at once. Wait for one to end, or cancel one.")
        job = Job(root() / secrets.token_hex(16))
        job.directory.mkdir(parents=True)
        if recipe is not None:
            job.recipe.write_text(recipe)
        _launch(job, token, lab=recipe is None)
    return job.id


def _launch(job: Job, token: str | None, lab: bool) -> None:
    commands = [_command("run", job.recipe, "--directory", job.run)]
    if lab:
        commands.insert(0, _command("init", job.recipe, "--lab"))
    facts = {"pid": None, "started": time.time(), "commands": commands, "lab": lab}
    write_json(job.directory / "job.json", facts)
    with (job.directory / "lock").open("w") as lock, job.log.open("wb") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", "space", str(job.directory), str(lock.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(job, token),
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    write_json(job.directory / "job.json", facts | {"pid": process.pid})
    threading.Thread(target=process.wait, daemon=True).start()  # when it ends nothing of it stays behind


def _command(*words: object) -> list[str]:
    return [sys.executable, "-m", "hfsafemerge", *map(str, words), "--format=human", "--no-truncate"]


def _environment(job: Job, token: str | None) -> dict[str, str]:
    """The variables of a job's processes. The token is in them and nowhere else."""
    kept = {name: value for name, value in os.environ.items() if name not in SECRETS}
    search_path = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), kept.get("PYTHONPATH"))))
    mine = {"PYTHONPATH": search_path, "NO_COLOR": "1"}
    if token is not None:
        mine["HF_TOKEN"] = token
    if on_space():  # the Hub's cache gives whoever asks what another visitor's token has fetched
        mine["HF_HOME"] = str(job.directory / CACHE)
    return kept | mine


def cancel(job_id: str) -> str:
    """Stop a run: ask it to, and end its processes when it does not soon. Returns what happened, in words."""
    job = find(job_id)
    if not job.is_alive():
        return "The run has ended already."
    (job.directory / "cancelled").touch()
    if (job.run / "run.json").exists():
        (job.run / "cancel").touch()
        if _ends(job):
            return "The run has stopped. What it had finished is kept."
    for number in (signal.SIGTERM, signal.SIGKILL):
        if (process := job.facts["pid"]) is not None:  # which is written down a moment after the launch
            with suppress(ProcessLookupError):
                os.killpg(process, number)
        if _ends(job):
            return "The run was ended. What it had finished is kept."
    return "The run was told to end and has not yet. Look again in a minute."


def _ends(job: Job) -> bool:
    """Whether the job ends within the grace period."""
    until = time.monotonic() + GRACE
    while job.is_alive():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def result(job_id: str) -> dict[str, Any]:
    """The scores of a finished run, as in its scores.json. Raises RunError when it is not finished."""
    job = find(job_id)
    if job.is_alive() or job.exit_code != 0:
        raise RunError("This run is not finished, so it has no result.")
    scores: dict[str, Any] = json.loads((job.run / "scores.json").read_text())
    return scores


def push(job_id: str, repo_id: str, private: bool, token: str, license: str = "") -> str:
    """Publish a finished run and return the address of the model.

    Args:
        job_id: the job.
        repo_id: where to, as namespace/name.
        private: whether the repositories are created private.
        token: of an account that may write there.
        license: the licence, where it does not follow from those of the models.

    Raises:
        RunError: the run is not finished.
        HubError: it was not published; the message is the line that says why.
    """
    result(job_id)
    job = find(job_id)
    if not re.fullmatch(REPO_ID, repo_id):
        raise HubError(f"{repo_id!r} is no repository id. Write it as namespace/name.")
    options = ["--private" if private else "--no-private", *([f"--license={license}"] if license else [])]
    done = subprocess.run(
        _command("push", job.run, repo_id, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(job, token),
        text=True,
        errors="replace",
    )
    printed = done.stdout.replace(token, "<token>")  # some faults of HTTP clients quote what was sent
    with job.log.open("a") as log:
        log.write(printed)
    url = job.published
    if done.returncode != 0 or url is None:
        raise HubError(error_line(printed) or f"Publishing stopped with exit code {done.returncode}. The log says more.")
    return url
