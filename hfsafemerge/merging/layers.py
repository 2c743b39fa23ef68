"""Where a tensor stands in the depth of a model: which parameters it takes, and which layers of the models it is made of."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

from hfsafemerge.checkpoint import TensorInfo
from hfsafemerge.errors import IncompatibleExperts

LAYER = re.compile(r"(?:^|(?<=\.))(layers|h|blocks)\.(\d+)\.")
BEFORE_LAYERS = re.compile(r"embed(?!_out|ding_norm)|wte|wpe")


def layer_of(tensor: str) -> int:
    """The layer a tensor belongs to, -1 when to none."""
    found = LAYER.search(tensor)
    return int(found[2]) if found else -1


def in_layer(tensor: str, layer: int) -> str:
    """The tensor's name in another layer."""
    return LAYER.sub(lambda found: f"{found[1]}.{layer}.", tensor, count=1)


def count_layers(tensors: Iterable[str]) -> int:
    """The number of layers of a model with these tensors."""
    return 1 + max(map(layer_of, tensors), default=-1)


@dataclass(frozen=True)
class LayerGroups:
    """Which tensors share their parameters: `size` layers each, or all of them when `size` is 0.

    As in mergekit-evolve: what comes before the layers (embeddings) belongs to the first group, and what comes after
    them (final norm, output head) to the last.
    """

    layers: int
    size: int = 0

    @classmethod
    def of(cls, names: Iterable[str], size: int) -> "LayerGroups":
        """The groups of a model with these tensors."""
        return cls(count_layers(names), size)

    @property
    def count(self) -> int:
        """The number of groups."""
        return -(-self.layers // self.size) if self.size and self.layers else 1

    def spans(self, tensor: str, numel: int) -> list[tuple[int, int, int]]:
        """The runs of a tensor's entries that have numbers of their own, with their groups: one."""
        return [(0, numel, self.group(tensor))]

    def group(self, tensor: str) -> int:
        """The group of a tensor, from 0."""
        layer = layer_of(tensor)
        if self.count == 1 or (layer < 0 and BEFORE_LAYERS.search(tensor)):
            return 0
        return self.count - 1 if layer < 0 else layer // self.size

    def depth(self, tensor: str) -> float:
        """Where a tensor stands between the first layer, 0, and the last, 1; at 0 what is in no layer, as in mergekit."""
        return _depth(layer_of(tensor), self.layers)

    def names(self, tensors: Mapping[str, Iterable[str]]) -> list[str]:
        """The result's tensors, from those of each model by name: the first model's."""
        return list(next(iter(tensors.values())))

    def source(self, tensor: str, model: str) -> str | None:
        """The name of the tensor in a model: the same."""
        return tensor


@dataclass(frozen=True)
class TensorGroups:
    """Every tensor has parameters of its own; an important one is cut into several chunks, and each of them has.

    Reference: Expert Merging, arXiv:2509.25712, whose chunks are those of torch.chunk on the flat tensor.
    """

    tensors: Sequence[str]
    chunks: Sequence[int]
    """For each tensor into how many."""

    @cached_property
    def _places(self) -> dict[str, tuple[int, int]]:
        """For each tensor its first group, and the number of its chunks."""
        firsts = accumulate(self.chunks, initial=0)
        return {name: (first, number) for name, first, number in zip(self.tensors, firsts, self.chunks, strict=False)}

    @cached_property
    def _layers(self) -> int:
        return count_layers(self.tensors)

    @property
    def count(self) -> int:
        """The number of chunks of all tensors."""
        return sum(self.chunks)

    def spans(self, tensor: str, numel: int) -> list[tuple[int, int, int]]:
        """The runs of a tensor's entries that have numbers of their own, with their groups."""
        first, number = self._places[tensor]
        size = -(-numel // number)
        return [(at * size, min((at + 1) * size, numel), first + at) for at in range(number) if at * size < numel]

    def depth(self, tensor: str) -> float:
        """Where a tensor stands between the first layer, 0, and the last, 1; at 0 what is in no layer."""
        return _depth(layer_of(tensor), self._layers)

    def names(self, tensors: Mapping[str, Iterable[str]]) -> list[str]:
        """The result's tensors, from those of each model by name: the first model's."""
        return list(next(iter(tensors.values())))

    def source(self, tensor: str, model: str) -> str | None:
        """The name of the tensor in a model: the same."""
        return tensor


@dataclass(frozen=True)
class Slice:
    """A run of layers of the result, made of as many layers of each of its models: from the first number to before the second."""

    layers: Mapping[str, tuple[int, int]]

    @property
    def length(self) -> int:
        """The number of layers."""
        first, end = next(iter(self.layers.values()))
        return end - first


@dataclass(frozen=True)
class Slices:
    """A model stacked from slices, each with parameters of its own.

    As in mergekit: what comes before the layers is made as the first slice is, and what comes after as the last; a
    gradient runs over each slice anew.
    """

    slices: Sequence[Slice]

    @classmethod
    def stored(cls, slices: Iterable[Mapping[str, Any]]) -> "Slices":
        """Slices as JSON holds them."""
        return cls([Slice({model: (first, end) for model, (first, end) in found["layers"].items()}) for found in slices])

    @property
    def count(self) -> int:
        """The number of slices."""
        return len(self.slices)

    @property
    def layers(self) -> int:
        """The number of layers of the result."""
        return sum(found.length for found in self.slices)

    def source_layers(self) -> list[int]:
        """For each layer of the result, which layer of its first model it is made of."""
        return [layer for found in self.slices for layer in range(*next(iter(found.layers.values())))]

    def names(self, tensors: Mapping[str, Iterable[str]]) -> list[str]:
        """The result's tensors, from those of each model by name, in their order in the first slice's first model."""
        first, last = (next(iter(self.slices[at].layers)) for at in (0, -1))
        names = [name for name in tensors[first] if layer_of(name) < 0 and BEFORE_LAYERS.search(name)]
        at = 0
        for found in self.slices:
            model, (begin, end) = next(iter(found.layers.items()))
            names += [in_layer(name, at + layer_of(name) - begin) for name in tensors[model] if begin <= layer_of(name) < end]
            at += found.length
        return names + [name for name in tensors[last] if layer_of(name) < 0 and not BEFORE_LAYERS.search(name)]

    def check(self, tensors: Mapping[str, Mapping[str, TensorInfo]]) -> None:
        """Raise IncompatibleExperts when models lack layers that are asked for, or layers that are stacked differ."""
        for model, names in tensors.items():
            towers = {name[: at.start()] for name in names if (at := LAYER.search(name))}
            if len(towers) > 1:
                raise IncompatibleExperts(f"{model} has layers in {', '.join(sorted(towers))}; models of several parts can't be stacked.")
        for number, found in enumerate(self.slices):
            for model, (_, end) in found.layers.items():
                if end > (count := count_layers(tensors[model])):
                    raise IncompatibleExperts(f"Slice {number} takes layers of {model} up to {end - 1}; it has {count}, from 0 on.")
        shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name in self.names(tensors):
            for model in tensors:
                source = self.source(name, model)
                if source is None:
                    continue
                if source not in tensors[model]:
                    raise IncompatibleExperts(f"{model} has no tensor {source}, of which {name} is to be made.")
                of, shape = shapes.setdefault(in_layer(name, 0), (f"{source} of {model}", tensors[model][source].shape))
                if tensors[model][source].shape != shape:
                    raise IncompatibleExperts(
                        f"{source} of {model} is {list(tensors[model][source].shape)}, {of} {list(shape)}; they can't be stacked."
                    )

    def spans(self, tensor: str, numel: int) -> list[tuple[int, int, int]]:
        """The runs of a tensor's entries that have numbers of their own, with their slices: one."""
        return [(0, numel, self.group(tensor))]

    def group(self, tensor: str) -> int:
        """The slice of a tensor, from 0."""
        return self._locate(tensor)[0]

    def depth(self, tensor: str) -> float:
        """Where a tensor stands in its slice, from 0 to 1."""
        number, offset = self._locate(tensor)
        return _depth(offset, self.slices[number].length)

    def source(self, tensor: str, model: str) -> str | None:
        """The name in a model of what the tensor is made of; None when the slice leaves the model out."""
        number, offset = self._locate(tensor)
        layers = self.slices[number].layers.get(model)
        if layers is None:
            return None
        return tensor if offset < 0 else in_layer(tensor, layers[0] + offset)

    def _locate(self, tensor: str) -> tuple[int, int]:
        layer = layer_of(tensor)
        if layer < 0:
            return (0 if BEFORE_LAYERS.search(tensor) else self.count - 1), -1
        for number, found in enumerate(self.slices):
            if layer < found.length:
                return number, layer
            layer -= found.length
        raise ValueError(f"{tensor} stands beyond the last slice")


Groups = LayerGroups | Slices | TensorGroups
"""How the numbers of a merge are spread over its tensors."""


def _depth(layer: int, layers: int) -> float:
    if layer < 0:
        return 0.0
    return layer / (layers - 1) if layers > 1 else 1.0
