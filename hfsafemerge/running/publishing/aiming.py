"""Where a run is published, and how: what its recipe says, and what is said of one push alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import yaml

from hfsafemerge import __version__, hub
from hfsafemerge._recipe_parts import REFERENCE
from hfsafemerge.errors import RecipeError, RunError
from hfsafemerge.examples import Kind
from hfsafemerge.recipe import PushSpec, Recipe
from hfsafemerge.running.publishing.datasets import Target, made_kinds, places_of
from hfsafemerge.running.repeating.locked import LOCK

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
        if self.tag is not None and re.fullmatch(REFERENCE, self.tag) is None:
            raise RecipeError(f"{self.tag!r} can't be a tag. Use letters, digits and . _ - / with a letter or digit first.")


REMEDY = "Add `push: {repo_id: namespace/name}`, or give REPO_ID to `hfsafemerge push`."
ONCE = tuple(field.name for field in fields(Once))


def wanted(run: "Run") -> PushSpec:
    """Where a run is to be published. Raises RunError where its recipe does not say."""
    if run.recipe.push is None:
        raise RunError(f"The recipe does not say where to push. {REMEDY}")
    return run.recipe.push


def data_target(spec: PushSpec, once: Once) -> Target:
    """Where the datasets of a model go."""
    return Target(spec.repo_id, spec.private, spec.license, once.create_pr, beside=True, overwrite=once.overwrite)


@dataclass(frozen=True)
class Aim:
    """Where the model of a run goes, and by kind its data, and whose collection it is."""

    model: hub.Place
    data: Mapping[Kind, hub.Place]
    namespace: str
    outlook: Mapping[str, hub.Outlook]
    """By repository what a push would find and leave."""


def check_push(recipe: Recipe, once: Once | None = None, reasons: Sequence[str] = (), notify: hub.Notify = hub.say_nothing) -> Aim:
    """See, without writing anything, that a push of a recipe's result would not be refused, as far as that can be known before.

    Args:
        recipe: one with `push`.
        once: what is said of this push alone.
        reasons: why the model has to be private, once that was measured.
        notify: is told of faults.

    Raises:
        HubError: the push would be refused: the model, the data or the collection.
    """
    spec, once = recipe.push, once or Once()
    if spec is None:
        raise RunError(f"The recipe does not say where to push. {REMEDY}")
    model = hub.Place(
        spec.repo_id,
        "model",
        LOCK,
        private=spec.private,
        revision=branch(spec, once),
        overwrite=once.overwrite,
        pull_request=once.create_pr,
        private_because=tuple(reasons),
    )
    data = places_of(made_kinds(recipe), data_target(spec, once), notify)
    places = [model, *data.values()]
    found = hub.check_target(places, tags={spec.repo_id: once.tag} if once.tag and not once.create_pr else {}, notify=notify)
    namespace = hub.user_name(notify) if once.create_pr and spec.collection else spec.repo_id.split("/")[0]
    if spec.collection:
        hub.check_collection(spec.collection, notify)
    return Aim(model, data, namespace, {place.repo_id: each for place, each in zip(places, found, strict=True)})


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
