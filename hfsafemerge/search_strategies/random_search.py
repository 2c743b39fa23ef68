"""Random search: candidates drawn evenly within the bounds, the plainest thing to compare a search with."""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field

from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import unknown_name
from hfsafemerge.searching import Candidate, Gene, Query, search_strategy
from hfsafemerge.searching.stepwise import Steps, Stepwise

CHUNK = 8  # candidates asked for at once
Range = Annotated[list[float], Field(min_length=2, max_length=2)]


@search_strategy("random_search")
class RandomSearch(Stepwise):
    """Draws candidates evenly within the genes' bounds and takes the fittest; the first one is the genes' start."""

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        max_evaluations: Annotated[int, Field(ge=1)] = 100,
        ranges: Mapping[str, Range] | None = None,
    ) -> None:
        """Settle from where to where each gene goes.

        Args:
            genes: what to search; each is drawn alone.
            seed: of all draws.
            max_evaluations: how many candidates there are.
            ranges: the lowest and the highest value by parameter, such as {weight: [0, 1]}, where they are not those of the
                parameter itself. A parameter without an upper bound needs one.

        Raises:
            RecipeError: a range is missing, empty, out of bounds, or for a parameter that is not searched.
        """
        ranges = ranges or {}
        for name in ranges:
            if all(gene.parameter != name for gene in genes):
                raise RecipeError(unknown_name("searched parameter", name, {gene.parameter for gene in genes}))
        self._genes, self._ranges = genes, [_range(gene, ranges) for gene in genes]
        self._random, self._count = random.Random(seed), max_evaluations
        super().__init__(self._run(), max_evaluations)

    def _run(self) -> Steps:
        genomes = [[gene.clamp(gene.start) for gene in self._genes]]
        genomes += [[self._random.uniform(low, high) for low, high in self._ranges] for _ in range(self._count - 1)]
        found: list[Candidate] = []
        for first in range(0, self._count, CHUNK):
            found += yield [Query(genome) for genome in genomes[first : first + CHUNK]]
        return max(found, key=lambda candidate: candidate.fitness).genome


def _range(gene: Gene, ranges: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """From where to where the gene goes."""
    name = gene.parameter
    low, high = ranges.get(name, (gene.low, gene.high))
    if not math.isfinite(high - low):
        raise RecipeError(f"random_search: {name} has no upper bound. Give it one, such as search.settings.ranges: {{{name}: [0, 1]}}.")
    if not gene.low <= low <= high <= gene.high:
        raise RecipeError(f"random_search: the range of {name} is [{low}, {high}]; it must rise and lie in [{gene.low}, {gene.high}].")
    return low, high
