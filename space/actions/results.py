"""The step that shows what came of a run."""

from typing import Any

import gradio as gr

from space import jobs, views
from space.actions.publishing import LAB_LICENSE, publishing
from space.job import find

HIDDEN = (gr.update(visible=False), "", "", "", "", "", "")


def shown(job_id: str) -> tuple[Any, ...]:
    """What the page shows of a finished run: see `_results` in layout for the order."""
    job = find(job_id)
    scores = jobs.result(job_id)["scores"]
    lab = bool(job.facts["lab"])
    license = LAB_LICENSE if lab else ""
    parts = (views.table(scores), views.plot(scores), command(lab), job.recipe.read_text(), license, publishing(job))
    return (gr.update(visible=True), *parts)


def command(lab: bool) -> str:
    """What to type in a terminal to repeat a run."""
    if lab:
        return "hfsafemerge init recipe.yaml --lab\nhfsafemerge run recipe.yaml"
    return "# with the recipe below in recipe.yaml\nhfsafemerge run recipe.yaml"
