"""Weighted average of all models, also known as model soup."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerModel, merge_method


@merge_method("linear", paper="arXiv:2203.05482")
def linear(
    models: Float[Tensor, "models *shape"], *, weight: Annotated[PerModel, Number()], normalize: bool = True
) -> Float[Tensor, "*shape"]:
    """sum_m w_m theta_m / sum_m w_m.

    The base is one of the models. With `normalize: false` the sum is not divided.

    Reference: Wortsman et al., arXiv:2203.05482, section 2 (uniform soup); LM-Cocktail, arXiv:2311.13534, uses it with
    weights from data.
    """
    if normalize:
        weight = weight / weight.sum()
    return (weight.reshape(-1, *[1] * (models.ndim - 1)) * models).sum(0)
