"""What is known of a model before its weights are downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hfsafemerge.checkpoint import DTYPES, INDEX, SINGLE, AdapterSettings, Checkpoint, ModelSummary, TensorInfo, says_tied
from hfsafemerge.checkpoint.headers import read_header
from hfsafemerge.errors import CheckpointError, UnsafeRepository
from hfsafemerge.hub import client
from hfsafemerge.hub.downloading import download
from hfsafemerge.hub.fetching import adapter_files, pull_adapter, resolve, shards, small_files, weight_files
from hfsafemerge.hub.listing import Listing, bytes_to_fetch, is_cached, listing
from hfsafemerge.hub.lookup import Access, Facts, look_up
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.hub.small_files import chat_template, read_json, refuse_auto_map, refuse_code, vocabulary
from hfsafemerge.hub.stopping import Stop, all_at_once
from hfsafemerge.recipe import ModelRef, Ref

AT_ONCE = 8


@dataclass(frozen=True)
class FoundModel:
    """What is known of a model before its weights are downloaded; `download` and `to_fetch` in bytes.

    `download` is the size of its weights, with its adapter's, and `to_fetch` what of that is not in the cache.
    """

    ref: ModelRef
    commit: str
    summary: ModelSummary
    license: str | None
    download: int
    adapter_commit: str | None = None
    access: Access = "local"
    adapter_access: Access = "local"
    to_fetch: int = 0

    @property
    def label(self) -> str:
        """The model and its commit, as provenance names it."""
        adapter = f"+{self.ref.adapter.repo_id or self.ref.adapter.path}@{self.adapter_commit}" if self.ref.adapter else ""
        return f"{self.ref.repo_id or self.ref.path}@{self.commit}{adapter}"


def find_model(ref: ModelRef, notify: Notify = say_nothing) -> FoundModel:
    """All that can be known of a model from its small files and the headers of its weights.

    Args:
        ref: the model.
        notify: is told of faults of the Hub that pass.

    Raises:
        HubError: it can't be reached, or the caller may not read it.
        UnsafeRepository: it holds code, the Hub's scan warns of a file that would be read, or its index points out of it.
        CheckpointError: it holds no safetensors weights, or a file of it is damaged.
    """
    found = _find_local(ref, ref.path) if ref.path is not None else _find_remote(ref, notify)
    return _with_adapter(found, ref.adapter, notify) if ref.adapter is not None else found


def _find_local(ref: ModelRef, folder: Path) -> FoundModel:
    commit, files = resolve(ref), {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    refuse_code(str(ref), files)
    size = sum(size for file, size in files.items() if file.endswith(".safetensors"))
    return FoundModel(ref, commit, _summary(str(ref), folder, Checkpoint(folder).tensors), None, size)


def _find_remote(ref: ModelRef, notify: Notify) -> FoundModel:
    repo_id, told = str(ref.repo_id), look_up(ref, "model", notify)
    refuse_code(str(ref), dict.fromkeys(told.files, 0))
    _require_weights(repo_id, told.files)
    files = listing(repo_id, "model", told.commit)
    small = small_files(files)
    _refuse_issues(str(ref), told, small)
    folder = download(repo_id, "model", told.commit, small, notify)
    weights = weight_files(files, folder, str(ref))
    _refuse_issues(str(ref), told, weights)
    tensors = _remote_tensors(repo_id, told.commit, weights, folder, notify)
    return FoundModel(
        ref,
        told.commit,
        _summary(str(ref), folder, tensors),
        told.license,
        sum(entry.size for entry in weights.values()),
        access=told.access,
        to_fetch=bytes_to_fetch(repo_id, "model", told.commit, weights),
    )


def _with_adapter(found: FoundModel, ref: Ref, notify: Notify) -> FoundModel:
    """A model with what is known of its adapter, whose settings must be those of plain LoRA. Raises CheckpointError for others."""
    if ref.path is not None:
        AdapterSettings.read(ref.path)
        return replace(found, adapter_commit=resolve(ref))
    repo_id, told = str(ref.repo_id), look_up(ref, "model", notify)
    refuse_code(str(ref), dict.fromkeys(told.files, 0))
    files = adapter_files(listing(repo_id, "model", told.commit), str(ref))
    _refuse_issues(str(ref), told, files)
    AdapterSettings.read(pull_adapter(ref, told.commit, told.access, notify, settings_only=True))
    return replace(
        found,
        adapter_commit=told.commit,
        adapter_access=told.access,
        download=found.download + sum(entry.size for entry in files.values()),
        to_fetch=found.to_fetch + bytes_to_fetch(repo_id, "model", told.commit, files),
    )


def _summary(name: str, folder: Path, tensors: Mapping[str, TensorInfo]) -> ModelSummary:
    config = read_json(folder / "config.json", name)
    refuse_auto_map(config, name)
    settings = read_json(folder / "tokenizer_config.json", name) if (folder / "tokenizer_config.json").exists() else {}
    refuse_auto_map(settings, name)
    template = chat_template(folder, settings)
    return ModelSummary(name, _architecture(config), dict(tensors), vocabulary(folder, name), template, bool(says_tied(config)))


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else "unknown"


def _require_weights(repo_id: str, files: tuple[str, ...]) -> None:
    if not {SINGLE, INDEX} & set(files):
        others = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".gguf", ".safetensors"))]
        raise CheckpointError(
            f"{repo_id} has no model.safetensors{f', only {others[0]} and the like' if others else ''}. Only safetensors weights are read; "
            "look for a converted copy, or adapters merged into their model."
        )


def _refuse_issues(name: str, told: Facts, read: Listing) -> None:
    """Raise UnsafeRepository where the Hub's scan warns of a file that is read. What is not read does no harm."""
    if issues := sorted(told.issues.keys() & read.keys()):
        words = ", ".join(f"{file} ({told.issues[file]})" for file in issues)
        raise UnsafeRepository(f"{name}: the Hub's security scan warns of {words}. Do not use this model; its page says what was found.")


