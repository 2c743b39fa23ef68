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
from hfsafemerge.merging.compiled import RUN, WORTHWHILE, can_compile, compiled
from hfsafemerge.merging.inputs import Importance, TensorInputs, entries_at_once, one_thread, spans
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
    compile: bool = field(default=False, kw_only=True)
    """Whether a method that treats each entry by itself is compiled, where it runs on a CPU. That takes seconds once, and then
    merges many times faster, with torch's own threads."""
    importance: Importance | None = field(default=None, kw_only=True)
    """How important the entries are, for a method that asks for it."""

    def merge(self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> Tensor:
        """The merged tensor, on the base's device. Raises CheckpointError as `runs` does."""
        merged = torch.empty(base.numel(), dtype=self.dtype_of(base), device=base.device)
        for _ in self.runs(name, base, experts, merged):
            pass
        return merged.reshape(base.shape)

    @torch.no_grad()
    def runs(
        self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread], into: Tensor | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """The merged tensor, flat, a run of entries after the other, each with the index of its first.

        Args:
            name: the tensor.
            base: the base's tensor.
            experts: those of the experts.
            into: where to write the runs, flat, in the dtype of the result; tensors of their own when there is nothing.

        Raises:
            CheckpointError: integer tensors that differ, or a result that is not finite.
        """
        if not base.is_floating_point():
            first, *others = (found[0 : found.numel()] for found in _flat(base, experts))
            if any(not torch.equal(first, other) for other in others):
                raise CheckpointError(f"{name} holds integers that differ between the models, so it can't be merged.")
            yield 0, first if into is None else into.copy_(first)
            return
        of_part = self._compiled if self.compiles(base.device) else self._eager
        for start, run in of_part(name, base, experts, into):
            if not self.allow_non_finite and (found := not_finite(run)):
                raise CheckpointError(self._why_not_finite(name, found, _flat(base, experts)))
            yield start, run

    def compiles(self, device: torch.device) -> bool:
        """Whether tensors on a device are merged by a compiled kernel."""
        return self.compile and can_compile(self.method) and device.type == "cpu"

    @torch.no_grad()
    def find(self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> None:
        """Fill the memory with what steps find in a whole tensor. It holds one group's, so nothing is done for several."""
        groups = self.numbers(name, base)
        if self.memory is not None and base.is_floating_point() and len(groups) == 1:
            self._found(self._inputs(name, *_split(base, experts)), base.shape, *groups.values())

    def _eager(
        self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread], into: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        for start, run in self.computed(name, base, experts, self.numbers(name, base)):
            yield start, run.to(self.dtype_of(base)) if into is None else into[start : start + run.numel()].copy_(run)

    def _compiled(
        self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread], into: Tensor | None
    ) -> Iterator[tuple[int, Tensor]]:
        first, others = _split(base, experts)
        inputs, kernel = self._inputs(name, first, others), self.method.kernel
        numbers, options = self.numbers(name, base), self._options(kernel)
        merge, known = compiled(self.method, options), dict[int, Any]()
        for start, stop, shape, group in self._parts(name, base, RUN):
            if group not in known:
                known = {group: self._found(inputs, base.shape, numbers[group])}
            run = torch.empty(stop - start, dtype=self.dtype_of(base)) if into is None else into[start:stop]
            if stop - start < WORTHWHILE:
                run.copy_(kernel.function(**inputs.of(kernel.inputs, start, stop, shape), **known[group], **options))
            else:
                base_run, *expert_runs = (model[start:stop].data for model in (first, *others))  # as views they would be compiled anew
                merge(run.data, base_run, expert_runs, torch.tensor(start), **known[group])
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
        inputs = self._inputs(name, *_split(base, experts))
        kernel = self.method.kernel
        known: dict[int, Any] = {}
        for start, stop, shape, group in self._parts(name, base, entries_at_once(1 + len(experts), base.device)):
            if group not in known:
                known = {group: self._found(inputs, base.shape, numbers[group])}
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

    def _inputs(self, name: str, base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> TensorInputs:
        return TensorInputs(name, base, experts, self.experts, self.seed, self.importance)

    def _why_not_finite(self, name: str, found: str, tensors: Sequence[Tensor | Unread]) -> str:
        for model, tensor in zip(("base", *self.experts), tensors, strict=False):
            if held := not_finite(tensor[0 : tensor.numel()]):
                return f"{name} of {model} holds {held}. Use another model, or set merge.allow_non_finite to merge it all the same."
        dtype = self.dtype or tensors[0].dtype
        return f"{name} came out with {found}: its weights are all 0, or huge, or {dtype} is too small for its numbers."

    def _parts(self, name: str, base: Tensor | Unread, size: int) -> Iterator[tuple[int, int, tuple[int, ...], int]]:
        """The parts the kernel is called with, of about that many entries where it can choose: first entry, end, shape, group."""
        shape = tuple(base.shape)
        for first, end, group in self.groups.spans(name, base.numel()):
            if self.method.over == "tensor" and end > first:
                yield first, end, shape, group
            elif self.method.over == "entries":
                yield from ((first + start, first + stop, (stop - start,), group) for start, stop in spans(end - first, size))
            elif self.method.over == "rows":
                columns = shape[-1] if shape else 1
                whole_rows = max(1, size // max(columns, 1)) * max(columns, 1)
                yield from ((start, stop, ((stop - start) // columns, columns), group) for start, stop in spans(end, whole_rows))

    def _found(self, inputs: TensorInputs, shape: Sequence[int], numbers: Numbers) -> dict[str, Any]:
        """The kernel's numbers, and what the steps before it find."""
        kernel = self.method.kernel
        found = {argument: self._of_all(step, inputs, shape, numbers) for argument, step in kernel.before.items()}
        return found | _own(kernel, numbers)

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


def _split(base: Tensor | Unread, experts: Sequence[Tensor | Unread]) -> tuple[Tensor | Unread, list[Tensor | Unread]]:
    first, *others = _flat(base, experts)
    return first, others


def _own(step: Step, numbers: Numbers) -> dict[str, Tensor]:
    return {parameter.name: numbers[parameter.name] for parameter in step.parameters}
