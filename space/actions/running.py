"""The step in which a run is started, watched and stopped."""

from typing import Any

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import jobs, views
from space.accounts import on_space, token_of
from space.actions.results import HIDDEN, shown
from space.forms.visitors import parse
from space.job import find
from space.progress import status as status_of


def begin_run(recipe: str, visitor: gr.OAuthToken | None) -> str:
    """Start a run of a recipe, or of the lab for none, and return its id. Raises HfSafeMergeError."""
    if recipe.strip():
        parse(recipe, own_machine=not on_space())
    return jobs.start(recipe if recipe.strip() else None, token_of(visitor))


def begin(source: str, recipe: str, visitor: gr.OAuthToken | None) -> tuple[Any, str]:
    """Start what was chosen: the job's id for the browser to keep, and a message."""
    if source == "own" and not recipe.strip():
        return gr.skip(), views.note("The recipe is empty. Fill it from the fields, or write one.", "bad")
    try:
        job = begin_run(recipe if source == "own" else "", visitor)
    except HfSafeMergeError as error:
        return gr.skip(), views.note(str(error), "bad")
    return job, views.note("Started. It goes on when you close this page; the address of this page leads back to it.", "good")


def restore(remembered: str, request: gr.Request) -> tuple[str, str]:
    """The job that the address names, or else the one that the browser remembers, if there is such a job; and a message."""
    asked = request.query_params.get("job")
    try:
        return find(asked or remembered).id, ""
    except HfSafeMergeError as error:
        return "", views.note(str(error), "bad") if asked else ""


def watch(job: str) -> tuple[str, str, str]:
    """The stages, the end of the log, and the job with its phase, whose change makes the page arrange itself."""
    try:
        now = status_of(find(job))
    except HfSafeMergeError:
        return "", "", ""
    return views.watch(now), now.log, f"{job} {now.phase}"


def arrange(seen: str) -> tuple[Any, ...]:
    """What the page shows of a job in a phase: see `_results` in layout for the order."""
    job_id, _, phase = seen.partition(" ")
    going = phase in ("running", "stopping")
    cancel = gr.update(visible=going, interactive=phase == "running")
    watching = (gr.update(visible=bool(seen)), gr.Timer(active=going), cancel, gr.skip() if phase in ("stopping", "cancelled") else "")
    return (*watching, *(shown(job_id) if phase == "done" else HIDDEN))


def stop(job: str) -> str:
    """Cancel the job, and say what happened."""
    try:
        return views.note(jobs.cancel(job))
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
