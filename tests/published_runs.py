"""A small run of the lab that is published to the local Hub, for the tests of what is done with published runs."""

import secrets

import pytest


def lab_run(namespace, directory, *, seed=0, evaluations=8, **changes):
    """A merge of base and sums by a short search, on 24 examples of each kind and 40 items of each benchmark."""
    from test_run import small

    from hfsafemerge.lab.recipes import OnHub, lab_recipe
    from hfsafemerge.running import Run

    name = f"alice/test-{secrets.token_hex(4)}"
    recipe = lab_recipe(
        "pair", ("sums",), OnHub(namespace), settings={"max_evaluations": evaluations}, writer=False, compare=False, seed=seed, push=name
    )
    return Run(small(recipe, **changes), directory), name


@pytest.fixture(scope="session")
def published_run(lab_on_hub, tmp_path_factory):
    """A run that was published, and its repository; tests that publish something else do so on a branch."""
    run, name = lab_run(lab_on_hub, tmp_path_factory.mktemp("published") / "run")
    run.do("push")
    return run, name
