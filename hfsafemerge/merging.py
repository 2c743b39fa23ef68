"""Merge methods: pure functions of tensors, what their signatures ask for, and the driver that streams weights through one."""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter
from hfsafemerge.errors import CheckpointError, RecipeError
from hfsafemerge.registry import Registry, unknown_name


class Scope(Enum):
    """For what a parameter has a value of its own."""

    SHARED = "the merge"
    PER_EXPERT = "each expert"
    PER_MODEL = "the base and each expert"


@dataclass(frozen=True)
class Number:
    """A parameter's default, its bounds, and whether a search moves it and from where; `None` is 1 / (number of models)."""

    default: float = 1.0
    low: float = 0.0
    high: float = float("inf")
    start: float | None = None
    searched: bool = True


def fraction(default: float, start: float) -> Number:
    """A parameter in [0, 1]."""
    return Number(default, 0.0, 1.0, start)


Shared = Annotated[Float[Tensor, ""], Scope.SHARED]
PerExpert = Annotated[Float[Tensor, "experts"], Scope.PER_EXPERT]
PerModel = Annotated[Float[Tensor, "models"], Scope.PER_MODEL]

INPUTS = {  # what a method can ask for by naming it
    "base": "the base's tensor",
    "deltas": "each expert's tensor minus the base's, stacked",
    "models": "the base's tensor and each expert's, stacked",
    "generators": "one random generator for each expert, seeded by the recipe's seed, the tensor's and the expert's name",
}


@dataclass(frozen=True)
class Parameter:
    """A number that a merge is made with and a search can choose."""

    name: str
    scope: Scope
    number: Number


@dataclass(frozen=True)
class Option:
    """A choice of variant that is no number; never searched."""

    name: str
    type: Any
    default: bool | str | int


@dataclass(frozen=True)
class MergeMethod:
    """A merge method: its kernel, and what the kernel's signature says about it."""

    name: str
    paper: str
    experts: tuple[int, int | None]
    kernel: Callable[..., Tensor]
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    options: tuple[Option, ...]

    @property
    def summary(self) -> str:
        """The first line of the kernel's docstring: the formula."""
        return (inspect.getdoc(self.kernel) or "").splitlines()[0]

    def check_expert_count(self, count: int) -> None:
        """Raise RecipeError unless the method merges that many experts with the base."""
        low, high = self.experts
        if count < low or (high is not None and count > high):
            wanted = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
            raise RecipeError(f"{self.name} merges the base with {wanted} expert(s); the recipe names {count}.")


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method", "hfsafemerge.merge_methods")
Kernel = TypeVar("Kernel", bound=Callable[..., Tensor])


def merge_method(name: str, *, paper: str, experts: tuple[int, int | None] = (1, None)) -> Callable[[Kernel], Kernel]:
    """Register a kernel as a merge method. Its signature says all else: inputs by name, parameters and options by type.

    Args:
        name: the name in recipes.
        paper: where the method is from, "arXiv:..." or a URL.
        experts: the least and the largest number of experts, besides the base.
    """

    def register(kernel: Kernel) -> Kernel:
        inputs, parameters, options = [], [], []
        hints = get_type_hints(kernel, include_extras=True)
        for argument in inspect.signature(kernel).parameters.values():
            hint = hints.get(argument.name)
            marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
            scope = next((mark for mark in marks if isinstance(mark, Scope)), None)
            if argument.name in INPUTS:
                inputs.append(argument.name)
            elif scope is not None:
                number = next((mark for mark in marks if isinstance(mark, Number)), Number())
                parameters.append(Parameter(argument.name, scope, number))
            elif argument.default is not inspect.Parameter.empty:
                options.append(Option(argument.name, hint, argument.default))
            else:
                raise TypeError(f"{name}: {argument.name} is neither an input ({', '.join(INPUTS)}) nor a parameter nor an option.")
        MERGE_METHODS.add(name, MergeMethod(name, paper, experts, kernel, tuple(inputs), tuple(parameters), tuple(options)))
        return kernel

    return register


