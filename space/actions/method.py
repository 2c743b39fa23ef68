"""The step in which method, strategy and objective are chosen, in a form or in the recipe itself."""

from dataclasses import replace
from typing import Any, Literal

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import views
from space.actions.models import rows_of
from space.forms import parameters, recipes
from space.forms.fields import GUARDS


def explain_method(name: str) -> str:
    """The help below the merge method."""
    return views.help_text(parameters.method_help(name))


def explain_strategy(name: str) -> str:
    """The help below the search strategy."""
    return views.help_text(parameters.strategy_help(name))


def set_method(recipe: str, method: str, strategy: str, objective: str, alpha: float | None) -> tuple[str, str]:
    """The recipe with this merge method, search strategy and objective, and a message."""
    try:
        before = recipes.read(recipe)
        chosen = recipes.with_strategy(recipes.with_method(before, method), strategy)
        alpha = before.alpha if alpha is None else alpha
        return recipes.write(replace(chosen, objective=objective, alpha=float(alpha)), recipe), ""
    except HfSafeMergeError as error:
        return recipe, views.note(str(error), "bad")


def set_value(part: Literal["parameters", "settings"], field: parameters.Field, recipe: str, entered: Any) -> tuple[str, str]:
    """The recipe with another value of one of a method's parameters, or of a strategy's settings, and a message."""
    try:
        fields = recipes.read(recipe)
        changed: dict[str, Any] = {part: parameters.changed(getattr(fields, part), field, entered)}
        return recipes.write(replace(fields, **changed), recipe), ""
    except HfSafeMergeError as error:
        return recipe, views.note(str(error), "bad")


def sync(recipe: str) -> tuple[Any, ...]:
    """What all fields show for a recipe that was edited or chosen, and a message: base, experts, the data, method and objective."""
    try:
        f = recipes.read(recipe)
    except HfSafeMergeError as error:
        return (*[gr.skip()] * 12, views.note(str(error), "bad"))
    experts = rows_of(f.experts)
    data = (f.guard, f.safety, f.domain, f.benign, f.count, f.suite)
    guard = gr.update(choices=[*((says, name) for name, says in GUARDS.items()), *([] if f.guard in GUARDS else [f.guard])], value=f.guard)
    return (f.base, experts, guard, *data[1:], f.method, f.strategy, f.objective, f.alpha, "")
