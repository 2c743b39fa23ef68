"""Which recipes are taken, and from whom."""

from collections.abc import Iterator

from pydantic import BaseModel

from hfsafemerge.errors import RecipeError
from hfsafemerge.lab.behaviour import ASK_DOMAIN, PREFILL
from hfsafemerge.recipe import ModelRef, Recipe, Ref


def parse(text: str, *, own_machine: bool) -> Recipe:
    """The recipe of a text.

    Args:
        text: YAML.
        own_machine: whether who wrote it is who this machine belongs to. Of others it takes no recipe that reads folders of this
            machine, sends requests and environment variables from it to a server, has harmful questions written by a model, or asks
            one for questions in words of its own.

    Raises:
        HfSafeMergeError: it is no recipe, the message names every fault found; or it is none for this machine.
    """
    recipe = Recipe.parse(text, "The recipe")
    if not own_machine:
        _check_for_visitors(recipe)
    return recipe


def _check_for_visitors(recipe: Recipe) -> None:
    refs = list(_refs(recipe))
    if paths := [ref.path for ref in refs if ref.path is not None]:
        raise RecipeError(f"The recipe names the local folder {paths[0]}. Here it can only name repositories, with repo_id.")
    if urls := [ref.endpoint.url for ref in refs if isinstance(ref, ModelRef) and ref.endpoint is not None]:
        raise RecipeError(
            f"The recipe names the server {urls[0]}, and this app asks none for its visitors. Leave every endpoint out, and name "
            "models with repo_id; or run the recipe with hfsafemerge on a machine of your own."
        )
    if recipe.data.safety is not None and recipe.data.safety.writer is not None:
        raise RecipeError(
            "data.safety.writer lets a model write harmful questions, which this app does not do for its visitors. Use ready prompts "
            "(data.safety.questions); or run the recipe with hfsafemerge and --allow-writer on a machine of your own."
        )
    for kind, spec in (("domain", recipe.data.domain), ("benign", recipe.data.benign)):
        for part, own in (("prompt", ASK_DOMAIN), ("prefill", PREFILL)):
            if spec is not None and getattr(spec, part) not in (None, own):
                raise RecipeError(
                    f"data.{kind}.{part} lets a model write whatever it asks for, so of its visitors this app takes only the generators' "
                    "own and the lab's. Leave it out; or run the recipe with hfsafemerge on a machine of your own."
                )


def _refs(value: object) -> Iterator[Ref]:
    """All that a recipe takes from elsewhere, with the adapters."""
    if isinstance(value, Ref):
        yield value
    if isinstance(value, BaseModel):
        value = dict(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for each in value:
            yield from _refs(each)
