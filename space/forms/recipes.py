"""Recipes out of the forms, and recipes in words."""

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


def describe(recipe: Recipe) -> str:
    """What a recipe asks for, in words."""
    experts = ", ".join(expert.label for expert in recipe.experts)
    chosen = f"{recipe.strategy.name} chooses its numbers"
    data = f" from {' and '.join(recipe.search.use)} data" if recipe.strategy.needs_data else ""
    counts = {"benchmark": len(recipe.evaluation.benchmarks), "task": len(recipe.evaluation.tasks)}
    measured = " and ".join(f"{count} {what}{'' if count == 1 else 's'}" for what, count in counts.items() if count) or "nothing"
    return (
        f"The recipe is in order. {recipe.method.name} merges {experts} into {recipe.base}; {chosen}{data}; the result is measured on "
        f"{measured}. Whether the models fit together is seen when it starts, before any weights are downloaded."
    )
