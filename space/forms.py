"""Forms out of the registries, recipes out of the forms, and recipes and their faults in words."""

import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml

import hfsafemerge
from hfsafemerge.errors import RecipeError
from hfsafemerge.merging import MERGE_METHODS, MergeMethod
from hfsafemerge.recipe import Recipe
from hfsafemerge.searching import SEARCH_STRATEGIES

SHIPPED = Path(hfsafemerge.__file__).parent / "recipes" / "evomm.yaml"


def shipped_recipe() -> str:
    """The recipe that the editor starts with."""
    return SHIPPED.read_text()


def method_help(name: str) -> str:
    """What a merge method does, needs and can be told, from its registration."""
    method = MERGE_METHODS.get(name)
    low, high = method.experts
    experts = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    named = _listed("Parameters", [p.name for p in method.parameters]) + _listed("Options", [o.name for o in method.options])
    return f"{method.summary} For {experts} expert{'' if experts == '1' else 's'}. {named}{_source(method.paper)}"


def strategy_help(name: str) -> str:
    """What a search strategy does, works with and can be told, from its registration."""
    strategy = SEARCH_STRATEGIES.get(name)
    only = f"Works with {' and '.join(strategy.methods)} only. " if strategy.methods else ""
    return f"{strategy.summary} {only}{_listed('Settings', list(strategy.settings))}{_source(strategy.paper)}"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names)}. " if names else ""


def _source(paper: str) -> str:
    return f"Source: {paper}." if paper else ""


def fill(base: str, experts: Sequence[Sequence[object]], method: str, strategy: str, start: str) -> str:
    """A recipe with these models, method and strategy; all else is as in the recipe `start`.

    What the method does not know is left out of merge.parameters. Settings of another strategy are dropped, also where the new one
    has some of the same name, which mean something else there.

    Raises:
        RecipeError: there is no base or no expert.
        UnknownName: there is no such method or strategy.
    """
    rows = [["" if cell is None else str(cell).strip() for cell in row] for row in experts]
    named = [{"repo_id": repo_id, **({"topic": topic} if topic else {})} for repo_id, topic in rows if repo_id]
    if not base.strip() or not named:
        raise RecipeError("Name the base and at least one expert, each as namespace/name.")
    asked = MERGE_METHODS.get(method)
    known = [part.name for part in asked.parameters] + [option.name for option in asked.options]
    recipe: dict[str, Any] = yaml.safe_load(start)
    merge, search = recipe.get("merge", {}), recipe.get("search", {})
    recipe["name"] = "my-merge"
    recipe["base"], recipe["experts"] = {"repo_id": base.strip()}, named
    parameters = _only(merge.get("parameters", {}), known)
    recipe["merge"] = merge | {"method": method, "parameters": parameters}
    kept = SEARCH_STRATEGIES.get(strategy).name == search.get("strategy")
    settings = search.get("settings", {}) if kept else _first_settings(strategy, asked, parameters)
    recipe["search"] = search | {"strategy": strategy, "settings": settings}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def _first_settings(strategy: str, method: MergeMethod, given: Collection[str]) -> dict[str, Any]:
    """The settings that a strategy can't do without: the grid's values, and how far a draw of what has no upper bound goes."""
    if strategy == "grid":
        return {"preset": "paper"}
    searched = [p for p in method.parameters if p.number.searched and p.name not in given]
    ranges = {p.name: [max(0.0, p.number.low), 1.0] for p in searched if not math.isfinite(p.number.high - p.number.low)}
    return {"ranges": ranges} if strategy == "random_search" and ranges else {}


def _only(values: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in known}


def parse(text: str, *, local_paths: bool) -> Recipe:
    """The recipe of a text.

    Args:
        text: YAML.
        local_paths: whether it may name folders of this machine.

    Raises:
        HfSafeMergeError: it is no recipe; the message names every fault found.
    """
    recipe = Recipe.parse(text, "The recipe")
    if not local_paths and (path := _first_path(recipe.model_dump(mode="json"))):
        raise RecipeError(f"The recipe names the local folder {path}. Here it can only name repositories, with repo_id.")
    return recipe


def _first_path(value: object) -> str | None:
    """The first value of a key named path, anywhere."""
    if isinstance(value, dict):
        if value.get("path") is not None:
            return str(value["path"])
        value = list(value.values())
    if isinstance(value, list):
        return next((found for found in map(_first_path, value) if found), None)
    return None


def describe(recipe: Recipe) -> str:
    """What a recipe asks for, in words."""
    experts = ", ".join(expert.label for expert in recipe.experts)
    chosen = f"{recipe.strategy.name} chooses its numbers"
    data = f" from {' and '.join(recipe.search.use)} data" if recipe.strategy.needs_data else ""
    count = len(recipe.evaluation.benchmarks)
    measured = f"{count} benchmark{'' if count == 1 else 's'}" if count else "nothing"
    return (
        f"The recipe is in order. {recipe.method.name} merges {experts} into {recipe.base}; {chosen}{data}; the result is measured on "
        f"{measured}. Whether the models fit together is seen when it starts, before any weights are downloaded."
    )
