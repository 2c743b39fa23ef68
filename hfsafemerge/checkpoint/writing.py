"""Tensors into safetensors shards: headers first, then each tensor in its place, in any order."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from hfsafemerge.checkpoint.disk import disk_errors, require_space
from hfsafemerge.checkpoint.headers import DTYPES, INDEX, SINGLE, TensorInfo
from hfsafemerge.checkpoint.reading import data, opened
from hfsafemerge.errors import CheckpointError


class CheckpointWriter:
    """Writes tensors, as they come and in any order, to safetensors shards whose headers are written first."""

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo], *, max_shard_size: int = 5_000_000_000) -> None:
        """Lay out the shards and write their headers.

        Args:
            folder: an existing folder.
            tensors: all that will be written.
            max_shard_size: bytes of data in one file, unless one tensor alone is larger.

        Raises:
            OutOfDisk: the file system has no room for it.
        """
        self.folder = folder
        self.tensors = tensors
        self._left = {name: info.numel for name, info in tensors.items()}  # entries
        self._place: dict[str, tuple[Path, int]] = {}  # tensor -> its file and offset
        require_space(folder, sum(info.size for info in tensors.values()))
        shards = _split(tensors, max_shard_size)
        width = len(shards)
        for number, names in enumerate(shards, 1):
            file = SINGLE if width == 1 else f"model-{number:05d}-of-{width:05d}.safetensors"
            self._write_header(folder / file, names)
        if width > 1:
            total = {"total_size": sum(info.size for info in tensors.values())}
            index = {"metadata": total, "weight_map": {name: path.name for name, (path, _) in self._place.items()}}
            (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True))
        self._open = opened({path: path for path, _ in self._place.values()}, os.O_WRONLY, self)

    def write(self, name: str, tensor: Tensor) -> None:
        """Put one tensor in its place; from several threads at once, if they like.

        Raises:
            CheckpointError: it is not what was laid out.
            OutOfDisk: it does not fit.
        """
        info = self.tensors[name]
        if tuple(tensor.shape) != info.shape or tensor.dtype != DTYPES[info.dtype]:
            raise CheckpointError(f"{name} came out as {tensor.dtype} {list(tensor.shape)}, not {info.dtype} {list(info.shape)}.")
        self.write_run(name, 0, tensor.reshape(-1))

    def write_run(self, name: str, start: int, run: Tensor) -> None:
        """Put entries of a tensor, flat, in their place from index `start` on; a tensor's runs come from one thread."""
        path, at = self._place[name]
        at += start * run.element_size()
        left = data(run)
        with disk_errors(self.folder):
            while left:  # one call writes 2 GB at most
                count = os.pwrite(self._open[path], left, at)
                left, at = left[count:], at + count
        self._left[name] -= run.numel()

    def finish(self) -> None:
        """Make sure that every tensor was written, and close the files.

        What is written is not forced to the disk: it outlives the process, but not a power failure a moment later.

        Raises:
            CheckpointError: a tensor is missing.
            OutOfDisk: the file system says only now that it is full, as network file systems may.
        """
        if missing := sorted(name for name, left in self._left.items() if left > 0):
            raise CheckpointError(f"{len(missing)} tensors were never written, such as {missing[0]}.")
        with disk_errors(self.folder):
            while self._open:
                os.close(self._open.popitem()[1])

    def _write_header(self, path: Path, names: Sequence[str]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        at = 0
        for name in names:
            info = self.tensors[name]
            header[name] = {"dtype": info.dtype, "shape": list(info.shape), "data_offsets": [at, at + info.size]}
            at += info.size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # the data starts at a multiple of 8
        with disk_errors(self.folder), path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.truncate(8 + len(text) + at)
        for name in names:
            self._place[name] = (path, 8 + len(text) + header[name]["data_offsets"][0])


def _split(tensors: Mapping[str, TensorInfo], limit: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, info in tensors.items():
        if shards[-1] and filled + info.size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += info.size
    return shards
