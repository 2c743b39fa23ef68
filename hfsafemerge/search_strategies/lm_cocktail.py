"""LM-Cocktail: weigh each model by how well it alone answers the examples."""

import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from hfsafemerge.searching import Gene, Genome, search_strategy


@search_strategy("lm_cocktail", paper="arXiv:2311.13534", pooled=True, methods=("linear",))
class LmCocktail:
    """softmax(-loss_m / temperature) over all models, the base included.

    It asks for each model alone, is told its loss, and recommends the weights of their average.

    Reference: Xiao et al., arXiv:2311.13534; arXiv:2406.14563, eq. 3, which uses temperature 1.
    Differs from the authors' code: prompts go through the chat template, and examples weigh alike whatever the batch.
    """

    def __init__(self, genes: Sequence[Gene], seed: int, *, temperature: Annotated[float, Field(gt=0)] = 1.0) -> None:
        """One gene a model.

        Args:
            genes: the weight of each model in each group of layers.
            seed: not used.
            temperature: 1.0 as in the paper on safety; the authors' library has 5.0.
        """
        self._genes = genes
        self._temperature = temperature
        self._owners = list(dict.fromkeys(gene.owner for gene in genes))
        self._fitness: list[float] = []
        self.total = len(self._owners) + 1

    def ask(self) -> list[Genome]:
        """Each model alone."""
        return [[float(gene.owner == owner) for gene in self._genes] for owner in self._owners]

    def tell(self, results: Sequence[tuple[Genome, float]]) -> None:
        """The mean log-likelihood of each model, which is minus its loss."""
        self._fitness = [fitness for _, fitness in results]

    def recommend(self) -> Genome:
        """The softmax weights."""
        highest = max(self._fitness)
        mass = {o: math.exp((f - highest) / self._temperature) for o, f in zip(self._owners, self._fitness, strict=True)}
        return [mass[gene.owner] / sum(mass.values()) for gene in self._genes]

    @property
    def done(self) -> bool:
        """Whether all models have been asked for."""
        return bool(self._fitness)
