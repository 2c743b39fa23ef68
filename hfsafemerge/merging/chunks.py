"""Chunks: how many numbers of their own an important tensor is worth."""

from collections.abc import Mapping

from hfsafemerge.checkpoint import Weights
from hfsafemerge.merging.layers import TensorGroups


def chunked(models: Mapping[str, Weights], budget: float, kappa: float) -> TensorGroups:
    """Cut each tensor into m_l = floor(budget * L * I_l^kappa / sum_j I_j^kappa) chunks, at least one, of L tensors.

    The importance I_l is the sum of |delta| over all entries and experts: the mean magnitude times the number of entries, with the
    same coefficient for all experts, as at the start of a search.

    Reference: Expert Merging++, arXiv:2509.25712, importance-guided chunking.
    Differs from the authors' code: importance is taken at the start, not after a first search, and a tensor that would get no
    chunk keeps one instead of being frozen.

    Args:
        models: the base, then the experts, by name.
        budget: about how many chunks there are for each tensor.
        kappa: how much more the important ones get.
    """
    base, *experts = models.values()
    importance = {}
    for name in base.tensors:
        origin = base.read(name).float()
        importance[name] = sum(float((expert.read(name).float() - origin).abs().sum(dtype=origin.double().dtype)) for expert in experts)
    total = sum(value**kappa for value in importance.values()) or 1.0
    wanted = {name: int(budget * len(importance) * value**kappa / total) for name, value in importance.items()}
    return TensorGroups(list(wanted), [max(1, min(number, base.tensors[name].numel)) for name, number in wanted.items()])
