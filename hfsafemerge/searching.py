"""Search: genes and genomes, strategies that ask for candidates and are told their fitness, and the loop between them.

Nothing here knows of models or data: a candidate is a list of numbers, and whoever evaluates it says what its terms are.
"""

import inspect
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, get_type_hints, runtime_checkable

from pydantic import TypeAdapter, ValidationError

from hfsafemerge.errors import RecipeError, SearchError
from hfsafemerge.registry import Registry, unknown_name

Genome = list[float]


@dataclass(frozen=True)
class Gene:
    """One number that a search chooses: which parameter it is, for whom, in which group of layers, and its bounds."""

    parameter: str
    owner: str
    group: int
    start: float
    low: float
    high: float

    def clamp(self, value: float) -> float:
        """The nearest value within the bounds."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class TermScore:
    """The mean over `n` examples of the mean log-probability (nats a token) of their answers; at most 0."""

    mean: float
    n: int


Terms = Mapping[str, TermScore]


@dataclass(frozen=True)
class Objective:
    """The number to maximise: L_safety + alpha * L_expert over the kinds of data in `use` (arXiv:2406.14563, eq. 5).

    With `pooled` it is the mean over all examples alike, as LM-Cocktail weighs them (the same, eq. 3).
    """

    use: tuple[Literal["safety", "domain"], ...] = ("safety", "domain")
    alpha: float = 0.3
    pooled: bool = False

    def fitness(self, terms: Terms) -> float:
        """The fitness of what was measured, larger is better. Raises SearchError when it is no finite number."""
        if self.pooled:
            value = sum(terms[kind].mean * terms[kind].n for kind in self.use) / sum(terms[kind].n for kind in self.use)
        elif self.use == ("domain",):
            value = terms["domain"].mean
        else:
            value = sum(terms[kind].mean * (self.alpha if kind == "domain" else 1.0) for kind in self.use)
        if not math.isfinite(value):
            raise SearchError(f"The fitness came out as {value} from {dict(terms)}. A model or an example gives no finite likelihood.")
        return value


@runtime_checkable
class SearchStrategy(Protocol):
    """Asks for candidates, is told their fitness, and recommends one in the end.

    A strategy depends on its settings, its seed and what it was told alone: told the same again, it asks the same
    again, which is how a search that was killed goes on.
    """

    def ask(self) -> list[Genome]:
        """The next candidates to evaluate."""
        ...

    def tell(self, results: Sequence[tuple[Genome, float]]) -> None:
        """The fitness of each candidate that was asked for, in the same order."""
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
    """A registered strategy: how to make one, and what it needs."""

    name: str
    paper: str
    make: Callable[..., SearchStrategy]
    needs_data: bool
    pooled: bool
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
    name: str, *, paper: str = "", needs_data: bool = True, pooled: bool = False, methods: tuple[str, ...] = ()
) -> Callable[[Made], Made]:
    """Register a strategy class. Its constructor takes the genes and a seed, then its settings by keyword.

    Args:
        name: the name in recipes.
        paper: where it is from.
        needs_data: whether candidates have to be evaluated.
        pooled: whether all examples weigh alike, instead of L_safety + alpha * L_expert.
        methods: the merge methods it works with; none means any.
    """

    def register(cls: Made) -> Made:
        SEARCH_STRATEGIES.add(name, StrategyKind(name, paper, cls, needs_data, pooled, methods))
        return cls

    return register


@dataclass(frozen=True)
class Candidate:
    """One evaluated genome: what was measured, and its fitness."""

    number: int
    genome: Genome
    terms: Terms
    fitness: float
    seconds: float

    def to_json(self) -> str:
        """One line of search.jsonl."""
        terms = {name: {"mean": term.mean, "n": term.n} for name, term in self.terms.items()}
        return json.dumps(
            {"number": self.number, "genome": self.genome, "terms": terms, "fitness": self.fitness, "seconds": round(self.seconds, 4)}
        )

    @classmethod
    def from_json(cls, line: str) -> "Candidate":
        """The candidate of one line."""
        row = json.loads(line)
        row["terms"] = {name: TermScore(**term) for name, term in row["terms"].items()}
        return cls(**row)


@dataclass(frozen=True)
class SearchResult:
    """What a search ends with: the recommended genome, what it scores, and how many candidates were tried."""

    genome: Genome
    terms: Terms
    fitness: float | None
    tried: int


def search(
    strategy: SearchStrategy,
    evaluate: Callable[[Genome], Terms],
    objective: Objective,
    log: Path,
    on_candidate: Callable[[Candidate, int], None] = lambda candidate, total: None,
) -> SearchResult:
    """Ask, evaluate, tell, until the strategy is done; then evaluate what it recommends.

    Every candidate is one line of `log`. Candidates that stand there already are not evaluated again, so a search that
    was killed goes on along the same trajectory.

    Raises:
        SearchError: the log is of another search, or a fitness is no finite number.
    """
    known = _replay(log)
    count = 0
    with log.open("a") as file:

        def measure(genome: Genome) -> Candidate:
            nonlocal count
            count += 1
            candidate = next(known, None)
            if candidate is not None and candidate.genome != genome:
                raise SearchError(
                    f"{log} holds another search: its candidate {count} is not the one asked for. Delete the file to search anew."
                )
            if candidate is None:
                began = time.perf_counter()
                terms = evaluate(genome)
                candidate = Candidate(count, genome, terms, objective.fitness(terms), time.perf_counter() - began)
                file.write(candidate.to_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
            on_candidate(candidate, strategy.total)
            return candidate

        tried: dict[tuple[float, ...], Candidate] = {}
        while not strategy.done:
            asked = [measure(genome) for genome in strategy.ask()]
            tried |= {tuple(candidate.genome): candidate for candidate in asked}
            strategy.tell([(candidate.genome, candidate.fitness) for candidate in asked])
        genome = strategy.recommend()
        if not genome:  # nothing was searched, so there is nothing to measure
            return SearchResult(genome, {}, None, count)
        chosen = tried.get(tuple(genome)) or measure(genome)
    return SearchResult(genome, chosen.terms, chosen.fitness, count)


def _replay(log: Path) -> Iterator[Candidate]:
    """The candidates of an earlier search. A last line that a kill cut short is taken off the file."""
    if not log.exists():
        return iter(())
    text = log.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        log.write_text(whole)
    return iter([Candidate.from_json(line) for line in whole.splitlines()])
