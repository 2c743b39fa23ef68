"""What a repository is made of: files, commits, discussions, and the names that point to commits."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from hfsafemerge.localhub.problems import HubProblem

Kind = Literal["models", "datasets", "spaces"]
KINDS: dict[str, Kind] = {"model": "models", "dataset": "datasets", "space": "spaces"}  # by what the clients call them
Gated = Literal[False, "auto", "manual"]
MAIN = "refs/heads/main"
SHORTEST_COMMIT_PREFIX = 5


def now() -> str:
    """The time, as the Hub writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def stable_id(name: str) -> str:
    """An id like those of the Hub, always the same for a name."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:24]


@dataclass(frozen=True)
class Entry:
    """A file in a tree. `oid` is what git would call it: the id of its bytes, or of the pointer when it is kept in LFS."""

    size: int
    oid: str
    sha256: str
    lfs: bool

    @classmethod
    def regular(cls, data: bytes, sha256: str) -> "Entry":
        """An entry for bytes that git itself would hold."""
        return cls(len(data), _git_blob_id(data), sha256, lfs=False)

    @classmethod
    def large(cls, size: int, sha256: str) -> "Entry":
        """An entry for a file in LFS."""
        return cls(size, _git_blob_id(_lfs_pointer(size, sha256)), sha256, lfs=True)

    @property
    def etag(self) -> str:
        """What names the content for the clients: their caches and their check for unchanged files use it."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the LFS pointer."""
        return len(_lfs_pointer(self.size, self.sha256))


Tree = Mapping[str, Entry]


def _lfs_pointer(size: int, sha256: str) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _git_blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Commit:
    """A tree and how it came to be."""

    oid: str
    parent: str | None
    tree: Tree
    title: str
    message: str
    author: str
    date: str


@dataclass
class Discussion:
    """A discussion, or a pull request when it has a commit that it began at. `events` stand as they go over the wire."""

    number: int
    title: str
    author: str
    created: str
    status: Literal["draft", "open", "closed", "merged"]
    start: str | None = None
    merge_commit: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_pull_request(self) -> bool:
        """Whether it proposes a change."""
        return self.start is not None


@dataclass
class Repo:
    """A repository. Change it only within `Hub.changing`.

    Readers take no lock, so its dictionaries are replaced and never changed.
    """

    kind: Kind
    id: str
    created: str = field(default_factory=now)
    private: bool = False
    gated: Gated = False
    refs: dict[str, str] = field(default_factory=dict)  # such as refs/heads/main -> commit id
    access: dict[str, str] = field(default_factory=dict)  # user -> pending, accepted or rejected
    app: str | None = None  # whose token made it, where a user had signed in to one
    settings: dict[str, Any] = field(default_factory=dict)  # of a Space: sdk, hardware, variables and secrets by name, and so on
    discussions: list[Discussion] = field(default_factory=list)
    commits: dict[str, Commit] = field(default_factory=dict)  # a parent stands before its children
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @property
    def namespace(self) -> str:
        """The user or organisation that owns it."""
        return self.id.split("/")[0]

    @property
    def type(self) -> str:
        """What the clients call the kind: model, dataset or space."""
        return self.kind.removesuffix("s")

    @property
    def path(self) -> str:
        """Its path on the server."""
        return f"/{self.id}" if self.kind == "models" else f"/{self.kind}/{self.id}"

    @property
    def head(self) -> Commit:
        """The newest commit of the main branch."""
        return self.commits[self.refs[MAIN]]

    def find(self, revision: str) -> Commit:
        """The commit of a branch, tag, full reference or commit id, which may be cut short. Raises HubProblem."""
        for reference in (revision, f"refs/heads/{revision}", f"refs/tags/{revision}", f"refs/{revision}"):
            if reference in self.refs:
                return self.commits[self.refs[reference]]
        if len(revision) >= SHORTEST_COMMIT_PREFIX:
            found = [commit for oid, commit in self.commits.items() if oid.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise self.no_revision(revision)

    def no_revision(self, revision: str) -> HubProblem:
        """The answer to a revision that does not exist."""
        return HubProblem(404, f"{self.id} has no revision {revision!r}. List its branches and tags.", code="RevisionNotFound")

    def commit(self, reference: str, tree: Tree, title: str, message: str, author: str, parent: str | None) -> Commit:
        """Add a commit and point the reference to it. The id depends on everything but the time."""
        content = [parent, sorted((path, entry.oid) for path, entry in tree.items()), title, message, author]
        oid = hashlib.sha1(json.dumps(content).encode(), usedforsecurity=False).hexdigest()
        commit = self.commits.get(oid) or Commit(oid, parent, tree, title, message, author, now())
        self.commits = self.commits | {oid: commit}
        self.refs = self.refs | {reference: oid}
        return commit

    def history(self, commit: Commit) -> Iterator[Commit]:
        """The commit and those before it, newest first."""
        yield commit
        while commit.parent is not None:
            commit = self.commits[commit.parent]
            yield commit

    def to_json(self) -> dict[str, Any]:
        """All of it. A commit's tree is written as what changed since its parent."""
        plain = {name: getattr(self, name) for name in ("kind", "id", "created", "private", "gated", "refs", "access", "app", "settings")}
        commits = []
        for commit in self.commits.values():
            before: Tree = self.commits[commit.parent].tree if commit.parent else {}
            changes: dict[str, Any] = {path: asdict(entry) for path, entry in commit.tree.items() if before.get(path) != entry}
            changes |= dict.fromkeys(before.keys() - commit.tree.keys())
            commits.append({name: value for name, value in vars(commit).items() if name != "tree"} | {"changes": changes})
        return plain | {"discussions": [asdict(discussion) for discussion in self.discussions], "commits": commits}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> "Repo":
        """The repository that `to_json` described."""
        commits, discussions = state.pop("commits"), state.pop("discussions")
        repo = cls(**state, discussions=[Discussion(**discussion) for discussion in discussions])
        for commit in commits:
            tree = dict(repo.commits[commit["parent"]].tree) if commit["parent"] else {}
            for path, entry in commit.pop("changes").items():
                if entry is None:
                    del tree[path]
                else:
                    tree[path] = Entry(**entry)
            repo.commits[commit["oid"]] = Commit(tree=tree, **commit)
        return repo
