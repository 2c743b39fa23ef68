"""Model Stock: average the experts, and go back towards the base the more their task vectors differ."""

from typing import Annotated

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hfsafemerge.merging import OfTensor, merge_method, summed


def mean_cosine(products: Float64[Tensor, "*rows experts experts"]) -> Float64[Tensor, "*rows"]:
    """The mean cosine of pairs of deltas, from their inner products; it is 0 for a delta of no length."""
    lengths = products.diagonal(dim1=-2, dim2=-1).sqrt()
    lengths += torch.eq(lengths, 0, out=torch.empty_like(lengths))  # what is divided by them is 0 too
    cosines = products / (lengths.unsqueeze(-1) * lengths.unsqueeze(-2))
    first, second = torch.triu_indices(cosines.shape[-1], cosines.shape[-1], offset=1)
    return cosines[..., first, second].mean(-1)


def of_tensor(products: Float64[Tensor, "models models"]) -> Float64[Tensor, ""]:
    """The mean cosine over the whole tensor."""
    return mean_cosine(products[1:, 1:])


@merge_method("model_stock", paper="arXiv:2403.19522", experts=(2, None), over="rows")
def model_stock(
    base: Float[Tensor, "rows n"],
    deltas: Float[Tensor, "experts rows n"],
    cosine: Annotated[Float64[Tensor, ""], OfTensor(of_tensor)],
    *,
    filter_wise: bool = False,
) -> Float[Tensor, "rows n"]:
    """theta_base + t * mean_i(delta_i), where t = N cos(a) / (1 + (N - 1) cos(a)).

    N is the number of experts and cos(a) the mean cosine between the deltas of two of them, over the tensor or, with
    `filter_wise: true`, over each row. There is nothing to search.

    Reference: Jang et al., arXiv:2403.19522: the interpolation ratio for two models and for N of them, layer by layer.
    Differs from mergekit: experts that point apart on average (cos(a) < 0) leave the base as it is; there t is negative, and
    -2 for two experts with cos(a) = -1/2.
    """
    if filter_wise:
        rows = deltas.double().transpose(0, 1)
        cosine = mean_cosine(rows @ rows.mT)[:, None]
    count, together = len(deltas), cosine.clamp(min=0)
    t = count * together / (1 + (count - 1) * together)
    return summed(deltas).mul_((t / count).float()).add_(base)
