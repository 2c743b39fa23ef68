"""The step in which a run is started, watched and stopped."""

from typing import Any

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError, HubError
from hfsafemerge.lab.choices import LabChoices
from space import jobs, views
from space.accounts import on_space, owner_of, token_of
from space.actions.models import refuse_unnamed
from space.checks import look, refuse_misfit
from space.forms.visitors import parse
from space.hardware import detect
from space.job import find
from space.plots import trajectory
from space.progress import status as status_of

RUN, RESULTS = 4, 5  # steps of the page


def begin_run(recipe: str, visitor: gr.OAuthToken | None, choices: LabChoices | None = None) -> str:
    """Start a run of a recipe, or of the lab for none, and return its id.

    Raises:
        HfSafeMergeError: the recipe is wrong or not for this app, too many runs wait, or on a Space the run does not fit.
    """
    owner, token = owner_of(visitor), token_of(visitor)
    if recipe.strip():
        wanted = parse(recipe, own_machine=not on_space())
        if on_space():  # it would hold the queue for a day, and end with nothing
            refuse_misfit(look(wanted, token, detect()))
        return jobs.start(recipe, owner, token)
    return jobs.start(None, owner, choices=choices)


def begin(
    source: str,
    recipe: str,
    base: str | None,
    pool: str,
    method: str,
    strategy: str,
    evaluations: float | None,
    visitor: gr.OAuthToken | None,
) -> tuple[Any, str]:
    """Start what was chosen: the job's id for the browser to keep, and a message."""
    if source == "own" and not recipe.strip():
        return gr.skip(), views.note("The recipe is empty. Fill it from the fields, or write one.", "bad")
    try:
        refuse_unnamed(source, recipe, base)
        choices = LabChoices(pool, method, strategy, LabChoices.evaluations if evaluations is None else int(evaluations))
        job = begin_run(recipe if source == "own" else "", visitor, choices)
    except HfSafeMergeError as error:
        return gr.skip(), views.note(str(error), "bad")
    return job, views.note("Started. It goes on when you close this page; the address of this page leads back to it.", "good")


def restore(remembered: str, visitor: gr.OAuthToken | None, request: gr.Request) -> tuple[str, str, Any]:
    """The job that the address names, or else the one that the browser remembers, if there is such a job; a message, and its step.

    Who is signed out keeps the id: the job may be theirs, and is there when they have signed in.
    """
    asked = request.query_params.get("job")
    try:
        job = find(asked or remembered, owner_of(visitor))
    except HfSafeMergeError as error:
        mine = on_space() and visitor is None
        said = f"{error} If it is yours, sign in with the button at the top of the page." if mine else str(error)
        note, step = (views.note(said, "bad"), gr.Tabs(selected=RUN)) if asked else ("", gr.skip())
        return (asked or remembered) if mine else "", note, step
    return job.id, "", gr.Tabs(selected=RESULTS if status_of(job).phase == "done" else RUN)


def watch(job: str, visitor: gr.OAuthToken | None) -> tuple[Any, Any, Any, Any]:
    """The stages, the end of the log, the plot of the search, and the job with its phase, whose change makes the page arrange itself."""
    try:
        found = find(job, owner_of(visitor))
    except HubError as error:  # which may pass, so the clock goes on
        return views.note(str(error), "bad"), gr.skip(), gr.skip(), gr.skip()
    except HfSafeMergeError:
        return "", "", gr.update(visible=False), ""
    now = status_of(found)
    fitness = trajectory(found)
    plot = gr.update(value=fitness, visible=True) if len(fitness) else gr.update(visible=False)
    return views.watch(now), now.log, plot, f"{job} {now.phase}"


def arrange(seen: str) -> tuple[Any, Any, Any, Any]:
    """The clock, the buttons that start and cancel and a message for a job in a phase, which `watch` gives as "job phase"."""
    _, _, phase = seen.partition(" ")
    going = phase in ("queued", "running", "stopping")
    cancel = gr.update(visible=going, interactive=phase in ("queued", "running"))
    start = gr.update(interactive=not going, value="Start the run" if not phase or going else "Start another run")
    return gr.Timer(active=going), start, cancel, gr.skip() if phase in ("stopping", "cancelled") else ""


def stop(job: str, visitor: gr.OAuthToken | None) -> str:
    """Cancel the job, and say what happened."""
    try:
        return views.note(jobs.cancel(job, owner_of(visitor)))
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
