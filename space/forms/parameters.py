"""What merge methods and search strategies can be told, from their registrations: as fields of a form, and in words."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml

from hfsafemerge.errors import RecipeError
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES


@dataclass(frozen=True)
class Field:
    """One thing that can be set: what it is called, what may stand in it, and what holds where it is left empty."""

    name: str
    label: str
    help: str
    kind: Literal["number", "integer", "choice", "flag", "text"]
    default: Any
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


def fields_of_method(name: str) -> list[Field]:
    """The parameters and options of a merge method. Raises UnknownName."""
    method = MERGE_METHODS.get(name)
    numbers = []
    for p in method.parameters:
        high = p.number.high if math.isfinite(p.number.high) else None
        says = f"One for {p.scope.value}. " + (
            "Empty: the search chooses it." if p.number.searched else f"Empty: {p.number.default:g}, and never searched."
        )
        numbers.append(Field(p.name, _label(p.name), says, "number", None, p.number.low, high))
    return numbers + [_of_type(o.name, o.type, o.default) for o in method.options]


def fields_of_strategy(name: str) -> list[Field]:
    """The settings of a search strategy. Raises UnknownName."""
    return [_of_type(setting, hint, default) for setting, (hint, default) in SEARCH_STRATEGIES.get(name).settings.items()]


def as_written(field: Field) -> Field:
    """A number that may be left empty as text: the page's field for numbers shows 0 where it is empty, which means something else."""
    return replace(field, kind="text") if field.default is None and field.kind in ("number", "integer") else field


def changed(values: Mapping[str, Any], field: Field, entered: Any) -> dict[str, Any]:
    """The values with what was entered into a field; left empty or at its default it is left out.

    Raises:
        RecipeError: it is no YAML, for a field of text.
    """
    others = {name: value for name, value in values.items() if name != field.name}
    if field.kind == "text" and isinstance(entered, str):
        try:
            entered = yaml.safe_load(entered)
        except yaml.YAMLError as error:
            raise RecipeError(f"{field.name} is not plain YAML: {str(error).splitlines()[0]}. Write it as in the recipe.") from error
    if field.kind == "integer" and isinstance(entered, float) and entered.is_integer():
        entered = int(entered)
    return others if entered is None or entered in ("", field.default) else {**others, field.name: entered}


def shown(field: Field, values: Mapping[str, Any]) -> Any:
    """What stands in a field of a recipe that has these values; one of another kind than the field's as YAML."""
    value = values.get(field.name, field.default)
    if field.kind == "text" and value is not None:
        return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...")
    return value


def _of_type(name: str, hint: Any, default: Any) -> Field:
    """A setting by its type hint."""
    inner, low, high = _plain(hint)
    default = None if default is inspect.Parameter.empty else default
    says = (
        "Empty: the strategy's own choice."
        if default is None
        else f"By default {default if not isinstance(default, float) else f'{default:g}'}."
    )
    if inner is bool:
        return Field(name, _label(name), says, "flag", default)
    if get_origin(inner) is Literal:
        return Field(name, _label(name), says, "choice", default, choices=tuple(map(str, get_args(inner))))
    if inner in (int, float):
        return Field(name, _label(name), says, "integer" if inner is int else "number", default, low, high)
    return Field(name, _label(name), says + " Written as in the recipe.", "text", default)


def _plain(hint: Any) -> tuple[Any, float | None, float | None]:
    """A type without None and bounds, and the bounds."""
    low = high = None
    while True:
        if get_origin(hint) is Annotated:
            for mark in (inner for outer in get_args(hint)[1:] for inner in getattr(outer, "metadata", [outer])):
                low = getattr(mark, "ge", getattr(mark, "gt", low))
                high = getattr(mark, "le", getattr(mark, "lt", high))
            hint = get_args(hint)[0]
        elif get_origin(hint) is Union or type(hint).__name__ == "UnionType":
            rest = [each for each in get_args(hint) if each is not type(None)]
            if len(rest) != 1:
                return hint, low, high
            hint = rest[0]
        else:
            return hint, low, high


def _label(name: str) -> str:
    return name.strip("_").replace("_", " ")


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
