"""Model Breadcrumbs: leave out of each task vector both the entries that hardly changed and the outliers."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Band, Number, OfTensor, PerExpert, Shared, combined, merge_method, middle_of_each, onto


@merge_method("breadcrumbs", paper="arXiv:2312.06795")
def breadcrumbs(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    start: int,
    middle: Annotated[Band, OfTensor(middle_of_each)],
    *,
    weight: Annotated[PerExpert, Number()],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = False,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * sum_i w_i (m_i * delta_i), where m_i masks the largest entries and the smallest.

    Each tensor of each task vector loses its share `gamma` of the largest entries and keeps the share `density` of the next
    ones; when both are more than the whole, fewer of the largest go. With `normalize: true` the sum is divided by the sum of
    the weights.

    Reference: Davari and Belilovsky, arXiv:2312.06795: the mask of each layer with its two thresholds, and the sum over tasks with
    one strength for all, here `lambda_`. Their percentiles are 1 - gamma - density and 1 - gamma.
    Differs from the authors' code: ranks the entries of a whole tensor, as mergekit does, not of each of its rows. Differs
    from mergekit: which of equal entries stay is defined.
    """
    kept = middle.trims(deltas, start)
    return onto(base, lambda_, combined(weight, kept, normalize))
