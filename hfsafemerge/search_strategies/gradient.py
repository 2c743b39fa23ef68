"""Gradient search: quasi-Newton steps over the genes, on a small part of the data that stands for all of it."""

from collections.abc import Generator, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hfsafemerge.searching import Candidate, Gene, Query, search_strategy
from hfsafemerge.searching.quadratic_models import Curvature, Vector, dot, gain, lowest, vector
from hfsafemerge.searching.stepwise import Steps, Stepwise

SLOPE = Query([], with_slope=True).cost
LAST = SLOPE + 1  # the least that all data are worth: a slope, and the value of where it leads to
ROUND = 0.3  # of the cost goes into steps on the part between two slopes on all data
SETTLED = 1e-3  # a round ends when a step promises less than this share of what was gained; a tenth of it after the first
NARROWEST = 1e-6


@search_strategy("gradient", needs_slopes=True)
class Gradient(Stepwise):
    """Follows the slope of the fitness by quasi-Newton steps on a small part of the data, corrected by a few slopes on all of it.

    A part of the data, the same for every step, shows where the optimum lies about and how the fitness bends (BFGS). Then the
    slope on all data is measured once, and by what it differs from that of the part the slopes of more steps on the part are
    corrected (as in Johnson and Zhang 2013), so that these lead to the optimum of all data; and so on while the cost allows.
    Each step is the lowest point of a quadratic model within the genes' bounds and a box around the point; the box
    halves where the fitness fell, and what was found there still teaches the curvature. The fittest candidate of all data is
    recommended.

    Where the fitness has many optima, it finds the one that the start leads to.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        max_cost: Annotated[float, Field(ge=LAST)] = 10.0,
        share: Annotated[float, Field(gt=0, le=1)] = 1 / 8,
        radius: Annotated[float, Field(gt=0)] = 0.25,
    ) -> None:
        """Start at the genes' start values.

        Args:
            genes: what to search.
            seed: which part of the data the steps see.
            max_cost: the most to spend, in evaluations of all data; a slope costs three of them.
            share: the share of the data for the steps, in (0, 1]; 1 takes all data from the beginning, and so does a cost
                that is not enough for more.
            radius: the furthest that a gene moves in the first step.
        """
        self._low, self._high = vector(gene.low for gene in genes), vector(gene.high for gene in genes)
        self._start = [gene.clamp(gene.start) for gene in genes]
        self._share, self._part = share, seed % max(1, round(1 / share))
        self._limit, self._spent, self._gained = max_cost, 0.0, 0.0
        self._radius = radius
        self._shift = np.zeros(len(genes))
        self._curvature = Curvature()
        if min(ROUND * max_cost, max_cost - LAST) < SLOPE * share:
            self._share, self._part = 1.0, 0
        super().__init__(self._run(), int(max_cost / (SLOPE * self._share)) + 1)

    def _run(self) -> Steps:
        here = yield from self._measure(Query(self._start, self._share, self._part, with_slope=True))
        if self._share == 1:
            here = yield from self._climb(here, self._limit)
            return here.genome
        here = yield from self._climb(here, min(ROUND * self._limit, self._limit - LAST))
        best: Candidate | None = None
        while self._spent + LAST <= self._limit and (best is None or here.genome != best.genome):
            whole = yield from self._measure(Query(here.genome, with_slope=True))
            self._shift = vector(whole.slope) - vector(here.slope)
            best = whole if best is None or whole.fitness > best.fitness else best
            here = yield from self._climb(here, min(self._spent + ROUND * self._limit, self._limit - 1))
        if best is None or here.genome != best.genome:
            whole = yield from self._measure(Query(here.genome))
            best = whole if best is None or whole.fitness > best.fitness else best
        return best.genome

    def _climb(self, here: Candidate, limit: float) -> Generator[list[Query], Sequence[Candidate], Candidate]:
        """Step uphill from a candidate on its part of the data until the cost reaches the limit; the fittest candidate."""
        settled = SETTLED * (1 if self._spent < ROUND * self._limit else 0.1)
        while here.slope:
            point, slope = vector(here.genome), -vector(here.slope) - self._shift
            step, promised = self._step(point, slope)
            with_slope = self._spent + SLOPE * self._share <= limit
            if promised <= settled * self._gained or not (with_slope or (here.whole and self._spent + 1 <= limit)):
                break
            query = Query(np.clip(point + step, self._low, self._high).tolist(), self._share, self._part, with_slope)
            there = yield from self._measure(query)
            if there.slope:
                self._curvature.learn(step, vector(here.slope) - vector(there.slope))
            rise = there.fitness - here.fitness + dot(self._shift, step)
            if rise < promised / 4:
                self._radius = max(float(np.abs(step).max()) / 2, NARROWEST)
            elif rise > promised * 3 / 4:
                self._radius *= 2
            if rise > 0:
                here, self._gained = there, self._gained + rise
        return here

    def _measure(self, query: Query) -> Generator[list[Query], Sequence[Candidate], Candidate]:
        """Ask one query and keep account of its cost."""
        (found,) = yield [query]
        self._spent += query.cost
        return found

    def _step(self, point: Vector, slope: Vector) -> tuple[Vector, float]:
        """The step to the lowest point of the model within the bounds and the box, and by how much the model falls there."""
        bend = self._curvature.matrix(float(np.abs(slope).max()) / self._radius, len(point))
        low, high = np.maximum(self._low - point, -self._radius), np.minimum(self._high - point, self._radius)
        step = lowest(slope, bend, low, high)
        return step, gain(slope, bend, step)
