"""Names for commits: branches, tags, and the history that leads to a revision."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import ReadableRepo, TheHub, WritableRepo
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import MAIN, Repo
from hfsafemerge.localhub.store import Hub

router = APIRouter()

RESERVED = "refs/"


class _NewBranch(BaseModel):
    starting_point: Annotated[str, Field(alias="startingPoint")] = "main"


class _NewTag(BaseModel):
    tag: str


@router.get("/api/{kind}/{namespace}/{name}/refs")
async def list_references(repo: ReadableRepo) -> dict[str, Any]:
    """Branches, tags and pull requests with the commits they point to."""

    def below(prefix: str) -> list[dict[str, str]]:
        found = {reference: oid for reference, oid in sorted(repo.refs.items()) if reference.startswith(prefix)}
        return [{"name": reference.removeprefix(prefix), "ref": reference, "targetCommit": oid} for reference, oid in found.items()]

    return {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": [], "pullRequests": below("refs/pr/")}


@router.get("/api/{kind}/{namespace}/{name}/commits/{revision:path}")
async def list_commits(repo: ReadableRepo, revision: str) -> list[dict[str, Any]]:
    """The commits that lead to a revision, newest first."""
    return [
        {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date, "authors": [{"user": commit.author}]}
        for commit in repo.history(repo.find(revision))
    ]


@router.post("/api/{kind}/{namespace}/{name}/branch/{branch:path}")
def create_branch(repo: WritableRepo, hub: TheHub, branch: str, new: _NewBranch) -> None:
    """Start a branch at a revision, main by default."""
    _create(hub, repo, f"refs/heads/{branch}", new.starting_point)


@router.delete("/api/{kind}/{namespace}/{name}/branch/{branch:path}")
def delete_branch(repo: WritableRepo, hub: TheHub, branch: str) -> None:
    """Delete a branch other than main."""
    _delete(hub, repo, f"refs/heads/{branch}", branch)


@router.post("/api/{kind}/{namespace}/{name}/tag/{revision:path}")
def create_tag(repo: WritableRepo, hub: TheHub, revision: str, new: _NewTag) -> None:
    """Tag a revision."""
    _create(hub, repo, f"refs/tags/{new.tag}", revision)


@router.delete("/api/{kind}/{namespace}/{name}/tag/{tag:path}")
def delete_tag(repo: WritableRepo, hub: TheHub, tag: str) -> None:
    """Delete a tag."""
    _delete(hub, repo, f"refs/tags/{tag}", tag)


def _create(hub: Hub, repo: Repo, reference: str, revision: str) -> None:
    name = reference.split("/", 2)[2]
    if not name or name.startswith(RESERVED):
        raise HubProblem(400, f"{name!r} can't name a branch or tag: {RESERVED} belongs to the Hub. Choose another name.")
    with hub.changing(repo):
        if reference in repo.refs:
            raise HubProblem(409, f"{repo.id} has a {reference} already. Delete it first, or pass exist_ok=True.")
        repo.refs = repo.refs | {reference: repo.find(revision).oid}


def _delete(hub: Hub, repo: Repo, reference: str, name: str) -> None:
    if reference == MAIN:
        raise HubProblem(403, "The main branch can't be deleted. Delete the repository if you mean it.")
    with hub.changing(repo):
        if reference not in repo.refs:
            raise repo.no_revision(name)
        repo.refs = {known: oid for known, oid in repo.refs.items() if known != reference}
