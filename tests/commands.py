"""The command, as a user calls it."""

import os
import subprocess
import sys


def command(*arguments, **environment):
    """The command in a process of its own; no traceback may be seen."""
    done = subprocess.run(
        [sys.executable, "-m", "hfsafemerge", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done
