"""Safe LoRA: project updates that run against the direction of alignment onto it."""

from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Shared, along_alignment, as_matrices, fraction, merge_method


@merge_method("safe_lora", paper="arXiv:2405.16833", experts=(2, 2), over="tensor")
def safe_lora(
    base: Float[Tensor, "*shape"],
    deltas: Float[Tensor, "2 *shape"],
    *,
    threshold: Annotated[Shared, fraction(default=0.5, start=0.5, smooth=False)],
) -> Float[Tensor, "*shape"]:
    """theta_base + (C W if cos(W, C W) <= threshold else W), where W = delta_fine-tuned, V = theta_base - theta_unaligned.

    C = V V^T / ||V||_F. The base is the aligned model, the first expert what was fine-tuned from it, the second the model before
    it was aligned. Vectors count as matrices of one column. C is the authors' approximation of a projection: it scales too.

    Reference: Hsu et al., arXiv:2405.16833, with the faster of its two matrices C.
    Differs from the authors' code: W is the whole update of every tensor, not B A of the modules that have an adapter.
    """
    update, unaligned = as_matrices(deltas).unbind()
    projected, cosine = along_alignment(update, unaligned)  # C is the same for V and -V
    chosen = torch.le(cosine, threshold, out=torch.empty_like(cosine)) + 0 * cosine  # NaN stays
    return base + projected.sub_(update).mul_(chosen).add_(update).reshape(base.shape)
