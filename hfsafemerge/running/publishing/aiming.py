"""Where a run is published, and how: what its recipe says, and what is said of one push alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import yaml

from hfsafemerge import __version__
from hfsafemerge._recipe_parts import REFERENCE
from hfsafemerge.errors import RecipeError, RunError
from hfsafemerge.recipe import PushSpec, Recipe
from hfsafemerge.running.publishing.datasets import Target

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


@dataclass(frozen=True)
class Once:
    """What is said of one push, and not of those after it; a recipe can't say it. Raises RecipeError for what is no tag."""

    create_pr: bool = False
    """Open a pull request in the model's repository instead, and in datasets that exist already; their settings stay."""
    commit_message: str | None = None
    """The title of the model's commit or pull request; by default the recipe's name and the version of the tool."""
    commit_description: str | None = None
    """What stands below it."""
    tag: str | None = None
    """A name for the model's commit; by default run- and a digest of what was made and measured."""
    overwrite: bool = False
    """Commit on top of repositories that this tool did not make, too. Nothing but weights that the new ones replace is deleted."""

    def __post_init__(self) -> None:
        if self.tag is not None and re.search(REFERENCE, self.tag) is None:
            raise RecipeError(f"{self.tag!r} can't be a tag. Use letters, digits and . _ - / with a letter or digit first.")


ONCE = tuple(field.name for field in fields(Once))


def wanted(run: "Run") -> PushSpec:
    """Where a run is to be published. Raises RunError where its recipe does not say."""
    if run.recipe.push is None:
        raise RunError(
            "The recipe does not say where to push. Add `push: {repo_id: namespace/name}`, or give REPO_ID to `hfsafemerge push`."
        )
    return run.recipe.push


def data_target(spec: PushSpec, once: Once) -> Target:
    """Where the datasets of a model go."""
    return Target(spec.repo_id, spec.private, spec.license, once.create_pr, beside=True, overwrite=once.overwrite)


def branch(spec: PushSpec, once: Once) -> str | None:
    """The branch of the model's repository; a pull request has one of its own."""
    return None if once.create_pr else spec.revision


def title(run: "Run") -> str:
    """The message of the model's commit, and the title of its pull request."""
    return run.once.commit_message or f"{run.recipe.name}, merged by hfsafemerge {__version__}"


def aim(run: "Run", settings: Mapping[str, Any], without: Sequence[str] = ()) -> None:
    """Publish a run otherwise: its recipe gets the settings that a recipe can have, and its next push those of one push.

    Args:
        run: the run.
        settings: by name; None, and False of any but `private`, changes nothing.
        without: settings of the recipe to forget.

    Raises:
        RecipeError: a setting can't stand there.
    """
    said = {key: value for key, value in settings.items() if value or (key, value) == ("private", False)}
    if said.get("create_pr") and "revision" in said:
        raise RecipeError("create_pr opens a branch of its own; leave revision out.")
    once = Once(**{key: value for key, value in said.items() if key in ONCE})
    run.recipe = aimed(run.recipe, {key: value for key, value in said.items() if key not in ONCE}, without)
    run.once = once


def aimed(recipe: Recipe, changes: Mapping[str, Any], without: Sequence[str] = ()) -> Recipe:
    """The recipe with other settings of `push`, and without some. Raises RecipeError for one that can't stand there."""
    known = recipe.push.model_dump(mode="json", exclude_defaults=True) if recipe.push else {}
    push = {key: value for key, value in known.items() if key not in without} | dict(changes)
    found = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"push"})
    return Recipe.parse(yaml.safe_dump(found | ({"push": push} if push else {})))
