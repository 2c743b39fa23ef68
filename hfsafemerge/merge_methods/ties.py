"""TIES: trim each task vector, elect one sign for each entry, and average the entries that agree with it."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Number, PerExpert, Shared, fraction, merge_method


@merge_method("ties", paper="arXiv:2306.01708")
def ties(
    base: Float[Tensor, "*shape"],
    deltas: Float[Tensor, "experts *shape"],
    *,
    weight: Annotated[PerExpert, Number()],
    density: Annotated[PerExpert, fraction(default=0.2, start=1.0)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
) -> Float[Tensor, "*shape"]:
    """theta_base + lambda * disjoint_mean_i(w_i trim(delta_i)).

    Each tensor of each task vector keeps its `density` largest entries. With `normalize: false` the entries that agree
    are added up and not divided by the sum of their weights.

    Reference: Yadav et al., arXiv:2306.01708, algorithm 1.
    Differs from the authors' code: trims each tensor by itself, not the flattened model. Differs from peft: weights act
    before the sign is elected, and the mean is divided by the weights that agree, not by their number (as mergekit does).
    """
    trimmed = torch.stack([trim(delta, float(share)) for delta, share in zip(deltas, density, strict=True)])
    return base + lambda_ * disjoint_mean(trimmed, weight, normalize)


def trim(delta: Float[Tensor, "*shape"], density: float) -> Float[Tensor, "*shape"]:
    """Keep the round(density * n) entries of largest magnitude, the first ones among equals; zero the rest."""
    keep = round(density * delta.numel())
    if keep == delta.numel():
        return delta
    if keep == 0:
        return torch.zeros_like(delta)
    magnitude = delta.abs().flatten()
    threshold = magnitude.kthvalue(delta.numel() - keep + 1).values
    above, equal = magnitude > threshold, magnitude == threshold
    # Entries equal to the threshold fill the places that are left in the order of their index, so nothing depends on threads.
    chosen = above | (equal & (equal.cumsum(0) <= keep - above.sum()))
    return delta * chosen.reshape(delta.shape)


def disjoint_mean(deltas: Float[Tensor, "experts *shape"], weight: Float[Tensor, "experts"], normalize: bool) -> Float[Tensor, "*shape"]:
    """Elect the sign with the larger weighted mass at each entry, then average (or add up) the entries that have it."""
    weights = weight.reshape(-1, *[1] * (deltas.ndim - 1))
    weighted = weights * deltas
    sign = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agrees = (weighted * sign > 0).float()
    total = (weighted * agrees).sum(0)
    if not normalize:
        return total
    mass = (weights * agrees).sum(0)
    return torch.where(mass > 0, total / mass.clamp(min=torch.finfo(mass.dtype).tiny), 0.0)
