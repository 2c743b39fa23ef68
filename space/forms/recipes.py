"""Recipes out of the form, the form out of recipes, and recipes in words."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import yaml

from hfsafemerge._recipe_settings import first_settings
from hfsafemerge.errors import RecipeError
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.recipe import Recipe
from hfsafemerge.searching import SEARCH_STRATEGIES
from space.forms.fields import BENIGN, DOMAIN, MMLU, NONE, OWN, SAFETY, TOPICS, ExpertField, Fields

PHRASES = "refusal_phrases"
BEAVERTAILS = {"questions": {"repo_id": "PKU-Alignment/BeaverTails", "split": "30k_train", "where": {"is_safe": False}}}


def read(text: str) -> Fields:
    """The fields of a recipe. Raises RecipeError for what is no recipe."""
    recipe = Recipe.parse(text, "The recipe")
    said = yaml.safe_load(text)
    data, evaluation = said.get("data", {}), said.get("evaluation", {})
    return Fields(
        base=_model_text(said["base"]),
        experts=tuple(ExpertField(_model_text(each), str(each.get("topic", ""))) for each in said["experts"]),
        guard=next((judge for judge in recipe.data.judges if judge != PHRASES), recipe.data.judges[0]),
        safety=_known(data.get("safety"), {name: _safety(name) for name in SAFETY}),
        domain=_known(data.get("domain"), {name: _domain(name, _topics(said)) for name in DOMAIN}),
        benign=_known(data.get("benign"), {name: _benign(name, said["base"]) for name in BENIGN}),
        count=recipe.data.count,
        method=recipe.merge.method,
        parameters=dict(recipe.merge.parameters),
        layers_per_group=recipe.merge.layers_per_group,
        strategy=recipe.search.strategy,
        settings=dict(recipe.search.settings),
        objective=recipe.search.objective,
        alpha=recipe.search.alpha,
        suite=evaluation["suite"] if set(evaluation) == {"suite"} else OWN,
    )


def write(fields: Fields, start: str) -> str:
    """The recipe `start` with what the fields say otherwise; all else of it stays, and all of it where they say the same.

    Raises:
        RecipeError: there is no base or no expert, or `start` is no recipe.
        UnknownName: there is no such method or strategy.
    """
    before = read(start)
    if fields == before:
        return start
    if not fields.base.strip() or not any(each.model.strip() for each in fields.experts):
        raise RecipeError("Name the base and at least one expert, each as namespace/name.")
    if fields.domain == "shown" and (without := [each.model for each in fields.experts if each.model.strip() and not each.topic.strip()]):
        raise RecipeError(f"Say what {without[0]} is good at: it writes questions of its topic. Or choose other data for the skills.")
    recipe: dict[str, Any] = yaml.safe_load(start)
    if (fields.base, fields.experts) != (before.base, before.experts):
        recipe["name"] = "my-merge"
        recipe["base"] = recipe["base"] if fields.base == before.base else _model(fields.base)
        recipe["experts"] = _experts(fields, recipe["experts"])
    _write_data(recipe, fields, before)
    merge, search = recipe.get("merge", {}), recipe.get("search", {})
    merge |= {"method": MERGE_METHODS.get(fields.method).name, "parameters": dict(fields.parameters)}
    merge["layers_per_group"] = fields.layers_per_group
    search |= {"strategy": SEARCH_STRATEGIES.get(fields.strategy).name, "settings": dict(fields.settings)}
    if fields.objective != before.objective:
        search["objective"] = fields.objective
    if fields.alpha != before.alpha:
        search["alpha"] = fields.alpha
    if used := [kind for kind in ("safety", "domain", "benign") if kind in recipe.get("data", {})]:
        search["use"] = used
    recipe |= {"merge": merge, "search": search}
    if fields.suite not in (before.suite, OWN):
        recipe["evaluation"] = {"suite": fields.suite}
    return yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)


def with_method(fields: Fields, method: str) -> Fields:
    """The fields with another merge method: parameters that it does not know are dropped."""
    asked = MERGE_METHODS.get(method)
    known = [part.name for part in asked.parameters] + [option.name for option in asked.options]
    kept = _only(fields.parameters, known)
    if len(fields.experts) == 1 and "normalize" in known and "weight" not in kept:
        kept.setdefault("normalize", False)  # the weight of one expert would cancel out
    return with_strategy(replace(fields, method=asked.name, parameters=kept), fields.strategy)


def with_strategy(fields: Fields, strategy: str) -> Fields:
    """The fields with another search strategy: settings of the one before mean something else there, and are dropped."""
    name = SEARCH_STRATEGIES.get(strategy).name
    kept = dict(fields.settings) if name == fields.strategy else first_settings(name, MERGE_METHODS.get(fields.method), fields.parameters)
    return replace(fields, strategy=name, settings=kept)


def _write_data(recipe: dict[str, Any], fields: Fields, before: Fields) -> None:
    data = dict(recipe.get("data", {}))
    topics = _topics(recipe)
    parts = {
        "safety": _safety(fields.safety) if fields.safety != before.safety else OWN,
        "domain": _domain(fields.domain, topics) if fields.domain != before.domain or fields.experts != before.experts else OWN,
        "benign": _benign(fields.benign, recipe["base"]) if (fields.benign, fields.base) != (before.benign, before.base) else OWN,
    }
    for kind, part in parts.items():
        if part is None:
            data.pop(kind, None)
        elif part != OWN:
            data[kind] = part
    if fields.guard != before.guard:
        data["judges"] = [fields.guard, PHRASES]
        recipe["judges"] = {name: spec for name, spec in recipe.get("judges", {}).items() if name != before.guard}
    if fields.count != before.count:
        data["count"] = fields.count
        data.pop("preset", None)  # which allows the paper's count alone
    if data:
        recipe["data"] = data


def _safety(name: str) -> Any:
    return {"beavertails": BEAVERTAILS, NONE: None}.get(name, OWN)


def _domain(name: str, topics: Collection[str]) -> Any:
    shown = {"in_context": {topic: _mmlu(topic) for topic in topics}}
    return {"shown": shown, "magpie": {"generator": "magpie"}, NONE: None}.get(name, OWN)


def _mmlu(topic: str) -> dict[str, Any]:
    """The rows that are shown for a topic; of one that is not known those of its own name, which `check` looks for."""
    return {"repo_id": MMLU, "config": TOPICS.get(topic, topic), "split": "validation", "columns": {"prompt": "question"}}


def _benign(name: str, base: Mapping[str, Any]) -> Any:
    return {"written": {"writer": dict(base)}, NONE: None}.get(name, OWN)


def _known(part: Any, parts: Mapping[str, Any]) -> str:
    """The choice that stands for a part of a recipe."""
    return next((name for name, known in parts.items() if known != OWN and known == part), OWN)


def _topics(recipe: Mapping[str, Any]) -> list[str]:
    return [str(expert["topic"]) for expert in recipe["experts"] if expert.get("topic")]


def _experts(fields: Fields, before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The experts: those that the recipe knows keep what else it says of them."""
    known = {_model_text(expert): expert for expert in before}
    found = []
    for each in fields.experts:
        if each.model.strip():
            expert = {key: value for key, value in known.get(each.model, _model(each.model)).items() if key != "topic"}
            found.append(expert | ({"topic": each.topic.strip()} if each.topic.strip() else {}))
    return found


def _model(text: str) -> dict[str, Any]:
    """A model as it is typed: namespace/name, with @revision, or a folder of this machine."""
    text = text.strip()
    if text.startswith(("/", "./", "../", "~")):
        return {"path": text}
    repo_id, _, revision = text.partition("@")
    return {"repo_id": repo_id, **({"revision": revision} if revision else {})}


def _model_text(ref: Mapping[str, Any]) -> str:
    if "repo_id" in ref:
        return str(ref["repo_id"]) + (f"@{ref['revision']}" if ref.get("revision") else "")
    return str(ref.get("path") or (ref.get("adapter") or {}).get("repo_id") or ref.get("name") or "")


def _only(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
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
