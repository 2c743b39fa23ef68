"""The API: named, typed functions for programs."""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import jobs
from space.accounts import on_space, write_token
from space.actions.running import begin_run
from space.forms.recipes import describe
from space.forms.visitors import parse
from space.job import find
from space.progress import status as status_of

P = ParamSpec("P")
R = TypeVar("R")


def endpoint(function: Callable[P, R]) -> Callable[P, R]:
    """An API function: what the caller can put right is answered with its message, anything else with none."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except HfSafeMergeError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


def check(recipe: str) -> str:
    """Say in words what a recipe asks for, or what is wrong with it.

    Args:
        recipe: YAML.
    """
    try:
        return describe(parse(recipe, own_machine=not on_space()))
    except HfSafeMergeError as error:
        return str(error)


@endpoint
def start(recipe: str, visitor: gr.OAuthToken | None) -> str:
    """Start a run and return its id at once.

    Args:
        recipe: YAML; nothing for the lab.
        visitor: who is signed in.
    """
    return begin_run(recipe, visitor)


@endpoint
def status(job: str) -> dict[str, Any]:
    """Where a run is: phase (running, stopping, done, cancelled or failed), stages, message, done of total, eta, error, log.

    Args:
        job: the id that start returned.
    """
    return asdict(status_of(find(job)))


@endpoint
def result(job: str) -> dict[str, Any]:
    """The scores of a finished run: for each model its rates, with n and 95% intervals; and paired comparisons.

    Args:
        job: the id that start returned.
    """
    return jobs.result(job)


@endpoint
def cancel(job: str) -> str:
    """Stop a run; returns when it has stopped, or was told to twice.

    Args:
        job: the id that start returned.
    """
    return jobs.cancel(job)


@endpoint
def push(job: str, repo_id: str, private: bool, visitor: gr.OAuthToken | None, license: str = "") -> str:
    """Publish the model of a finished run with its card and the data it was made with; returns its address.

    Args:
        job: the id that start returned.
        repo_id: where to, as namespace/name.
        private: whether the repositories are created private.
        visitor: who is signed in.
        license: the licence, where it does not follow from those of the models.
    """
    return jobs.push(job, repo_id, private, write_token(visitor), license)
