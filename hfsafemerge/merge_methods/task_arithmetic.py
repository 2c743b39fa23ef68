"""Task arithmetic: add each expert's weighted task vector to the base."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, merge_method


@merge_method("task_arithmetic", paper="arXiv:2212.04089")
def task_arithmetic(
    base: Float[Tensor, "*shape"], deltas: Float[Tensor, "experts *shape"], *, weight: Annotated[PerExpert, Number()]
) -> Float[Tensor, "*shape"]:
    """theta_base + sum_i w_i delta_i.

    Reference: Ilharco et al., arXiv:2212.04089, section 2; arXiv:2406.14563, eq. 2.
    Differs from mergekit: computed in float32 whatever the dtype of the models.
    """
    return base + (weight.reshape(-1, *[1] * base.ndim) * deltas).sum(0)
