"""Files by the SHA-256 of their bytes: written beside their place, then moved into it, so that a blob is whole or absent."""

import hashlib
import re
import secrets
import shutil
from pathlib import Path

from hfsafemerge.localhub.problems import HubProblem

DIGEST = re.compile(r"[0-9a-f]{64}")
COPY_BYTES = 1 << 20


class Blobs:
    """The content of all repositories, under blobs/<first two digits>/<digest>. Equal files are kept once."""

    def __init__(self, root: Path) -> None:
        """Open the blobs of a root, and drop what a killed server had received only in part."""
        self._blobs = root / "blobs"
        self._incoming = root / "incoming"
        self._parts = root / "parts"
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be. Raises HubProblem when the digest is no SHA-256."""
        _check(sha256)
        return self._blobs / sha256[:2] / sha256

    def __contains__(self, sha256: str) -> bool:
        return self.path(sha256).exists()

    def add(self, data: bytes) -> str:
        """Keep the bytes; their digest."""
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in self:
            file = self.new_file()
            file.write_bytes(data)
            self.adopt(file, sha256)
        return sha256

    def new_file(self) -> Path:
        """A path to write something to that is not whole yet."""
        return self._incoming / secrets.token_hex(8)

    def adopt(self, file: Path, sha256: str) -> None:
        """Move a whole file to its place. The caller has computed the digest."""
        _move(file, self.path(sha256))

    def adopt_part(self, file: Path, sha256: str, number: int) -> None:
        """Keep one part of a blob that comes in several. Parts survive a restart, as the client sends each only once."""
        _check(sha256)
        _move(file, self._parts / sha256 / str(number))

    def join_parts(self, sha256: str, count: int) -> None:
        """Make a blob of its parts 1..count. Raises HubProblem when one is missing or the whole has another digest."""
        if sha256 in self:
            return
        parts = [self._parts / sha256 / str(number) for number in range(1, count + 1)]
        if missing := [part.name for part in parts if not part.exists()]:
            raise HubProblem(400, f"Part {missing[0]} of {count} of {sha256} never arrived. Upload the file again.")
        file = self.new_file()
        digest = hashlib.sha256()
        with file.open("wb") as whole:
            for part in parts:
                with part.open("rb") as source:
                    while data := source.read(COPY_BYTES):
                        digest.update(data)
                        whole.write(data)
        shutil.rmtree(self._parts / sha256)
        if digest.hexdigest() != sha256:
            file.unlink()
            raise HubProblem(400, f"The parts of {sha256} make a file with the digest {digest.hexdigest()}. Upload it again.")
        self.adopt(file, sha256)


def _check(sha256: str) -> None:
    if not DIGEST.fullmatch(sha256):  # it becomes part of a path
        raise HubProblem(400, f"{sha256!r} is no SHA-256: 64 hexadecimal digits in lower case.")


def _move(file: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    file.replace(place)
