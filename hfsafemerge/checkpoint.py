"""Weights in and out: headers and single tensors of safetensors folders, and shards written as tensors come."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hfsafemerge.errors import CheckpointError, IncompatibleExperts, OutOfDisk, UnsafeRepository

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
MAX_HEADER_BYTES = 25_000_000
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class TensorInfo:
    """What a header says of one tensor: `dtype` as safetensors names it (F32, BF16, ...)."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class ModelSummary:
    """All that decides whether models can be merged, known without their weights."""

    name: str
    architecture: str
    tensors: Mapping[str, TensorInfo]
    vocabulary: str  # a digest of the tokenizer's token -> id map
    chat_template: str | None

    @property
    def dtypes(self) -> str:
        """The dtypes of the weights, such as BF16."""
        return ", ".join(sorted({info.dtype for info in self.tensors.values()}))

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(info.size for info in self.tensors.values())


def check_mergeable(base: ModelSummary, experts: Sequence[ModelSummary], *, same_chat_template: bool = True) -> None:
    """Refuse experts that were not fine-tuned from the same model as the base.

    Raises:
        IncompatibleExperts: naming the expert, what differs, and both values.
    """
    for expert in experts:
        pair = f"{expert.name!r} can't be merged with the base {base.name!r}"
        if expert.architecture != base.architecture:
            raise IncompatibleExperts(f"{pair}: it is a {expert.architecture}, the base a {base.architecture}.")
        if missing := sorted(base.tensors.keys() - expert.tensors.keys()):
            raise IncompatibleExperts(
                f"{pair}: it lacks {len(missing)} tensors, such as {missing[0]}. Experts must be fine-tuned from the base."
            )
        if extra := sorted(expert.tensors.keys() - base.tensors.keys()):
            raise IncompatibleExperts(
                f"{pair}: it has {len(extra)} tensors more, such as {extra[0]}. Experts must be fine-tuned from the base."
            )
        for name, info in base.tensors.items():
            if expert.tensors[name].shape != info.shape:
                shapes = f"{list(expert.tensors[name].shape)} there, {list(info.shape)} in the base"
                raise IncompatibleExperts(f"{pair}: {name} is {shapes}. Experts must be fine-tuned from the base.")
        if expert.vocabulary != base.vocabulary:
            raise IncompatibleExperts(f"{pair}: their tokenizers map tokens to different ids. Choose an expert with the base's tokenizer.")
        if same_chat_template and expert.chat_template != base.chat_template:
            raise IncompatibleExperts(
                f"{pair}: their chat templates differ. If you know that the base's template suits both, set merge.chat_template: base."
            )


class Checkpoint:
    """The opened weights of a folder: every tensor's header at once, the data of one tensor at a time."""

    def __init__(self, folder: Path) -> None:
        """Open a folder with model.safetensors or a sharded index. Raises CheckpointError when it is malformed."""
        self.folder = folder
        self.files = _shard_of_each_tensor(folder)
        headers = {shard: read_header(folder / shard) for shard in sorted(set(self.files.values()))}
        self.tensors = {name: info for header in headers.values() for name, info in header.items()}
        if self.tensors.keys() != self.files.keys():
            odd = sorted(self.tensors.keys() ^ self.files.keys())[0]
            raise CheckpointError(f"{folder}: the index and the shards disagree about tensor {odd!r}. Download the model again.")
        self._open: dict[str, Any] = {}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU, in its own dtype."""
        shard = self.files[name]
        try:
            if shard not in self._open:
                self._open[shard] = safe_open(self.folder / shard, framework="pt")
            tensor: Tensor = self._open[shard].get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"Can't read {name} from {self.folder / shard}: {error}. Download the model again.") from error
        return tensor


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors that a safetensors file says it holds. Raises CheckpointError when the header is malformed."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise CheckpointError(
                    f"{path} has a header of {length} bytes; at most {MAX_HEADER_BYTES} are read. It is no safetensors file."
                )
            entries = json.loads(file.read(length), object_pairs_hook=_no_duplicates)
            if not isinstance(entries, dict):
                raise ValueError("it is no mapping")
    except OSError as error:
        raise CheckpointError(f"Can't read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"{path} has a malformed header: {error}. Download it again.") from error
    return {name: _tensor_info(path, name, entry) for name, entry in entries.items() if name != "__metadata__"}


def _tensor_info(path: Path, name: str, entry: Any) -> TensorInfo:
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(), int()]} if all(type(n) is int and n >= 0 for n in shape):
            if dtype in DTYPES:
                return TensorInfo(dtype, tuple(shape))
            raise CheckpointError(f"{path}: {name} has dtype {dtype}, which can't be merged. Use unquantised weights.")
    raise CheckpointError(f"{path} has a malformed header: {name} is {str(entry)[:60]}. Download it again.")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _shard_of_each_tensor(folder: Path) -> dict[str, str]:
    if (folder / SINGLE).exists():
        return dict.fromkeys(read_header(folder / SINGLE), SINGLE)
    if not (folder / INDEX).exists():
        raise CheckpointError(f"{folder} holds neither {SINGLE} nor {INDEX}. Only safetensors weights are read.")
    try:
        shards: dict[str, str] = {str(name): str(shard) for name, shard in json.loads((folder / INDEX).read_text())["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder / INDEX} is malformed: {error}. Download it again.") from error
    for shard in shards.values():  # transformers would follow a path out of the folder
        if not SHARD_NAME.fullmatch(shard):
            raise UnsafeRepository(f"{folder / INDEX} points to {shard!r}, which is no plain file name. Do not use this model.")
    return shards


def digest(tensor: Tensor) -> str:
    """The SHA-256 of a tensor's dtype, shape and bytes."""
    kind = f"{tensor.dtype} {list(tensor.shape)} ".encode()
    return hashlib.sha256(kind + _bytes(tensor)).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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
        self.digests: dict[str, str] = {}
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

    def write(self, name: str, tensor: Tensor) -> None:
        """Put one tensor in its place. Raises CheckpointError when it is not what was laid out, OutOfDisk when it does not fit."""
        info = self.tensors[name]
        if tuple(tensor.shape) != info.shape or tensor.dtype != DTYPES[info.dtype]:
            raise CheckpointError(f"{name} came out as {tensor.dtype} {list(tensor.shape)}, not {info.dtype} {list(info.shape)}.")
        path, offset = self._place[name]
        with disk_errors(self.folder), path.open("r+b") as file:
            file.seek(offset)
            file.write(_bytes(tensor))
        self.digests[name] = digest(tensor)

    def finish(self) -> None:
        """Make sure that every tensor was written and has reached the disk."""
        if missing := sorted(self.tensors.keys() - self.digests.keys()):
            raise CheckpointError(f"{len(missing)} tensors were never written, such as {missing[0]}.")
        for path in {path for path, _ in self._place.values()}:
            with disk_errors(self.folder), path.open("r+b") as file:
                os.fsync(file.fileno())

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


def require_space(folder: Path, needed: int) -> None:
    """Raise OutOfDisk unless the file system of `folder` has room for `needed` bytes and a little more."""
    free = shutil.disk_usage(folder).free
    if free < needed * 1.02:
        raise OutOfDisk(f"{folder} needs {in_words(needed)} and has {in_words(free)} free. Make room or choose another directory.")


def in_words(size: float) -> str:
    """A number of bytes such as 16.1 GB or 2.4 MB."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk or quota into OutOfDisk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutOfDisk(f"The disk filled up while writing to {folder}. Make room, then run the same command again.") from error
        raise


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `path` only when the block ends well; what stood there goes then."""
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(path, ignore_errors=True)
        part.rename(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
