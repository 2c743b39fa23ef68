"""SCE: select the entries in which experts differ most, calculate each one's weight from them, erase minority signs."""

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Cut, Entries, OfTensor, Shared, agreeing_mean, cut, elected_sign, fraction, merge_method, summed

Selection = tuple[Cut, Float[Tensor, "experts"]]
"""The entries that are selected, and each expert's weight."""


def variance(deltas: Sequence[Float[Tensor, "n"]]) -> Float[Tensor, "n"]:
    """The variance over the experts, of each entry."""
    mean = summed(deltas).div_(len(deltas))
    return summed((delta - mean).square_() for delta in deltas).div_(len(deltas))


def select_and_calculate(
    each_delta: list[Entries], *, density: Annotated[Shared, fraction(default=1.0, start=1.0, smooth=False)]
) -> Selection:
    """Steps 1 and 2."""
    (first, *_) = each_delta
    spread = Entries(first.numel, first.device, lambda start, stop: variance([delta.run(start, stop) for delta in each_delta]))
    selected = cut([spread], [round(density.item() * first.numel)])  # step 1
    squares = torch.zeros(len(each_delta), dtype=torch.float64, device=first.device)
    for start, stop, found in spread.runs():
        kept = selected.keeps(found[None], start)[0]
        squares += torch.stack([(delta.run(start, stop) * kept).square_().sum(dtype=torch.float64) for delta in each_delta])
    total = squares.sum()
    return selected, (squares / total if total != 0 else torch.ones_like(squares) / len(squares)).float()  # step 2


@merge_method("sce", paper="arXiv:2408.07990")
def sce(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    start: int,
    selection: Annotated[Selection, OfTensor(select_and_calculate)],
    *,
    normalize: bool = True,
) -> Float[Tensor, "n"]:
    """theta_base + disjoint_mean_i(eta_i (m * delta_i)), where eta_i = |m * delta_i|^2 / sum_j |m * delta_j|^2.

    The mask m selects the share `density` of the entries whose variance over the experts is largest. With
    `normalize: false` the entries that agree are added up and not divided by the sum of their weights.

    Reference: Wan et al., arXiv:2408.07990: step 1, select; step 2, calculate; step 3, erase.
    Differs from mergekit: the share is of all entries of the tensor, not of those with a variance.
    """
    selected, eta = selection
    kept = deltas * selected.keeps(variance(list(deltas))[None], start)  # step 1
    return base + agreeing_mean(kept * eta[:, None], elected_sign(kept), eta, normalize)  # step 3
