"""Files in the cache against the digests that the Hub lists: each hashed once, and again only when it has changed."""

import hashlib
import os
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

from huggingface_hub import cached_assets_path, constants
from huggingface_hub._tree_cache import TreeCacheEntry

from hfsafemerge.errors import CheckpointError, UnsafeRepository
from hfsafemerge.hub.listing import Listing, digest_of
from hfsafemerge.hub.stopping import Stop, all_at_once

CHUNK = 1 << 20


def verify(root: Path, folder: Path, files: Listing) -> None:
    """Compare files of a commit with the Hub's listing: the SHA-256 of those in LFS or Xet, git's id of the others.

    It takes one pass of SHA-256 over each file, which is 0.3 to 2 GB a second on each of up to four cores. That a file was found right
    is noted with its size and times, so later runs only look whether it has changed.

    Args:
        root: the folder of the repository in the cache.
        folder: the folder of the commit in it.
        files: what to compare.

    Raises:
        CheckpointError: a file differs; it says what to delete.
        UnsafeRepository: a file is not in the cache at all, but a link out of it.
    """
    stop = Stop()
    all_at_once([partial(_verify, folder / name, entry, stop) for name, entry in files.items()], min(4, os.cpu_count() or 1), stop)


def _verify(path: Path, entry: TreeCacheEntry, stop: Stop) -> None:
    real = path.resolve()
    cache = Path(constants.HF_HUB_CACHE).resolve()
    if not real.is_relative_to(cache):
        raise UnsafeRepository(f"{path} is a link out of the cache, to {real}. Delete {path}, then run the same command again.")
    expected = digest_of(entry)
    size, stamp = _stamp(real)
    if _noted(real) == f"{expected} {stamp}":
        return
    if size != entry.size:
        raise _damaged(path, real, f"it has {size} bytes, and the Hub lists {entry.size}")
    started = hashlib.sha256() if entry.lfs_sha256 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)  # as git names it
    found = _digest(real, started, stop)
    if found != expected:
        raise _damaged(path, real, f"its digest is {found[:12]}..., and the Hub lists {expected[:12]}...")
    with suppress(OSError):  # where nothing can be noted, it is hashed each time
        note = _note(real)
        part = note.with_name(f"{note.name}.{os.getpid()}.{threading.get_ident()}.part")
        part.write_text(f"{expected} {stamp}")
        part.replace(note)


def _damaged(path: Path, real: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {fault}. Delete {real}, then run the same command again to fetch it anew.")


def _noted(real: Path) -> str:
    try:
        return _note(real).read_text()
    except OSError:
        return ""


def _note(real: Path) -> Path:
    name = hashlib.sha256(str(real).encode()).hexdigest()
    return cached_assets_path("hfsafemerge", "verified") / name


def _stamp(real: Path) -> tuple[int, str]:
    found = real.stat()
    return found.st_size, f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _digest(path: Path, found: "hashlib._Hash", stop: Stop) -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            stop.require_wanted()
            found.update(chunk)
    return found.hexdigest()