def _remote_tensors(repo_id: str, commit: str, weights: Listing, folder: Path, notify: Notify) -> dict[str, TensorInfo]:
    """The tensors of a model by the headers of its files, of which only the first bytes are read unless the cache has them."""
    headers: dict[str, Mapping[str, TensorInfo]] = {}

    def header(file: str) -> Mapping[str, TensorInfo]:
        with client.hub_errors(f"{file} of {repo_id}@{commit[:8]}"):
            found = client.api().parse_safetensors_file_metadata(repo_id, file, revision=commit)
        return {name: TensorInfo(info.dtype, tuple(info.shape)) for name, info in found.tensors.items()}

    def read(file: str) -> None:
        headers[file] = persist(partial(header, file), notify)

    cached = {file: entry for file, entry in weights.items() if is_cached(repo_id, "model", commit, file, entry)}
    if cached:
        held = download(repo_id, "model", commit, cached, notify)
        headers |= {file: read_header(held / file).tensors for file in cached}
    all_at_once([partial(read, file) for file in weights if file not in cached], AT_ONCE, Stop())
    headers = {file: headers[file] for file in weights}
    if SINGLE not in weights:
        _require_agreement(repo_id, shards(folder, weights, repo_id), headers)
    tensors = {name: info for found in headers.values() for name, info in found.items()}
    for name, info in tensors.items():
        if info.dtype not in DTYPES:
            raise CheckpointError(f"{repo_id}: {name} has dtype {info.dtype}, which can't be merged. Use unquantised weights.")
    return tensors


def _require_agreement(repo_id: str, index: Mapping[str, str], headers: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    held = {(tensor, shard) for shard, header in headers.items() for tensor in header}
    if odd := sorted(held ^ set(index.items())):
        tensor, shard = odd[0]
        fault = f"{INDEX} puts it in {index[tensor]}" if tensor in index else f"{INDEX} does not name it"
        there = f"{shard} holds it and " if odd[0] in held else f"{shard} does not hold it though "
        raise CheckpointError(f"{repo_id}: the index and the shards disagree about tensor {tensor!r}: {there}{fault}.")
