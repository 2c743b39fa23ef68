"""Breadcrumbs-TIES: task vectors without outliers and small changes, then signs elected as TIES does."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Band, Number, OfTensor, PerExpert, Shared, disjoint_mean, merge_method, middle_of_each, onto


@merge_method("breadcrumbs_ties", paper="arXiv:2312.06795")
def breadcrumbs_ties(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    start: int,
    middle: Annotated[Band, OfTensor(middle_of_each)],
    *,
    weight: Annotated[PerExpert, Number(smooth=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * disjoint_mean_i(w_i (m_i * delta_i)), where m_i masks the largest entries and the smallest.

    Each tensor of each task vector loses its share `gamma` of the largest entries and keeps the share `density` of the next
    ones. With `normalize: false` the entries that agree are added up and not divided by the sum of their weights.

    Reference: Davari and Belilovsky, arXiv:2312.06795 (the mask), then arXiv:2306.01708, algorithm 1, steps 2 and 3;
    the two together are mergekit's.
    Differs from mergekit: divides by the weights that agree unless told not to; which of equal entries stay is defined.
    """
    kept = middle.trims(deltas, start)
    return onto(base, lambda_, disjoint_mean(kept, weight, normalize))  # steps 2 and 3
