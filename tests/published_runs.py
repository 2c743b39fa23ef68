"""A small run of the lab that is published to the local Hub, for the tests of what is done with published runs."""

import os
import secrets
import subprocess
import sys

import pytest
from test_run import small

from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.running import Run


def lab_run(namespace, directory, *, seed=0, evaluations=8, **changes):
    """A merge of base and sums by a short search, on 24 examples of each kind and 40 items of each benchmark."""
    name = f"alice/test-{secrets.token_hex(4)}"
    recipe = lab_recipe(
        "pair", ("sums",), OnHub(namespace), settings={"max_evaluations": evaluations}, writer=False, compare=False, seed=seed, push=name
    )
    return Run(small(recipe, **changes), directory), name


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


MADE = []  # the run of the session: every module that imports the fixture has one of its own


@pytest.fixture(scope="session")
def published_run(lab_on_hub, tmp_path_factory):
    """A run that was published, and its repository; tests that publish something else do so on a branch."""
    if not MADE:
        run, name = lab_run(lab_on_hub, tmp_path_factory.mktemp("published") / "run")
        run.do("push")
        MADE.append((run, name))
    return MADE[0]
