"""Pareto search: the best that can be had of one term for every amount of another."""

from collections.abc import Generator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hfsafemerge.searching import Candidate, Gene, Genome, Query, search_strategy
from hfsafemerge.searching.preferences import Preference, axes_of, balance, leaning, slope_of, value, widest_gap
from hfsafemerge.searching.quadratic_models import Curvature, Vector, dot, gain, lowest, vector
from hfsafemerge.searching.stepwise import Steps, Stepwise

SETTLED = 1e-3  # steps towards a preference end when the next promises less than this share of what the first one did
FIRST = 3  # times as many steps for the first preference, which has the curvature to learn


@search_strategy("pareto", needs_slopes=True)
class Pareto(Stepwise):
    """Sweeps the preference between safety and domain, so that the candidates hold a well-spread Pareto front.

    It first climbs the fitness, then each end of the front, then wherever two neighbours on it are furthest apart, with the
    preference that has both of them equally good (the noninferior set estimation of Cohen, Church and Sheer 1979); a term such as
    benign has one preference of its own. All steps see the same part of the data, whose slopes are corrected by how much they
    differ from those of all data at one point (as in Johnson and Zhang 2013). What the steps teach of the curvature of each term
    holds for every preference, and each starts from the candidate that is best by it, so a few steps do. What they lead to is
    evaluated on all data. The fittest of that is recommended; the others are for whoever wants another balance.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        preferences: Annotated[int, Field(ge=3)] = 10,
        steps: Annotated[int, Field(ge=1)] = 3,
        share: Annotated[float, Field(gt=0, le=1)] = 1 / 8,
        radius: Annotated[float, Field(gt=0)] = 0.25,
    ) -> None:
        """Start at the genes' start values.

        Args:
            genes: what to search.
            seed: which part of the data the steps see.
            preferences: how many candidates are evaluated on all data, at most.
            steps: the most steps to each, and three times as many to the first; a step costs three times `share` evaluations.
            share: the share of the data that steps see, in (0, 1].
            radius: the furthest that a gene moves in a step.
        """
        self._low, self._high = vector(gene.low for gene in genes), vector(gene.high for gene in genes)
        self._start = [gene.clamp(gene.start) for gene in genes]
        self._count, self._most, self._radius = preferences, steps, radius
        self._share, self._part = share, seed % max(1, round(1 / share))
        self._anchor: tuple[Candidate, Candidate] | None = None
        self._fitness_curvature = Curvature()
        self._curvature: dict[str, Curvature] = {}
        self._seen: list[Candidate] = []
        super().__init__(self._run(), 1 + preferences * (steps + 1) + (FIRST - 1) * steps)

    def _run(self) -> Steps:
        self._seen += yield [self._query(self._start)]
        terms = self._seen[0].terms
        self._curvature = {name: Curvature() for name in terms}
        axes = axes_of({name: float(term.n) for name, term in terms.items()})
        part = yield from self._climb(None, FIRST * self._most)
        front = [*(yield [Query(part.genome, with_slope=True)])]
        self._anchor = (front[0], part)
        towards: list[Preference | None] = [None, *(leaning(axes, {axis: 1.0}) for axis in axes if len(axes) > 1)]
        for preference in towards[: self._count - 1]:
            part = yield from self._climb(preference, self._most)
            front += yield [Query(part.genome)]
        tried: set[tuple[int, int]] = set()
        while len(axes) > 1 and len(front) < self._count and (gap := widest_gap(front, axes, tried)):
            tried.add(gap)
            part = yield from self._climb(balance(front[gap[0]], front[gap[1]], axes), self._most)
            front += yield [Query(part.genome)]
        return max(front, key=lambda candidate: candidate.fitness).genome

    def _climb(self, preference: Preference | None, most: int) -> Generator[list[Query], Sequence[Candidate], Candidate]:
        """Step towards a preference, or the fitness where there is none, from the best candidate so far; where that leads."""
        here = max(self._seen, key=lambda candidate: self._value(candidate, preference))
        radius, first = self._radius, 0.0
        for _ in range(most):
            point, slope = vector(here.genome), -slope_of(here, preference) - self._shift(preference)
            bend = self._bend(preference, float(np.abs(slope).max()) / radius)
            step = lowest(slope, bend, np.maximum(self._low - point, -radius), np.minimum(self._high - point, radius))
            promised = gain(slope, bend, step)
            first = first or promised
            if promised <= SETTLED * first:
                break
            (there,) = yield [self._query(np.clip(point + step, self._low, self._high).tolist())]
            self._seen.append(there)
            for name, term in there.terms.items():
                self._curvature[name].learn(step, vector(here.terms[name].slope) - vector(term.slope))
            self._fitness_curvature.learn(step, vector(here.slope) - vector(there.slope))
            rise = self._value(there, preference) - self._value(here, preference)
            radius *= 0.5 if rise < promised / 4 else 2 if rise > promised * 3 / 4 else 1
            here = there if rise > 0 else here
        return here

    def _value(self, candidate: Candidate, preference: Preference | None) -> float:
        """What the preference makes of a candidate on the part of the data, with the slope that all data have at the anchor."""
        return value(candidate, preference) + dot(self._shift(preference), vector(candidate.genome) - vector(self._start))

    def _shift(self, preference: Preference | None) -> Vector:
        """By how much the slope on all data differs from that on the part, measured once."""
        if self._anchor is None:
            return np.zeros(len(self._low))
        whole, part = self._anchor
        return slope_of(whole, preference) - slope_of(part, preference)

    def _bend(self, preference: Preference | None, first: float) -> Vector:
        """The curvature of the loss by a preference: that of each term by its factor."""
        count = len(self._low)
        if preference is None:
            return self._fitness_curvature.matrix(first, count)
        total = np.zeros((count, count))
        for name, factor in preference.items():
            total += factor * self._curvature[name].matrix(first, count)
        return total

    def _query(self, genome: Genome) -> Query:
        return Query(genome, self._share, self._part, with_slope=True)
