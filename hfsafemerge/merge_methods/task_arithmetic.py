"""Task arithmetic: add each expert's weighted task vector to the base."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, combined, merge_method, onto


@merge_method("task_arithmetic", paper="arXiv:2212.04089")
def task_arithmetic(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    *,
    weight: Annotated[PerExpert, Number()],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = False,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * sum_i w_i delta_i.

    With `normalize: true` the sum is divided by the sum of the weights.

    Reference: Ilharco et al., arXiv:2212.04089, section 2; arXiv:2406.14563, eq. 2.
    Differs from mergekit: computed in float32 whatever the dtype of the models.
    """
    return onto(base, lambda_, combined(weight, deltas, normalize))
