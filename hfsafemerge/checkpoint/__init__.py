"""Weights in and out: headers and single tensors of safetensors folders, and shards written as tensors come."""

from hfsafemerge.checkpoint.adapter import LoraAdapter
from hfsafemerge.checkpoint.adapter_settings import AdapterSettings
from hfsafemerge.checkpoint.disk import atomic_folder, disk_errors, in_words, require_space, size_in_bytes
from hfsafemerge.checkpoint.embeddings import input_embeddings, output_head, says_tied
from hfsafemerge.checkpoint.fitting import ModelSummary, check_mergeable
from hfsafemerge.checkpoint.headers import DTYPES, INDEX, SINGLE, TensorInfo, read_header
from hfsafemerge.checkpoint.reading import Checkpoint, Unread, Weights, digest, digests, not_finite
from hfsafemerge.checkpoint.tying import TIED, is_tied, settle_output_heads
from hfsafemerge.checkpoint.writing import CheckpointWriter

__all__ = [
    "DTYPES",
    "INDEX",
    "SINGLE",
    "TIED",
    "AdapterSettings",
    "Checkpoint",
    "CheckpointWriter",
    "LoraAdapter",
    "ModelSummary",
    "TensorInfo",
    "Unread",
    "Weights",
    "atomic_folder",
    "check_mergeable",
    "digest",
    "digests",
    "disk_errors",
    "in_words",
    "input_embeddings",
    "is_tied",
    "not_finite",
    "output_head",
    "read_header",
    "require_space",
    "says_tied",
    "settle_output_heads",
    "size_in_bytes",
]
