"""Sign-in for apps (OAuth with OpenID Connect): a page where one chooses who to be, and tokens that act for that user.

Every app is known, by whatever client id and secret it has; all else is as on the Hub. A token allows what its scopes say, and
reaches organisations only where the user ticked them.
"""

import base64
import hashlib
import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import parse_qs, urlencode, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from hfsafemerge.localhub.access import SignedIn, TheHub
from hfsafemerge.localhub.account import claims_of
from hfsafemerge.localhub.pages import page
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.users import USER_NAMES, Scope, User, account_of

if TYPE_CHECKING:
    from joserfc.jwk import RSAKey

router = APIRouter()

SECONDS_OF_A_CODE = 600
IDENTITY_SCOPES = ("openid", "profile", "email")
SCOPES = frozenset((*IDENTITY_SCOPES, *get_args(Scope)))
ALGORITHM = "RS256"
ASKED = ("client_id", "redirect_uri", "response_type", "scope", "state", "nonce", "code_challenge", "code_challenge_method")


@dataclass(frozen=True)
class Consent:
    """What a user agreed to, until the app fetches its token."""

    user: User
    organizations: tuple[str, ...]
    asked: dict[str, str]
    end: float


@dataclass
class Consents:
    """Codes that are waiting to be exchanged for a token, each once."""

    _codes: dict[str, Consent] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, consent: Consent) -> str:
        """A new code."""
        code = secrets.token_urlsafe(24)
        with self._lock:
            self._codes[code] = consent
        return code

    def take(self, code: str) -> Consent | None:
        """What a code stands for, which is the end of it."""
        with self._lock:
            consent = self._codes.pop(code, None)
        return consent if consent and time.time() < consent.end else None


@router.get("/.well-known/openid-configuration")
async def configuration(request: Request) -> dict[str, Any]:
    """Where everything is."""
    base = _base(request)
    return {
        "issuer": base, "authorization_endpoint": f"{base}/oauth/authorize", "token_endpoint": f"{base}/oauth/token",
        "userinfo_endpoint": f"{base}/oauth/userinfo", "jwks_uri": f"{base}/oauth/jwks", "scopes_supported": sorted(SCOPES),
        "response_types_supported": ["code"], "grant_types_supported": ["authorization_code"], "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM], "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "none"],
    }  # fmt: skip


@router.get("/oauth/jwks")
def keys() -> dict[str, Any]:
    """The key that identity tokens are signed with, its public half."""
    return {"keys": [_key().as_dict(private=False)]}


@router.get("/oauth/authorize")
async def ask_for_consent(request: Request) -> HTMLResponse:
    """The page on which one chooses who to be, and what the app gets."""
    asked = _check({name: value for name, value in request.query_params.items() if name in ASKED})
    app = f"<p>The app <code>{escape(asked['client_id'])}</code> at <code>{escape(_origin(asked['redirect_uri']))}</code> asks for:</p>"
    wanted = "".join(f"<li><code>{escape(scope)}</code></li>" for scope in _scopes(asked))
    hidden = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in asked.items())
    forms = "".join(_form(name, hidden) for name in USER_NAMES)
    refusal = f'<form method="post">{hidden}<button name="user" value="" id="deny">Cancel</button></form>'
    return page("Sign in", f"{app}<ul>{wanted}</ul>{forms}{refusal}")


def _form(name: str, hidden: str) -> str:
    user = account_of(name)
    boxes = "".join(
        f'<label><input type="checkbox" name="organization" value="{escape(organization)}"> also for {escape(organization)}</label> '
        for organization in (user.organizations if user else ())
    )
    return f'<form method="post"><p>{hidden}<button name="user" value="{name}" id="as-{name}">Sign in as {name}</button> {boxes}</p></form>'


@router.post("/oauth/authorize")
async def consent(request: Request) -> RedirectResponse:
    """Send the browser back to the app, with a code if the user agreed."""
    form = await _form_of(request)
    asked = _check({name: values[0] for name, values in form.items() if name in ASKED})
    user = account_of(form.get("user", [""])[0])
    answer = {"state": asked["state"]} if "state" in asked else {}
    if user is None:
        answer |= {"error": "access_denied", "error_description": "The user did not sign in."}
    else:
        organizations = tuple(name for name in form.get("organization", []) if name in user.organizations)
        consents: Consents = request.app.state.consents
        answer["code"] = consents.add(Consent(user, organizations, asked, time.time() + SECONDS_OF_A_CODE))
    joint = "&" if urlsplit(asked["redirect_uri"]).query else "?"
    return RedirectResponse(f"{asked['redirect_uri']}{joint}{urlencode(answer)}", 303)


