"""The step in which models are chosen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError, RecipeError
from space import views
from space.accounts import token_of
from space.forms import presets, recipes
from space.forms.fields import ExpertField
from space.hub_search import search_models


def choose(source: str) -> tuple[Any, ...]:
    """Show what belongs to the chosen source, the lab or models of one's own, in the steps Models, Data and Method."""
    lab, own = gr.update(visible=source == "lab"), gr.update(visible=source == "own")
    return lab, own, lab, own, lab, own


def search(typed: gr.KeyUpData, visitor: gr.OAuthToken | None) -> Any:
    """Offer the models of the Hub that what is typed finds."""
    return gr.update(choices=search_models(typed.input_value or "", token_of(visitor)))


def rows_of(experts: Sequence[ExpertField]) -> list[list[str]]:
    """Experts as rows of model and topic, which is how the page keeps them."""
    return [[each.model, each.topic] for each in experts]


def refuse_unnamed(source: str, recipe: str, base: str | None) -> None:
    """Raise RecipeError where models of one's own are wanted and none were named: the recipe that stands there was nobody's choice."""
    if source != "own" or (base or "").strip():
        return
    there, first = recipes.read(recipe), recipes.read(presets.preset(presets.FIRST))
    if (there.base, there.experts) == (first.base, first.experts):
        raise RecipeError("Name a base and its experts first, in the step Models, or begin there with a recipe.")


def set_models(recipe: str, base: str | None, experts: Sequence[Sequence[object]]) -> tuple[str, str]:
    """The recipe with these models, and a message.

    Args:
        recipe: YAML.
        base: the base, as namespace/name.
        experts: rows of model and topic; rows without a model are left out.
    """
    rows = [["" if cell is None else str(cell).strip() for cell in row] for row in experts]
    named = tuple(ExpertField(model, topic) for model, topic in rows if model)
    try:
        written = recipes.write(replace(recipes.read(recipe), base=(base or "").strip(), experts=named), recipe)
        recipes.read(written)  # one that can't be read back would be refused whatever is chosen next
        return written, ""
    except HfSafeMergeError as error:
        return recipe, views.note(str(error), "bad")


def keep(recipe: str, base: str | None, experts: Sequence[Sequence[object]]) -> str:
    """The recipe with these models, as soon as there is a base and an expert; until then as it stands."""
    return set_models(recipe, base, experts)[0]


def use_preset(name: str | None, recipe: str) -> tuple[str, str]:
    """A shipped recipe instead of the one that stands there, and a message."""
    if name is None:
        return recipe, ""
    try:
        return presets.preset(name), views.note("Its models, data, method and benchmarks stand in the next steps; change what you like.")
    except HfSafeMergeError as error:
        return recipe, views.note(str(error), "bad")


def add(experts: Sequence[Sequence[str]], found: str | None, topic: str | None) -> tuple[Any, Any, Any, str]:
    """The experts with another one, the emptied fields, and a message."""
    model = (found or "").strip()
    if not model:
        return gr.skip(), gr.skip(), gr.skip(), views.note("Name an expert first: type a part of its name, or paste namespace/name.", "bad")
    if any(model == known for known, _ in experts):
        return gr.skip(), gr.skip(), gr.skip(), views.note(f"{model} is an expert already.", "bad")
    return [*experts, [model, (topic or "").strip()]], None, "", ""


def change_topic(model: str, experts: Sequence[Sequence[str]], topic: str | None) -> list[list[str]]:
    """The experts, one of them with another topic."""
    return [[known, (topic or "").strip() if known == model else before] for known, before in experts]


def remove(model: str, experts: Sequence[Sequence[str]]) -> list[list[str]]:
    """The experts without one of them."""
    return [[known, topic] for known, topic in experts if known != model]


def onward(source: str, recipe: str, base: str | None, experts: Sequence[Sequence[object]]) -> tuple[str, str, Any]:
    """The recipe with the models, a message, and the next step where nothing is wrong."""
    if source == "lab":
        return recipe, "", gr.Tabs(selected=1)
    written, said = set_models(recipe, base, experts)
    return written, said, gr.skip() if said else gr.Tabs(selected=1)
