"""Xet storage, as far as a folder of this machine can stand for it.

The clients' own Xet library reads and writes a store at a `local://` address, so they upload and download in the default way
without a network. The store has one lock: one client process at a time. What a commit names is copied out of it, so that
clients without Xet, pages and all else of this hub find the file as if it had come by LFS.
"""

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from hfsafemerge.localhub.blobs import Blobs

HASH_BYTES = 32
ENTRY_BYTES = 48  # of everything in a shard: its header, a file's header, a segment of it, its verification, its digest
HAS_VERIFICATION, HAS_DIGEST = 1 << 31, 1 << 30
READ = """
import json, sys, time, hf_xet
store, files = json.load(sys.stdin)
wanted = [hf_xet.PyXetDownloadInfo(*file) for file in files]
hf_xet.download_files(wanted, store, ("none", int(time.time()) + 3600), None, None)
"""


class XetStore:
    """The store that the clients write to."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, which is made when it does not exist."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        self._known: dict[str, tuple[str, int]] = {}  # SHA-256 -> Xet hash, size in bytes
        self._read: set[Path] = set()

    @property
    def address(self) -> str:
        """What the clients' library opens."""
        return f"local://{self._folder}"

    def hash_of(self, sha256: str) -> str | None:
        """The Xet hash of a file by the SHA-256 of its bytes, or None when it did not come here."""
        if sha256 not in self._known:
            for shard in set(self._folder.glob("**/shards/*.mdb")) - self._read:
                self._known.update(files_of_shard(shard.read_bytes()))
                self._read.add(shard)
        return self._known[sha256][0] if sha256 in self._known else None

    def copy_to(self, blobs: Blobs, digests: Sequence[str]) -> None:
        """Put those files among the blobs that are here and not there yet."""
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in blobs and self.hash_of(digest)]
        if not wanted:
            return
        with tempfile.TemporaryDirectory() as temporary:
            # a copy, as the process that uploads may hold the lock
            shutil.copytree(self._folder, f"{temporary}/store")
            files = [(str(blobs.new_file()), *self._known[digest]) for digest in wanted]
            subprocess.run(
                [sys.executable, "-c", READ], input=json.dumps([f"local://{temporary}/store", files]), text=True, check=True,
                env=os.environ | {"HF_HOME": f"{temporary}/home", "HF_XET_CACHE": f"{temporary}/cache"},
            )  # fmt: skip
        for digest, (path, _, _) in zip(wanted, files, strict=True):
            blobs.adopt(Path(path), digest)


def files_of_shard(shard: bytes) -> Iterator[tuple[str, tuple[str, int]]]:
    """What a shard says of the files that it describes: SHA-256, Xet hash and size, for those with a SHA-256.

    A file is a header (hash, flags, number of segments), its segments, as many verifications if flagged, and a digest if flagged.
    """
    at = ENTRY_BYTES
    while shard[at : at + HASH_BYTES] != b"\xff" * HASH_BYTES:
        xet_hash = _hexadecimal(shard[at : at + HASH_BYTES])
        flags, segments = struct.unpack_from("<II", shard, at + HASH_BYTES)
        at += ENTRY_BYTES
        size = sum(struct.unpack_from("<I", shard, at + ENTRY_BYTES * number + HASH_BYTES + 4)[0] for number in range(segments))
        at += ENTRY_BYTES * segments * (2 if flags & HAS_VERIFICATION else 1)
        if flags & HAS_DIGEST:
            yield _hexadecimal(shard[at : at + HASH_BYTES]), (xet_hash, size)
            at += ENTRY_BYTES


def _hexadecimal(digest: bytes) -> str:
    """Digests are kept as four numbers of 64 bits, the low byte first."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))
