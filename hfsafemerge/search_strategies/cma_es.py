"""EvoMM: CMA-ES over merge parameters, with the settings of the safety-alignment paper's code."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hfsafemerge.errors import RecipeError
from hfsafemerge.searching import Candidate, Gene, Genome, Query, search_strategy
from hfsafemerge.searching.quadratic_models import Vector
from hfsafemerge.searching.stepwise import Steps, Stepwise

FINALISTS = 2  # the last mean and the best of the last generation, where generations see a part of the data
EVOMM: dict[str, Any] = {"sigma0": 1 / 6, "bounds": "fold", "separable": False, "restarts": 0, "share": 1.0}


@search_strategy("cma_es", paper="arXiv:2403.13187; arXiv:2406.14563")
class CmaEs(Stepwise):
    """Covariance matrix adaptation: samples a population around a mean and moves the mean to where fitness is high.

    The defaults are those of the code of arXiv:2406.14563: sigma0 = 1/6, population 4 + floor(3 ln n) (eq. 6), stop after
    100 evaluations, the best candidate ever seen is taken. A gene outside its bounds is mapped into them as that code
    does: weights by their absolute value, fractions by absolute value and clamping.
    Differs from mergekit-evolve: the base has no genes of its own, since its task vector is zero; and the search is seeded.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        preset: Literal["evomm"] | None = None,
        max_evaluations: Annotated[int, Field(ge=1)] = 100,
        sigma0: Annotated[float, Field(gt=0)] = 1 / 6,
        population: Annotated[int, Field(ge=2)] | None = None,
        bounds: Literal["fold", "transform"] = "fold",
        separable: bool = False,
        restarts: Annotated[int, Field(ge=0)] = 0,
        share: Annotated[float, Field(gt=0, le=1)] = 1.0,
    ) -> None:
        """Start at the genes' start values.

        Args:
            genes: what to search.
            seed: of all sampling.
            preset: "evomm" refuses settings other than those of arXiv:2406.14563; `max_evaluations` and `population` remain
                free, since that paper varies the one and the other follows from the number of genes.
            max_evaluations: no further generation starts once the evaluations of all data that were told add up to this.
            sigma0: the first standard deviation, the same for all genes.
            population: candidates in a generation; None takes 4 + floor(3 ln n).
            bounds: "fold" takes absolute values and cuts off beyond the upper bound, as the authors do; "transform" bends
                the genes smoothly at their bounds (pycma's BoundTransform).
            separable: adapt the variance of each gene alone, and no covariances.
            restarts: how often to start again with twice the population when the distribution has collapsed with
                evaluations left (IPOP-CMA-ES; Auger and Hansen 2005).
            share: the share of the data that a generation is evaluated on, in (0, 1], each generation on the next part. Below
                1, the mean of the last generation and its best candidate are evaluated on all data in the end.

        Raises:
            RecipeError: a setting that contradicts the preset.
        """
        options = {"sigma0": sigma0, "bounds": bounds, "separable": separable, "restarts": restarts, "share": share}
        if changed := [name for name, value in options.items() if preset == "evomm" and value != EVOMM[name]]:
            raise RecipeError(f"cma_es: the preset evomm has {changed[0]} = {EVOMM[changed[0]]}. Leave one of the two out.")
        self._genes, self._sigma0, self._restarts, self._share = genes, sigma0, restarts, share
        self._limit = max_evaluations - FINALISTS * (share < 1)
        self._options: dict[str, Any] = {
            "randn": np.random.RandomState(seed % 2**32).randn,
            "seed": np.nan,
            "verbose": -9,
        }  # numpy's global generator stays alone
        if bounds == "transform":
            self._options["bounds"] = [[g.low for g in genes], [g.high if np.isfinite(g.high) else None for g in genes]]
        if separable:
            self._options["CMA_diagonal"] = True
        self._evolution = self._begin(population)
        size = self._evolution.popsize
        super().__init__(self._run(), max(1, math.ceil(self._limit / (size * share))) * size + FINALISTS * (share < 1))

    def _begin(self, population: int | None) -> Any:
        """A distribution around the genes' start values."""
        import cma  # brings matplotlib along, and a recipe is read without it

        size = {} if population is None else {"popsize": population}
        return cma.CMAEvolutionStrategy([gene.start for gene in self._genes], self._sigma0, self._options | size)

    def _run(self) -> Steps:
        best: Candidate | None = None
        spent, part = 0.0, 0
        while spent < self._limit or best is None:
            points = self._evolution.ask()
            found = yield [Query(self._within(point), self._share, part) for point in points]
            self._evolution.tell(points, [-candidate.fitness for candidate in found])
            leader = max(found, key=lambda candidate: candidate.fitness)
            if best is None or leader.fitness > best.fitness or self._share < 1:  # what was found on other parts does not compare
                best = leader
            spent += sum(candidate.query.cost for candidate in found)
            part = (part + 1) % max(1, round(1 / self._share))
            if self._evolution.stop() and spent < self._limit:
                if not self._restarts:
                    break
                self._restarts -= 1
                self._evolution = self._begin(2 * self._evolution.popsize)
        if self._share < 1:
            mean = self._evolution.result.xfavorite
            best = max((yield [Query(self._within(mean)), Query(best.genome)]), key=lambda candidate: candidate.fitness)
        return best.genome

    def _within(self, point: Vector) -> Genome:
        """The genome that a point of the distribution stands for."""
        return [gene.clamp(abs(float(value))) for gene, value in zip(self._genes, point, strict=True)]
