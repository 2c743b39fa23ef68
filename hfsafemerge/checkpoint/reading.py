"""Tensors out of safetensors folders: each read once, by its offset, into memory of its own."""

import hashlib
import math
import os
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from hfsafemerge.checkpoint.headers import DTYPES, TensorInfo, read_headers
from hfsafemerge.errors import CheckpointError

EXPONENT = {  # of NaN and Inf all exponent bits are set: where they are in the bits of a number, seen as an integer
    torch.float64: (torch.int64, 0x7FF0000000000000),
    torch.float32: (torch.int32, 0x7F800000),
    torch.float16: (torch.int16, 0x7C00),
    torch.bfloat16: (torch.int16, 0x7F80),
}


Key = TypeVar("Key")


@runtime_checkable
class Weights(Protocol):
    """Tensors by name, read one at a time: a folder, or a folder seen as something else (with an adapter, another vocabulary)."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What there is to read."""

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU. May be called from several threads at once."""


class Checkpoint:
    """The opened weights of a folder: every tensor's header at once, the data of one tensor at a time."""

    def __init__(self, folder: Path) -> None:
        """Open a folder with model.safetensors or a sharded index. Raises CheckpointError when it is malformed."""
        self.folder = folder
        self.files, headers = read_headers(folder)
        self.tensors = {name: info for header in headers.values() for name, info in header.tensors.items()}
        if self.tensors.keys() != self.files.keys():
            odd = sorted(self.tensors.keys() ^ self.files.keys())[0]
            raise CheckpointError(f"{folder}: the index and the shards disagree about tensor {odd!r}. Download the model again.")
        if misplaced := sorted(name for name, shard in self.files.items() if name not in headers[shard].tensors):
            raise CheckpointError(f"{folder}: {misplaced[0]!r} is not in the shard that the index names. Download the model again.")
        self._offsets = {name: headers[shard].offsets[name] for name, shard in self.files.items()}
        self._open = opened({shard: folder / shard for shard in headers}, os.O_RDONLY, self)

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its own dtype. Raises CheckpointError when the file is cut off or can't be read."""
        info = self.tensors[name]
        return self.read_run(name, 0, info.numel).reshape(info.shape)

    def read_run(self, name: str, start: int, stop: int) -> Tensor:
        """The entries of a tensor from one index to before another, flat. Raises CheckpointError as `read` does."""
        info, shard = self.tensors[name], self.files[name]
        if info.size == 0 or start == stop:
            return torch.empty(0, dtype=DTYPES[info.dtype])
        width = DTYPES[info.dtype].itemsize
        read = np.empty((stop - start) * width, dtype=np.uint8)  # numpy asks for huge pages, which spares most page faults
        view, at = read.data, self._offsets[name] + start * width
        try:
            while view:  # one call reads 2 GB at most
                count = os.preadv(self._open[shard], [view], at)
                if count == 0:
                    raise CheckpointError(f"{self.folder / shard} ends within {name}. Download the model again.")
                view, at = view[count:], at + count
        except OSError as error:
            raise CheckpointError(f"Can't read {name} from {self.folder / shard}: {error.strerror}.") from error
        return torch.from_numpy(read).view(DTYPES[info.dtype])


class Unread:
    """A tensor of a checkpoint that is read a run of entries at a time, where it is gone through once from beginning to end."""

    device = torch.device("cpu")

    def __init__(self, checkpoint: Checkpoint, name: str) -> None:
        """Name the tensor; nothing is read."""
        info = checkpoint.tensors[name]
        self.shape, self.dtype = torch.Size(info.shape), DTYPES[info.dtype]
        self._checkpoint, self._name = checkpoint, name
        self._last: tuple[slice, Tensor] | None = None

    def numel(self) -> int:
        """The number of entries."""
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        """Whether they are floats."""
        return self.dtype.is_floating_point

    def __getitem__(self, run: slice) -> Tensor:
        """The entries of a run, flat. What asks for one twice in a row gets what was read."""
        if self._last is None or self._last[0] != run:
            self._last = (run, self._checkpoint.read_run(self._name, run.start, run.stop))
        return self._last[1]


def opened(files: Mapping[Key, Path], flags: int, owner: object) -> dict[Key, int]:
    """Descriptors of files that stay open as long as their owner lives."""
    found: dict[Key, int] = {}
    weakref.finalize(owner, _close, found)
    for key, path in files.items():
        found[key] = os.open(path, flags)
    return found


def _close(descriptors: dict[Key, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])


def not_finite(tensor: Tensor) -> str | None:
    """What a tensor holds that is no finite number: "NaN", "Inf" or nothing."""
    if tensor.dtype not in EXPONENT or tensor.numel() == 0:
        return None
    if math.isfinite(tensor.sum(dtype=torch.float64 if tensor.dtype == torch.float64 else torch.float32).item()):
        return None  # NaN and Inf can't vanish from a sum
    kind, exponent = EXPONENT[tensor.dtype]
    largest = int((tensor.view(kind).flatten() & torch.iinfo(kind).max).amax())  # without signs, magnitudes are ordered as integers are
    return None if largest < exponent else "Inf" if largest == exponent else "NaN"


def digest(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's dtype, shape and bytes."""
    found = hashlib.sha256(f"{tensor.dtype} {list(tensor.shape)} ".encode())
    found.update(data(tensor))
    return found.hexdigest()


def digests(weights: Weights) -> dict[str, str]:
    """The digest of every tensor by name."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return dict(zip(weights.tensors, pool.map(lambda name: digest(weights.read(name)), weights.tensors), strict=True))


def data(tensor: Tensor) -> memoryview:
    """The bytes of a tensor, in the order in which safetensors keeps them; a copy only where they lie otherwise."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
