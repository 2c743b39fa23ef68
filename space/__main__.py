"""`python -m space JOB LOCK`: the process that works on a job. It does the commands of job.json until one fails.

LOCK is the number of an open, locked file. Whoever can't lock that file knows that this process or one of its children lives.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from space.job import CACHE


def work(directory: Path, lock: int) -> int:
    """Do the commands of a job and write down the exit code of the last one; what they print goes where this process prints."""
    code = 0
    for command in json.loads((directory / "job.json").read_text())["commands"]:
        code = subprocess.call(command, stdin=subprocess.DEVNULL, pass_fds=[lock])
        if code != 0:
            break
    shutil.rmtree(directory / CACHE, ignore_errors=True)
    (directory / "exit_code").write_text(str(code))
    return code


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1]), int(sys.argv[2])))
