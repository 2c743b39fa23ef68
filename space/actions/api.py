"""The API: named, typed functions for programs, which are tools for agents where MCP is installed. Their docstrings are what both show.

Each looks at the token of its own caller. An MCP client sends none that Gradio hands on, so on a Space it is a visitor who is signed
out: it can check recipes of public models, and start and see runs of the lab and of public models.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from hfsafemerge.lab.choices import LabChoices
from space import jobs
from space.accounts import on_space, owner_of, token_of, write_token
from space.actions.results import license_of
from space.actions.running import begin_run
from space.checks import look
from space.forms.recipes import describe
from space.forms.visitors import parse
from space.hardware import detect
from space.job import find
from space.progress import status as status_of

P = ParamSpec("P")
R = TypeVar("R")


def has_mcp() -> bool:
    """Whether what Gradio's MCP server needs is installed: the extra `mcp`."""
    return find_spec("mcp") is not None


def endpoint(function: Callable[P, R]) -> Callable[P, R]:
    """An API function: what the caller can put right is answered with its message, anything else with none."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except HfSafeMergeError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return call


@endpoint
def check(recipe: str, visitor: gr.OAuthToken | None) -> dict[str, Any]:
    """Check a recipe before anything is spent: whether its models fit together, and what a run takes. No weights are downloaded.

    Returns what it asks for in words (says); the models with commit, architecture, dtypes, bytes and licence (rows); what stands in
    the way (problems, none where it can be run) and what does not (notes); the merge's licence; download, disk and device memory in
    bytes and the download's time in seconds; and where it can be run (places), with US dollars an hour where that is known. Fails
    with a message that names every fault of the recipe itself.

    Args:
        recipe: the recipe as YAML, of at most 64 KB. Models are named by repo_id.
        visitor: filled in from the caller's sign-in.
    """
    parsed = parse(recipe, own_machine=not on_space())
    return {"says": describe(parsed)} | asdict(look(parsed, token_of(visitor), detect()))


@endpoint
def start(
    recipe: str,
    visitor: gr.OAuthToken | None,
    pool: str = "pair",
    method: str = "ties",
    strategy: str = "cma_es",
    evaluations: int = LabChoices.evaluations,
) -> str:
    """Start a run, or have it wait for its turn, and return its id at once. It goes on without the caller.

    The lab's small models run in minutes on a CPU and need no account. One run of an account goes on at a time.

    Args:
        recipe: the recipe as YAML; empty for the lab, which the other parameters are for.
        visitor: filled in from the caller's sign-in; private and gated models are read with it.
        pool: the lab's models: pair (a base and an expert) or three (two experts).
        method: the lab's merge method, such as ties, linear or task_arithmetic.
        strategy: the lab's search strategy, such as cma_es, gradient or fixed.
        evaluations: candidates of the lab's search, at least 1.
    """
    return begin_run(recipe, visitor, LabChoices(pool, method, strategy, evaluations))


@endpoint
def status(job: str, visitor: gr.OAuthToken | None) -> dict[str, Any]:
    """Say where a run is.

    Returns its phase (queued, running, stopping, done, cancelled, failed or lost), its position in the queue (from 1 on), its stages
    with the seconds each has taken, what is being done now (stage, message, done of total, and eta in seconds), the error of one that
    failed, and the end of its log.

    Args:
        job: the id that start returned.
        visitor: filled in from the caller's sign-in; a run is seen by who started it, and one of nobody's by whoever has its id.
    """
    return asdict(status_of(find(job, owner_of(visitor))))


@endpoint
def result(job: str, visitor: gr.OAuthToken | None) -> dict[str, Any]:
    """Return the scores of a finished run.

    For each model its rates (scores): fractions from 0 to 1 with n, the number of different prompts, the 95% interval and the better
    direction; paired comparisons with the base (comparisons); and the benchmarks, judges and settings behind them. No prompt and no
    reply is among it.

    Args:
        job: the id that start returned.
        visitor: filled in from the caller's sign-in.
    """
    return jobs.result(job, owner_of(visitor))


@endpoint
def cancel(job: str, visitor: gr.OAuthToken | None) -> str:
    """Stop a run, and say what happened. It returns when the run has stopped, or was told to twice: within about 25 seconds.

    Args:
        job: the id that start returned.
        visitor: filled in from the caller's sign-in.
    """
    return jobs.cancel(job, owner_of(visitor))


@endpoint
def push(job: str, repo_id: str, private: bool, visitor: gr.OAuthToken | None, license: str = "", create_pr: bool = False) -> str:
    """Publish the model of a finished run with its alignment card, and the data it was made with; returns its address.

    Needs a sign-in that may write. A merge that measures worse than its base becomes private whatever is asked for.

    Args:
        job: the id that start returned.
        repo_id: where to, as namespace/name.
        private: whether the repositories are created private.
        visitor: filled in from the caller's sign-in.
        license: the licence, where it does not follow from those of the models.
        create_pr: propose the model in a pull request to a repository that is there, and return the request's address.
    """
    owner, token = owner_of(visitor), write_token(visitor)
    return jobs.push(job, owner, repo_id, private, token, license or license_of(find(job, owner)), create_pr=create_pr)
