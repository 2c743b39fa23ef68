"""The stage search: the merge parameters, as the recipe gives them or as a search over the data finds them."""

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge._search_plot import plot_search
from hfsafemerge.errors import RunError, SearchError
from hfsafemerge.live_merge import decode
from hfsafemerge.merging import Groups, MergeParameters
from hfsafemerge.running.candidates import evaluator, genes, groups_of, stored_groups
from hfsafemerge.running.executing import executor
from hfsafemerge.searching import NOTHING_SEARCHED, Candidate, Genome, Query, SearchResult, pareto_front, read_candidates
from hfsafemerge.searching import search as run_search

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

PARAMETERS, LOG, FRONT, PLOT = "parameters.json", "search.jsonl", "front.json", "search.svg"
FINALISTS = 5  # compared on the data that were set aside
REDRAWN = 5.0  # seconds between two drawings of the plot


def search(run: "Run") -> None:
    """Write parameters.json; of a search also search.jsonl with a candidate a line, front.json and search.svg."""
    groups = groups_of(run)
    if run.recipe.strategy.needs_data:
        parameters, found = _search(run, groups)
    else:
        parameters, found = run.recipe.parameters(groups.count), asdict(NOTHING_SEARCHED)
        (run.directory / LOG).write_text("")
    run.write(PARAMETERS, _stored(run, parameters, groups) | {"search": found | {"recommended": found["number"]}})


def choose(run: "Run") -> dict[str, Any]:
    """The parameters to merge with: those of the recommended candidate, or of the one that search.pick names.

    Raises:
        RunError: the search has no such candidate, or it was not measured on all data of the search.
    """
    chosen: dict[str, Any] = run.read(PARAMETERS)
    wanted = run.recipe.search.pick or chosen["search"]["recommended"]
    if wanted == chosen["search"]["number"]:
        return chosen
    candidates = read_candidates(run.directory / LOG)
    if wanted > len(candidates) or not candidates[wanted - 1].whole:
        what = f"has {len(candidates)} candidates" if wanted > len(candidates) else "did not measure that one on all of its data"
        raise RunError(f"search.pick is {wanted}; the search in {run.directory / LOG} {what}. {FRONT} lists the best ones.")
    taken, groups = candidates[wanted - 1], stored_groups(chosen["groups"])
    if not taken.admitted:
        run.emit(f"candidate {wanted} breaks the constraint search.epsilon")
    found = {
        "genome": taken.genome,
        "terms": {name: asdict(term) for name, term in taken.terms.items()},
        "fitness": taken.fitness,
        "error": run.recipe.objective.error(taken.terms) if run.recipe.objective.rule != "constrained" else None,
        "number": wanted,
    }
    chosen |= _stored(run, _parameters(run, groups, taken.genome), groups) | {"search": chosen["search"] | found}
    run.write(PARAMETERS, chosen)
    return chosen


def _stored(run: "Run", parameters: MergeParameters, groups: Groups) -> dict[str, Any]:
    """The parameters of a merge as parameters.json holds them."""
    return {
        "method": run.recipe.merge.method,
        "groups": asdict(groups),
        "numbers": parameters.numbers,
        "options": parameters.options,
    }


def _parameters(run: "Run", groups: Groups, genome: Genome) -> MergeParameters:
    recipe = run.recipe
    return decode(recipe.method, genes(run, groups), genome, recipe.models, groups.count, recipe.merge.parameters)


def _search(run: "Run", groups: Groups) -> tuple[MergeParameters, dict[str, Any]]:
    recipe = run.recipe
    log = run.work("search") / LOG
    try:
        result = _searched(run, groups, log)
    finally:
        if log.exists():  # also of a search that failed, to be looked at
            shutil.copyfile(log, run.directory / LOG)
    whole = [candidate for candidate in read_candidates(log) if candidate.whole]
    run.write(FRONT, [_point(whole[at]) for at in pareto_front([candidate.terms for candidate in whole])])
    plot_search(whole, run.directory / PLOT)
    found = asdict(result)
    if recipe.search.deltas != "exact":  # candidates were made of rounded task vectors, and what is written is not
        found |= _exactly(run, groups, result)
    return _parameters(run, groups, result.genome), found


def _searched(run: "Run", groups: Groups, log: Path) -> SearchResult:
    """The search itself. All that it has loaded is gone when it returns."""
    recipe, spec = run.recipe, run.recipe.search
    strategy = recipe.strategy.make(genes(run, groups), recipe.seed, **spec.settings)
    finalists = (FINALISTS if recipe.strategy.ranks else 1) if spec.selection else 0
    with executor(run, groups) as who:
        return run_search(
            strategy,
            who.evaluate,
            recipe.objective,
            log,
            _teller(run),
            reference=who.reference,
            finalists=finalists,
            insist=spec.pick is None,
        )


def _exactly(run: "Run", groups: Groups, result: SearchResult) -> dict[str, Any]:
    """What the recommended genome scores with exact task vectors. Raises SearchError when it does not keep the constraints."""
    query = Query(result.genome)
    with evaluator(run, groups, exact=True) as exactly:
        terms = exactly(query)
        constrained = run.recipe.objective.rule == "constrained"
        objective = replace(run.recipe.objective, reference=exactly.reference(query) if constrained else {})
    if not objective.admits(terms) and run.recipe.search.pick is None:
        raise SearchError("With exact task vectors the recommended candidate breaks search.epsilon. Set search.deltas to exact.")
    scored = {name: asdict(term) for name, term in terms.items()}
    return {"terms": scored, "fitness": objective.fitness(terms), "error": objective.error(terms)}


def _point(candidate: Candidate) -> dict[str, Any]:
    """A point of the front, as front.json has it."""
    terms = {name: term.mean for name, term in candidate.terms.items()}
    return {"number": candidate.number, "terms": terms, "fitness": candidate.fitness, "genome": candidate.genome}


def _teller(run: "Run") -> Callable[[Candidate, int], None]:
    """Tells every candidate to the run's listener, and draws the plot anew from time to time."""
    whole: list[Candidate] = []
    drawn = time.monotonic()

    def tell(candidate: Candidate, total: int) -> None:
        nonlocal drawn
        if candidate.whole:
            whole.append(candidate)
        best = max((each.fitness for each in whole), default=candidate.fitness)
        terms = ", ".join(f"{name} {term.mean:.3f}" for name, term in candidate.terms.items())
        if whole and time.monotonic() - drawn > REDRAWN:
            plot_search(whole, run.directory / PLOT)
            drawn = time.monotonic()
        run.emit(f"fitness {candidate.fitness:.4f} ({terms}), best {best:.4f}, candidate", candidate.number, max(total, candidate.number))

    return tell
