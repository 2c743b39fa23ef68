"""Merging one tensor: what a method needs of all of it first, then its kernel over parts that stay in the processor's cache."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.checkpoint import Unread, not_finite
from hfsafemerge.errors import CheckpointError
from hfsafemerge.merging.inputs import TensorInputs, entries_at_once, one_thread, spans
from hfsafemerge.merging.layers import Groups
from hfsafemerge.merging.methods import MergeMethod, Scope, Step
from hfsafemerge.merging.parameters import MergeParameters, value_at

Numbers = Mapping[str, Float[Tensor, "..."]]
"""A method's parameters by name, for one group of one tensor."""


@dataclass(frozen=True)
class TensorMerger:
    """Merges any one tensor: computes what the method asks for, in float32, and rounds the result once."""

    method: MergeMethod
    parameters: MergeParameters
    groups: Groups
    experts: Sequence[str]
    seed: int
    dtype: torch.dtype | None = field(default=None, kw_only=True)
    """The dtype of the result; the base's when there is none."""
    allow_non_finite: bool = field(default=False, kw_only=True)
    """Whether NaN and Inf may come out."""
    memory: dict[tuple[str, str], tuple[Any, Any]] | None = field(default=None, kw_only=True)
    """What steps have found in whole tensors, by tensor and step, with the numbers it was found for: for a search, where they
    often stay the same."""

    def merge(self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> Tensor:
        """The merged tensor, on the base's device. Raises CheckpointError as `runs` does."""
        merged = torch.empty(base.numel(), dtype=self.dtype_of(base), device=base.device)
        for start, run in self.runs(name, base, experts):
            merged[start : start + run.numel()] = run
        return merged.reshape(base.shape)

    @torch.no_grad()
    def runs(self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> Iterator[tuple[int, Tensor]]:
        """The merged tensor, flat, a run of entries after the other, each with the index of its first.

        Raises:
            CheckpointError: integer tensors that differ, or a result that is not finite.
        """
        if not base.is_floating_point():
            first, *others = (found[0 : found.numel()] for found in _flat(base, experts))
            if any(not torch.equal(first, other) for other in others):
                raise CheckpointError(f"{name} holds integers that differ between the models, so it can't be merged.")
            yield 0, first
            return
        for start, computed in self.computed(name, base, experts, self.numbers(name, base)):
            run = computed.to(self.dtype_of(base))
            if not self.allow_non_finite and (found := not_finite(run)):
                raise CheckpointError(self._why_not_finite(name, found, _flat(base, experts)))
            yield start, run

    def computed(
        self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread], numbers: Mapping[int, Numbers]
    ) -> Iterator[tuple[int, Float[Tensor, "n"]]]:
        """What the kernel makes of a tensor of floats, flat, in float32, run by run; with a graph where `numbers` ask for one.

        Args:
            name: the tensor.
            base: the base's tensor.
            experts: those of the experts.
            numbers: those of the tensor's groups, as `numbers` gives them.
        """
        first, *others = _flat(base, experts)
        inputs = TensorInputs(name, first, others, self.experts, self.seed)
        kernel = self.method.kernel
        known: dict[int, Any] = {}
        for start, stop, shape, group in self._parts(name, base, 1 + len(experts)):
            if group not in known:
                found = {argument: self._of_all(step, inputs, base.shape, numbers[group]) for argument, step in kernel.before.items()}
                known = {group: found | _own(kernel, numbers[group])}
            asked = inputs.of(kernel.inputs, start, stop, shape)
            with one_thread() if self.method.over == "tensor" else nullcontext():  # products of matrices are sums, see one_thread
                yield start, kernel.function(**asked, **known[group], **self._options(kernel)).reshape(-1)

    def numbers(self, name: str, base: Tensor | Unread) -> dict[int, Numbers]:
        """The method's parameters for one tensor by group, float32 on the base's device: (), (experts,) or (models,)."""
        depth = self.groups.depth(name)
        return {group: self._numbers_of(name, group, depth, base.device) for *_, group in self.groups.spans(name, base.numel())}

    def dtype_of(self, base: Tensor | Unread) -> torch.dtype:
        """The dtype of the result."""
        return self.dtype or base.dtype if base.is_floating_point() else base.dtype

    def _why_not_finite(self, name: str, found: str, tensors: Sequence[Tensor | Unread]) -> str:
        for model, tensor in zip(("base", *self.experts), tensors, strict=False):
            if held := not_finite(tensor[0 : tensor.numel()]):
                return f"{name} of {model} holds {held}. Use another model, or set merge.allow_non_finite to merge it all the same."
        dtype = self.dtype or tensors[0].dtype
        return f"{name} came out with {found}: its weights are all 0, or huge, or {dtype} is too small for its numbers."

    def _parts(self, name: str, base: Tensor | Unread, models: int) -> Iterator[tuple[int, int, tuple[int, ...], int]]:
        """The parts the kernel is called with: first entry, end, shape, group."""
        shape, size = tuple(base.shape), entries_at_once(models, base.device)
        for first, end, group in self.groups.spans(name, base.numel()):
            if self.method.over == "tensor" and end > first:
                yield first, end, shape, group
            elif self.method.over == "entries":
                yield from ((first + start, first + stop, (stop - start,), group) for start, stop in spans(end - first, size))
            elif self.method.over == "rows":
                columns = shape[-1] if shape else 1
                whole_rows = max(1, size // max(columns, 1)) * max(columns, 1)
                yield from ((start, stop, ((stop - start) // columns, columns), group) for start, stop in spans(end, whole_rows))

    def _of_all(self, step: Step, inputs: TensorInputs, shape: Sequence[int], numbers: Numbers) -> Any:
        """What a step finds in the whole tensor. What was found for the same numbers before is taken from the memory."""
        own = {name: numbers[name] for name in step.all_parameters()}
        key = None
        if self.memory is not None and not any(number.requires_grad for number in own.values()):
            key = [number.tolist() for number in own.values()]
            if (kept := self.memory.get((inputs.name, step.function.__name__))) is not None and kept[0] == key:
                return kept[1]
        before = {known: self._of_all(earlier, inputs, shape, numbers) for known, earlier in step.before.items()}
        asked = inputs.of(step.inputs, 0, inputs.base.numel(), shape if self.method.over == "tensor" else (inputs.base.numel(),))
        found = step.function(**asked, **before, **_own(step, numbers), **self._options(step))
        if key is not None and self.memory is not None:
            self.memory[inputs.name, step.function.__name__] = (key, found)
        return found

    def _numbers_of(self, name: str, group: int, depth: float, device: torch.device) -> Numbers:
        found = {}
        for parameter in self.method.parameters:
            values = [value_at(value, name, depth) for value in self.parameters.numbers[parameter.name][group]]
            found[parameter.name] = torch.tensor(values[0] if parameter.scope is Scope.SHARED else values, dtype=torch.float32).to(device)
        return found

    def _options(self, step: Step) -> dict[str, Any]:
        return {option.name: self.parameters.options.get(option.name, option.default) for option in step.options}


def _flat(base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> list[Tensor | Unread]:
    return [found if isinstance(found, Unread) else found.reshape(-1) for found in (base, *experts)]


def _own(step: Step, numbers: Numbers) -> dict[str, Tensor]:
    return {parameter.name: numbers[parameter.name] for parameter in step.parameters}
