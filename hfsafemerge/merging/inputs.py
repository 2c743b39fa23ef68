"""What merge methods ask for by name, computed for one tensor, or for a part of it."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int16
from torch import Tensor

from hfsafemerge.checkpoint import Checkpoint, Unread, Weights
from hfsafemerge.errors import CheckpointError, RecipeError

SHORT = 1 << 13
MIDDLE = torch.tensor(0.5 + 2**-17)  # between the 16 bits' numbers from 0 to 1, which are never met exactly
ENTRIES_A_DRAW = 4  # of the random generator's 64 bits, each entry takes 16

Importance = Mapping[str, tuple[Weights, Weights]]
"""For each expert by name the scores of the base on the expert's data, and those of the expert: at least 0, in the models' shapes."""


@dataclass(frozen=True)
class Entries:
    """Numbers for all entries of a tensor, made a run at a time so that they never need to be in memory together."""

    numel: int
    device: torch.device
    run: Callable[[int, int], Float[Tensor, "n"]]
    """Those from a first index to before a second, in float32."""

    def runs(self) -> Iterator[tuple[int, int, Float[Tensor, "n"]]]:
        """All of them in order: first index, end, numbers."""
        for start, stop in spans(self.numel, entries_at_once(8, self.device)):  # what they make of it takes its place in the cache too
            yield start, stop, self.run(start, stop)


@dataclass(frozen=True)
class TensorInputs:
    """One tensor of the base and of each expert, in their own dtypes, flat; and where its random numbers come from."""

    name: str
    base: Tensor | Unread
    experts: Sequence[Tensor | Unread]
    expert_names: Sequence[str]
    seed: int
    scores: Importance | None = None

    def of(self, asked: Iterable[str], start: int, stop: int, shape: Sequence[int]) -> dict[str, Any]:
        """The inputs of these names for the entries from `start` to `stop`, in that shape."""
        asked = list(asked)
        found = {}
        if "deltas" in asked:
            rows = self._base_and_deltas(start, stop, shape)
            found = {"base": rows[0], "deltas": rows[1:]}
        return {name: found[name] if name in found else getattr(self, f"_{name}")(start, stop, shape) for name in asked}

    def _base(self, start: int, stop: int, shape: Sequence[int]) -> Tensor:
        return self.base[start:stop].float().reshape(shape)

    def _base_and_deltas(self, start: int, stop: int, shape: Sequence[int]) -> Tensor:
        rows = self._models(start, stop, shape)
        rows[1:].sub_(rows[0])
        return rows

    def _models(self, start: int, stop: int, shape: Sequence[int]) -> Tensor:
        models = torch.empty((1 + len(self.experts), stop - start), dtype=torch.float32, device=self.base.device)
        for row, model in zip(models, (self.base, *self.experts), strict=True):
            row.copy_(model[start:stop])
        return models.reshape(1 + len(self.experts), *shape)

    def _chance(self, start: int, stop: int, shape: Sequence[int]) -> Tensor:
        chance = torch.empty((len(self.experts), stop - start), dtype=torch.float32, device=self.base.device)
        for row, key in zip(chance, self._keys, strict=True):
            row.copy_(random_bits(key, start, stop))
            torch.add(MIDDLE, row, alpha=2**-16, out=row)  # exact, fused or not
        return chance.reshape(len(self.experts), *shape)

    @cached_property
    def _keys(self) -> list[dict[str, Any]]:
        return [random_key(self.seed, self.name, expert) for expert in self.expert_names]

    def _start(self, start: int, stop: int, shape: Sequence[int]) -> int:
        return start

    def _each_delta(self, start: int, stop: int, shape: Sequence[int]) -> list[Entries]:
        def delta(expert: Tensor | Unread) -> Callable[[int, int], Tensor]:
            return lambda begin, end: expert[begin:end].to(torch.float32, copy=True).sub_(self.base[begin:end])

        return [Entries(self.base.numel(), self.base.device, delta(expert)) for expert in self.experts]

    def _importance(self, start: int, stop: int, shape: Sequence[int]) -> list[tuple[Entries, Entries]]:
        if self.scores is None:
            raise RecipeError("The method asks how important each entry is, which only a run computes, from the recipe's calibration data.")
        return [(self._scored(of_base), self._scored(of_expert)) for of_base, of_expert in map(self.scores.__getitem__, self.expert_names)]

    def _scored(self, weights: Weights) -> Entries:
        info, device = weights.tensors.get(self.name), self.base.device
        if info is None or info.numel != self.base.numel():
            raise CheckpointError(f"There are no importance scores for the {self.base.numel()} entries of {self.name}. Calibrate again.")
        found = Unread(weights, self.name) if isinstance(weights, Checkpoint) else weights.read(self.name).reshape(-1)
        return Entries(info.numel, device, lambda start, stop: found[start:stop].to(device, torch.float32))

    def _products(self, start: int, stop: int, shape: Sequence[int]) -> Float64[Tensor, "models models"]:
        total = torch.zeros((1 + len(self.experts),) * 2, dtype=torch.float64, device=self.base.device)
        with one_thread():
            for begin, end in spans(self.base.numel(), entries_at_once(1 + len(self.experts), self.base.device)):
                rows = self._base_and_deltas(begin, end, (end - begin,))
                even = (end - begin) // SHORT * SHORT
                pieces = rows[:, :even].reshape(len(rows), -1, SHORT).transpose(0, 1)  # float32 adds up so few without loss to speak of
                total += (pieces @ pieces.transpose(1, 2)).double().sum(0)
                rest = rows[:, even:].double()
                total += rest @ rest.T
        return total


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch takes no further threads in the block: sums would depend on how many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def entries_at_once(models: int, device: torch.device) -> int:
    """How many entries of each model are worked on at a time: on a CPU what stays in its cache."""
    return max(1 << 12, (1 << 20) // (1 << (models - 1).bit_length())) if device.type == "cpu" else 1 << 24


def spans(total: int, size: int) -> Iterator[tuple[int, int]]:
    """Where runs of `size` entries begin and end."""
    return ((start, min(start + size, total)) for start in range(0, total, size))


def random_key(seed: int, tensor: str, expert: str) -> dict[str, Any]:
    """The state that a generator of random bits starts with: it follows from the recipe's seed and the two names alone."""
    digest = hashlib.sha256(f"{seed}\0{tensor}\0{expert}".encode()).digest()
    return dict(np.random.PCG64DXSM(int.from_bytes(digest[:16], "little")).state)


class _ThreadsOwn(threading.local):
    """What each thread makes once: a new generator takes as long as thousands of its numbers."""

    def __init__(self) -> None:
        self.generator = np.random.PCG64DXSM(0)


_THREADS_OWN = _ThreadsOwn()


def random_bits(key: dict[str, Any], start: int, stop: int) -> Int16[Tensor, "n"]:
    """16 random bits for each entry of a tensor from `start` to `stop`.

    They depend on the key and the entry's index alone, so the order of work, its parts and its device change nothing.
    """
    generator = _THREADS_OWN.generator
    generator.state = key  # type: ignore[assignment]  # numpy's stubs name the state's keys
    first, before = divmod(start, ENTRIES_A_DRAW)
    drawn = generator.advance(first).random_raw(-(-(before + stop - start) // ENTRIES_A_DRAW))
    return torch.from_numpy(drawn.view(np.int16)[before : before + stop - start])
