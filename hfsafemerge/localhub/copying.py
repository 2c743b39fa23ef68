"""Repositories and files copied within the hub. Equal files are kept once, so nothing is moved."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import DownloadableRepo, SignedIn, TheHub, find_repo, require_change, require_write
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import KINDS, Repo
from hfsafemerge.localhub.repositories import SpaceSettings, check_name

router = APIRouter()


class _Duplicate(SpaceSettings):
    repository: str
    visibility: Literal["public", "private"] | None = None


class _Target(BaseModel):
    type: Literal["model", "dataset", "space"]
    name: str


class _LargeFile(BaseModel):
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Copies(BaseModel):
    target: _Target
    files: list[_LargeFile]


@router.post("/api/{kind}/{namespace}/{name}/duplicate")
def duplicate(repo: DownloadableRepo, wanted: _Duplicate, request: Request, hub: TheHub, user: SignedIn) -> JSONResponse:
    """A repository of the caller's with the same branches, tags and history, as visible as the first one unless told.

    A Space keeps its variables, and neither its secrets nor its hardware.
    """
    namespace, _, name = wanted.repository.partition("/")
    require_write(user, namespace, "contribute-repos", "manage-repos")
    check_name(name)
    settings: dict[str, Any] = {}
    if repo.kind == "spaces":
        settings = wanted.settings(repo.settings["sdk"])
        settings["variables"] = repo.settings["variables"] | settings["variables"]
    refs = {reference: oid for reference, oid in repo.refs.items() if not reference.startswith("refs/pr/")}
    private = repo.private if wanted.visibility is None else wanted.visibility == "private"
    copy = Repo(repo.kind, wanted.repository, private=private, refs=refs, commits=dict(repo.commits), app=user.app, settings=settings)
    url = f"{str(request.base_url).rstrip('/')}{copy.path}"
    if not hub.add(copy):
        return JSONResponse({"error": f"You already created this {copy.type} repo: {copy.id}", "url": url}, 409)
    return JSONResponse({"url": url, "filesCopyPending": False})


@router.post("/api/{kind}/{namespace}/{name}/lfs-files/duplicate")
def copy_large_files(repo: DownloadableRepo, wanted: _Copies, hub: TheHub, user: SignedIn) -> dict[str, Any]:
    """Let another repository name large files of this one in its next commit."""
    require_change(user, find_repo(hub, user, KINDS[wanted.target.type], wanted.target.name))
    known = {entry.sha256 for commit in repo.commits.values() for entry in commit.tree.values()}
    if missing := [file.sha256 for file in wanted.files if file.sha256 not in known]:
        raise HubProblem(404, f"{repo.id} has no file {missing[0]}. List its files.")
    return {"success": [file.sha256 for file in wanted.files], "failed": []}
