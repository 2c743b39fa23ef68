"""A run, opened for a recipe in whatever form it comes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfsafemerge._recipe_yaml import explain
from hfsafemerge.errors import RecipeError, RunError
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.directory import Run
from hfsafemerge.running.events import Listener
from hfsafemerge.running.loading import load_recipe

RecipeLike = Recipe | Mapping[str, Any] | str | Path
"""A recipe, what its YAML would hold, the path of the YAML file (mergekit's too), or the directory of a run."""


def open_run(recipe: RecipeLike, directory: str | Path | None, listener: Listener, *, allow_writer: bool = False) -> Run:
    """The run of a recipe, in runs/NAME unless a directory is given; or the run of a directory.

    Raises:
        RecipeError: the recipe asks for what does not exist or does not fit together.
        RunError: the directory holds something else, or two are given.
    """
    if isinstance(recipe, str | Path) and Path(recipe).is_dir():
        if directory is not None:
            raise RunError(f"{recipe} is the directory of a run already; leave `directory` out, or name a recipe.")
        return Run.open(recipe, listener, allow_writer=allow_writer)
    loaded = recipe_of(recipe)
    return Run(loaded, directory or Path("runs") / loaded.name, listener, allow_writer=allow_writer)


def recipe_of(recipe: RecipeLike) -> Recipe:
    """The recipe, checked. Raises RecipeError naming every fault found."""
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, str | Path):
        return load_recipe(Path(recipe))
    try:
        found = Recipe.model_validate(dict(recipe))
    except ValidationError as error:
        raise RecipeError(explain(error, Recipe, "recipe")) from error
    found.check()
    return found
