"""Merge methods: functions of tensors, and what their signatures say about them."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import Registry


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
    smooth: bool = True
    """Whether the result follows it without jumps, so that its derivative is that of the kernel. Of one that chooses entries it
    is the mean slope over a small step."""


def fraction(default: float, start: float, *, searched: bool = True, smooth: bool = True) -> Number:
    """A parameter in [0, 1]."""
    return Number(default, 0.0, 1.0, start, searched, smooth)


Shared = Annotated[Float[Tensor, ""], Scope.SHARED]
PerExpert = Annotated[Float[Tensor, "experts"], Scope.PER_EXPERT]
PerModel = Annotated[Float[Tensor, "models"], Scope.PER_MODEL]

INPUTS = {  # what a function of a method can ask for by naming it; all in float32 where nothing else is said
    "base": "the base's entries",
    "deltas": "each expert's entries minus the base's, stacked",
    "models": "the base's entries and each expert's, stacked",
    "chance": "for each expert and entry a random number in [0, 1), from the recipe's seed, the tensor's and the expert's name alone",
    "start": "the index of the first entry, counted over the whole tensor",
    "products": "inner products over the whole tensor of the base and the deltas with each other, in float64",
    "each_delta": "the deltas of the whole tensor, one expert after the other",
    "importance": "for each expert how important each entry of the whole tensor is to the base on the expert's data, and to the expert",
}


@dataclass(frozen=True)
class OfTensor:
    """Marks an argument that a function computes once from the whole tensor. The function asks for inputs and parameters itself."""

    function: Callable[..., Any]


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
class Step:
    """A function of a merge method, and what it asks for: inputs and parameters by name, options, and steps done before it."""

    function: Callable[..., Any]
    inputs: tuple[str, ...]
    parameters: tuple[Parameter, ...]
    options: tuple[Option, ...]
    before: Mapping[str, "Step"]

    @classmethod
    def of(cls, function: Callable[..., Any]) -> "Step":
        """Read a signature. Raises TypeError for an argument that is nothing a step can ask for."""
        inputs, parameters, options, before = [], [], [], {}
        hints = get_type_hints(function, include_extras=True)
        for argument in inspect.signature(function).parameters.values():
            hint = hints.get(argument.name)
            marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
            scope = next((mark for mark in marks if isinstance(mark, Scope)), None)
            earlier = next((mark for mark in marks if isinstance(mark, OfTensor)), None)
            if argument.name in INPUTS:
                inputs.append(argument.name)
            elif earlier is not None:
                before[argument.name] = cls.of(earlier.function)
            elif scope is not None:
                number = next((mark for mark in marks if isinstance(mark, Number)), Number())
                parameters.append(Parameter(argument.name, scope, number))
            elif argument.default is not inspect.Parameter.empty:
                options.append(Option(argument.name, hint, argument.default))
            else:
                name = f"{function.__name__}: {argument.name}"
                raise TypeError(f"{name} is neither an input ({', '.join(INPUTS)}) nor a parameter, an option or OfTensor.")
        return cls(function, tuple(inputs), tuple(parameters), tuple(options), before)

    @property
    def all_inputs(self) -> set[str]:
        """The inputs of this step and of those before it."""
        return set(self.inputs).union(*(step.all_inputs for step in self.before.values()))

    def all_parameters(self) -> dict[str, Parameter]:
        """The parameters of this step and of those before it, by name."""
        earlier = {name: p for step in self.before.values() for name, p in step.all_parameters().items()}
        return {p.name: p for p in self.parameters} | earlier

    def all_options(self) -> dict[str, Option]:
        """The options of this step and of those before it, by name."""
        earlier = {name: o for step in self.before.values() for name, o in step.all_options().items()}
        return {o.name: o for o in self.options} | earlier


Over = Literal["entries", "rows", "tensor"]


@dataclass(frozen=True)
class MergeMethod:
    """A merge method: its kernel, of what it may be given a part at a time, and what signatures say about it."""

    name: str
    paper: str
    experts: tuple[int, int | None]
    over: Over
    kernel: Step
    parameters: tuple[Parameter, ...]
    options: tuple[Option, ...]

    @property
    def description(self) -> str:
        """The kernel's docstring."""
        return inspect.getdoc(self.kernel.function) or ""

    @property
    def summary(self) -> str:
        """Its first line: the formula."""
        return self.description.splitlines()[0]

    def check_expert_count(self, count: int) -> None:
        """Raise RecipeError unless the method merges that many experts with the base."""
        low, high = self.experts
        if count < low or (high is not None and count > high):
            wanted = f"{low}" if high == low else f"{low} or more" if high is None else f"{low} to {high}"
            raise RecipeError(f"{self.name} merges the base with {wanted} expert(s); the recipe names {count}.")


MERGE_METHODS: Registry[MergeMethod] = Registry("merge method", "hfsafemerge.merge_methods")
Kernel = TypeVar("Kernel", bound=Callable[..., Tensor])


def merge_method(
    name: str, *, paper: str, experts: tuple[int, int | None] = (1, None), over: Over = "entries"
) -> Callable[[Kernel], Kernel]:
    """Register a kernel as a merge method. Its signature says all else: inputs by name, parameters and options by type.

    Args:
        name: the name in recipes.
        paper: where the method is from, "arXiv:..." or a URL.
        experts: the least and the largest number of experts, besides the base.
        over: what the kernel is called with. "entries": any run of entries, flat, as long as suits the processor's cache, so it
            treats each entry by itself (what depends on all of them is asked for with OfTensor); "rows": whole rows of a
            matrix; "tensor": the whole tensor.
    """

    def register(kernel: Kernel) -> Kernel:
        step = Step.of(kernel)
        parameters, options = tuple(step.all_parameters().values()), tuple(step.all_options().values())
        MERGE_METHODS.add(name, MergeMethod(name, paper, experts, over, step, parameters, options))
        return kernel

    return register
