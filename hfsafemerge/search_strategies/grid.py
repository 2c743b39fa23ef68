"""Grid search: every combination of a few values of each parameter, the same for all experts and layers."""

import itertools
from collections.abc import Mapping, Sequence

from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import unknown_name
from hfsafemerge.searching import Gene, Genome, search_strategy


@search_strategy("grid", paper="arXiv:2406.14563, appendix B")
class Grid:
    """Tries every combination of the listed values and takes the fittest.

    With `values: {density: [0.25, 0.5, 1], weight: [0.25, 0.5, 1]}` it is the grid of arXiv:2406.14563 for two models.
    Differs from it: the fittest point is taken, not the one that is most accurate on a domain's questions.
    """

    def __init__(self, genes: Sequence[Gene], seed: int, *, values: Mapping[str, Sequence[float]]) -> None:
        """Lay out the grid.

        Args:
            genes: all genes; those of one parameter get one value together.
            seed: not used.
            values: the values to try, by parameter; parameters that are not named stay where they start.

        Raises:
            RecipeError: a parameter that has no gene, no values, or a value out of bounds.
        """
        parameters = {gene.parameter for gene in genes}
        for name, listed in values.items():
            if name not in parameters:
                raise RecipeError(unknown_name("searched parameter", name, parameters))
            if not listed:
                raise RecipeError(f"grid: {name} lists no values.")
            gene = next(gene for gene in genes if gene.parameter == name)
            if outside := [value for value in listed if gene.clamp(value) != value]:
                raise RecipeError(f"grid: {name} lists {outside[0]}; it goes from {gene.low} to {gene.high}.")
        points = (dict(zip(values, point, strict=True)) for point in itertools.product(*values.values()))
        self._left = [[float(point.get(gene.parameter, gene.start)) for gene in genes] for point in points]
        self._results: list[tuple[Genome, float]] = []
        self.total = len(self._left)

    def ask(self) -> list[Genome]:
        """The whole grid at once."""
        asked, self._left = self._left, []
        return asked

    def tell(self, results: Sequence[tuple[Genome, float]]) -> None:
        """Keep the results."""
        self._results += results

    def recommend(self) -> Genome:
        """The fittest point; the first one among equals."""
        return max(self._results, key=lambda result: result[1])[0]

    @property
    def done(self) -> bool:
        """Whether the grid has been asked for."""
        return not self._left
