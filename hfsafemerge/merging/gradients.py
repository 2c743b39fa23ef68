"""The derivative of a merge with respect to its numbers, one tensor after the other: no graph of a whole model is ever kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hfsafemerge.checkpoint import Unread
from hfsafemerge.merging.methods import Parameter
from hfsafemerge.merging.tensors import Numbers, TensorMerger

STEP = 0.02  # of a fraction that chooses entries: small beside 1, and large enough for many entries to lie in between

Runs = Iterator[tuple[int, Float[Tensor, "n"]]]
"""A tensor as the kernel makes it, a run of entries after the other, each with the index of its first."""


def pull_back(
    merger: TensorMerger,
    name: str,
    base: Tensor | Unread,
    experts: Sequence[Tensor | Unread],
    cotangent: Float[Tensor, "*shape"],
    slopes: Mapping[str, Float64[Tensor, "groups owners"]],
) -> None:
    """Add the derivative of <cotangent, merged tensor> with respect to the numbers of some parameters to `slopes`.

    Numbers that act without jumps are differentiated through the kernel; for an expert's weight in task arithmetic that is the
    inner product of the cotangent and the delta. For those that choose entries (a density) it is the mean slope
    within 0.02 on both sides, with the same random numbers.

    Args:
        merger: the method and its parameters.
        name: the tensor.
        base: the base's tensor.
        experts: those of the experts.
        cotangent: the derivative of what is maximised with respect to the merged tensor.
        slopes: what to add to, by parameter; others are left alone. On the CPU.
    """
    flat = cotangent.detach().reshape(-1).float()
    chosen = [parameter for parameter in merger.method.parameters if parameter.name in slopes]

    def computed(numbers: Mapping[int, Numbers]) -> Runs:
        return merger.computed(name, base, experts, numbers)

    if smooth := [parameter.name for parameter in chosen if parameter.number.smooth]:
        shared = bool(merger.method.kernel.before)  # what is found once in the whole tensor is part of the graph of every run
        _through_kernel(computed, merger.numbers(name, base), flat, {key: slopes[key] for key in smooth}, shared)
    for parameter in chosen:
        if not parameter.number.smooth:
            _over_a_step(computed, merger.numbers(name, base), flat, parameter, slopes[parameter.name])


def _through_kernel(
    computed: Callable[[Mapping[int, Numbers]], Runs],
    numbers: Mapping[int, Numbers],
    cotangent: Float[Tensor, "n"],
    slopes: Mapping[str, Float64[Tensor, "groups owners"]],
    shared: bool,
) -> None:
    leaves = [(key, group, found[key].requires_grad_()) for group, found in numbers.items() for key in slopes]
    with torch.enable_grad():
        for start, run in computed(numbers):
            if not run.requires_grad:
                continue
            along = cotangent[start : start + run.numel()]
            found = torch.autograd.grad(run, [leaf for *_, leaf in leaves], along, retain_graph=shared, allow_unused=True)
            for (key, group, _), slope in zip(leaves, found, strict=True):
                if slope is not None:
                    slopes[key][group] += slope.reshape(-1).double().cpu()


@torch.no_grad()
def _over_a_step(
    computed: Callable[[Mapping[int, Numbers]], Runs],
    numbers: Mapping[int, Numbers],
    cotangent: Float[Tensor, "n"],
    parameter: Parameter,
    slopes: Float64[Tensor, "groups owners"],
) -> None:
    def along(group: int, owner: int, value: float) -> float:
        moved = numbers[group][parameter.name].clone()
        moved.view(-1)[owner] = value
        runs = computed({**numbers, group: {**numbers[group], parameter.name: moved}})
        return sum(float((run.double() * cotangent[start : start + run.numel()]).sum()) for start, run in runs)

    for group, found in numbers.items():
        for owner, value in enumerate(found[parameter.name].reshape(-1).tolist()):
            low, high = max(value - STEP, parameter.number.low), min(value + STEP, parameter.number.high)
            slopes[group, owner] += (along(group, owner, high) - along(group, owner, low)) / (high - low)
