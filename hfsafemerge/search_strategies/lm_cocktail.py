"""LM-Cocktail: weigh each model by how well it alone answers the examples."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from hfsafemerge.searching import Gene, Query, search_strategy
from hfsafemerge.searching.stepwise import Steps, Stepwise


@search_strategy("lm_cocktail", paper="arXiv:2311.13534", rule="pooled", ranks=False, methods=("linear",))
class LmCocktail(Stepwise):
    """Weighs each model, the base included, by how likely it alone finds the answers: softmax(-loss / temperature).

    It asks for each model alone, is told its loss, and recommends the weights of their average.

    Reference: Xiao et al., arXiv:2311.13534; arXiv:2406.14563, eq. 3, which uses temperature 1.
    Differs from the authors' code: examples weigh alike whatever the batch.
    """

    def __init__(self, genes: Sequence[Gene], seed: int, *, temperature: Annotated[float, Field(gt=0)] = 1.0) -> None:
        """One gene a model.

        Args:
            genes: the weight of each model in each group of layers.
            seed: not used.
            temperature: how even the weights are, in nats a token; 1.0 as in the code of arXiv:2406.14563. The library of
                arXiv:2311.13534 has 5.0 unless told otherwise, where half a nat makes 0.525 and 0.475.
        """
        self._genes = genes
        self._temperature = temperature
        self._owners = list(dict.fromkeys(gene.owner for gene in genes))
        super().__init__(self._run(), len(self._owners) + 1)  # the mixture is evaluated too

    def _run(self) -> Steps:
        alone = yield [Query([float(gene.owner == owner) for gene in self._genes]) for owner in self._owners]
        highest = max(candidate.fitness for candidate in alone)
        mass = {o: math.exp((c.fitness - highest) / self._temperature) for o, c in zip(self._owners, alone, strict=True)}
        return [mass[gene.owner] / sum(mass.values()) for gene in self._genes]
