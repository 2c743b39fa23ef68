"""What takes a GPU for a minute: in a process of its own that ends with it, and on ZeroGPU in a burst."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

from hfsafemerge.errors import RunError
from space.accounts import on_space
from space.environment import variables, without_secrets
from space.job import CACHE, Job, error_line

BASE, EACH, MOST = 20, 15, 120  # seconds of a burst: to begin with, for each model, and at most
LONGEST = 600  # seconds that models may take to reply where the machine is one's own

Ask = Callable[[Job, str, Sequence[str]], tuple[int, str, str]]


def seconds_of(job: Job, prompt: str, models: Sequence[str]) -> int:
    """How long a burst may take that loads these models one after the other, and the guard before and after them."""
    return min(MOST, BASE + EACH * (len(models) + 2))


def ask_in_process(job: Job, prompt: str, models: Sequence[str]) -> tuple[int, str, str]:
    """The exit code, the output and the errors of `python -m space.chat`, which has neither token nor network."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "space.chat", str(job.run)],
            input=json.dumps({"prompt": prompt, "models": list(models)}),
            capture_output=True,
            env=variables(job, offline=True),
            text=True,
            errors="replace",
            timeout=LONGEST,
        )
    except subprocess.TimeoutExpired:
        return 1, "", f"Error: The models took longer than {LONGEST // 60} minutes to reply on this machine. Ask fewer of them at once."
    return done.returncode, done.stdout, done.stderr


def _in_burst() -> Ask:
    import spaces  # which the platform installs

    # The burst's process gets the GPU, and so does what it starts: there the job's own cache holds, and torch is the plain one.
    burst: Ask = spaces.GPU(duration=seconds_of)(ask_in_process)
    return burst


IN_BURST = _in_burst() if os.environ.get("SPACES_ZERO_GPU") else None


def replies(job: Job, prompt: str, models: Sequence[str]) -> dict[str, str]:
    """What the models of a job's run reply; see `chat.replies`. The lab's are small enough to need no GPU.

    Raises:
        RunError: it failed; the message says why.
    """
    lab = bool(job.facts["lab"])
    if on_space() and not lab and not any((job.directory / CACHE / "hub").glob("models--*")):
        raise RunError("The weights of this run made room for another one. Run it again, or chat with the published merge.")
    code, printed, errors = (ask_in_process if lab or IN_BURST is None else IN_BURST)(job, prompt, list(models))
    if code != 0:
        ended = "The models could not be asked: their process was ended, which mostly means that memory ran out. Ask fewer at once."
        raise RunError(error_line(without_secrets(errors)) or ended)
    said: dict[str, str] = json.loads(printed)
    return said
