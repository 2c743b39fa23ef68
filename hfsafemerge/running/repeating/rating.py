"""Rates in two places: identical, not told apart by this many items, or different."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from hfsafemerge.errors import DataError, HfSafeMergeError
from hfsafemerge.evaluation import Benchmark, Item, Results, Score, compare, holm
from hfsafemerge.lm_eval_tasks import JUDGE as TASK_JUDGE
from hfsafemerge.lm_eval_tasks import Task

LEVEL = 0.05
SLACK = 1e-9  # what the sum of the same numbers may differ by, where libraries add in another order
OF_LABELS = (
    "value", "n", "ci95", "better", "degenerate", "unclear", "truncated", "replies", "worst_case", "best_case", "samples", "worst_of_k",
)  # fmt: skip
Labels = Mapping[str, Sequence[Item]]
"""By model the items of all benchmarks, as labels.json has them."""
Outcome = Literal["identical", "not told apart", "differs"]
Key = tuple[str, str, str, str]
"""Model, benchmark, metric and judge: what a rate is told by."""


@dataclass(frozen=True)
class RateDifference:
    """One rate in two places."""

    model: str
    benchmark: str
    metric: str
    judge: str
    a: Score
    b: Score
    difference: float
    """The second less the first."""
    ci95: tuple[float, float]
    p_value: float | None
    """Of no difference, after Holm over all rates that are paired; null where items could not be paired."""
    test: str
    """alike (every label is), mcnemar, sign flips, intervals (Newcombe's, where items could not be paired), or numbers: what stands
    there does not follow from the labels, or is of another number of items."""
    outcome: Outcome

    @property
    def what(self) -> str:
        """Which rate it is, in words."""
        return f"{self.model} on {self.benchmark}: {self.metric.replace('_', ' ')} ({self.judge})"

    @property
    def said(self) -> str:
        """What the test says of it, in words."""
        if self.outcome == "identical":
            return "identical, all labels alike"
        if self.test == "numbers":
            return f"{', '.join(_other_numbers(self.a, self.b)) or 'value'} can't be of the same labels"
        within = f"within ±{100 * max(map(abs, self.ci95)):.1f} points at n = {self.b.n}"
        how = f"p = {self.p_value:.2g} ({self.test})" if self.p_value is not None else "items not paired"
        if self.outcome == "not told apart":
            return f"not told apart: {100 * self.difference:+.1f}, {within}, {how}"
        return f"{100 * self.difference:+.1f} ({100 * self.ci95[0]:+.1f} to {100 * self.ci95[1]:+.1f}) points, {how}"


def by_key(results: Results) -> dict[Key, Score]:
    """Every rate, by what it is told by."""
    return {(model, s.benchmark, s.metric, s.judge): s for model, scores in results.scores.items() for s in scores}


def unmatched(a: Results, b: Results) -> dict[Key, tuple[Score | None, Score | None]]:
    """The rates that one of them has alone."""
    mine, theirs = by_key(a), by_key(b)
    return {key: (mine.get(key), theirs.get(key)) for key in dict.fromkeys([*mine, *theirs]) if (key in mine) != (key in theirs)}


def rates(a: Results, b: Results, labels_a: Labels | None = None, labels_b: Labels | None = None) -> list[RateDifference]:
    """Every rate that both have: paired item by item where both have labels of the same items, by intervals else.

    Args:
        a: what was measured in one place.
        b: what was measured in the other.
        labels_a: the items of the one, where they are known.
        labels_b: those of the other.
    """
    others, found = by_key(b), []
    for (model, *names), score in by_key(a).items():
        if (other := others.get((model, *names))) is not None:  # type: ignore[arg-type] # four in all
            mine, theirs = (_items(labels, model, score) for labels in (labels_a, labels_b))
            found.append(_rate(model, benchmark_of(a, score), score, other, mine, theirs))
    paired = [i for i, each in enumerate(found) if each.p_value is not None]
    adjusted = holm([p for each in found if (p := each.p_value) is not None])
    for i, p_value in zip(paired, adjusted, strict=True):
        tested = found[i].test not in ("alike", "numbers")
        outcome: Outcome = "differs" if p_value < LEVEL else "not told apart"
        found[i] = replace(found[i], p_value=p_value, outcome=outcome if tested else found[i].outcome)
    return found


def _rate(model: str, benchmark: Benchmark, a: Score, b: Score, mine: Sequence[Item], theirs: Sequence[Item]) -> RateDifference:
    names, difference = (model, a.benchmark, a.metric, a.judge, a, b), b.value - a.value
    low = difference - math.hypot(b.value - b.ci95[0], a.ci95[1] - a.value)
    high = difference + math.hypot(b.ci95[1] - b.value, a.value - a.ci95[0])
    if (a.n, a.samples) != (b.n, b.samples):
        return RateDifference(*names, difference, (low, high), None, "numbers", "differs")
    if mine and theirs:
        if _alike(mine, theirs, a.judge):
            if _other_numbers(a, b):
                return RateDifference(*names, difference, (low, high), None, "numbers", "differs")
            return RateDifference(*names, difference, (0.0, 0.0), 1.0, "alike", "identical")
        try:
            paired = compare(benchmark, "second", theirs, "first", mine)
        except DataError:  # of other items
            pass
        else:
            if abs(paired.difference - difference) > SLACK:
                return RateDifference(*names, difference, (low, high), None, "numbers", "differs")
            return RateDifference(*names, difference, paired.ci95, paired.p_value, paired.test, "not told apart")
    return RateDifference(*names, difference, (low, high), None, "intervals", "not told apart" if low <= 0 <= high else "differs")


def _alike(mine: Sequence[Item], theirs: Sequence[Item], judge: str) -> bool:
    a, b = ({(item.example, item.sample): (item.labels[judge], item.finished) for item in items} for items in (mine, theirs))
    return a == b and len(mine) == len(theirs)


def _other_numbers(a: Score, b: Score) -> list[str]:
    """What of two scores differs that follows from labels alone."""
    mine, theirs = asdict(a), asdict(b)
    return [name for name in OF_LABELS if not close(mine[name], theirs[name])]


def close(a: Any, b: Any, slack: float = SLACK) -> bool:
    """Whether two JSON values are the same but for the last digits of their numbers."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(close(a[key], b[key], slack) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(close(x, y, slack) for x, y in zip(a, b, strict=True))
    if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool) and not isinstance(b, bool):
        return abs(a - b) <= slack
    return bool(a == b)


