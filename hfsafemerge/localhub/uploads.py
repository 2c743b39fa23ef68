"""Uploads: which files go to LFS, and commits."""

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import Base64Bytes, BaseModel, Field

from hfsafemerge.localhub.access import ReadableRepo, SignedIn, TheHub, require_change
from hfsafemerge.localhub.discussions import add_event, open_discussion
from hfsafemerge.localhub.information import read_text
from hfsafemerge.localhub.operations import LARGEST_REGULAR_FILE, RepoPath, apply_changes, read_changes
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.receiving import received
from hfsafemerge.localhub.records import Repo
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.trees import parents
from hfsafemerge.localhub.users import User

router = APIRouter()

MOST_FILES_A_CALL = 256


class _Candidate(BaseModel):
    path: RepoPath
    size: int
    sample: Base64Bytes = b""


class _Candidates(BaseModel):
    files: Annotated[list[_Candidate], Field(max_length=MOST_FILES_A_CALL)]
    git_ignore: Annotated[str | None, Field(alias="gitIgnore")] = None


@router.post("/api/{kind}/{namespace}/{name}/preupload/{revision:path}")
def choose_upload_modes(
    repo: ReadableRepo, user: SignedIn, hub: TheHub, revision: str, candidates: _Candidates, create_pr: bool = False
) -> dict[str, Any]:
    """For each file: whether it goes to LFS, whether .gitignore leaves it out, and the id of what stands there now."""
    _require_push(user, repo, revision, create_pr)
    commit = repo.find(revision)
    ignore = candidates.git_ignore if candidates.git_ignore is not None else read_text(hub, commit, ".gitignore")
    attributes = read_text(hub, commit, ".gitattributes").splitlines()
    files = []
    for file in candidates.files:
        lfs = file.size > LARGEST_REGULAR_FILE or b"\0" in file.sample or _tracked(attributes, file.path)
        answer = {"path": file.path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": _ignored(ignore.splitlines(), file.path)}
        if entry := commit.tree.get(file.path):
            answer["oid"] = entry.etag  # the client leaves a file out whose id is the same
        files.append(answer)
    return {"files": files, "commitOid": commit.oid}


@router.post("/api/{kind}/{namespace}/{name}/commit/{revision:path}")
async def commit(
    repo: ReadableRepo, user: SignedIn, hub: TheHub, request: Request, revision: str, create_pr: bool = False
) -> dict[str, Any]:  # fmt: skip
    """Commit to a branch or pull request, or with `create_pr` to a new pull request."""
    _require_push(user, repo, revision, create_pr)
    base = str(request.base_url).rstrip("/")
    async with received(hub.blobs, request) as body:
        return await run_in_threadpool(_commit, hub, repo, user, body.file, revision, create_pr, base)


def _commit(hub: Hub, repo: Repo, user: User, body: Path, revision: str, create_pr: bool, base: str) -> dict[str, Any]:
    header, changes = read_changes(hub, body)
    answer: dict[str, Any] = {"success": True, "hookOutput": ""}
    with hub.changing(repo):
        reference = _branch(repo, revision)
        start = repo.commits[repo.refs[reference]]
        if header.parent_commit and create_pr:
            start = repo.find(header.parent_commit)
        elif header.parent_commit and not start.oid.startswith(header.parent_commit):
            raise HubProblem(412, f"{revision} has moved from {header.parent_commit} to {start.oid}. See what changed, and commit again.")
        tree = apply_changes(repo, start, changes)
        if create_pr:
            discussion = open_discussion(repo, user, header.summary, header.description, status="open", start=start)
            reference = f"refs/pr/{discussion.number}"
            answer["pullRequestUrl"] = f"{base}{repo.path}/discussions/{discussion.number}"
        made = repo.commit(reference, tree, header.summary, header.description, user.name, start.oid)
        if reference.startswith("refs/pr/"):
            discussion = repo.discussions[int(reference.rsplit("/", 1)[1]) - 1]
            add_event(discussion, user, "commit", {"subject": made.title, "oid": made.oid})
    return answer | {"commitOid": made.oid, "commitUrl": f"{base}{repo.path}/commit/{made.oid}"}


def _require_push(user: User, repo: Repo, revision: str, create_pr: bool) -> None:
    """Anyone may open a pull request and add to their own; all else is for those who may write."""
    own = any(discussion.author == user.name and revision == f"refs/pr/{discussion.number}" for discussion in repo.discussions)
    if not (user.writes and user.allows("write-discussions") and (create_pr or own)):
        require_change(user, repo)


def _branch(repo: Repo, revision: str) -> str:
    for reference in (f"refs/heads/{revision}", revision):
        if reference in repo.refs and not reference.startswith("refs/tags/"):
            return reference
    raise repo.no_revision(revision)


def _tracked(attributes: Iterable[str], path: str) -> bool:
    """Whether .gitattributes sends a path to LFS. The last line that matches decides."""
    tracked = False
    for line in attributes:
        pattern, *settings = line.split() or [""]
        if _matches(pattern, path) and any("filter" in setting for setting in settings):
            tracked = "filter=lfs" in settings
    return tracked


def _ignored(patterns: Iterable[str], path: str) -> bool:
    """Whether .gitignore leaves a path out. Patterns for names and folders are known, exceptions with ! are not."""
    wanted = [pattern.strip() for pattern in patterns if pattern.strip() and not pattern.startswith(("#", "!"))]
    return any(_matches(pattern.strip("/"), place) for pattern in wanted for place in _places(pattern, path))


def _places(pattern: str, path: str) -> Iterator[str]:
    yield from parents(path)
    if not pattern.endswith("/"):
        yield path


def _matches(pattern: str, path: str) -> bool:
    return fnmatchcase(path, pattern) or fnmatchcase(path.rsplit("/", 1)[-1], pattern)
