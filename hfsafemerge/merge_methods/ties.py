"""TIES: trim each task vector, elect one sign for each entry, and average the entries that agree with it."""

from typing import Annotated

from jaxtyping import Float
from torch import Tensor

from hfsafemerge.merging import Cut, Number, OfTensor, PerExpert, Shared, disjoint_mean, largest_of_each, merge_method, onto


@merge_method("ties", paper="arXiv:2306.01708")
def ties(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    start: int,
    trimmed: Annotated[Cut, OfTensor(largest_of_each)],
    *,
    weight: Annotated[PerExpert, Number(smooth=False)],
    lambda_: Annotated[Shared, Number(searched=False)],
    normalize: bool = True,
) -> Float[Tensor, "n"]:
    """theta_base + lambda * disjoint_mean_i(w_i trim(delta_i)).

    Each tensor of each task vector keeps its `density` largest entries. With `normalize: false` the entries that agree
    are added up and not divided by the sum of their weights.

    Reference: Yadav et al., arXiv:2306.01708, algorithm 1.
    Differs from the authors' code: trims each tensor by itself, not the flattened model. Differs from peft: weights act
    before the sign is elected, and the mean is divided by the weights that agree, not by their number (as mergekit does).
    """
    kept = trimmed.trims(deltas, start)  # step 1
    return onto(base, lambda_, disjoint_mean(kept, weight, normalize))  # steps 2 and 3
