"""Search strategies: how they ask and are told, and what a registered one says of itself."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, get_type_hints, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import Registry, unknown_name
from hfsafemerge.searching.candidates import Candidate
from hfsafemerge.searching.genes import Genome, Query
from hfsafemerge.searching.objectives import Rule

Measure = Literal["likelihood", "imitation"]


@runtime_checkable
class SearchStrategy(Protocol):
    """Asks for candidates, is told their fitness, and recommends one in the end.

    A strategy depends on its settings, its seed and what it was told alone: told the same again, it asks the same
    again, which is how a search that was killed goes on.
    """

    def ask(self) -> list[Query]:
        """The next candidates to evaluate."""
        ...

    def tell(self, results: Sequence[Candidate]) -> None:
        """What came of each query, in the order in which they were asked."""
        ...

    def recommend(self) -> Genome:
        """The genome to merge with."""
        ...

    @property
    def done(self) -> bool:
        """Whether to stop asking."""
        ...

    @property
    def total(self) -> int:
        """About how many candidates it will ask for in all."""
        ...


@dataclass(frozen=True)
class StrategyKind:
    """A registered strategy: how to make one, what it needs, and what it makes of what it is told."""

    name: str
    paper: str
    make: Callable[..., SearchStrategy]
    needs_data: bool
    needs_slopes: bool
    measure: Measure
    rule: Rule | None
    ranks: bool
    methods: tuple[str, ...]

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.make) or "").splitlines()[0]

    @property
    def settings(self) -> dict[str, tuple[Any, Any]]:
        """The settings by name: type and default."""
        hints = get_type_hints(self.make.__init__, include_extras=True)
        signature = inspect.signature(self.make)
        return {p.name: (hints[p.name], p.default) for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}

    def check(self, method: str, settings: Mapping[str, Any]) -> None:
        """Raise RecipeError unless the strategy works with the merge method, and the settings are those it knows, in type and bounds."""
        if self.methods and method not in self.methods:
            raise RecipeError(f"The strategy {self.name} works with {' or '.join(self.methods)}, not with {method!r}.")
        for name in settings:
            if name not in self.settings:
                raise RecipeError(unknown_name(f"setting of {self.name}", name, self.settings))
        for name, (hint, default) in self.settings.items():
            if name not in settings:
                if default is inspect.Parameter.empty:
                    raise RecipeError(f"The strategy {self.name} needs search.settings.{name}.")
                continue
            try:
                TypeAdapter(hint).validate_python(settings[name], strict=True)
            except ValidationError as error:
                fault = error.errors()[0]
                where = ".".join(map(str, (name, *fault["loc"])))
                raise RecipeError(f"search.settings.{where}: {fault['msg']} (found {str(fault['input'])[:60]!r}).") from error


SEARCH_STRATEGIES: Registry[StrategyKind] = Registry("search strategy", "hfsafemerge.search_strategies")
Made = TypeVar("Made", bound=type)


def search_strategy(
    name: str,
    *,
    paper: str = "",
    needs_data: bool = True,
    needs_slopes: bool = False,
    measure: Measure = "likelihood",
    rule: Rule | None = None,
    ranks: bool = True,
    methods: tuple[str, ...] = (),
) -> Callable[[Made], Made]:
    """Register a strategy class. Its constructor takes the genes and a seed, then its settings by keyword.

    Args:
        name: the name in recipes.
        paper: where it is from.
        needs_data: whether candidates have to be evaluated.
        needs_slopes: whether it asks for the derivatives of the terms.
        measure: what is measured of a candidate: the likelihood of the data's answers, or how well it imitates each expert.
        rule: the objective it always has; None leaves it to the recipe.
        ranks: whether it recommends the fittest candidate, so that the best few can be compared anew on the selection split.
        methods: the merge methods it works with; none means any.
    """

    def register(cls: Made) -> Made:
        SEARCH_STRATEGIES.add(name, StrategyKind(name, paper, cls, needs_data, needs_slopes, measure, rule, ranks, methods))
        return cls

    return register
