"""The step in which the data are chosen that steer the merge, and the benchmarks that measure it."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import views
from space.accounts import on_space, token_of
from space.commands import answer
from space.forms import recipes
from space.forms.visitors import parse


def set_data(recipe: str, guard: str, safety: str, domain: str, benign: str, count: float | None, suite: str) -> tuple[str, str]:
    """The recipe with these data and benchmarks, and a message.

    Args:
        recipe: YAML.
        guard: the judge that decides what is kept.
        safety: where harmful requests come from.
        domain: where questions of the experts' domains come from.
        benign: where harmless requests that look harmful come from.
        count: questions of each kind.
        suite: the benchmarks.
    """
    try:
        fields = recipes.read(recipe)
        count = fields.count if count is None else int(count)
        chosen = replace(fields, guard=guard, safety=safety, domain=domain, benign=benign, count=count, suite=suite)
        written = recipes.write(chosen, recipe)
        recipes.read(written)  # what can't stand there is told
        return written, ""
    except HfSafeMergeError as error:
        return recipe, views.note(str(error), "bad")


def estimate(recipe: str, visitor: gr.OAuthToken | None) -> str:
    """What would be made for a recipe, step by step with its tokens, before any model is loaded; as HTML."""
    try:
        parse(recipe, own_machine=not on_space())
        with TemporaryDirectory(prefix="hfsafemerge-") as folder:
            file = Path(folder) / "recipe.yaml"
            file.write_text(recipe)
            steps = answer(Path(folder), token_of(visitor), "generate", file, "--directory", Path(folder) / "run", "--dry-run")
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
    return views.estimate(steps)
