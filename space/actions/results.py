"""The step that shows what came of a run, lets its models be asked, and another point of the front be picked."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError, RunError
from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.recipe import MERGED, Recipe
from space import bursts, jobs, plots, results, views
from space.accounts import owner_of, token_of
from space.actions.publishing import publishing
from space.actions.running import RUN
from space.chat import guard_of
from space.job import Job, find
from space.summary import summary

LAB_LICENSE = "apache-2.0"  # under which the lab's models are published
NOTHING = "No run of yours has finished yet. Start one in the step Run; this page shows what came of it."
NO_GUARD = "This run has no guard, so nothing would tell a reply that nobody should get: its models can't be asked here."
CHAT = "What you ask and what is replied is kept nowhere. The guard looks at both; what it flags is not shown."


def arrange(seen: str, visitor: gr.OAuthToken | None) -> tuple[Any, ...]:
    """What the steps Results and Publish show of a job in a phase, in the order of `layout.page`."""
    job_id, _, phase = seen.partition(" ")
    empty = (gr.update(visible=False), *[gr.skip()] * 11)
    if phase != "done":
        return views.note(NOTHING), *empty
    try:
        owner = owner_of(visitor)
        job, found = find(job_id, owner), jobs.result(job_id, owner)
    except HfSafeMergeError as error:
        return views.note(str(error), "bad"), *empty
    points, models = plots.front(job), models_of(job)
    others = [number for number in results.offered(job) if number != results.chosen(job)]
    return (
        "",
        gr.update(visible=True),
        summary(found) + views.table(found["scores"]),
        views.plot(found["scores"]),
        gr.update(value=points, visible=len(points) > 0),
        gr.update(choices=others, value=None),
        views.note(CHAT if models else NO_GUARD),
        gr.update(choices=models, value=models),
        views.samples(plots.samples(job)),
        command_of(job),
        job.recipe.read_text(),
        license_of(job),
        publishing(job),
    )


def command_of(job: Job) -> str:
    """What to type in a terminal to repeat a run. A candidate that was picked stands in the recipe of its run."""
    if not job.facts["lab"]:
        return "# with the recipe below in recipe.yaml\nhfsafemerge run recipe.yaml"
    said = " ".join(["--lab", *LabChoices(**job.facts["lab"]).words()])
    made, picked = f"hfsafemerge init recipe.yaml {said}\n", job.facts.get("picked")
    if picked is None:
        return f"{made}hfsafemerge run recipe.yaml"
    return f"{made}hfsafemerge merge recipe.yaml --pick {picked}\nhfsafemerge evaluate runs/{Recipe.load(job.recipe).name}"


def license_of(job: Job) -> str:
    """The licence to publish under, where it is known; the lab's models have one."""
    return LAB_LICENSE if job.facts["lab"] else ""


def models_of(job: Job) -> list[str]:
    """The names of a run's models as its chat asks for them: base, experts, merge; none where no guard would see what they say."""
    recipe = Recipe.load(job.recipe)
    return [*recipe.models, MERGED] if guard_of(recipe) is not None else []


def ask(job_id: str, prompt: str, models: Sequence[str], visitor: gr.OAuthToken | None) -> str:
    """What models of a finished run reply to the visitor's own prompt, side by side, as HTML."""
    if not prompt.strip() or not models:
        return views.note("Write a question, and choose whom to ask.", "bad")
    try:
        owner = owner_of(visitor)
        jobs.result(job_id, owner)
        job = find(job_id, owner)
        if not models_of(job):
            raise RunError(NO_GUARD)
        return views.side_by_side(bursts.replies(job, prompt, models))
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")


def pick(job_id: str, number: float | None, visitor: gr.OAuthToken | None) -> tuple[Any, str, Any]:
    """Merge and measure another point of the front in a run of its own: its id for the browser to keep, a message, and its step."""
    if number is None:
        return gr.skip(), views.note("Choose a candidate of the front first.", "bad"), gr.skip()
    try:
        new = results.pick(job_id, int(number), owner_of(visitor), token_of(visitor))
    except HfSafeMergeError as error:
        return gr.skip(), views.note(str(error), "bad"), gr.skip()
    said = f"Candidate {int(number)} is merged and measured in a run of its own. The other one stays as it is."
    return new, views.note(said, "good"), gr.Tabs(selected=RUN)
