"""Whose token is used."""

import gradio as gr
import pytest

from hfsafemerge.errors import HubError
from space import accounts

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
