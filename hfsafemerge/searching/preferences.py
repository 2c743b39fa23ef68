"""Preferences between the terms of a fitness, and where on the front between two of them something is missing."""

import itertools
from collections.abc import Mapping, Sequence, Set

import numpy as np

from hfsafemerge.searching import Candidate, is_domain
from hfsafemerge.searching.quadratic_models import Vector, vector

Preference = Mapping[str, float]
"""The factor of each term's mean in the number to maximise."""
SLIGHT = 0.02  # the weight of what a preference leaves aside, so that it is not lost for nothing


def value(candidate: Candidate, preference: Preference | None) -> float:
    """What the preference makes of a candidate."""
    return candidate.fitness if preference is None else sum(factor * candidate.terms[name].mean for name, factor in preference.items())


def slope_of(candidate: Candidate, preference: Preference | None) -> Vector:
    """The derivative of that with respect to each gene."""
    if preference is None:
        return vector(candidate.slope)
    found = np.zeros(len(candidate.slope))
    for name, factor in preference.items():
        found += factor * vector(candidate.terms[name].slope)
    return found


def axes_of(counts: Mapping[str, float]) -> dict[str, Preference]:
    """What is weighed against each other: safety, domain and benign, or the topics where there is nothing else."""
    kinds = {name: "domain" if is_domain(name) else name for name in counts}
    if len(set(kinds.values())) == 1:
        kinds = {name: name for name in counts}
    axes: dict[str, dict[str, float]] = {}
    for name in sorted(counts, key=lambda name: (kinds[name] == "benign", name)):
        axes.setdefault(kinds[name], {})[name] = counts[name]
    return {axis: {name: count / sum(each.values()) for name, count in each.items()} for axis, each in axes.items()}


def leaning(axes: Mapping[str, Preference], factors: Mapping[str, float]) -> Preference:
    """The one that has these factors for some axes, and a slight one for the others."""
    return {name: factor * factors.get(axis, SLIGHT) for axis, each in axes.items() for name, factor in each.items()}


def widest_gap(front: Sequence[Candidate], axes: Mapping[str, Preference], tried: Set[tuple[int, int]]) -> tuple[int, int] | None:
    """The numbers of the two neighbours on the front of the first two axes that are furthest apart, each axis by its range."""
    across, up = ([value(candidate, axis) for candidate in front] for axis in [*axes.values()][:2])
    places = list(zip(across, up, strict=True))
    best = [i for i, (a, b) in enumerate(places) if not any(c >= a and d >= b and (c, d) != (a, b) for c, d in places)]
    best.sort(key=lambda i: places[i])
    width, height = across[best[-1]] - across[best[0]], up[best[0]] - up[best[-1]]
    gaps = {
        (i, j): (across[j] - across[i]) / width + (up[i] - up[j]) / height for i, j in itertools.pairwise(best) if across[i] < across[j]
    }
    left = [pair for pair in gaps if pair not in tried]
    return max(left, key=lambda pair: gaps[pair], default=None)


def balance(one: Candidate, other: Candidate, axes: Mapping[str, Preference]) -> Preference:
    """The preference by which two candidates are equally good on the first two axes."""
    first, second = [*axes][:2]
    lost, won = (abs(value(one, axes[axis]) - value(other, axes[axis])) for axis in (first, second))
    return leaning(axes, {first: max(won / (lost + won), SLIGHT), second: max(lost / (lost + won), SLIGHT)})
