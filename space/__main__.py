"""`python -m space JOB LOCK HOURS`: the process that works on a job. It does the steps of job.json until one fails.

LOCK is the number of an open, locked file. Whoever can't lock that file knows that this process or one of its children lives.
HOURS is how long it may take; 0 is for ever. The first line of its input is the token that some steps read the Hub with, or empty.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from space.environment import variables, without_secrets
from space.job import CACHE, Job

TOO_LONG = 124  # the exit code that `timeout` gives


def work(directory: Path, lock: int, token: str | None = None) -> int:
    """Do the steps of a job and write down the exit code of the last one; what they print goes where this process prints."""
    job, code = Job(directory), 0
    for step in json.loads((directory / "job.json").read_text())["steps"]:
        given = variables(job, token if step["token"] else None, offline=step["offline"])
        process = subprocess.Popen(
            step["command"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=given,
            pass_fds=[lock],
            text=True,
            errors="replace",
        )
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(without_secrets(line, token))
            sys.stdout.flush()
        process.stdout.close()
        code = process.wait()
        if code != 0:
            break
    if code != 0:
        shutil.rmtree(directory / CACHE, ignore_errors=True)
    (directory / "exit_code").write_text(str(code))
    return code


def stop_after(hours: float, directory: Path) -> None:
    """End this process and all that it has started after so many hours."""

    def end() -> None:
        sys.stdout.write(f"Error: The run was ended after {hours:g} hours, which is as long as one may take here.\n")
        sys.stdout.flush()
        shutil.rmtree(directory / CACHE, ignore_errors=True)
        (directory / "exit_code").write_text(str(TOO_LONG))
        os.killpg(0, signal.SIGKILL)

    timer = threading.Timer(hours * 3600, end)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    place, held, allowed = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    given = sys.stdin.readline().strip()
    if allowed:
        stop_after(allowed, place)
    sys.exit(work(place, held, given or None))
