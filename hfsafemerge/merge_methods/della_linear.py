"""DELLA without electing signs: drop entries at random, small ones more often, rescale, and add up."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, combined, drop_by_rank, fraction, merge_method, onto


@merge_method("della_linear", paper="arXiv:2406.11617", over="rows")
def della_linear(
    base: Float[Tensor, "rows n"],
    deltas: Float[Tensor, "experts rows n"],
    chance: Float[Tensor, "experts rows n"],
    *,
    weight: Annotated[PerExpert, Number()],
    density: Annotated[PerExpert, fraction(default=0.5, start=1.0, smooth=False)],
    epsilon: Annotated[PerExpert, Number(default=0.15, high=0.5, searched=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = False,
    rescale: bool = True,
) -> Float[Tensor, "rows n"]:
    """theta_base + lambda * sum_i w_i drop(delta_i) / p_i, where p is larger for larger entries.

    The probabilities p are those of `della`. With `normalize: true` the sum is divided by the sum of the weights.

    Reference: Deep et al., arXiv:2406.11617, step 1 (MagPrune), merged by task arithmetic.
    Differs from the paper and mergekit: as `della` does.
    """
    return onto(base, lambda_, combined(weight, drop_by_rank(deltas, chance, density, epsilon, rescale), normalize))
