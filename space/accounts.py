"""Whose token is used and whose runs are seen: on a Space those of the visitor who signed in, elsewhere those of this machine."""

import hashlib
import os
import threading
import time
from dataclasses import dataclass

import gradio as gr
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version

from hfsafemerge.errors import HubError

KNOWN_FOR = 600.0  # seconds that the name behind a token is remembered
_known: dict[str, tuple[float, list[str]]] = {}  # names by a digest of the token, which is kept nowhere
_knowing = threading.Lock()


@dataclass(frozen=True)
class Owner:
    """Whose a run is, as a digest of the account's name; None where nobody has signed in."""

    key: str | None


HERE = Owner("here")
NOBODY = Owner(None)


def on_space() -> bool:
    """Whether this runs on Hugging Face, for visitors who are not the owner."""
    return os.environ.get("SYSTEM") == "spaces"


def can_sign_in() -> bool:
    """Whether there is a sign-in. Gradio's button for it stops the app from starting where there is none."""
    return on_space() and bool(os.environ.get("OAUTH_CLIENT_ID"))


def token_of(visitor: gr.OAuthToken | None) -> str | None:
    """The token to read and write with. The one of a Space's owner is never lent to its visitors."""
    if on_space():
        return visitor.token if visitor else None
    return get_token()


def write_token(visitor: gr.OAuthToken | None) -> str:
    """The token to publish with. Raises HubError that says how to get one."""
    token = token_of(visitor)
    if token is None:
        raise HubError(f"Publishing needs a Hugging Face account. {how_to_sign_in()}")
    if on_space() and visitor is not None and 0 < visitor.expires_at <= time.time():
        raise HubError("Your sign-in has expired. Sign out and in again with the button at the top of the page, then try again.")
    return token


def owner_of(visitor: gr.OAuthToken | None) -> Owner:
    """Whose runs the caller may see and start.

    Raises:
        HubError: the Hub does not say whose the token is.
    """
    if not on_space():
        return HERE
    if visitor is None:
        return NOBODY
    return Owner(hashlib.sha256(f"hfsafemerge {_names(visitor.token)[0]}".encode()).hexdigest()[:32])


def namespaces(visitor: gr.OAuthToken | None) -> list[str]:
    """Where the caller may publish: the account's name, then its organisations; none for who is signed out. Raises HubError."""
    token = token_of(visitor)
    return _names(token) if token is not None else []


def _names(token: str) -> list[str]:
    """The names of the account and its organisations, asked for once in a while."""
    digest = hashlib.sha256(token.encode()).hexdigest()
    with _knowing:
        since, names = _known.get(digest, (0.0, []))
        if names and time.monotonic() - since < KNOWN_FOR:
            return names
    try:
        me = HfApi(library_name="hfsafemerge").whoami(token=token)
        names = [str(me["name"]), *(str(org["name"]) for org in me.get("orgs", []))]
    except HfHubHTTPError as error:
        raise HubError("The Hub does not know your sign-in any more. Sign out and in again with the button at the top.") from error
    except (httpx.HTTPError, OSError) as error:
        raise HubError("The Hub can't be reached to see who you are. Try again in a minute.") from error
    with _knowing:
        for old in [key for key, (at, _) in _known.items() if time.monotonic() - at > KNOWN_FOR]:
            del _known[old]
        _known[digest] = (time.monotonic(), names)
    return names


def how_to_sign_in() -> str:
    """What to do to publish, here."""
    if can_sign_in():
        return "Sign in with the button at the top of the page, then try again."
    if on_space():
        return "This Space has no sign-in: its owner adds `hf_oauth: true` to the front matter of its README.md."
    return "Run `hf auth login` in a terminal, or set HF_TOKEN before the app starts, with a token that may write."
