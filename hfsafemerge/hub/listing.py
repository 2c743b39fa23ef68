"""The files of a commit with their sizes and digests: asked for once, and kept where the Hub's clients keep them too."""

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import RepoFile, constants, is_offline_mode

# The client's own store of listings, which spares `snapshot_download` and Xet their requests, and its store of files that came over
# Xet, which all repositories share. Both are private there (what is public of the first leaves out the digests), so they are used in
# this one file only.
from huggingface_hub._tree_cache import TreeCacheEntry, read_tree_cache, write_tree_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils._shared_blobs import has_shared_blob

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType

Listing = Mapping[str, TreeCacheEntry]


def storage(repo_id: str, repo_type: RepoType) -> Path:
    """The folder of a repository in the cache."""
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo_id, repo_type=repo_type))


def listing(repo_id: str, repo_type: RepoType, commit: str) -> Listing:
    """The files of a commit. Raises HubError when the Hub has to be asked and can't be."""
    folder = str(storage(repo_id, repo_type))
    if (known := read_tree_cache(folder, commit)) is not None:
        return known
    if is_offline_mode():
        raise HubError(
            f"{repo_id}@{commit[:8]} is not in the cache as this tool fetches it, and HF_HUB_OFFLINE is set. "
            f"Unset it, and fetch it with `hfsafemerge pull {repo_id}@{commit}` first."
        )

    with client.hub_errors(f"{repo_id}@{commit[:8]}"):  # the client itself asks for a page up to six times
        tree = list(client.api().list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo_type))
    entries = {found.path: _entry(found) for found in tree if isinstance(found, RepoFile)}
    write_tree_cache(folder, commit, entries)
    return entries


def digest_of(entry: TreeCacheEntry) -> str:
    """What a file is told by: the SHA-256 of one in LFS or Xet, the id that git gives to others; the cache names it by that."""
    return entry.lfs_sha256 or entry.blob_id


def is_cached(repo_id: str, repo_type: RepoType, commit: str, name: str, entry: TreeCacheEntry) -> bool:
    """Whether a file need not be downloaded again: it, or the same one of any repository, came before."""
    folder = storage(repo_id, repo_type)
    if (folder / "snapshots" / commit / name).exists() or (folder / "blobs" / digest_of(entry)).exists():
        return True
    if entry.xet_hash is None or constants.HF_HUB_DISABLE_SYMLINKS:
        return False
    return has_shared_blob(xet_hash=entry.xet_hash, cache_dir=constants.HF_HUB_CACHE, expected_size=entry.size)


def bytes_to_fetch(repo_id: str, repo_type: RepoType, commit: str, files: Listing) -> int:
    """The size of those files that are not in the cache."""
    return sum(entry.size for name, entry in files.items() if not is_cached(repo_id, repo_type, commit, name, entry))


def _entry(file: RepoFile) -> TreeCacheEntry:
    lfs = file.lfs
    return TreeCacheEntry(file.size, file.blob_id, lfs.sha256 if lfs else None, lfs.size if lfs else None, file.xet_hash)
