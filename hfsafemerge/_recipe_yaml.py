"""Recipes as YAML: plain values only, and for every fault where it is and what was meant."""

import re
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from hfsafemerge._recipe_parts import Part
from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import unknown_name

MAX_BYTES = 64_000


def read_yaml(text: str, source: str) -> Any:
    """The value of a YAML text. Raises RecipeError when it is too long, malformed, or more than plain values."""
    if len(text) > MAX_BYTES:
        raise RecipeError(f"{source} has {len(text)} characters; a recipe has at most {MAX_BYTES}.")
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader that refuses even more
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a ValueError for dates that don't exist
        raise RecipeError(f"{source} is not plain YAML: {' '.join(str(error).split())}") from error


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, which can make a few bytes into gigabytes, and without keys that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it uses the alias *{self.peek_event().anchor}; write the value out")  # type: ignore[no-untyped-call] # inherited
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"the key {twice[0]!r} stands twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def explain(error: ValidationError, model: type[Part], source: str) -> str:
    """Every fault that a model found in a value: where it is, what was found, and the nearest key that is known."""
    faults = []
    for fault in error.errors():
        where = ".".join(str(step) for step in fault["loc"]) or "the recipe"
        if fault["type"] == "extra_forbidden":
            faults.append(f"{where}: " + unknown_name("key", str(fault["loc"][-1]), _keys_at(model, fault["loc"][:-1])))
        elif fault["type"] == "missing":
            faults.append(f"{where} is missing.")
        elif fault["loc"][-1:] == ("url",):  # some people write keys into them
            faults.append(f"{where} is no address such as http://localhost:8000/v1, without names, keys and questions in it.")
        else:
            faults.append(f"{where}: {re.sub('^Value error, ', '', fault['msg'])} (found {str(fault['input'])[:60]!r}).")
    return f"{source}: " + " ".join(faults)


def _keys_at(model: type[Part], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the model knows at a place."""
    at: Any = model
    for step in loc:
        annotation = at.model_fields[step].annotation if isinstance(at, type) and issubclass(at, Part) and step in at.model_fields else at
        at = _part_in(annotation)
    return list(at.model_fields) if isinstance(at, type) and issubclass(at, Part) else []


def _part_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((part for part in map(_part_in, get_args(annotation)) if part is not None), None)