@dataclass(frozen=True)
class LayerGroups:
    """Which tensors share their parameters: `size` layers each, or all of them when `size` is 0.

    As in mergekit-evolve: what comes before the layers (embeddings) belongs to the first group, and what comes after
    them (final norm, output head) to the last.
    """

    layers: int
    size: int = 0

    @classmethod
    def of(cls, names: Iterable[str], size: int) -> "LayerGroups":
        """The groups of a model with these tensors."""
        return cls(1 + max((_layer(name) for name in names), default=-1), size)

    @property
    def count(self) -> int:
        """The number of groups."""
        return -(-self.layers // self.size) if self.size and self.layers else 1

    def group(self, tensor: str) -> int:
        """The group of a tensor, from 0."""
        layer = _layer(tensor)
        if self.count == 1 or (layer < 0 and re.search(r"embed|wte|wpe", tensor)):
            return 0
        return self.count - 1 if layer < 0 else layer // self.size


def _layer(tensor: str) -> int:
    found = re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", f".{tensor}")
    return int(found[1]) if found else -1


@dataclass(frozen=True)
class MergeParameters:
    """All numbers and options of one merge: `numbers[name][group]` lists one value a shared use, expert or model."""

    numbers: Mapping[str, Sequence[Sequence[float]]]
    options: Mapping[str, bool | str | int] = field(default_factory=dict)


def resolve_parameters(method: MergeMethod, given: Mapping[str, Any], models: Sequence[str], groups: int) -> MergeParameters:
    """The full parameters of a merge from what a recipe names; the rest takes its defaults.

    A number may be given once, as a list (one value an expert, or a model), as a mapping by name, or as a list of such
    lists (one for each group of layers).

    Args:
        method: the merge method.
        given: values by parameter or option name.
        models: the names of the base and the experts, in order.
        groups: the number of layer groups.

    Raises:
        RecipeError: an unknown name, a value out of bounds, or a wrong number of values.
    """
    known = {p.name: p for p in method.parameters} | {o.name: o for o in method.options}
    for name in given:
        if name not in known:
            raise RecipeError(unknown_name(f"parameter of {method.name}", name, known))
    numbers = {p.name: _resolve_number(method, p, given.get(p.name, p.number.default), models, groups) for p in method.parameters}
    return MergeParameters(numbers, {o.name: _resolve_option(method, o, given.get(o.name, o.default)) for o in method.options})


def names_in_scope(scope: Scope, models: Sequence[str]) -> list[str]:
    """For whom a parameter of that scope has values, by name."""
    return {Scope.SHARED: ["all"], Scope.PER_EXPERT: list(models[1:]), Scope.PER_MODEL: list(models)}[scope]


def _resolve_number(method: MergeMethod, parameter: Parameter, value: Any, models: Sequence[str], groups: int) -> list[list[float]]:
    wanted = names_in_scope(parameter.scope, models)
    where = f"{method.name}: {parameter.name}"
    if isinstance(value, Mapping):
        for name in value:
            if name not in wanted:
                raise RecipeError(f"{where}: " + unknown_name("model", str(name), wanted))
        value = [value.get(name, parameter.number.default) for name in wanted]
    rows = value if isinstance(value, list | tuple) and value and isinstance(value[0], list | tuple) else [value] * groups
    if len(rows) != groups:
        raise RecipeError(f"{where} lists values for {len(rows)} groups of layers; the merge has {groups}.")
    resolved = []
    for row in rows:
        entries = list(row) if isinstance(row, list | tuple) else [row] * len(wanted)
        if wrong := [entry for entry in entries if isinstance(entry, bool) or not isinstance(entry, int | float)]:
            raise RecipeError(f"{where} is {wrong[0]!r}; it must be a number.")
        values = [float(entry) for entry in entries]
        if len(values) != len(wanted):
            raise RecipeError(f"{where} has {len(values)} values; it needs {len(wanted)}, for {', '.join(wanted)}.")
        low, high = parameter.number.low, parameter.number.high
        if bad := [v for v in values if not low <= v <= high]:
            raise RecipeError(f"{where} is {bad[0]}; it must lie in [{low:g}, {high:g}].")
        resolved.append(values)
    return resolved


def _resolve_option(method: MergeMethod, option: Option, value: Any) -> Any:
    allowed = get_args(option.type) if get_origin(option.type) is Literal else None
    if (allowed is not None and value not in allowed) or (allowed is None and type(value) is not option.type):
        wanted = ", ".join(map(repr, allowed)) if allowed else option.type.__name__
        raise RecipeError(f"{method.name}: {option.name} is {value!r}; it must be {wanted}.")
    return value


@dataclass(frozen=True)
class TensorMerger:
    """Merges any one tensor: computes what the method asks for, in float32, and casts the result back once."""

    method: MergeMethod
    parameters: MergeParameters
    groups: LayerGroups
    experts: Sequence[str]
    seed: int

    def merge(self, name: str, base: Tensor, experts: Sequence[Tensor]) -> Tensor:
        """The merged tensor, in the base's dtype and on its device.

        Raises:
            CheckpointError: integer tensors that differ, or a result that is not finite.
        """
        if not base.is_floating_point():
            if any(not torch.equal(base, expert) for expert in experts):
                raise CheckpointError(f"{name} holds integers that differ between the models, so it can't be merged.")
            return base.clone()
        group = self.groups.group(name)
        numbers = {
            p.name: torch.tensor(self.parameters.numbers[p.name][group], device=base.device).reshape(() if p.scope is Scope.SHARED else -1)
            for p in self.method.parameters
        }
        merged = self.method.kernel(**self._inputs(name, base, experts), **numbers, **self.parameters.options)
        if not bool(torch.isfinite(merged).all()):
            raise CheckpointError(
                f"{name} came out with numbers that are not finite. One of the models holds NaN or Inf, or a weight is huge."
            )
        return merged.to(base.dtype)

    def _inputs(self, name: str, base: Tensor, experts: Sequence[Tensor]) -> dict[str, Any]:
        make: dict[str, Callable[[], Any]] = {
            "base": base.float,
            "deltas": lambda: torch.stack([expert.float() - base.float() for expert in experts]),
            "models": lambda: torch.stack([base.float(), *(expert.float() for expert in experts)]),
            "generators": lambda: [generator_for(self.seed, name, expert) for expert in self.experts],
        }
        return {asked: make[asked]() for asked in self.method.inputs}


def generator_for(seed: int, tensor: str, expert: str) -> torch.Generator:
    """A CPU generator that depends on the recipe's seed and on the two names alone, so the order of work changes nothing."""
    key = hashlib.sha256(f"{seed}\0{tensor}\0{expert}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:8], "little") >> 1)


def merge_checkpoints(
    merger: TensorMerger,
    base: Checkpoint,
    experts: Sequence[Checkpoint],
    writer: CheckpointWriter,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Stream every tensor of the base through the method: memory is bounded by the largest tensor, not by the model."""
    for done, name in enumerate(base.tensors, 1):
        writer.write(name, merger.merge(name, base.read(name), [expert.read(name) for expert in experts]))
        progress(done, len(base.tensors))
    writer.finish()
