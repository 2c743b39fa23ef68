"""A merge that was made, as YAML with which mergekit makes it too."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import yaml

from hfsafemerge.errors import RecipeError
from hfsafemerge.mergekit.equivalents import Made, in_mergekits_terms
from hfsafemerge.mergekit.facts import METHODS
from hfsafemerge.mergekit.references import write_reference
from hfsafemerge.mergekit.settings import names_a_layer, write_setting
from hfsafemerge.mergekit.tokenizers import write_tokenizer
from hfsafemerge.recipe import Recipe

Layers = Mapping[str, tuple[int, int]]
Commits = Mapping[str, str | None]


def to_mergekit(
    recipe: Recipe,
    chosen: Mapping[str, Any],
    *,
    out_dtype: str | None = None,
    commits: Commits = MappingProxyType({}),
    adapter_commits: Commits = MappingProxyType({}),
) -> str:
    """The YAML with which mergekit makes what the recipe and the chosen parameters made; its defaults are left out.

    Where both draw at random (DARE, DELLA) the numbers drawn differ, and so does how they are rescaled.

    Args:
        recipe: the recipe.
        chosen: the method, its numbers and options, and the groups of layers, as parameters.json has them.
        out_dtype: the dtype that was written, where the recipe leaves it to the base; mergekit then computes in float32 too.
        commits: the commits of models of the Hub, by name.
        adapter_commits: those of their adapters.

    Raises:
        RecipeError: mergekit has no such method, or no word for something in the recipe; the reason is a sentence for the user.
    """
    try:
        found = _configuration(recipe, chosen, commits, adapter_commits) | _dtypes(recipe.merge.out_dtype or out_dtype)
    except ValueError as error:
        raise RecipeError(f"mergekit can't make this merge: {error}.") from error
    return yaml.dump(found, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=140)


def _configuration(recipe: Recipe, chosen: Mapping[str, Any], commits: Commits, adapter_commits: Commits) -> dict[str, Any]:
    def reference(name: str) -> Any:
        return write_reference(recipe.model(name), commits.get(name), adapter_commits.get(name))

    made = in_mergekits_terms(recipe, chosen)
    stacks = _stacks(recipe, chosen, made.models)
    parameters = _Parameters(made, stacks, moved=bool(recipe.merge.slices))
    found: dict[str, Any] = {"merge_method": made.method}
    if METHODS[made.method].base != "optional" or made.base:
        found["base_model"] = reference("base")
    if stacks:
        found["slices"] = [
            {"sources": [{"model": reference(name), "layer_range": list(layers[name])} | parameters.of_model(name, at) for name in layers]}
            | parameters.of_merge(at, everywhere=False)
            for at, layers in enumerate(stacks)
        ]
    else:
        listed = made.models[1:] if made.base else made.models
        found["models"] = [{"model": reference(name)} | parameters.of_model(name, 0) for name in listed]
    return found | parameters.of_merge(0, everywhere=True) | write_tokenizer(recipe, reference)


def _stacks(recipe: Recipe, chosen: Mapping[str, Any], models: Sequence[str]) -> list[Layers]:
    """The layers that each slice takes of each model; none where all of them are made alike."""
    if recipe.merge.slices:
        return [spec.layers for spec in recipe.merge.slices]
    if "chunks" in chosen["groups"]:
        raise ValueError("numbers for each tensor are not written in its YAML")
    layers, size = chosen["groups"]["layers"], chosen["groups"]["size"]
    if not size or layers <= size:
        return []
    return [dict.fromkeys(models, (first, min(first + size, layers))) for first in range(0, layers, size)]


@dataclass(frozen=True)
class _Parameters:
    """The parameters of a merge, each in its place."""

    made: Made
    stacks: Sequence[Layers]
    moved: bool
    """Whether the slices are the recipe's own, and may put layers elsewhere; else they are but groups of layers."""

    def of_model(self, name: str, at: int) -> dict[str, Any]:
        """Those of a model in a slice."""
        found = {}
        for setting, known in METHODS[self.made.method].settings.items():
            by_owner = self.made.numbers.get(known.ours or setting, {})
            values = by_owner.get(name, by_owner.get("all"))
            if known.per != "merge" and values is not None and values[at] != known.default:
                found[setting] = self._written(f"{setting} of {name}", values[at], self._shift(name, at))
        return {"parameters": found} if found else {}

    def of_merge(self, at: int, *, everywhere: bool) -> dict[str, Any]:
        """Those that all models share: of the whole merge, or of a slice that has its own."""
        found = {}
        for setting, known in METHODS[self.made.method].settings.items():
            ours = known.ours or setting
            if known.per == "merge" and ours in self.made.numbers:
                values = self.made.numbers[ours]["all"]
                if everywhere == all(value == values[0] for value in values) and (not everywhere or values[0] != known.default):
                    found[setting] = self._written(setting, values[at], 0)
            elif everywhere and ours in self.made.options and self.made.options[ours] != known.default:
                found[setting] = self.made.options[ours]
        return {"parameters": found} if found else {}

    def _shift(self, name: str, at: int) -> int:
        before = sum(end - first for layers in self.stacks[:at] for first, end in [next(iter(layers.values()))])
        return self.stacks[at][name][0] - before if self.stacks else 0

    def _written(self, where: str, value: Any, shift: int) -> Any:
        if isinstance(value, Mapping):
            if self.stacks and not self.moved and "gradient" in str(value):
                raise ValueError(f"{where} is a gradient over the whole model, which has no place beside groups of layers")
            if shift and names_a_layer(value):
                raise ValueError(f"{where} has a filter that names a layer, and the slices move it")
        return write_setting(value)


def _dtypes(written: str | None) -> dict[str, str]:
    return {} if written is None else {"dtype": "float32"} | ({} if written == "float32" else {"out_dtype": written})


class _Dumper(yaml.SafeDumper):
    """YAML without aliases, which our own reader refuses."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
