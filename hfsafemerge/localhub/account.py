"""Routes about the caller, and about nothing: who am I, and the small talk of the clients."""

from typing import Any

from fastapi import APIRouter, Response

from hfsafemerge.localhub.access import SignedIn
from hfsafemerge.localhub.records import now, stable_id

router = APIRouter()


@router.get("/api/whoami-v2")
async def whoami(user: SignedIn) -> dict[str, Any]:
    """The user of the token, their organisations, and what the token may do."""
    organizations = [
        {"type": "org", "id": stable_id(name), "name": name, "fullname": name, "roleInOrg": "admin", "avatarUrl": "", "isEnterprise": False}
        for name in user.organizations
    ]
    role = "write" if user.writes else "read"
    token = (
        {"type": "oauth"} if user.app else {"type": "access_token", "accessToken": {"displayName": role, "role": role, "createdAt": now()}}
    )
    return {
        "type": "user", "id": stable_id(user.name), "name": user.name, "fullname": user.name.title(), "orgs": organizations,
        "email": f"{user.name}@example.org", "emailVerified": True, "canPay": False, "isPro": False, "periodEnd": None, "avatarUrl": "",
        "auth": token,
    }  # fmt: skip


@router.get("/api/agent-harnesses")
async def agent_harnesses() -> dict[str, Any]:
    """None. The clients ask once a day, to name the program that runs them."""
    return {"standardEnvVars": [], "harnesses": {}}


@router.api_route("/api/telemetry/{rest:path}", methods=["HEAD", "GET", "POST"])
async def telemetry() -> Response:
    """Take no notice."""
    return Response()
