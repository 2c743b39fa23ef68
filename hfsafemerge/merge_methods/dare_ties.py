"""DARE-TIES: drop entries of each task vector at random, rescale the rest, then elect signs as TIES does."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merge_methods.ties import disjoint_mean
from hfsafemerge.merging import Number, PerExpert, Shared, fraction, merge_method


@merge_method("dare_ties", paper="arXiv:2311.03099")
def dare_ties(
    base: Float[Tensor, "*shape"],
    deltas: Float[Tensor, "experts *shape"],
    generators: list[torch.Generator],
    *,
    weight: Annotated[PerExpert, Number()],
    density: Annotated[PerExpert, fraction(default=0.5, start=1.0)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
) -> Float[Tensor, "*shape"]:
    """theta_base + lambda * disjoint_mean_i(w_i drop(delta_i) / density).

    Reference: Yu et al., arXiv:2311.03099, eq. 1-2, then arXiv:2306.01708, algorithm 1, steps 2 and 3.
    Differs from mergekit: rescales by 1 / density as the paper does, not to the L1 norm before dropping. The random
    numbers do not depend on the density, so two densities of one seed keep nested sets of entries.
    """
    kept = torch.stack([drop(delta, float(share), g) for delta, share, g in zip(deltas, density, generators, strict=True)])
    return base + lambda_ * disjoint_mean(kept, weight, normalize)


def drop(delta: Float[Tensor, "*shape"], density: float, generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Keep each entry with probability `density` and divide it by that; zero the rest."""
    if density == 0:
        return torch.zeros_like(delta)
    chance = torch.rand(delta.shape, generator=generator).to(delta.device)
    return delta * (chance < density) / density
