"""SLERP: walk from the base's tensor to the expert's along the great circle between their directions."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Shared, fraction, merge_method

PARALLEL = 0.9995  # above this cosine the circle is a line, and sin(angle) too small to divide by


@merge_method("slerp", paper="https://doi.org/10.1145/325334.325242", experts=(1, 1))
def slerp(models: Float[Tensor, "2 *shape"], *, t: Annotated[Shared, fraction(default=0.5, start=0.5)]) -> Float[Tensor, "*shape"]:
    """sin((1 - t) a) / sin(a) * start + sin(t a) / sin(a) * end, where a is the angle between start and end.

    The angle is that of the two flattened tensors; nearly parallel ones are interpolated linearly.

    Reference: Shoemake 1985, section 3.3.
    Differs from mergekit-evolve: the one gene of a layer group is `t` itself, so the merge may come closer to the expert.
    """
    start, end = models[0], models[1]
    if not start.any() or not end.any():
        return (1 - t) * start + t * end
    u, v = start / start.norm(), end / end.norm()
    angle = 2 * torch.atan2((u - v).norm(), (u + v).norm())  # arccos(u . v) would lose half the digits of a small angle
    if torch.cos(angle).abs() > PARALLEL:
        return (1 - t) * start + t * end
    return torch.sin((1 - t) * angle) / torch.sin(angle) * start + torch.sin(t * angle) / torch.sin(angle) * end
