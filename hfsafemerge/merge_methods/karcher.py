"""Karcher mean: the direction with the least sum of squared angles to those of all models, at their mean length."""

from typing import Annotated

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hfsafemerge.merging import Number, OfTensor, PerModel, Shared, gram, merge_method, on_deltas, weighted_sum

ROUNDING = 1e-7  # a step this short can't be told from none: lengths come from differences of products in float64


def shares(
    products: Float64[Tensor, "models models"],
    *,
    weight: Annotated[PerModel, Number(smooth=False)],
    tol: Annotated[Shared, Number(default=1e-5, searched=False)],
    max_iter: int = 10,
) -> Float64[Tensor, "models"]:
    """The factors of the base and the deltas. The mean lies in the span of the directions u, so it is found as factors of them."""
    points = gram(products)
    lengths = points.diagonal().sqrt()
    missing = torch.eq(lengths, 0, out=torch.empty_like(lengths))
    wanted = weight.double() / weight.double().sum()
    cosines = points / torch.outer(lengths + missing, lengths + missing)
    pull = wanted * (1 - missing)
    pull /= pull.sum() + torch.eq(pull.sum(), 0)

    def length(factors: Float64[Tensor, "models"]) -> Float64[Tensor, ""]:
        return (factors @ cosines @ factors).clamp(min=0).sqrt()

    mean = pull / length(pull) if not length(pull) < ROUNDING else torch.nn.functional.one_hot(pull.argmax(), len(pull)).double()
    for _ in range(max_iter):
        cosine = (cosines @ mean).clamp(-1, 1)
        sine = (1 - cosine**2).sqrt()
        logs = pull * (torch.arccos(cosine) / sine).nan_to_num(1.0, 1.0)
        tangent = logs - (logs @ cosine) * mean  # sum_m w_m log_mean(u_m)
        step = length(tangent)
        if step < tol.double().clamp(min=ROUNDING):
            break
        mean = torch.cos(step) * mean + torch.sin(step) * tangent / step  # exp_mean of it
        mean /= length(mean)
    return on_deltas((wanted @ lengths) * mean / (lengths + missing))


@merge_method("karcher", paper="arXiv:2603.04972")
def karcher(
    base: Float[Tensor, "n"], deltas: Float[Tensor, "experts n"], factors: Annotated[Float64[Tensor, "models"], OfTensor(shares)]
) -> Float[Tensor, "n"]:
    """sum_m w_m |theta_m| * argmin_u sum_m w_m angle(u, theta_m)^2 over directions u.

    The weights are divided by their sum. The minimum is approached in steps along the sphere, at most `max_iter` of them, until
    one is shorter than `tol`; the first guess is the mean of the directions.

    Reference: Karcher 1977, https://doi.org/10.1002/cpa.3160300502; for models Wang et al., arXiv:2603.04972, with the sphere
    in place of the manifold of their predictions.
    Differs from mergekit: models have weights, and the base is one of them.
    """
    return weighted_sum(factors.float(), [base, *deltas])
