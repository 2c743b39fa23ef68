"""Weighted average of all models, also known as model soup."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerModel, merge_method, relative, summed, weighted_sum


@merge_method("linear", paper="arXiv:2203.05482")
def linear(models: Float[Tensor, "models n"], *, weight: Annotated[PerModel, Number()], normalize: bool = True) -> Float[Tensor, "n"]:
    """sum_m w_m theta_m / sum_m w_m.

    The base is one of the models. With `normalize: false` the sum is not divided.

    Reference: Wortsman et al., arXiv:2203.05482, section 2 (uniform soup); LM-Cocktail, arXiv:2311.13534, uses it with
    weights from data.
    Differs from mergekit: the base always takes part, with a weight of its own.
    """
    if not normalize:
        return weighted_sum(weight, models)
    parts = relative(weight)
    return weighted_sum(parts, models).div_(summed(parts))
