"""Whose token is used: on a Space that of the visitor who signed in, elsewhere that of this machine."""

import os

import gradio as gr
from huggingface_hub import get_token

from hfsafemerge.errors import HubError


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
    return token


def how_to_sign_in() -> str:
    """What to do to publish, here."""
    if can_sign_in():
        return "Sign in with the button at the top of the page, then try again."
    if on_space():
        return "This Space has no sign-in: its owner adds `hf_oauth: true` to the front matter of its README.md."
    return "Run `hf auth login` in a terminal, or set HF_TOKEN before the app starts, with a token that may write."
