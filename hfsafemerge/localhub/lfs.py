"""Large files: where to put them, in one piece or in parts, and whether they arrived.

The addresses are signed and need no token, as the clients send none with the bytes.
"""

import hmac
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import Caller, TheHub, find_repo, require_token
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.receiving import received
from hfsafemerge.localhub.records import Kind
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.users import User

router = APIRouter()


class _LargeFile(BaseModel):
    oid: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size: int


class _Batch(BaseModel):
    operation: Literal["upload"]
    objects: list[_LargeFile]
    transfers: list[str] = ["basic"]


class _Completion(BaseModel):
    oid: str
    parts: list[dict[str, Any]]


@router.post("/datasets/{namespace}/{name}.git/info/lfs/objects/batch")
def batch_of_dataset(namespace: str, name: str, batch: _Batch, request: Request, hub: TheHub, user: Caller) -> JSONResponse:
    """Where to put the files of a dataset."""
    return _answer_batch("datasets", f"{namespace}/{name}", batch, request, hub, user)


@router.post("/spaces/{namespace}/{name}.git/info/lfs/objects/batch")
def batch_of_space(namespace: str, name: str, batch: _Batch, request: Request, hub: TheHub, user: Caller) -> JSONResponse:
    """Where to put the files of a Space."""
    return _answer_batch("spaces", f"{namespace}/{name}", batch, request, hub, user)


@router.post("/{namespace}/{name}.git/info/lfs/objects/batch")
def batch_of_model(namespace: str, name: str, batch: _Batch, request: Request, hub: TheHub, user: Caller) -> JSONResponse:
    """Where to put the files of a model."""
    return _answer_batch("models", f"{namespace}/{name}", batch, request, hub, user)


def _answer_batch(kind: Kind, repo_id: str, batch: _Batch, request: Request, hub: Hub, user: User | None) -> JSONResponse:
    find_repo(hub, user, kind, repo_id)
    if not require_token(user).writes:
        raise HubProblem(403, "Your token is read-only. Use one that may write.")
    base = str(request.base_url).rstrip("/")
    chunk = hub.multipart_chunk if "multipart" in batch.transfers else None
    objects = []
    for file in batch.objects:
        answer: dict[str, Any] = {"oid": file.oid, "size": file.size, "authenticated": True}
        if file.oid not in hub.blobs:  # without actions the client takes the file for uploaded
            upload = _in_parts(hub, base, file, chunk) if chunk and file.size > chunk else {"href": _address(hub, base, file.oid)}
            answer["actions"] = {"upload": upload, "verify": {"href": f"{base}/lfs/verify"}}
        objects.append(answer)
    return JSONResponse({"transfer": "multipart" if chunk else "basic", "objects": objects}, media_type="application/vnd.git-lfs+json")


def _in_parts(hub: Hub, base: str, file: _LargeFile, chunk: int) -> dict[str, Any]:
    count = -(-file.size // chunk)
    parts = {f"{number:05d}": _address(hub, base, f"{file.oid}/{number}") for number in range(1, count + 1)}
    return {"href": _address(hub, base, f"{file.oid}/complete"), "header": {"chunk_size": str(chunk)} | parts}


def _address(hub: Hub, base: str, target: str) -> str:
    return f"{base}/lfs/{target}?signature={signature_of(hub, target)}"


def signature_of(hub: Hub, target: str) -> str:
    """What shows that this server gave out the address of a target."""
    return hmac.new(hub.secret, target.encode(), "sha256").hexdigest()


def check_signature(hub: Hub, target: str, signature: str) -> None:
    """Raise HubProblem when the signature is not the one for the target."""
    if not hmac.compare_digest(signature.encode(), signature_of(hub, target).encode()):
        raise HubProblem(403, f"The signature is not the one for {target}. Use the address that the batch answer gave.")


@router.put("/lfs/{sha256}")
async def put_file(sha256: str, signature: str, request: Request, hub: TheHub) -> Response:
    """Take a file in one piece."""
    check_signature(hub, sha256, signature)
    async with received(hub.blobs, request) as body:
        if body.sha256 != sha256:
            raise HubProblem(400, f"The digest of what arrived is {body.sha256}, not {sha256}. Upload the file again.")
        await run_in_threadpool(hub.blobs.adopt, body.file, sha256)
    return Response(headers={"ETag": f'"{sha256}"'})


@router.put("/lfs/{sha256}/{number}")
async def put_part(sha256: str, number: int, signature: str, request: Request, hub: TheHub) -> Response:
    """Take one part of a file. The client hands the ETag back when it completes the upload."""
    check_signature(hub, f"{sha256}/{number}", signature)
    async with received(hub.blobs, request) as body:
        await run_in_threadpool(hub.blobs.adopt_part, body.file, sha256, number)
    return Response(headers={"ETag": f'"{body.sha256}"'})


@router.post("/lfs/{sha256}/complete")
def complete(sha256: str, signature: str, completion: _Completion, hub: TheHub) -> dict[str, Any]:
    """Join the parts of a file."""
    check_signature(hub, f"{sha256}/complete", signature)
    hub.blobs.join_parts(sha256, len(completion.parts))
    return {"success": True}


@router.post("/lfs/verify")
def verify(file: _LargeFile, hub: TheHub, user: Caller) -> None:
    """Confirm that a file arrived whole."""
    require_token(user)
    if file.oid not in hub.blobs or hub.blobs.path(file.oid).stat().st_size != file.size:
        raise HubProblem(404, f"There is no file {file.oid} of {file.size} bytes. Upload it again.")
