"""Routes about the caller, and about nothing: who am I, and the small talk of the clients."""

import hashlib
import logging
from typing import Any

from fastapi import APIRouter, Response

from hfsafemerge.localhub.access import SignedIn
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import now

router = APIRouter()


def stable_id(name: str) -> str:
    """An id like those of the Hub, always the same for a name."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()[:24]


@router.get("/api/whoami-v2")
async def whoami(user: SignedIn) -> dict[str, Any]:
    """The user of the token, their organisations, and what the token may do."""
    organizations = [
        {"type": "org", "id": stable_id(name), "name": name, "fullname": name, "roleInOrg": "admin", "avatarUrl": "", "isEnterprise": False}
        for name in user.organizations
    ]
    role = "write" if user.writes else "read"
    return {
        "type": "user", "id": stable_id(user.name), "name": user.name, "fullname": user.name.title(), "orgs": organizations,
        "email": f"{user.name}@example.org", "emailVerified": True, "canPay": False, "isPro": False, "periodEnd": None, "avatarUrl": "",
        "auth": {"type": "access_token", "accessToken": {"displayName": role, "role": role, "createdAt": now()}},
    }  # fmt: skip


@router.get("/api/agent-harnesses")
async def agent_harnesses() -> dict[str, Any]:
    """None. The clients ask once a day, to name the program that runs them."""
    return {"standardEnvVars": [], "harnesses": {}}


@router.api_route("/api/telemetry/{rest:path}", methods=["HEAD", "GET", "POST"])
async def telemetry() -> Response:
    """Take no notice."""
    return Response()


@router.get("/api/{kind}/{namespace}/{name}/xet-{mode}-token/{revision:path}")
async def xet_token() -> None:
    """Refuse: a client that asks for a Xet token never turns to LFS by itself."""
    message = "The local Hub has no Xet storage. Set HF_HUB_DISABLE_XET=1 before Python starts, then upload again."
    logging.getLogger("uvicorn.error").warning(message)  # as the client shows its user no more than the status
    raise HubProblem(501, message)
