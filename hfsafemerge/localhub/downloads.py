"""Files out: whole or in ranges, with the headers that the clients' caches live on."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Request
from fastapi.responses import FileResponse, Response

from hfsafemerge.localhub.access import TheHub, Visitor, find_repo, require_download
from hfsafemerge.localhub.blobs import COPY_BYTES
from hfsafemerge.localhub.lfs import check_signature, signature_of
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Repo
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.trees import no_entry, split_revision

router = APIRouter()

# all else is offered as bytes, so that no browser runs what somebody uploaded
MEDIA_TYPES = {
    "gif": "image/gif", "jpeg": "image/jpeg", "jpg": "image/jpeg", "png": "image/png", "svg": "image/svg+xml", "webp": "image/webp",
} | dict.fromkeys(("csv", "jinja", "json", "jsonl", "md", "py", "txt", "yaml", "yml"), "text/plain; charset=utf-8")  # fmt: skip
HARMLESS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


class _BlobResponse(FileResponse):
    chunk_size = COPY_BYTES


async def _model(namespace: str, name: str, hub: TheHub, user: Visitor) -> Repo:
    return require_download(user, find_repo(hub, user, "models", f"{namespace}/{name}"))


async def _dataset(namespace: str, name: str, hub: TheHub, user: Visitor) -> Repo:
    return require_download(user, find_repo(hub, user, "datasets", f"{namespace}/{name}"))


async def _space(namespace: str, name: str, hub: TheHub, user: Visitor) -> Repo:
    return require_download(user, find_repo(hub, user, "spaces", f"{namespace}/{name}"))


@router.api_route("/datasets/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
async def dataset_file(repo: Annotated[Repo, Depends(_dataset)], hub: TheHub, request: Request) -> Response:
    """A file of a dataset."""
    return _file(hub, repo, request, *split_revision(request, after=4))


@router.api_route("/spaces/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
async def space_file(repo: Annotated[Repo, Depends(_space)], hub: TheHub, request: Request) -> Response:
    """A file of a Space."""
    return _file(hub, repo, request, *split_revision(request, after=4))


@router.api_route("/{namespace}/{name}/resolve/{rest:path}", methods=["GET", "HEAD"])
async def model_file(repo: Annotated[Repo, Depends(_model)], hub: TheHub, request: Request) -> Response:
    """A file of a model."""
    return _file(hub, repo, request, *split_revision(request, after=3))


@router.api_route("/lfs/{sha256}", methods=["GET", "HEAD"])
async def large_file(sha256: str, signature: str, hub: TheHub, request: Request) -> FileResponse:
    """The bytes of a large file at the address that a redirect gave. Like stores elsewhere it refuses whoever sends a token."""
    if "authorization" in request.headers:
        raise HubProblem(400, "A signed address came with a token, which is for the Hub alone. Send no Authorization header here.")
    check_signature(hub, f"read/{sha256}", signature)
    return _BlobResponse(hub.blobs.path(sha256), headers=HARMLESS | {"ETag": f'"{sha256}"'}, media_type="application/octet-stream")


def _file(hub: Hub, repo: Repo, request: Request, revision: str, path: str) -> Response:
    commit = repo.find(revision)
    entry = commit.tree.get(path)
    if entry is None:
        raise no_entry(repo, commit, path)
    name = path.rsplit("/", 1)[-1]
    disposition = f"inline; filename*=UTF-8''{quote(name)}"
    headers = HARMLESS | {"ETag": f'"{entry.etag}"', "X-Repo-Commit": commit.oid, "Content-Disposition": disposition}
    if entry.lfs:
        headers |= {"X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        if xet_hash := hub.xet and hub.xet.hash_of(entry.sha256):
            base = str(request.base_url).rstrip("/")
            refresh = f"{base}/api/{repo.kind}/{repo.id}/xet-read-token/{commit.oid}"
            headers |= {"X-Xet-Hash": xet_hash, "X-Xet-Refresh-Route": refresh}
        if hub.cdn:
            address = f"{hub.cdn}/lfs/{entry.sha256}?signature={signature_of(hub, f'read/{entry.sha256}')}"
            return Response(status_code=302, headers=headers | {"Location": address})
    media_type = MEDIA_TYPES.get(name.rsplit(".", 1)[-1].lower(), "application/octet-stream")
    return _BlobResponse(hub.blobs.path(entry.sha256), headers=headers, media_type=media_type)
