"""Surrogate search: a quadratic model of the fitness, fitted to fitness values alone."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hfsafemerge.searching import Candidate, Gene, Query, search_strategy
from hfsafemerge.searching.quadratic_models import Vector, fitted, lowest, vector
from hfsafemerge.searching.stepwise import Steps, Stepwise

FINALISTS = 3


@search_strategy("surrogate")
class Surrogate(Stepwise):
    """Fits a quadratic to the fitness values and goes to its top, for methods and machines that give no slopes.

    Each batch holds the top of the quadratic within a box around the fittest candidate, and random points of that box that
    lie towards the top, from which the next fit learns. The box doubles where the fitness rose as promised, and shrinks
    where it did not. As long as there are fewer candidates than coefficients, the smallest ones that fit are taken, and the
    interactions of two genes are held to be smaller than the bend of one (compare Powell's NEWUOA, 2006).
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        max_evaluations: Annotated[int, Field(ge=4)] = 100,
        batch: Annotated[int, Field(ge=2)] | None = None,
        radius: Annotated[float, Field(gt=0)] = 0.25,
        share: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        """Start at the genes' start values.

        Args:
            genes: what to search.
            seed: of all draws, and which part of the data is taken.
            max_evaluations: how much to evaluate, in evaluations of all data.
            batch: candidates that are asked for at once; None takes 4 + floor(3 ln n).
            radius: the furthest that a gene is from the start in the first batch.
            share: the share of the data to evaluate on, in (0, 1], the same part for all candidates. Below 1, the fittest three
                are evaluated on all data in the end.
        """
        self._genes, self._radius, self._share, self._part = genes, radius, share, seed % max(1, round(1 / share))
        self._batch = batch or 4 + math.floor(3 * math.log(len(genes)))
        self._count = max(2, int((max_evaluations - FINALISTS * (share < 1)) / share))
        self._random = np.random.default_rng(seed)
        super().__init__(self._run(), self._count + FINALISTS * (share < 1))

    def _run(self) -> Steps:
        centre = vector(gene.clamp(gene.start) for gene in self._genes)
        points = [centre]
        found: list[Candidate] = []
        promised = 0.0
        while True:
            found += yield [Query(point.tolist(), self._share, self._part) for point in points]
            best = max(found, key=lambda candidate: candidate.fitness)
            rise = best.fitness - max(c.fitness for c in found[: -len(points)]) if len(found) > len(points) else 0.0
            if promised:
                self._radius *= 2 if rise > promised / 2 else 1 if rise > promised / 10 else 0.6
            centre = vector(best.genome)
            left = min(self._batch, self._count - len(found))
            if not left:
                break
            points, promised = self._propose(centre, found, left)
        if self._share < 1:
            ranked = sorted(found, key=lambda candidate: -candidate.fitness)[:FINALISTS]
            found = [*(yield [Query(candidate.genome) for candidate in ranked])]
        return max(found, key=lambda candidate: candidate.fitness).genome

    def _propose(self, centre: Vector, found: Sequence[Candidate], count: int) -> tuple[list[Vector], float]:
        """The model's top, random points on the way there and beyond it, and by how much the model rises to the top."""
        steps = np.array([vector(candidate.genome) - centre for candidate in found]) / self._radius
        losses = -vector(candidate.fitness for candidate in found)
        slope, bend = fitted(steps, losses - losses.min())
        low = np.maximum(vector(gene.low for gene in self._genes) - centre, -self._radius) / self._radius
        high = np.minimum(vector(gene.high for gene in self._genes) - centre, self._radius) / self._radius
        top = lowest(slope, bend, low, high)
        promised = -float((slope * top).sum() + (top * (bend * top).sum(axis=1)).sum() / 2)
        around = [self._random.uniform(0, 1) * top + self._random.normal(0, 0.5, len(top)) for _ in range(count - bool(promised))]
        proposed = [top, *around] if promised else around
        return [self._within(centre + self._radius * np.clip(step, low, high)) for step in proposed], promised

    def _within(self, point: Vector) -> Vector:
        """The point within the genes' bounds, which rounding may have left."""
        return vector(gene.clamp(value) for gene, value in zip(self._genes, point.tolist(), strict=True))
