"""Grid search: every combination of a few values of each parameter, the same for all experts and layers."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Literal

from hfsafemerge.errors import RecipeError
from hfsafemerge.registry import unknown_name
from hfsafemerge.searching import Gene, Query, search_strategy
from hfsafemerge.searching.stepwise import Steps, Stepwise

Values = Mapping[str, Sequence[float]]
DENSITIES = (0.25, 0.5, 1.0)
WEIGHTS = {1: (0.25, 0.5, 1.0), 2: (0.1, 0.25, 0.33, 0.5, 1.0)}  # by number of experts
SLERP = tuple(tenth / 10 for tenth in range(1, 11))


@search_strategy("grid", paper="arXiv:2406.14563, appendix B")
class Grid(Stepwise):
    """Tries every combination of the listed values and takes the fittest.

    Differs from arXiv:2406.14563: the fittest point is taken, not the one that is most accurate on a domain's questions.
    """

    def __init__(self, genes: Sequence[Gene], seed: int, *, values: Values | None = None, preset: Literal["paper"] | None = None) -> None:
        """Lay out the grid.

        Args:
            genes: all genes; those of one parameter get one value together.
            seed: not used.
            values: the values to try, by parameter; parameters that are not named stay where they start.
            preset: "paper" takes the values of arXiv:2406.14563 in place of `values`: densities 0.25, 0.5, 1 and weights 0.25,
                0.5, 1 with one expert; the same densities and weights 0.1, 0.25, 0.33, 0.5, 1 with two; for SLERP, whose
                parameter is t, 0.1, 0.2 up to 1.

        Raises:
            RecipeError: neither or both of the settings, a preset for other parameters or more experts, or values for a
                parameter that has no gene, none at all, or out of bounds.
        """
        if values is None and preset is None:
            raise RecipeError("The strategy grid needs search.settings.values, or search.settings.preset in its place.")
        if values is not None and preset is not None:
            raise RecipeError("grid: values and preset stand for each other. Leave one of the two out.")
        values = _of_the_paper(genes) if values is None else values
        _check(genes, values)
        points = [dict(zip(values, point, strict=True)) for point in itertools.product(*values.values())]
        self._grid = [Query([float(point.get(gene.parameter, gene.start)) for gene in genes]) for point in points]
        super().__init__(self._run(), len(self._grid))

    def _run(self) -> Steps:
        found = yield self._grid
        return max(found, key=lambda candidate: candidate.fitness).genome  # the first one among equals


def _of_the_paper(genes: Sequence[Gene]) -> Values:
    """The paper's values for those of the genes' parameters that it searched."""
    experts = len({gene.owner for gene in genes if gene.parameter == "weight"})
    if experts > max(WEIGHTS):
        raise RecipeError(f"grid: the paper's values are for one or two experts, and there are {experts}. List values of your own.")
    known: Values = {"density": DENSITIES, "weight": WEIGHTS.get(experts, ()), "t": SLERP}
    searched = {gene.parameter for gene in genes}
    found = {name: listed for name, listed in known.items() if name in searched}
    if not found:
        raise RecipeError(f"grid: the paper's values are for density, weight and t, not for {' or '.join(sorted(searched))}.")
    return found


def _check(genes: Sequence[Gene], values: Values) -> None:
    """Raise RecipeError for values that can't be tried."""
    parameters = {gene.parameter: gene for gene in genes}
    for name, listed in values.items():
        if name not in parameters:
            raise RecipeError(unknown_name("searched parameter", name, parameters))
        if not listed:
            raise RecipeError(f"grid: {name} lists no values.")
        gene = parameters[name]
        if outside := [value for value in listed if gene.clamp(value) != value]:
            raise RecipeError(f"grid: {name} lists {outside[0]}; it goes from {gene.low} to {gene.high}.")
