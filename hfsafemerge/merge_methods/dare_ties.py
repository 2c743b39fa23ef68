"""DARE-TIES: drop entries of each task vector at random, rescale the rest, then elect signs as TIES does."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, disjoint_mean, drop, fraction, merge_method, onto


@merge_method("dare_ties", paper="arXiv:2311.03099")
def dare_ties(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    chance: Float[Tensor, "experts n"],
    *,
    weight: Annotated[PerExpert, Number(smooth=False)],
    density: Annotated[PerExpert, fraction(default=0.5, start=1.0, smooth=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
    rescale: bool = True,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * disjoint_mean_i(w_i drop(delta_i) / density_i).

    With `rescale: false` what is left is not divided by the density; with `normalize: false` the entries that agree are
    added up and not divided by the sum of their weights.

    Reference: Yu et al., arXiv:2311.03099, eq. 1-2, then arXiv:2306.01708, algorithm 1, steps 2 and 3.
    Differs from mergekit: rescales by 1 / density as the paper does, not to the L1 norm before dropping, and divides by the
    weights that agree unless told not to. The random numbers do not depend on the density, so two densities of one seed keep
    nested sets of entries.
    """
    dropped = drop(deltas, chance, density[:, None], rescale)  # eq. 1-2
    return onto(base, lambda_, disjoint_mean(dropped, weight, normalize))  # steps 2 and 3
