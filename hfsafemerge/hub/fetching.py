"""References to commits, and commits to files: of a repository only what a merge reads, each file compared with its digest."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from pydantic import ValidationError

from hfsafemerge.checkpoint import INDEX, SINGLE
from hfsafemerge.checkpoint.headers import SHARD_NAME
from hfsafemerge.errors import CheckpointError, HubError, UnsafeRepository
from hfsafemerge.hub.client import RepoType
from hfsafemerge.hub.downloading import Tell, download, tell_nothing
from hfsafemerge.hub.listing import Listing, listing
from hfsafemerge.hub.lookup import Access, look_up, require_access
from hfsafemerge.hub.retrying import Notify, say_nothing
from hfsafemerge.hub.small_files import read_json
from hfsafemerge.recipe import DatasetRef, ModelRef, Ref

# All that a merge reads. Code, pickles and everything else stay where they are.
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
ADAPTER_SETTINGS, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "*.model",
)


def resolve(ref: Ref, repo_type: RepoType = "model", notify: Notify = say_nothing) -> str:
    """The commit that a reference stands for now; for a local path a digest of its files' names, sizes and times.

    Of a model only the files right in its folder count, since no others are read; a run's directory may be in a folder within it.

    Raises:
        HubError: there is no such thing, or the caller may not read it.
    """
    if ref.path is None:
        return look_up(ref, repo_type, notify).commit
    if not ref.path.exists():
        raise HubError(f"{ref.path} does not exist.")
    pattern = "**/*" if isinstance(ref, DatasetRef) else "*"
    files = sorted(p for p in (ref.path.glob(pattern) if ref.path.is_dir() else [ref.path]) if p.is_file())
    stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return "local-" + hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:12]


def pull(
    ref: ModelRef,
    commit: str,
    access: Access | None = None,
    notify: Notify = say_nothing,
    tell: Tell = tell_nothing,
) -> Path:
    """The folder with a model's weights and small files, downloaded where needed, each file compared with its digest once.

    Args:
        ref: the model.
        commit: what the reference stands for.
        access: who may read it, where that is known; None asks the Hub.
        notify: is told of faults that pass.
        tell: is told how far the download is.

    Raises:
        HubError: it can't be fetched, or the caller may not read it.
        CheckpointError: a file in the cache is damaged, or the index does not fit the files.
        UnsafeRepository: the index or a link points out of the repository.
        OutOfDisk: the cache has no room.
    """
    if ref.path is not None:
        return ref.path
    repo_id = str(ref.repo_id)
    require_access(repo_id, "model", access, notify)
    files = listing(repo_id, "model", commit)
    small = small_files(files)
    folder = download(repo_id, "model", commit, small, notify)
    return download(repo_id, "model", commit, {**small, **weight_files(files, folder, str(ref))}, notify, tell)


def pull_adapter(
    ref: Ref,
    commit: str,
    access: Access | None = None,
    notify: Notify = say_nothing,
    tell: Tell = tell_nothing,
    *,
    settings_only: bool = False,
) -> Path:
    """The folder with a LoRA adapter, or with its settings alone, downloaded where needed. Raises as `pull` does."""
    if ref.path is not None:
        return ref.path
    repo_id = str(ref.repo_id)
    require_access(repo_id, "model", access, notify)
    files = adapter_files(listing(repo_id, "model", commit), str(ref), settings_only=settings_only)
    return download(repo_id, "model", commit, files, notify, tell)


def small_files(files: Listing) -> Listing:
    """The configuration and tokenizer of a model, and the index of its shards where its weights are in several files."""
    wanted = SMALL_FILES if SINGLE in files else (*SMALL_FILES, INDEX)
    return {name: entry for name, entry in files.items() if "/" not in name and any(fnmatch(name, pattern) for pattern in wanted)}


def weight_files(files: Listing, folder: Path, name: str) -> Listing:
    """The files that hold a model's weights: one, or those that the index in the folder names. Raises as `shards` does."""
    if SINGLE in files:
        return {SINGLE: files[SINGLE]}
    return {shard: files[shard] for shard in sorted(set(shards(folder, files, name).values()))}


def shards(folder: Path, files: Mapping[str, object], name: str) -> dict[str, str]:
    """The file of each tensor, as the index says.

    Raises:
        UnsafeRepository: it names something other than a plain file.
        CheckpointError: it is malformed, or names a file that the repository does not hold.
    """
    found = read_json(folder / INDEX, name).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{name}: {INDEX} has no weight_map. Look for another copy of the model.")
    for shard in set(map(str, found.values())):
        if not SHARD_NAME.fullmatch(shard):
            raise UnsafeRepository(f"{name}: {INDEX} points to {shard!r}, which is no plain file name. Do not use this model.")
        if shard not in files:
            raise CheckpointError(f"{name}: {INDEX} names {shard}, which is not there. Look for another copy of the model.")
    return {str(tensor): str(shard) for tensor, shard in found.items()}


def adapter_files(files: Listing, name: str, *, settings_only: bool = False) -> Listing:
    """The files of an adapter. Raises HubError when one is missing."""
    wanted: Sequence[str] = (ADAPTER_SETTINGS,) if settings_only else (ADAPTER_SETTINGS, ADAPTER_WEIGHTS)
    for file in (ADAPTER_SETTINGS, ADAPTER_WEIGHTS):
        if file not in files:
            raise HubError(f"{name} has no {file}, so it is no LoRA adapter in safetensors. Name another revision or repository.")
    return {file: files[file] for file in wanted}


def fetch(repo_id: str, file: str, revision: str | None = None, repo_type: RepoType = "model") -> tuple[Path, str]:
    """One file of a repository, and the commit it is of. Raises HubError."""
    try:
        ref = ModelRef(repo_id=repo_id, revision=revision)
    except ValidationError as error:
        raise HubError(f"{repo_id!r} is no repository id. Write it as namespace/name.") from error
    commit = resolve(ref, repo_type)
    files = listing(repo_id, repo_type, commit)
    if file not in files:
        raise HubError(f"{ref} has no {file}. Name another revision or repository.")
    return download(repo_id, repo_type, commit, {file: files[file]}) / file, commit
