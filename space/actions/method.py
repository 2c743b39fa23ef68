"""The step in which method, strategy and objective are chosen, and the recipe that all fields write."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import views
from space.actions.checking import show_check
from space.forms import parameters, presets, recipes


def explain_method(name: str) -> str:
    """The help below the merge method."""
    return views.help_text(parameters.method_help(name))


def explain_strategy(name: str) -> str:
    """The help below the search strategy."""
    return views.help_text(parameters.strategy_help(name))


def fill(base: str, experts: Sequence[Sequence[object]], method: str, strategy: str) -> tuple[Any, str]:
    """The recipe that the fields ask for, and what the check says of it."""
    try:
        recipe = recipes.fill(base, experts, method, strategy, presets.shipped_recipe())
    except HfSafeMergeError as error:
        return gr.skip(), views.note(str(error), "bad")
    return recipe, show_check(recipe)
