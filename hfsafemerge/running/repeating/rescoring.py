"""Published scores and those measured again: every rate, and all that stands beside the rates in scores.json."""

from dataclasses import asdict, replace
from typing import Any, Literal

from hfsafemerge.card import percent
from hfsafemerge.errors import DataError
from hfsafemerge.evaluation import Item, Results, Score, build_results
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.repeating.agreeing import other_settings
from hfsafemerge.running.repeating.digesting import digest_of, of_items
from hfsafemerge.running.repeating.findings import Finding
from hfsafemerge.running.repeating.published import items_of, published_labels, published_results, published_scores
from hfsafemerge.running.repeating.rating import SLACK, Labels, close, rates, unmatched
from hfsafemerge.running.repeating.rebuilding import Rebuilt

SETTINGS = ("models", "reference", "margin", "candidates_tried", "benchmarks")  # which follow from no label
LOOSE = 0.02  # of numbers that resamples of hashed clusters, or a judge on another device, move
LOOSE_ONES = frozenset({"bootstrap95", "p_value", "p_adjusted", "p_unsafe", "harm"})
Basis = Literal["all", "labels", "settings"]  # what there is to compare scores.json by
NAMED = 8  # values of scores.json that are named; of the rest only the number is told
SAID: dict[Basis, str] = {
    "all": "the same rates, intervals, comparisons and categories",
    "labels": "rates, intervals and comparisons follow from the published labels",
    "settings": "the settings are alike; there are no labels to go by",
}


def rescored(run: Rebuilt, repo_id: str, commit: str) -> list[Finding]:
    """Every rate that was published or measured here, and whether the published scores.json holds what its labels say.

    Raises:
        HubError: what was published can't be fetched, or is damaged.
    """
    raw = published_scores(repo_id, commit)
    there, here, labels = published_results(raw, repo_id), Results.from_json(run.read(SCORES)), run.read(LABELS)
    here = replace(here, candidates_tried=_tried(run))
    found: list[Finding] = []
    locked, same = run.lock.scores.items, of_items(labels)
    items = published_labels(repo_id, commit)
    if digest_of(raw) != run.lock.scores.digest:
        found, items = [_changed(SCORES)], None  # items that may say another rate than the one to be compared explain nothing
    elif items is None:
        found = [Finding(LABELS, "missing", "", "differs", f"there is no {LABELS}, which every push puts beside the scores")]
    elif of_items({model: [asdict(item) for item in each] for model, each in items.items()}) != locked:
        found, items = [_changed(LABELS)], None
    for each in rates(there, here, items, items_of(labels)):
        again = same.get(each.model, {}).get(each.benchmark) == locked.get(each.model, {}).get(each.benchmark)
        replies = "all replies alike" if again else "some labels or replies differ"
        found.append(Finding(each.what, percent(asdict(each.a)), percent(asdict(each.b)), each.outcome, f"{each.said}, {replies}"))
    for (model, benchmark, metric, judge), (a, b) in unmatched(there, here).items():
        what = f"{model} on {benchmark}: {metric.replace('_', ' ')} ({judge})"
        found.append(Finding(what, _rate(a), _rate(b), "differs", f"measured {'there' if b is None else 'here'} alone"))
    if not there.scores and not here.scores:
        return [*found, Finding("scores", "no rates", "no rates", "differs", "nothing was measured, so there is nothing that could agree")]
    basis: Basis = "all" if same == locked else "settings" if items is None else "labels"
    expected = here if items is None or basis == "all" else _said_by(items, run.recipe, here)
    return [*found, _whole(there, expected, basis)]


def _tried(run: Rebuilt) -> int:
    """The candidates that the search of the lock tried, whether or not it was repeated."""
    return run.lock.search.candidates if Recipe.model_validate(run.lock.recipe).strategy.needs_data else 0


def _said_by(items: Labels, recipe: Recipe, here: Results) -> Results | str:
    """What published labels say, in the setting of what was found here; in words why they say nothing."""
    by: dict[str, dict[str, list[Item]]] = {model: {} for model in here.scores}
    for model, each in items.items():
        for item in each:
            by.setdefault(model, {}).setdefault(item.benchmark, []).append(item)
    try:
        return build_results(
            {model: by[model] for model in here.scores},
            [*recipe.benchmarks, *recipe.tasks],
            reference=here.reference,
            margin=here.margin,
            pairs=list(dict.fromkeys((each.model, each.other) for each in here.comparisons)),
            refs=here.models,
            sources={name: setup.source for name, setup in here.benchmarks.items()},
            judge_models={judge: model for setup in here.benchmarks.values() for judge, model in setup.judges.items()},
            calibrations={judge: errors.calibration() for judge, errors in recipe.evaluation.judge_errors.items()},
            candidates_tried=here.candidates_tried,
        )
    except (DataError, KeyError) as error:
        return f"its {LABELS} do not have what these benchmarks need: {error}"


def _whole(there: Results, expected: Results | str, basis: Basis) -> Finding:
    """Whether scores.json holds what is expected, but for the version that wrote it."""
    if isinstance(expected, str):
        return Finding("all of scores.json", "", "", "differs", expected)
    a, b = _told(there, basis), _told(expected, basis)
    other = {path: pair for path, pair in other_settings(a, b).items() if not close(*pair, _slack(path))}
    for name in there.benchmarks.keys() & expected.benchmarks.keys():  # what steered the merge is no part of what is measured again
        if missing := [note for note in expected.benchmarks[name].source.notes if note not in there.benchmarks[name].source.notes]:
            other[f"benchmarks.{name}.source.notes"] = (None, missing[0])
    said = [f"{path}: {x!r} there, {y!r} expected" for path, (x, y) in list(other.items())[:NAMED]]
    more = [f"and {len(other) - NAMED} more"] if len(other) > NAMED else []
    detail = "; ".join([*said, *more]) or SAID[basis]
    return Finding("all of scores.json", f"{len(other)} values differ" if other else "", "", "differs" if other else "identical", detail)


def _told(results: Results, basis: Basis) -> dict[str, Any]:
    """What is compared of scores.json. Labels are published without categories, so that rates by category follow from none."""
    found = results.to_json()
    for setup in found["benchmarks"].values():
        del setup["source"]["notes"]
    if basis == "settings":
        pairs = [[each[key] for key in ("benchmark", "metric", "model", "other", "margin")] for each in found["comparisons"]]
        return {key: found[key] for key in SETTINGS} | {"comparisons": pairs}
    del found["version"]
    for scores in found["scores"].values() if basis == "labels" else ():
        for each in scores:
            del each["categories"]
    return found


def _slack(path: str) -> float:
    return LOOSE if LOOSE_ONES & set(path.split(".")) else SLACK


def _rate(score: Score | None) -> str:
    return percent(asdict(score)) if score is not None else ""


def _changed(file: str) -> Finding:
    return Finding(file, "changed", "", "differs", f"the published {file} is not the one of the lock: it was changed after the push")
