"""Whether two runs came to the same: tensors, the way of a search, parameters, and rates."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hfsafemerge.checkpoint import Weights
from hfsafemerge.errors import DataError
from hfsafemerge.evaluation import Benchmark, Item, Results, compare, holm
from hfsafemerge.evaluation.scoring import Score
from hfsafemerge.lm_eval_tasks import JUDGE as TASK_JUDGE
from hfsafemerge.lm_eval_tasks import Task
from hfsafemerge.searching import Candidate

LEVEL = 0.05
Labels = Mapping[str, Sequence[Item]]
"""By model the items of all benchmarks, as labels.json has them."""


def other_entries(name: str, a: Weights, b: Weights) -> str:
    """How two tensors of one name differ, in words; nothing where every bit is the same."""
    if name not in a.tensors or name not in b.tensors:
        return "is in one of them alone"
    mine, theirs = a.tensors[name], b.tensors[name]
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return f"is {mine.dtype} {list(mine.shape)} and {theirs.dtype} {list(theirs.shape)}"
    x, y = a.read(name).flatten(), b.read(name).flatten()
    other = x.view(torch.uint8).reshape(len(x), -1).ne(y.view(torch.uint8).reshape(len(y), -1)).any(dim=1)
    if not other.any():
        return ""
    apart = (x[other].double() - y[other].double()).abs()
    largest = float(apart.max())
    relative = float((apart / torch.maximum(x[other].double().abs(), y[other].double().abs()).clamp(min=1e-45)).max())
    return f"{int(other.sum())} of {len(x)} elements differ, by at most {largest:.3g} ({relative:.2g} of the larger)"


def other_candidate(a: Sequence[Candidate], b: Sequence[Candidate]) -> str:
    """The first candidate that two searches do not share, in words; nothing where they went the same way."""
    for number, (x, y) in enumerate(zip(a, b, strict=False), 1):
        if x.query != y.query:
            genes = [i for i, (p, q) in enumerate(zip(x.genome, y.genome, strict=False), 1) if p != q]
            if len(x.genome) != len(y.genome):
                return f"candidate {number} has {len(x.genome)} genes and {len(y.genome)}"
            if not genes:
                return f"candidate {number} is asked about other data"
            by = max(abs(x.genome[i - 1] - y.genome[i - 1]) for i in genes)
            where = f"{len(genes)} of {len(x.genome)} genes"
            return f"candidate {number} differs in {where}, by at most {by:.3g}, the first being gene {genes[0]}"
        if x.fitness != y.fitness:
            return f"the fitness of candidate {number} is {x.fitness!r} and {y.fitness!r}, {abs(x.fitness - y.fitness):.3g} apart"
    return f"there are {len(a)} and {len(b)} candidates, the first {min(len(a), len(b))} alike" if len(a) != len(b) else ""


def other_settings(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """By dotted path, the values in which two JSON values differ; None stands for one that is in the other alone."""
    mine, theirs = dict(_leaves(a)), dict(_leaves(b))
    paths = dict.fromkeys([*mine, *theirs])
    return {path: (mine.get(path), theirs.get(path)) for path in paths if mine.get(path) != theirs.get(path)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else None
    if inner is None:
        yield path, value
        return
    for key, found in inner:
        yield from _leaves(found, f"{path}.{key}" if path else str(key))


@dataclass(frozen=True)
class RateDifference:
    """One rate in two places: by how much they differ, and whether that is more than chance."""

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
    """equal, mcnemar, sign flips, or intervals: Newcombe's for rates of different items, cautious where items are the same."""
    agrees: bool

    @property
    def what(self) -> str:
        """Which rate it is, in words."""
        return f"{self.model} on {self.benchmark}: {self.metric.replace('_', ' ')} ({self.judge})"

    @property
    def said(self) -> str:
        """What the test says of it, in words."""
        if self.difference == 0 and self.p_value in (None, 1.0):
            return "the same rate"
        by = f"{100 * self.difference:+.1f} ({100 * self.ci95[0]:+.1f} to {100 * self.ci95[1]:+.1f}) points"
        return f"{by}, p = {self.p_value:.2g} ({self.test})" if self.p_value is not None else f"{by}, items not paired"


def rates(a: Results, b: Results, labels_a: Labels | None = None, labels_b: Labels | None = None) -> list[RateDifference]:
    """Every rate that both have: paired item by item where both have labels of the same items, by intervals else.

    Args:
        a: what was measured in one place.
        b: what was measured in the other.
        labels_a: the items of the one, where they are known.
        labels_b: those of the other.
    """
    found = []
    for model, scores in a.scores.items():
        others = {(each.benchmark, each.judge): each for each in b.scores.get(model, [])}
        for score in scores:
            if (other := others.get((score.benchmark, score.judge))) is not None:
                benchmark = _benchmark(a, score)
                mine, theirs = (_items(labels, model, score) for labels in (labels_a, labels_b))
                found.append(_rate(model, benchmark, score, other, mine, theirs))
    paired = [i for i, each in enumerate(found) if each.p_value is not None]
    adjusted = holm([p for each in found if (p := each.p_value) is not None])
    for i, p_value in zip(paired, adjusted, strict=True):
        found[i] = replace(found[i], p_value=p_value, agrees=p_value >= LEVEL)
    return found


def _rate(model: str, benchmark: Benchmark, a: Score, b: Score, mine: Sequence[Item], theirs: Sequence[Item]) -> RateDifference:
    names = (model, a.benchmark, a.metric, a.judge, a, b)
    if mine and theirs:
        try:
            paired = compare(benchmark, "second", theirs, "first", mine)
        except DataError:  # of other items
            pass
        else:
            return RateDifference(*names, paired.difference, paired.ci95, paired.p_value, paired.test, paired.p_value >= LEVEL)
    difference = b.value - a.value
    low = difference - math.hypot(b.value - b.ci95[0], a.ci95[1] - a.value)
    high = difference + math.hypot(b.ci95[1] - b.value, a.value - a.ci95[0])
    same = (a.value, a.n) == (b.value, b.n)
    return RateDifference(*names, difference, (low, high), None, "equal" if same else "intervals", same or low <= 0 <= high)


def _benchmark(results: Results, score: Score) -> Benchmark:
    """The benchmark of a rate, with its judge as the only one."""
    setup = results.benchmarks[score.benchmark]
    if score.judge == TASK_JUDGE or setup.decoding is None:
        return Task(score.benchmark, setup.kind, (score.judge,))
    how = setup.decoding
    return Benchmark(score.benchmark, setup.kind, (score.judge,), how.max_new_tokens, how.temperature, how.samples, how.seed, how.system)


def _items(labels: Labels | None, model: str, score: Score) -> list[Item]:
    return [item for item in (labels or {}).get(model, []) if item.benchmark == score.benchmark and score.judge in item.labels]
