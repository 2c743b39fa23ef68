"""Jobs: each run has a directory and processes of its own, so that it outlives the page that started it, and this app."""

import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.errors import HubError, RunError
from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.directory import write_json
from space import commands
from space.accounts import HERE, Owner, on_space
from space.environment import variables, without_secrets
from space.job import CACHE, Job, error_line, every_job, find, root
from space.queueing import QUEUE

AT_ONCE = 2  # without a GPU: a run fills the memory that its models need, and a Space has two cores
GRACE = 8.0  # seconds in which a run may stop by itself
HOURS = 24.0  # that a visitor's run may take
_starting = threading.Lock()


def start(recipe: str | None, owner: Owner = HERE, token: str | None = None, choices: LabChoices | None = None) -> str:
    """Start a run, or have it wait for its turn, and return its id at once.

    Args:
        recipe: a recipe that has been checked; None is the lab's.
        owner: whose it is.
        token: what to read models with.
        choices: of the lab.

    Raises:
        HfSafeMergeError: too many runs wait, or the choices do not go together.
    """
    QUEUE.refuse_more(owner)
    choices = choices or LabChoices()
    if recipe is None:
        choices.check()
    job = Job(root() / secrets.token_hex(16))
    job.directory.mkdir(parents=True, mode=0o700)
    if recipe is not None:
        job.recipe.write_text(recipe)
    steps, lab = steps_of(job, recipe, choices), asdict(choices) if recipe is None else None
    facts = {"owner": owner.key, "pid": None, "asked": time.time(), "steps": steps, "lab": lab}
    write_json(job.directory / "job.json", facts)
    try:
        QUEUE.join(job, owner, token)
    except RunError:
        shutil.rmtree(job.directory)
        raise
    dispatch()
    return job.id


def steps_of(job: Job, recipe: str | None, choices: LabChoices) -> list[dict[str, Any]]:
    """What a job does, and which of its steps may use the token and the network.

    On a Space, models are fetched with the visitor's token by a process that loads none of them, and loaded by one that has
    neither token nor network. On a machine of one's own both are one's own.
    """
    measure = _step("evaluate", job.recipe, "--directory", job.run)
    if recipe is None:
        return [_step("init", job.recipe, "--lab", *choices.words()), measure]
    if not on_space():
        return [{**measure, "token": True, "offline": False}]
    pull = {**_step("pull", job.recipe, "--directory", job.run), "token": True, "offline": False}
    asks_for_more = bool(Recipe.parse(recipe).tasks)  # lm-eval fetches its datasets itself, as it goes
    return [pull, {**measure, "offline": not asks_for_more}]


def _step(*words: object) -> dict[str, Any]:
    return {"command": command(*words), "token": False, "offline": True}


def command(*words: object) -> list[str]:
    """A command whose output goes into a log."""
    return [*commands.command(*words), "--format=human", "--no-truncate"]


def at_once() -> int:
    """How many runs this machine takes: one on each GPU, or two without."""
    import torch

    return torch.cuda.device_count() or AT_ONCE


def dispatch() -> None:
    """Start those who wait as far as this machine has room."""
    with _starting:
        while True:
            going = [job for job in every_job() if job.is_alive()]
            if len(going) >= at_once() or (waiting := QUEUE.take([job.owner for job in going])) is None:
                return
            _launch(waiting.job, waiting.token)


def _launch(job: Job, token: str | None) -> None:
    facts = job.facts
    if on_space():  # the weights of finished runs are kept for their chats as long as nobody needs the room
        for other in every_job():
            if not other.is_alive():
                shutil.rmtree(other.directory / CACHE, ignore_errors=True)
    with (job.directory / "lock").open("w") as lock, job.log.open("ab") as log:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-m", "space", str(job.directory), str(lock.fileno()), str(HOURS if on_space() else 0)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=variables(job),
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:  # not as an argument or a variable: other processes could read those
        process.stdin.write((token or "").encode() + b"\n")
    write_json(job.directory / "job.json", facts | {"pid": process.pid})
    threading.Thread(target=_until_it_ends, args=(process,), daemon=True).start()


def _until_it_ends(process: subprocess.Popen[bytes]) -> None:
    process.wait()  # so that nothing of it stays behind
    dispatch()


def cancel(job_id: str, owner: Owner = HERE) -> str:
    """Stop a run: ask it to, and end its processes when it does not soon. Returns what happened, in words."""
    job = find(job_id, owner)
    if QUEUE.leave(job_id):
        (job.directory / "cancelled").touch()
        return "The run waits no longer."
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
            shutil.rmtree(job.directory / CACHE, ignore_errors=True)
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


def result(job_id: str, owner: Owner = HERE) -> dict[str, Any]:
    """The scores of a finished run, as in its scores.json. Raises RunError when it is not finished."""
    job = find(job_id, owner)
    if job.is_alive() or job.exit_code != 0:
        raise RunError("This run is not finished, so it has no result.")
    scores: dict[str, Any] = json.loads((job.run / "scores.json").read_text())
    return scores


def push(job_id: str, owner: Owner, repo_id: str, private: bool, token: str, license: str = "", *, create_pr: bool = False) -> str:
    """Publish a finished run and return the address of the model.

    Args:
        job_id: the job.
        owner: who asks.
        repo_id: where to, as namespace/name.
        private: whether the repositories are created private.
        token: of an account that may write there.
        license: the licence, where it does not follow from those of the models.
        create_pr: open a pull request in a repository that is there, instead of making one.

    Raises:
        RunError: the run is not finished.
        HubError: it was not published; the message is the line that says why.
    """
    result(job_id, owner)
    job = find(job_id, owner)
    if not re.fullmatch(REPO_ID, repo_id):
        raise HubError(f"{repo_id!r} is no repository id. Write it as namespace/name.")
    options = ["--private" if private else "--no-private", *([f"--license={license}"] if license else []), *["--create-pr"] * create_pr]
    done = subprocess.run(
        command("push", job.run, repo_id, *options),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=variables(job, token),
        text=True,
        errors="replace",
    )
    printed = without_secrets(done.stdout, token)
    with job.log.open("a") as log:
        log.write(printed)
    url = job.proposed if create_pr else job.published
    if done.returncode != 0 or url is None:
        raise HubError(error_line(printed) or f"Publishing stopped with exit code {done.returncode}. The log says more.")
    return url
