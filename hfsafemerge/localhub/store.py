"""The hub that holds all repositories, and writes them to disk.

A repository is one JSON file, written whole beside its place and then moved into it, after every change. So a server
that was killed starts again with all that it had acknowledged.
"""

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hfsafemerge.localhub.blobs import Blobs
from hfsafemerge.localhub.collection_records import Collections
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Kind, Repo
from hfsafemerge.localhub.users import Grants
from hfsafemerge.localhub.xet_store import XetStore


class Hub:
    """All repositories, kept under one folder. One server at a time may use a folder."""

    def __init__(self, root: Path, *, multipart_chunk: int | None = None, xet: bool = False) -> None:
        """Open a folder, which is made when it does not exist.

        Args:
            root: where everything is kept.
            multipart_chunk: files larger than this many bytes are asked for in parts of that size; by default none are.
            xet: take and give large files by Xet as well, which is the clients' default.
        """
        self.blobs = Blobs(root)
        self.collections = Collections(root / "collections")
        self.multipart_chunk = multipart_chunk
        self.grants = Grants()
        self.xet = XetStore(root / "xet") if xet else None
        self.cdn: str | None = None  # another address of this server, for the bytes of large files
        self.issues: dict[tuple[Kind, str], dict[str, str]] = {}  # what a scan found: kind and id -> path -> level, such as "unsafe"
        self.secret = _secret(root / "secret")
        self._states = root / "repositories"
        self._lock = threading.Lock()
        loaded = (Repo.from_json(json.loads(file.read_bytes())) for file in sorted(self._states.glob("*/*/*.json")))
        self._repos = {(repo.kind, repo.id): repo for repo in loaded}

    def get(self, kind: Kind, repo_id: str) -> Repo | None:
        """The repository of that id, if there is one."""
        return self._repos.get((kind, repo_id))

    def all(self, kind: Kind) -> list[Repo]:
        """All repositories of a kind, by id."""
        with self._lock:
            return sorted((repo for repo in self._repos.values() if repo.kind == kind), key=lambda repo: repo.id)

    def add(self, repo: Repo) -> bool:
        """Keep a new repository. False, and nothing changes, when the id is taken."""
        with self._lock:
            if (repo.kind, repo.id) in self._repos:
                return False
            self._write(repo)
            self._repos[repo.kind, repo.id] = repo
            return True

    def remove(self, repo: Repo) -> None:
        """Forget a repository. Its blobs stay, as others may share them."""
        with repo.lock, self._lock:
            if self._repos.pop((repo.kind, repo.id), None) is not None:
                self._file(repo).unlink()

    @contextmanager
    def changing(self, repo: Repo) -> Iterator[None]:
        """Hold the repository alone while the block changes it; what the block changed is on disk when it ends well.

        A block must check first and change last: what it changed before it raised stays, and reaches the disk with the next change.
        """
        with repo.lock:
            if self.get(repo.kind, repo.id) is not repo:
                raise HubProblem(404, f"{repo.id} was deleted in the meantime.", code="RepoNotFound")
            yield
            self._write(repo)

    def _file(self, repo: Repo) -> Path:
        return self._states / repo.kind / f"{repo.id}.json"

    def _write(self, repo: Repo) -> None:
        file = self._file(repo)
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(file.name + ".part")
        part.write_text(json.dumps(repo.to_json()), encoding="utf-8")
        part.replace(file)


def _secret(file: Path) -> bytes:
    """The key that signs upload addresses, the same after a restart: a client that retries an upload keeps its address."""
    if not file.exists():
        file.write_bytes(secrets.token_bytes(32))
    return file.read_bytes()
