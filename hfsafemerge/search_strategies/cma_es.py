"""EvoMM: CMA-ES over merge parameters, with the settings of the safety-alignment paper's code."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hfsafemerge.searching import Gene, Genome, search_strategy


@search_strategy("cma_es", paper="arXiv:2403.13187; arXiv:2406.14563")
class CmaEs:
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
        max_evaluations: Annotated[int, Field(ge=1)] = 100,
        sigma0: Annotated[float, Field(gt=0)] = 1 / 6,
        population: Annotated[int, Field(ge=2)] | None = None,
    ) -> None:
        """Start at the genes' start values.

        Args:
            genes: what to search.
            seed: of all sampling.
            max_evaluations: no further generation starts once this many candidates were told.
            sigma0: the first standard deviation, the same for all genes.
            population: candidates in a generation; None takes 4 + floor(3 ln n).
        """
        import cma  # brings matplotlib along, and a recipe is read without it

        self._genes = genes
        options = {
            "randn": np.random.RandomState(seed % 2**32).randn,
            "seed": np.nan,
            "verbose": -9,
        }  # numpy's global generator stays alone
        if population is not None:
            options["popsize"] = population
        self._evolution = cma.CMAEvolutionStrategy([gene.start for gene in genes], sigma0, options)
        self._asked: list[np.ndarray] = []
        self._best: tuple[Genome, float] | None = None
        self._limit = max_evaluations
        self.total = -(-max_evaluations // self._evolution.popsize) * self._evolution.popsize

    def ask(self) -> list[Genome]:
        """The next generation."""
        self._asked = self._evolution.ask()
        return [[gene.clamp(abs(value)) for gene, value in zip(self._genes, point.tolist(), strict=True)] for point in self._asked]

    def tell(self, results: Sequence[tuple[Genome, float]]) -> None:
        """Adapt to the fitness of the generation."""
        self._evolution.tell(self._asked, [-fitness for _, fitness in results])
        best = max(results, key=lambda result: result[1])
        if self._best is None or best[1] > self._best[1]:
            self._best = best

    def recommend(self) -> Genome:
        """The best candidate ever seen."""
        if self._best is None:
            raise ValueError("CMA-ES was asked to recommend before it was told anything.")
        return self._best[0]

    @property
    def done(self) -> bool:
        """Whether the evaluations are spent, or the distribution has collapsed."""
        return self._evolution.countevals >= self._limit or bool(self._evolution.stop())
