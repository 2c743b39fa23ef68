"""DARE: drop entries of each task vector at random, rescale the rest, and add them to the base."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, combined, drop, fraction, merge_method, onto


@merge_method("dare_linear", paper="arXiv:2311.03099")
def dare_linear(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    chance: Float[Tensor, "experts n"],
    *,
    weight: Annotated[PerExpert, Number()],
    density: Annotated[PerExpert, fraction(default=0.5, start=1.0, smooth=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = False,
    rescale: bool = True,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * sum_i w_i drop(delta_i) / density_i.

    With `rescale: false` what is left is not divided by the density; with `normalize: true` the sum is divided by the sum of
    the weights.

    Reference: Yu et al., arXiv:2311.03099, eq. 1-2, merged by task arithmetic.
    Differs from mergekit: rescales by 1 / density as the paper does, not to the L1 norm before dropping. The random
    numbers do not depend on the density, so two densities of one seed keep nested sets of entries.
    """
    return onto(base, lambda_, combined(weight, drop(deltas, chance, density[:, None], rescale), normalize))
