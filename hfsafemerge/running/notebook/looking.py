"""What a run has found, for whoever looks at it from Python: scores, parameters, candidates, plots and the card."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from hfsafemerge._card_plot import category_rows, plot_alignment, plot_categories, plot_refusals, points_of, refusal_rows
from hfsafemerge._card_results import tables, tried_in_words
from hfsafemerge._search_plot import plot_search
from hfsafemerge.errors import RunError
from hfsafemerge.evaluation import Results
from hfsafemerge.merging import names_in_scope
from hfsafemerge.registry import unknown_name
from hfsafemerge.running.evaluating import SCORES
from hfsafemerge.running.events import clock
from hfsafemerge.running.notebook.showing import Markdown, Plot, Table, plain_table
from hfsafemerge.running.publishing.handing import published
from hfsafemerge.running.searching import FRONT, LOG, PARAMETERS
from hfsafemerge.searching import Candidate, read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

CARD = "card.md"
RATES = "Rates in percent with their 95% intervals; n is the number of different prompts."


@dataclass(frozen=True, repr=False, kw_only=True)
class Scores(Table):
    """What was measured: a row for each rate of each model, fractions in [0, 1]."""

    results: Results
    """The same with all that is needed to doubt it: comparisons, judges, agreement, decoding."""


def scores_of(run: "Run") -> Scores:
    """The rates of all models with their intervals. Raises RunError before they are measured."""
    require_done(run, "evaluate")
    results = Results.from_json(run.read(SCORES))
    rows = [
        {
            "model": model,
            "benchmark": score.benchmark,
            "metric": score.metric,
            "judge": score.judge,
            "value": score.value,
            "low": score.ci95[0],
            "high": score.ci95[1],
            "n": score.n,
            "better": score.better,
        }
        for model, found in results.scores.items()
        for score in found
    ]
    models = list(results.scores)
    cells = [
        (rate["benchmark"], rate["metric"], rate["better"], rate["judge"], str(rate["n"]), *(rate["cells"].get(m, "") for m in models))
        for rate in tables(results)["rates"]
    ]
    head = ("benchmark", "metric", "better", "judge", "n", *models)
    notes = (RATES, tried_in_words(results.candidates_tried))
    return Scores(title=f"Scores of {run.recipe.name}", rows=tuple(rows), head=head, cells=tuple(cells), notes=notes, results=results)


def parameters_of(run: "Run") -> Table:
    """The numbers of the merge, a row for each. Raises RunError before they are chosen."""
    require_done(run, "search")
    found, scopes = run.read(PARAMETERS), {parameter.name: parameter.scope for parameter in run.recipe.method.parameters}
    rows = [
        {"parameter": name, "group": group, "model": model, "value": value}
        for name, groups in found["numbers"].items()
        for group, values in enumerate(groups)
        for model, value in zip(names_in_scope(scopes[name], run.recipe.models), values, strict=True)
    ]
    notes = ["A group is a run of layers, counted from 0, the nearest to the input."]
    notes += [f"{name}: {value}" for name, value in found["options"].items()]
    return plain_table(f"Parameters of {run.recipe.name}, merged by {found['method']}", rows, notes)


def candidates_of(run: "Run") -> Table:
    """All candidates of the search, the fittest shown first, with its plot; also of one that failed. Raises RunError without a search."""
    log = run.directory / LOG
    candidates = read_candidates(log) if log.exists() else []
    if not candidates:
        raise RunError(f"{run.directory} has no candidates: nothing was searched there" + (", yet." if not run.is_done("search") else "."))
    order = sorted(candidates, key=lambda candidate: (candidate.whole, candidate.fitness), reverse=True)
    rows = [
        {
            "candidate": candidate.number,
            "fitness": candidate.fitness,
            **{name: term.mean for name, term in candidate.terms.items()},
            "admitted": candidate.admitted,
            "whole": candidate.whole,
            "seconds": candidate.seconds,
        }
        for candidate in order
    ]
    notes = ["Log-probabilities in nats a token. Only candidates that are whole were measured on all data of the search."]
    return plain_table(f"Candidates of {run.recipe.name}", rows, notes, partial(_search_plot, candidates))


def front_of(run: "Run") -> Table:
    """The candidates that none beats in every term, with the plot of the search. Raises RunError without a search."""
    require_done(run, "search")
    if not run.recipe.strategy.needs_data:
        raise RunError(f"{run.recipe.strategy.name} searches nothing, so there is no front. The recipe's search.strategy names another.")
    rows = [{"candidate": point["number"], "fitness": point["fitness"], **point["terms"]} for point in run.read(FRONT)]
    taken = run.read(PARAMETERS)["search"]["number"]
    notes = [f"Candidate {taken} is merged; search.pick in the recipe names another."]
    return plain_table(f"Front of {run.recipe.name}", rows, notes, partial(_search_plot, read_candidates(run.directory / LOG)))


def plots_of(run: "Run") -> dict[str, Callable[[], Plot]]:
    """What can be drawn of a run as far as it is, by name."""
    found: dict[str, Callable[[], Plot]] = {}
    if run.is_done("evaluate"):
        scores = run.read(SCORES)["scores"]
        if panels := points_of(scores):
            found["alignment"] = partial(_drawn, "Alignment against domain skill", partial(plot_alignment, panels))
        if refusal_rows(scores):
            found["refusals"] = partial(_drawn, "Over-refusal against attack success", partial(plot_refusals, scores))
        if category_rows(scores):
            found["categories"] = partial(_drawn, "Rates by category", partial(plot_categories, scores))
    log = run.directory / LOG
    if log.exists() and (candidates := read_candidates(log)):
        found["search"] = partial(_search_plot, candidates)
    return found


def plot_of(run: "Run", name: str | None) -> Plot:
    """A plot by name, or the first that there is. Raises RunError where there is none."""
    there = plots_of(run)
    if not there:
        raise RunError(f"There is nothing to plot in {run.directory}: neither a search nor an evaluation is done.")
    if name is not None and name not in there:
        raise RunError(unknown_name("plot of this run", name, there))
    return there[name or next(iter(there))]()


def card_of(run: "Run") -> Markdown:
    """The card as it was published. Raises RunError before that."""
    require_done(run, "push")
    return Markdown((run.directory / CARD).read_text())


def html_of(run: "Run") -> str:
    """A run as a notebook shows it: its stages, its scores, and where it was published."""
    stages = "".join(f"<tr><td>{escape(stage)}</td><td>{clock(seconds)}</td></tr>" for stage, seconds in run.seconds().items())
    parts = [f"<p><b>{escape(run.recipe.name)}</b> in <code>{escape(str(run.directory))}</code></p><table>{stages}</table>"]
    if run.is_done("evaluate"):
        parts.append(scores_of(run)._repr_html_())
    if run.is_done("push"):
        parts.append(published(run)._repr_html_())
    return "".join(parts)


def require_done(run: "Run", stage: str) -> None:
    """Raise RunError where a stage is not done for the run's recipe."""
    if not run.is_done(stage):
        raise RunError(f"{stage} is not done in {run.directory} for this recipe, or was done by another version. Call run.do({stage!r}).")


def _search_plot(candidates: Sequence[Candidate]) -> Plot:
    whole = [candidate for candidate in candidates if candidate.whole]

    def draw(files: Sequence[Path]) -> None:
        for file in files:
            plot_search(whole, file)

    return _drawn("The search", draw)


def _drawn(title: str, draw: Callable[[Sequence[Path]], None]) -> Plot:
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as folder:
        png, svg = Path(folder) / "plot.png", Path(folder) / "plot.svg"
        draw([png, svg])
        return Plot(title, png.read_bytes(), svg.read_text())
