"""Steps that several merge methods share.

Sums are written as products and additions of their own: fused or reordered ones differ in the last bit from one processor to
the next.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hfsafemerge.merging.methods import PerExpert, Shared
from hfsafemerge.merging.selection import by_rank

SMALLEST = torch.finfo(torch.float32).tiny
PARALLEL = 0.9995  # above this cosine a great circle is a line, and sin(angle) too small to divide by


def weighted_sum(weight: Float[Tensor, "rows"], rows: Iterable[Float[Tensor, "*n"]]) -> Float[Tensor, "*n"]:
    """sum_i w_i row_i, in the order of the rows."""
    return summed(row if one else row * w for w, one, row in zip(weight, _are_one(weight), rows, strict=True))


def summed(rows: Iterable[Float[Tensor, "*n"]]) -> Float[Tensor, "*n"]:
    """sum_i row_i, in the order of the rows."""
    left = iter(rows)
    total, second = next(left), next(left, None)
    if second is None:
        return total.clone()
    total = total + second
    for row in left:
        total += row
    return total


def onto(base: Float[Tensor, "*n"], lambda_: Shared, update: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """theta_base + lambda * update. The update is written over."""
    return (update if all(_are_one(lambda_)) else update.mul_(lambda_)).add_(base)


def _are_one(factors: Float[Tensor, "*factors"]) -> list[bool]:
    """Which multiplications can be spared.

    None that have a derivative, none on a GPU, where a look would wait for all work, and none that are compiled for all factors.
    """
    if torch.compiler.is_compiling() or factors.device.type != "cpu" or factors.requires_grad:
        return [False] * factors.numel()
    return [factor == 1 for factor in factors.reshape(-1).tolist()]


def relative(weight: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
    """Weights for an average, as parts of the largest: equal ones become exactly 1, so only the division rounds."""
    return weight / weight.max().clamp(min=SMALLEST)


def combined(weight: PerExpert, deltas: Float[Tensor, "experts *n"], normalize: bool) -> Float[Tensor, "*n"]:
    """sum_i w_i delta_i, divided by sum_i w_i when `normalize`; nothing when all weights are 0."""
    if not normalize:
        return weighted_sum(weight, deltas)
    parts = relative(weight)
    return weighted_sum(parts, deltas).div_(summed(parts).clamp(min=SMALLEST))


def drop(
    deltas: Float[Tensor, "experts *n"], chance: Float[Tensor, "experts *n"], density: Float[Tensor, "experts *#n"], rescale: bool = True
) -> Float[Tensor, "experts *n"]:
    """Keep each entry with probability `density` and divide it by that; zero the rest (DARE, eq. 1-2). Chance is written over."""
    kept = chance.lt_(density).mul_(deltas)
    return kept.div_(density.clamp(min=SMALLEST)) if rescale else kept


def drop_by_rank(
    deltas: Float[Tensor, "experts rows n"],
    chance: Float[Tensor, "experts rows n"],
    density: PerExpert,
    epsilon: PerExpert,
    rescale: bool,
) -> Float[Tensor, "experts rows n"]:
    """Drop as DARE does, the small entries of each row more often than the large ones (DELLA, arXiv:2406.11617, step 1, MagPrune).

    By the rank of its magnitude in its row, an entry is kept with a probability from density - epsilon to density +
    epsilon. Near 0 and 1 epsilon shrinks to what keeps that in [0, 1].
    """
    spread = torch.minimum(epsilon, torch.minimum(density, 1 - density))
    last = deltas.shape[-1] - 1
    steps = (2 * torch.arange(last + 1, device=deltas.device) - last) / max(last, 1)  # linspace differs from one processor to the next
    probability = by_rank(deltas, steps).mul_(spread[:, None, None]).add_(density[:, None, None])
    return drop(deltas, chance, probability, rescale)


def disjoint_mean(deltas: Float[Tensor, "experts *n"], weight: PerExpert, normalize: bool) -> Float[Tensor, "*n"]:
    """Elect the sign with the larger weighted mass at each entry, then average (or add up) the entries that have it.

    TIES, arXiv:2306.01708, algorithm 1, steps 2 and 3, with a weight for each expert. The deltas are written over.
    """
    if normalize:
        weight = relative(weight)
    weighted = deltas if all(_are_one(weight)) else deltas.mul_(weight.reshape(-1, *[1] * (deltas.ndim - 1)))
    return agreeing_mean(weighted, elected_sign(weighted), weight, normalize)


def elected_sign(rows: Float[Tensor, "rows *n"]) -> Float[Tensor, "*n"]:
    """The sign of each entry's sum over the rows, 1 for zero."""
    mass = summed(rows)
    return mass.ge_(0).mul_(2).sub_(1)