def benchmark_of(results: Results, score: Score) -> Benchmark:
    """The benchmark of a rate, with its judge as the only one."""
    setup = results.benchmarks[score.benchmark]
    if score.judge == TASK_JUDGE or setup.decoding is None:
        return Task(score.benchmark, setup.kind, (score.judge,))
    how = setup.decoding
    return Benchmark(score.benchmark, setup.kind, (score.judge,), how.max_new_tokens, how.temperature, how.samples, how.seed, how.system)


def results_in(found: Any) -> Results:
    """The results of a scores.json. Raises DataError for what is none, and for rates of what it does not describe."""
    results = Results.from_json(found)
    for model, scores in results.scores.items():
        seen = set()
        for score in scores:
            key = (score.benchmark, score.judge)
            place = f"scores.json: the rate of {model!r} on {score.benchmark!r} by {score.judge!r}"
            if score.benchmark not in results.benchmarks or score.judge not in results.benchmarks[score.benchmark].judges:
                raise DataError(f"{place} is of no benchmark or judge that it describes.")
            if key in seen:
                raise DataError(f"{place} stands there twice.")
            seen.add(key)
            try:
                metric = benchmark_of(results, score).metric(score.judge).name
            except HfSafeMergeError as error:
                raise DataError(f"{place} measures nothing: {error}") from error
            if metric != score.metric:
                raise DataError(f"{place} is called {score.metric!r}, and is {metric}.")
    return results


def _items(labels: Labels | None, model: str, score: Score) -> list[Item]:
    return [item for item in (labels or {}).get(model, []) if item.benchmark == score.benchmark and score.judge in item.labels]