@router.post("/oauth/token")
async def exchange(request: Request, hub: TheHub) -> Response:
    """A token for a code, as often as once, for the app that asked and for nobody else."""
    form = {name: values[0] for name, values in (await _form_of(request)).items()}
    client, secret = _credentials(request, form)
    if form.get("grant_type") != "authorization_code":
        return _refuse("unsupported_grant_type", "Send grant_type=authorization_code.")
    consents: Consents = request.app.state.consents
    consent = consents.take(form.get("code", ""))
    if consent is None:
        return _refuse("invalid_grant", "The code is unknown, used or expired. Sign in again.")
    asked = consent.asked
    if client != asked["client_id"] or form.get("redirect_uri") != asked["redirect_uri"]:
        return _refuse("invalid_grant", "The code was given to another client_id or redirect_uri.")
    if not (_proves(form.get("code_verifier"), asked["code_challenge"]) if "code_challenge" in asked else secret):
        return _refuse("invalid_client", "Send a client secret, or the code_verifier of the code_challenge.", status=401)
    scopes = _scopes(asked)
    token = hub.grants.add(consent.user, client, frozenset(scopes), consent.organizations)
    answer: dict[str, Any] = {"access_token": token, "token_type": "bearer", "expires_in": hub.grants.seconds, "scope": " ".join(scopes)}
    if "openid" in scopes:
        answer["id_token"] = _identity_token(_base(request), hub.grants.seconds, consent)
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@router.get("/oauth/userinfo")
async def user_information(user: SignedIn, request: Request) -> dict[str, Any]:
    """Who a token is for."""
    return claims_of(user, _base(request))


def _check(asked: dict[str, str]) -> dict[str, str]:
    """What an app asks for. Raises HubProblem: no browser may be sent to an address that nobody checked."""
    if not asked.get("client_id") or urlsplit(asked.get("redirect_uri", "")).scheme not in ("http", "https"):
        raise HubProblem(400, "The app sent no client_id, or no redirect_uri of http or https. Both are needed.")
    if asked.get("response_type") != "code":
        raise HubProblem(400, f"response_type is {asked.get('response_type')!r}. Send code.")
    if unknown := set(_scopes(asked)) - SCOPES:
        raise HubProblem(400, f"There is no scope {min(unknown)!r}. There are {', '.join(sorted(SCOPES))}.")
    if "code_challenge" in asked and asked.get("code_challenge_method") != "S256":
        raise HubProblem(400, "code_challenge_method has to be S256.")
    return asked


def _scopes(asked: dict[str, str]) -> list[str]:
    return asked.get("scope", "openid profile").split()


def _proves(verifier: str | None, challenge: str) -> bool:
    digest = hashlib.sha256((verifier or "").encode()).digest()
    return secrets.compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), challenge)


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        client, _, secret = base64.b64decode(encoded).decode().partition(":")
        return client, secret
    return form.get("client_id", ""), form.get("client_secret", "")


def _refuse(error: str, description: str, *, status: int = 400) -> JSONResponse:
    return JSONResponse({"error": error, "error_description": description}, status)


async def _form_of(request: Request) -> dict[str, list[str]]:
    return parse_qs((await request.body()).decode())


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


def _identity_token(base: str, seconds: int, consent: Consent) -> str:
    from joserfc import jwt  # imported here, as it comes with the app and only sign-in needs it

    now = int(time.time())
    times = {"iat": now, "auth_time": now, "exp": now + seconds}
    claims = (
        claims_of(_agreed(consent), base) | {"iss": base, "aud": consent.asked["client_id"], "nonce": consent.asked.get("nonce")} | times
    )
    return jwt.encode({"alg": ALGORITHM, "kid": _key().kid}, claims, _key())


def _agreed(consent: Consent) -> User:
    """The user as far as the app may know of them."""
    scopes = frozenset(_scopes(consent.asked))
    return replace(consent.user, organizations=consent.organizations, app=consent.asked["client_id"], scopes=scopes)


@cache
def _key() -> "RSAKey":
    from joserfc.jwk import RSAKey

    return RSAKey.generate_key(2048, {"kid": "local", "use": "sig", "alg": ALGORITHM})