def agreeing_mean(
    weighted: Float[Tensor, "experts *n"], sign: Float[Tensor, "*n"], weight: PerExpert, normalize: bool
) -> Float[Tensor, "*n"]:
    """The mean (or sum) of the weighted entries that have the sign. They are written over."""
    agreeing = _positive(weighted.mul_(sign))
    total = summed(agreeing).mul_(sign)
    if not normalize:
        return total
    return total.div_(weighted_sum(weight, agreeing.sign_()).clamp_(min=SMALLEST))


def _positive(rows: Float[Tensor, "rows *n"]) -> Float[Tensor, "rows *n"]:
    """Zeros for the negative entries. They are written over."""
    if torch.compiler.is_compiling():
        return torch.where(rows < 0, 0.0, rows)  # a compiled clamp changes the sign of a zero
    return rows.clamp_(min=0)  # masks and torch.where are slower


def gram(products: Float64[Tensor, "models models"]) -> Float64[Tensor, "models models"]:
    """Inner products of the models with each other, from those of the base and the deltas."""
    whole = products.clone()
    whole[1:] += products[0]
    whole[:, 1:] += whole[:, :1].clone()
    return whole


def on_deltas(factors: Float64[Tensor, "models"]) -> Float64[Tensor, "models"]:
    """Factors of the base and the deltas that make the same sum as these do of the models."""
    return torch.cat([factors.sum()[None], factors[1:]])


def great_circle(products: Float64[Tensor, "2 2"], t: Shared) -> Float64[Tensor, "2"]:
    """The factors of start and end at the share t of the way along the great circle between their directions (SLERP).

    Directions that are nearly parallel, or missing, are interpolated linearly.
    """
    share = t.double()
    straight = torch.stack([1 - share, share])
    lengths = products.diagonal().prod().sqrt()
    if lengths == 0:
        return straight
    cosine = products[0, 1] / lengths
    if cosine.abs() > PARALLEL:
        return straight
    angle = torch.arccos(cosine)
    return torch.sin(straight * angle) / torch.sin(angle)  # Shoemake 1985, section 3.3


def as_matrices(deltas: Float[Tensor, "experts *shape"]) -> Float[Tensor, "experts *stack rows columns"]:
    """For methods of matrices: a vector counts as one of a single column, a tensor of more dimensions as a stack of them."""
    return deltas if deltas.ndim > 2 else deltas.reshape(len(deltas), -1, 1)


def along_alignment(
    update: Float[Tensor, "*stack rows columns"], alignment: Float[Tensor, "*stack rows columns"]
) -> tuple[Float[Tensor, "*stack rows columns"], Float[Tensor, "*stack 1 1"]]:
    """C W with C = V V^T / ||V||_F, for an update W and the alignment V; and the cosine between W and C W.

    Reference: Hsu et al., arXiv:2405.16833; arXiv:2503.17239 has it too.
    """
    rows, columns = update.shape[-2:]
    projected: Tensor = alignment @ (alignment.mT @ update) if columns < rows else (alignment @ alignment.mT) @ update
    projected /= _length(alignment)
    return projected, (projected * update).sum((-2, -1), keepdim=True) / (_length(projected) * _length(update)).clamp(min=SMALLEST)


def _length(matrix: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack 1 1"]:
    """The Frobenius norm, at least so large that one can divide by it."""
    length: Tensor = torch.linalg.vector_norm(matrix, dim=(-2, -1), keepdim=True)
    return length.clamp(min=SMALLEST)
