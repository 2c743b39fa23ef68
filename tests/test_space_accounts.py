"""Whose token is used."""

import os
import subprocess
import sys
import time
from pathlib import Path

import gradio as gr
import pytest

from hfsafemerge.errors import HubError
from space import accounts

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.usefixtures("space_runs")


def test_here_the_token_of_the_machine_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert accounts.token_of(None) == accounts.write_token(None) == "hf_mine"
    assert not accounts.can_sign_in()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="hf auth login"):
        accounts.write_token(None)


def test_a_space_never_lends_its_owners_token(on_space: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    assert accounts.token_of(None) is None
    visitor = gr.OAuthToken(token="hf_visitor", scope="", expires_at=0)
    assert accounts.write_token(visitor) == "hf_visitor"
    with pytest.raises(HubError, match="Sign in"):
        accounts.write_token(None)
    monkeypatch.delenv("OAUTH_CLIENT_ID")
    with pytest.raises(HubError, match="hf_oauth"):
        accounts.write_token(None)


def visitor(token: str, expires_at: int = 0) -> gr.OAuthToken:
    return gr.OAuthToken(token=token, scope="", expires_at=expires_at)


def test_an_expired_sign_in_is_told_before_anything_is_uploaded(on_space: None) -> None:
    with pytest.raises(HubError, match="has expired"):
        accounts.write_token(visitor("hf_visitor", expires_at=int(time.time()) - 1))
    assert accounts.write_token(visitor("hf_visitor", expires_at=int(time.time()) + 60)) == "hf_visitor"


def test_runs_belong_to_accounts_and_not_to_tokens(on_space: None) -> None:
    alice, bob = accounts.owner_of(visitor("hf_alice")), accounts.owner_of(visitor("hf_bob"))
    assert alice == accounts.owner_of(visitor("hf_alice_ro"))  # another token of hers
    assert alice != bob and "alice" not in str(alice) and None not in (alice.key, bob.key)
    assert accounts.owner_of(None) == accounts.NOBODY
    with pytest.raises(HubError, match="does not know your sign-in"):
        accounts.owner_of(visitor("hf_wrong"))


def test_here_all_runs_are_ones_own() -> None:
    assert accounts.owner_of(None) == accounts.HERE


def test_no_call_of_a_space_uses_its_owners_token() -> None:
    code = "import space; from huggingface_hub import constants; print(constants.HF_HUB_DISABLE_IMPLICIT_TOKEN)"
    for system, disabled in (("spaces", "True"), ("", "False")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"SYSTEM": system}, capture_output=True, text=True, check=True, cwd=ROOT
        )
        assert done.stdout.strip() == disabled
