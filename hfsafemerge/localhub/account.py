"""Routes about the caller, and about nothing: who am I, and the small talk of the clients."""

from typing import Any

from fastapi import APIRouter, Response

from hfsafemerge.localhub.access import SignedIn
from hfsafemerge.localhub.records import now, stable_id
from hfsafemerge.localhub.users import User

router = APIRouter()


@router.get("/api/whoami-v2")
async def whoami(user: SignedIn) -> dict[str, Any]:
    """The user of the token, their organisations, and what the token may do."""
    role = "write" if user.writes else "read"
    token = (
        {"type": "oauth"} if user.app else {"type": "access_token", "accessToken": {"displayName": role, "role": role, "createdAt": now()}}
    )
    claims = claims_of(user)
    organizations = [
        {"type": "org", "id": each["sub"], "name": each["name"], "fullname": each["name"], "roleInOrg": "admin", "avatarUrl": "",
         "isEnterprise": False}
        for each in claims["orgs"]
    ]  # fmt: skip
    return {
        "type": "user", "id": claims["sub"], "name": claims["preferred_username"], "fullname": claims["name"], "orgs": organizations,
        "canPay": claims["canPay"], "isPro": claims["isPro"], "periodEnd": None, "avatarUrl": claims["picture"], "auth": token,
    } | ({"email": claims["email"], "emailVerified": claims["email_verified"]} if "email" in claims else {})  # fmt: skip


def claims_of(user: User, base: str = "") -> dict[str, Any]:
    """What a token may learn of its user: of the e-mail address only with the scope email, and all of it without an app.

    `base` is the Hub's own address, for that of the user's page.
    """
    organizations = [{"sub": stable_id(name), "name": name, "preferred_username": name, "picture": ""} for name in user.organizations]
    knows = user.app is None or "email" in user.scopes
    return {
        "sub": stable_id(user.name), "name": user.name.title(), "preferred_username": user.name, "profile": f"{base}/{user.name}",
        "picture": "", "isPro": False, "canPay": False, "orgs": organizations,
    } | ({"email": f"{user.name}@example.org", "email_verified": True} if knows else {})  # fmt: skip


@router.get("/api/agent-harnesses")
async def agent_harnesses() -> dict[str, Any]:
    """None. The clients ask once a day, to name the program that runs them."""
    return {"standardEnvVars": [], "harnesses": {}}


@router.api_route("/api/telemetry/{rest:path}", methods=["HEAD", "GET", "POST"])
async def telemetry() -> Response:
    """Take no notice."""
    return Response()
