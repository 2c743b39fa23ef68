"""DELLA: drop entries of each task vector at random, small ones more often, rescale, then elect signs as TIES does."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, disjoint_mean, drop_by_rank, fraction, merge_method, onto


@merge_method("della", paper="arXiv:2406.11617", over="rows")
def della(
    base: Float[Tensor, "rows n"],
    deltas: Float[Tensor, "experts rows n"],
    chance: Float[Tensor, "experts rows n"],
    *,
    weight: Annotated[PerExpert, Number(smooth=False)],
    density: Annotated[PerExpert, fraction(default=0.5, start=1.0, smooth=False)],
    epsilon: Annotated[PerExpert, Number(default=0.15, high=0.5, searched=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
    rescale: bool = True,
) -> Float[Tensor, "rows n"]:
    """theta_base + lambda * disjoint_mean_i(w_i drop(delta_i) / p_i), where p is larger for larger entries.

    The probabilities p to keep the entries of a row rise evenly with the rank of their magnitude, from density - epsilon to
    density + epsilon; near 0 and 1 epsilon shrinks to what keeps them in [0, 1]. With `rescale: false` what is left is not
    divided by p; with `normalize: false` the entries that agree are added up.

    Reference: Deep et al., arXiv:2406.11617: step 1, drop (MagPrune); step 2, elect; step 3, fuse.
    Differs from the paper: epsilon is half the width of the probabilities, as in the authors' code and mergekit, not all of
    it, and their mean is the density exactly. Differs from mergekit: divides by p as the paper does, not to the L1 norm
    before dropping. Both refuse an epsilon that does not fit.
    """
    dropped = drop_by_rank(deltas, chance, density, epsilon, rescale)  # step 1
    return onto(base, lambda_, disjoint_mean(dropped, weight, normalize))  # steps 2 and 3
