"""SafeMERGE: mix a safe model into those layers of a fine-tuned one that left the direction of alignment."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Shared, along_alignment, as_matrices, fraction, merge_method


@merge_method("safemerge", paper="arXiv:2503.17239", experts=(2, 3), over="tensor")
def safemerge(
    base: Float[Tensor, "*shape"],
    deltas: Float[Tensor, "experts *shape"],
    *,
    threshold: Annotated[Shared, fraction(default=0.35, start=0.35, smooth=False)],
    safe_weight: Annotated[Shared, fraction(default=0.2, start=0.2)],
) -> Float[Tensor, "*shape"]:
    """theta_base + ((1 - s) W + s W_safe if cos(W, C W) < threshold else W), where W = delta_fine-tuned, s = safe_weight.

    C = V V^T / ||V||_F and V = theta_base - theta_unaligned. The base is the aligned model. The experts are what was fine-tuned
    from it, what was fine-tuned from it for safety, and last the model before it was aligned; with two experts the base itself is
    the safe model. Vectors count as matrices of one column.

    Reference: Djuhera et al., arXiv:2503.17239.
    Differs from the authors' code: W is the whole update of every tensor, not B A of the modules that have an adapter. Their
    defaults are kept.
    """
    update, *safe, unaligned = as_matrices(deltas).unbind()
    _, cosine = along_alignment(update, unaligned)  # C is the same for V and -V
    share: Tensor = safe_weight * torch.lt(cosine, threshold, out=torch.empty_like(cosine)) + 0 * cosine  # NaN stays
    return base + (update + share * (sum(safe) - update)).reshape(base.shape)
