"""The search: ask, evaluate, tell, until the strategy is done; then choose among the best on data that none of them has seen."""

import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from hfsafemerge.errors import SearchError
from hfsafemerge.searching.candidates import Candidate, SearchLog
from hfsafemerge.searching.genes import Genome, Query
from hfsafemerge.searching.objectives import Objective, Terms
from hfsafemerge.searching.strategies import SearchStrategy


@dataclass(frozen=True)
class Measurement:
    """The terms of one candidate, the seconds they took, and where the experts were kept meanwhile."""

    terms: Terms
    seconds: float
    memory: str = ""


Evaluate = Callable[[Sequence[Query]], Generator[Measurement, None, None]]
"""Answers queries in their order; it may work on several at once."""


def one_by_one(measure: Callable[[Query], Terms], memory: Callable[[], str] = lambda: "") -> Evaluate:
    """An evaluation that answers one query after the other, in this process."""

    def evaluate(queries: Sequence[Query]) -> Generator[Measurement, None, None]:
        for query in queries:
            began = time.perf_counter()
            terms = measure(query)
            yield Measurement(terms, time.perf_counter() - began, memory())

    return evaluate


@dataclass(frozen=True)
class Finalist:
    """One of the best candidates: its number, its fitness on the data of the search, and that on the data set aside."""

    number: int
    fitness: float
    selection_fitness: float
    selection_error: float
    """The standard error of the latter: its spread over other draws of the examples."""


@dataclass(frozen=True)
class SearchResult:
    """What a search ends with: the genome, what it scores on all data of the search, and how many others were tried."""

    genome: Genome
    terms: Terms
    fitness: float | None
    error: float
    tried: int
    cost: float
    """In evaluations of all data of the search."""
    number: int
    """The candidate's, in search.jsonl."""
    finalists: Sequence[Finalist]
    """Those that were compared on the data set aside, in the order of their fitness; none when nothing was set aside."""


NOTHING_SEARCHED = SearchResult([], {}, None, 0.0, 0, 0.0, 0, ())


def search(
    strategy: SearchStrategy,
    evaluate: Evaluate,
    objective: Objective,
    log: Path,
    on_candidate: Callable[[Candidate, int], None] = lambda candidate, total: None,
    *,
    reference: Callable[[Query], Terms] = lambda query: {},
    finalists: int = 0,
    insist: bool = True,
) -> SearchResult:
    """Ask, evaluate, tell, until the strategy is done; then evaluate what it recommends.

    Every candidate is one line of `log`. Candidates that stand there already are not evaluated again, so a search that
    was killed goes on along the same trajectory.

    Args:
        strategy: what asks.
        evaluate: what answers.
        objective: what makes one number of an answer.
        log: search.jsonl.
        reference: for an objective with constraints what the aligned model scores on the examples of a query.
        on_candidate: told each candidate, and about how many there will be.
        finalists: how many of the fittest candidates are compared anew on the selection split; with 0 what the strategy recommends
            is taken as it is.
        insist: whether to fail when no candidate keeps the constraints, instead of taking the recommended one.

    Raises:
        SearchError: the log is of another search, a fitness is no finite number, or no candidate keeps the constraints.
    """
    tried: dict[tuple[float, ...], Candidate] = {}
    answered = 0
    cost = 0.0
    references: dict[tuple[str, float, int], Objective] = {}

    def against(query: Query) -> Objective:
        examples = (query.split, query.share, query.part)
        if examples not in references:
            constrained = objective.rule == "constrained"
            references[examples] = replace(objective, reference=reference(query)) if constrained else objective
        return references[examples]

    with SearchLog(log).opened() as written:

        def measure(queries: Sequence[Query]) -> list[Candidate]:
            nonlocal answered, cost
            found = []
            known = [written.known(answered + place, query) for place, query in enumerate(queries, 1)]
            asked = [query for query, candidate in zip(queries, known, strict=True) if candidate is None]
            with closing(evaluate(asked)) as new:  # when the user stops the search, those that wait are not evaluated
                for query, earlier in zip(queries, known, strict=True):
                    candidate = earlier or _candidate(answered + 1, query, next(new), against(query))
                    if earlier is None:
                        written.add(candidate)
                    answered += 1
                    cost += query.cost
                    found.append(candidate)
                    if candidate.whole:
                        tried.setdefault(tuple(candidate.genome), candidate)
                    on_candidate(candidate, strategy.total)
            return found

        while not strategy.done:
            strategy.tell(measure(strategy.ask()))
        genome = strategy.recommend()
        if not genome:  # nothing was searched, so there is nothing to measure
            return replace(NOTHING_SEARCHED, tried=answered)
        if tuple(genome) not in tried:
            measure([Query(genome)])
        chosen = _admitted(tried[tuple(genome)], tried.values(), insist)
        best: list[Finalist] = []
        if finalists:
            allowed = [candidate for candidate in tried.values() if candidate.admitted or candidate is chosen]
            ranked = sorted(allowed, key=lambda candidate: (candidate is not chosen, -candidate.fitness))[:finalists]
            again = measure([Query(candidate.genome, split="selection") for candidate in ranked])
            best = [Finalist(c.number, c.fitness, a.fitness, against(a.query).error(a.terms)) for c, a in zip(ranked, again, strict=True)]
            chosen = ranked[max(range(len(best)), key=lambda i: best[i].selection_fitness)]
    error = against(chosen.query).error(chosen.terms)
    return SearchResult(chosen.genome, chosen.terms, chosen.fitness, error, answered, cost, chosen.number, best)


def _candidate(number: int, query: Query, found: Measurement, objective: Objective) -> Candidate:
    slope = tuple(objective.slope(found.terms)) if query.with_slope else ()
    fitness = objective.fitness(found.terms)
    return Candidate(number, query, found.terms, fitness, slope, objective.admits(found.terms), found.seconds, found.memory)


def _admitted(recommended: Candidate, tried: Collection[Candidate], insist: bool) -> Candidate:
    """What is recommended, or the fittest candidate that keeps the constraints if it does not."""
    if recommended.admitted:
        return recommended
    admitted = [candidate for candidate in tried if candidate.admitted]
    if not admitted and insist:
        nearest = max(tried, key=lambda candidate: candidate.fitness)
        raise SearchError(
            f"None of the {len(tried)} candidates that were measured on all data keeps the constraint search.epsilon; candidate "
            f"{nearest.number} comes nearest. Allow a larger epsilon, take a strategy that measures more candidates on all data "
            f"(pareto, surrogate), or merge with this one all the same by search.pick: {nearest.number}."
        )
    return max(admitted or [recommended], key=lambda candidate: candidate.fitness)
