"""Repositories from birth to death: create, settings, who has access, delete."""

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import (
    DownloadableRepo,
    ManagedRepo,
    SignedIn,
    TheHub,
    WritableRepo,
    find_repo,
    require_write,
)
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import KINDS, MAIN, Entry, Gated, Kind, Repo, now, stable_id
from hfsafemerge.localhub.users import USER_NAMES

router = APIRouter()

NAME = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9_.-]{0,95}(?<!\.git)(?<![.-])")
# what a new repository of the Hub keeps in LFS, whatever its size
LFS_PATTERNS = """
*.7z *.arrow *.bin *.bz2 *.ckpt *.ftz *.gz *.h5 *.joblib *.lfs.* *.mlmodel *.model *.msgpack *.npy *.npz *.onnx *.parquet *.pb
*.pickle *.pkl *.pt *.pth *.rar *.safetensors saved_model/**/* *.tar.* *.tar *.tflite *.tgz *.wasm *.xz *.zip *.zst *tfevents*
"""
Status = Literal["pending", "accepted", "rejected"]


class _RepoName(BaseModel):
    name: str
    organization: str | None = None
    type: Literal["model", "dataset", "space"] | None = None

    @property
    def kind(self) -> Kind:
        return KINDS[self.type or "model"]


class _Variable(BaseModel):
    key: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]
    value: str
    description: str | None = None


class SpaceSettings(BaseModel):
    """What a Space may be told when it is made."""

    hardware: str | None = None
    sleep_time: Annotated[int | None, Field(alias="sleepTimeSeconds")] = None
    variables: list[_Variable] = []
    secrets: list[_Variable] = []

    def settings(self, sdk: str | None) -> dict[str, Any]:
        """As `Repo.settings` keeps it. The values of secrets are forgotten, as nobody may ask for them."""
        variables = {variable.key: variable.model_dump(exclude_none=True) | {"updatedAt": now()} for variable in self.variables}
        secrets = {secret.key: secret.model_dump(exclude_none=True, exclude={"value"}) | {"updatedAt": now()} for secret in self.secrets}
        plain = {"sdk": sdk, "hardware": self.hardware or "cpu-basic", "sleep_time": self.sleep_time}
        return plain | {"variables": variables, "secrets": secrets}


class _NewRepo(_RepoName, SpaceSettings):
    visibility: Literal["public", "private"] = "public"
    sdk: Literal["gradio", "docker", "static"] | None = None


class _Settings(BaseModel):
    visibility: Literal["public", "private"] | None = None
    gated: Gated | None = None


class _AccessDecision(BaseModel):
    user: str | None = None
    request_id: Annotated[str | None, Field(alias="requestId")] = None
    status: Status = "accepted"


@router.post("/api/repos/create")
def create(new: _NewRepo, request: Request, hub: TheHub, user: SignedIn) -> JSONResponse:
    """Make a repository whose first commit tells what belongs to LFS."""
    namespace = new.organization or user.name
    require_write(user, namespace, "contribute-repos", "manage-repos")
    check_name(new.name)
    if new.type == "space" and new.sdk is None:
        raise HubProblem(400, "A Space needs an sdk, and none was sent. Send gradio, docker or static.")
    settings = new.settings(new.sdk) if new.type == "space" else {}
    repo = Repo(new.kind, f"{namespace}/{new.name}", private=new.visibility == "private", app=user.app, settings=settings)
    attributes = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS_PATTERNS.split()).encode()
    tree = {".gitattributes": Entry.regular(attributes, hub.blobs.add(attributes))}
    repo.commit(MAIN, tree, "initial commit", "", "system", None)
    url = f"{str(request.base_url).rstrip('/')}{repo.path}"
    if not hub.add(repo):
        return JSONResponse({"error": f"You already created this {repo.type} repo: {repo.id}", "url": url}, 409)
    return JSONResponse({"url": url, "name": repo.id, "id": stable_id(repo.id)})


def check_name(name: str) -> None:
    """Raise HubProblem when a repository can't have the name, which becomes part of a path."""
    if not NAME.fullmatch(name):
        raise HubProblem(400, f"{name!r} is no name for a repository. Use up to 96 letters, digits, '-', '_' and '.', no '--' or '..'.")


@router.delete("/api/repos/delete")
def delete(doomed: _RepoName, hub: TheHub, user: SignedIn) -> None:
    """Delete a repository with all its commits."""
    namespace = doomed.organization or user.name
    repo = find_repo(hub, user, doomed.kind, f"{namespace}/{doomed.name}")
    require_write(user, namespace, "manage-repos")
    hub.remove(repo)


@router.put("/api/{kind}/{namespace}/{name}/settings")
def change_settings(settings: _Settings, repo: ManagedRepo, hub: TheHub) -> dict[str, Any]:
    """Make a repository private or public, gated or open."""
    with hub.changing(repo):
        if settings.visibility is not None:
            repo.private = settings.visibility == "private"
        if settings.gated is not None:
            repo.gated = settings.gated
    return {"private": repo.private, "gated": repo.gated}


@router.get("/api/{kind}/{namespace}/{name}/auth-check")
async def may_download(repo: DownloadableRepo) -> None:
    """Whether the caller may have the files."""


@router.get("/api/{kind}/{namespace}/{name}/auth-check/write")
async def may_change(repo: WritableRepo) -> None:
    """Whether the caller may write."""


@router.get("/api/{kind}/{namespace}/{name}/user-access-request/{status}")
async def list_access(status: Status, repo: ManagedRepo) -> list[dict[str, Any]]:
    """The users whose request for access has a status."""
    users = sorted(user for user, state in repo.access.items() if state == status)
    return [
        {
            "requestId": stable_id(name),
            "user": {"user": name, "fullname": name.title(), "email": None},
            "status": status,
            "timestamp": now(),
        }
        for name in users
    ]


@router.post("/api/{kind}/{namespace}/{name}/user-access-request/{action}")
def decide_access(action: Literal["grant", "handle"], decision: _AccessDecision, repo: ManagedRepo, hub: TheHub) -> None:
    """Grant a user access, or change what was decided about a request."""
    user = next((name for name in USER_NAMES if decision.user == name or decision.request_id == stable_id(name)), None)
    if user is None:
        raise HubProblem(404, f"There is no user {decision.user or decision.request_id!r}. The local Hub has {', '.join(USER_NAMES)}.")
    if not repo.gated:
        raise HubProblem(400, f"{repo.id} is not gated. Gate it first.")
    if action == "handle" and repo.access.get(user) in (None, decision.status):
        raise HubProblem(404, f"{user} has no request for {repo.id} that could become {decision.status}.")
    with hub.changing(repo):
        repo.access = repo.access | {user: "accepted" if action == "grant" else decision.status}
