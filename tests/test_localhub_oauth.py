"""Sign-in of the local Hub: the flow that gradio's LoginButton walks, and how far its tokens go."""

import base64
import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults

CALLBACK = "http://127.0.0.1:7860/login/callback?_target_url=%2F"
APP = {"client_id": "merging-app", "redirect_uri": CALLBACK, "response_type": "code", "state": "st&te", "nonce": "n0nce"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with serve_with_faults(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def alice(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


def ask(hub: FaultyHub, path: str, form: dict[str, Any] | None = None, **headers: str) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer; redirects are not followed."""
    body = None if form is None else urlencode(form, doseq=True).encode()
    try:
        with urllib.request.build_opener(_NoRedirect).open(urllib.request.Request(hub.url + path, body, headers)) as answer:
            return answer.status, dict(answer.headers), answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read().decode()


def choose(hub: FaultyHub, user: str, organizations: tuple[str, ...] = (), /, **asked: str) -> dict[str, str]:
    """Press a button of the page; what the app is told in the address that the browser is sent back to."""
    status, _, page = ask(hub, f"/oauth/authorize?{urlencode(APP | asked)}")
    assert status == 200
    button = re.search(rf'<form method="post">((?:(?!</form>).)*)<button name="user" value="{user}"', page, re.DOTALL)
    assert button is not None
    hidden = {name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', button[1])}
    status, headers, _ = ask(hub, "/oauth/authorize", hidden | {"user": user, "organization": organizations})
    assert status == 303
    assert headers["location"].startswith(f"{CALLBACK}&")
    return {name: values[0] for name, values in parse_qs(urlsplit(headers["location"]).query).items()}


def exchange(hub: FaultyHub, code: str, **form: str) -> tuple[int, Any]:
    fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK} | form
    credentials = base64.b64encode(b"merging-app:secret").decode()
    status, _, text = ask(hub, "/oauth/token", fields, **({} if "client_id" in form else {"Authorization": f"Basic {credentials}"}))
    return status, json.loads(text)


@pytest.fixture
def sign_in(hub: FaultyHub) -> Callable[..., HfApi]:
    """A client with the token that a user gave to the app."""

    def client(scope: str, user: str = "alice", organizations: tuple[str, ...] = (), app: str = "merging-app") -> HfApi:
        code = choose(hub, user, organizations, scope=f"openid profile {scope}", client_id=app)["code"]
        status, answer = exchange(hub, code, client_id=app, client_secret="secret")
        assert status == 200
        return HfApi(endpoint=hub.url, token=answer["access_token"])

    return client


def put(api: HfApi, repo_id: str) -> None:
    api.create_commit(repo_id, [CommitOperationAdd("a.txt", b"text")], commit_message="Text")


def refused(attempt: Callable[[], object], why: str = "403") -> bool:
    try:
        attempt()
    except HfHubHTTPError as error:
        return re.search(why, str(error)) is not None
    return False


def test_a_user_signs_in_and_the_app_learns_who(hub: FaultyHub) -> None:
    found = choose(hub, "bob", scope="openid profile contribute-repos")
    assert found["state"] == "st&te"
    status, answer = exchange(hub, found["code"])
    assert (status, answer["token_type"], answer["expires_in"], answer["scope"]) == (
        200,
        "bearer",
        28800,
        "openid profile contribute-repos",
    )
    assert answer["access_token"].startswith("hf_oauth_")
    api = HfApi(endpoint=hub.url, token=answer["access_token"])
    assert (api.whoami()["name"], api.whoami()["auth"]["type"]) == ("bob", "oauth")
    about = json.loads(ask(hub, "/oauth/userinfo", Authorization=f"Bearer {answer['access_token']}")[2])
    assert (about["preferred_username"], about["profile"], about["orgs"]) == ("bob", f"{hub.url}/bob", [])
    assert "email" not in about and "email" not in api.whoami()  # which nobody asked for
    named = exchange(hub, choose(hub, "bob", scope="openid email")["code"])[1]["access_token"]
    about = json.loads(ask(hub, "/oauth/userinfo", Authorization=f"Bearer {named}")[2])
    assert about["email"] == HfApi(endpoint=hub.url, token=named).whoami()["email"] == "bob@example.org"


def test_the_identity_is_signed(hub: FaultyHub) -> None:
    from joserfc import jwt
    from joserfc.jwk import KeySet

    configuration = json.loads(ask(hub, "/.well-known/openid-configuration")[2])
    keys = KeySet.import_key_set(json.loads(ask(hub, urlsplit(configuration["jwks_uri"]).path)[2]))
    _, answer = exchange(hub, choose(hub, "alice", ("acme",))["code"])
    claims = jwt.decode(answer["id_token"], keys, algorithms=["RS256"]).claims
    assert (claims["iss"], claims["aud"], claims["nonce"]) == (hub.url, "merging-app", "n0nce")
    assert (claims["preferred_username"], [each["name"] for each in claims["orgs"]]) == ("alice", ["acme"])
    assert "d" not in json.loads(ask(hub, "/oauth/jwks")[2])["keys"][0]


def test_a_code_is_good_once_and_for_the_app_that_asked(hub: FaultyHub) -> None:
    code = choose(hub, "alice")["code"]
    assert exchange(hub, code)[0] == 200
    assert exchange(hub, code)[1]["error"] == "invalid_grant"
    assert exchange(hub, choose(hub, "alice")["code"], client_id="other-app", client_secret="s")[1]["error"] == "invalid_grant"
    assert exchange(hub, choose(hub, "alice")["code"], redirect_uri="http://127.0.0.1/else")[1]["error"] == "invalid_grant"
    assert exchange(hub, choose(hub, "alice")["code"], client_id="merging-app")[0] == 401
    assert exchange(hub, choose(hub, "alice")["code"], grant_type="password")[1]["error"] == "unsupported_grant_type"


def test_a_challenge_stands_in_for_a_secret(hub: FaultyHub) -> None:
    verifier = "a-long-enough-verifier-that-nobody-guesses-0123456789"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {"code_challenge": challenge, "code_challenge_method": "S256"}
    code = choose(hub, "alice", **asked)["code"]
    assert exchange(hub, code, client_id="merging-app", code_verifier=verifier)[0] == 200
    code = choose(hub, "alice", **asked)["code"]
    assert exchange(hub, code, client_id="merging-app", code_verifier="another")[1]["error"] == "invalid_client"
    assert exchange(hub, choose(hub, "alice", **asked)["code"])[1]["error"] == "invalid_client"


def test_who_cancels_gives_nothing(hub: FaultyHub) -> None:
    assert choose(hub, "") == {
        "_target_url": "/",
        "state": "st&te",
        "error": "access_denied",
        "error_description": "The user did not sign in.",
    }


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"redirect_uri": "javascript:alert(1)"}, "redirect_uri"),
        ({"client_id": ""}, "client_id"),
        ({"scope": "openid everything"}, "no scope 'everything'"),
        ({"response_type": "token"}, "response_type"),
        ({"code_challenge": "x", "code_challenge_method": "plain"}, "S256"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anyone_is_sent_anywhere(hub: FaultyHub, asked: dict[str, str], why: str) -> None:
    for status, _, text in (
        ask(hub, f"/oauth/authorize?{urlencode(APP | asked)}"),
        ask(hub, "/oauth/authorize", APP | asked | {"user": "bob"}),
    ):
        assert status == 400
        assert why in text


def test_contributing_reaches_what_the_app_made_and_nothing_else(alice: HfApi, sign_in: Callable[..., HfApi]) -> None:
    alice.create_repo("alice/hers")
    alice.create_repo("alice/hers-hidden", private=True)
    app = sign_in("contribute-repos")
    app.create_repo("alice/merged", private=True)
    put(app, "alice/merged")
    app.update_repo_settings("alice/merged", gated="auto")
    assert "a.txt" in app.list_repo_files("alice/merged")
    app.auth_check("alice/merged", write=True)
    assert refused(lambda: put(app, "alice/hers"), "without the scope write-repos or manage-repos")
    assert refused(lambda: app.create_tag("alice/hers", tag="v1"))
    assert refused(lambda: app.update_repo_settings("alice/hers", private=True))
    assert refused(lambda: app.delete_repo("alice/merged"), "manage-repos")
    assert refused(lambda: app.create_collection("Mine"), "write-collections")
    assert refused(lambda: app.create_commit("alice/hers", [CommitOperationAdd("b.txt", b"")], commit_message="x", create_pr=True))
    assert refused(lambda: app.create_repo("acme/merged"), "did not let the app")
    with pytest.raises(RepositoryNotFoundError):
        app.model_info("alice/hers-hidden")
    with pytest.raises(RepositoryNotFoundError):
        sign_in("contribute-repos", app="another-app").model_info("alice/merged")
    put(sign_in("contribute-repos"), "alice/merged")  # the app is the same in the next session
    put(alice, "alice/merged")


def test_organisations_are_reached_when_they_were_ticked(alice: HfApi, sign_in: Callable[..., HfApi]) -> None:
    app = sign_in("contribute-repos", organizations=("acme",))
    app.create_repo("acme/by-app")
    put(app, "acme/by-app")
    assert [each["name"] for each in app.whoami()["orgs"]] == ["acme"]
    assert sign_in("contribute-repos", user="bob", organizations=("acme",)).whoami()["orgs"] == []


def test_each_scope_opens_one_door(alice: HfApi, sign_in: Callable[..., HfApi], tmp_path: Path) -> None:
    alice.create_repo("alice/doors", private=True)
    put(alice, "alice/doors")
    assert refused(lambda: sign_in("contribute-repos").repo_info("alice/doors"), "404")
    reader, writer, manager = sign_in("read-repos"), sign_in("write-repos"), sign_in("manage-repos")
    assert "a.txt" in reader.list_repo_files("alice/doors")
    assert refused(lambda: put(reader, "alice/doors"))
    put(writer, "alice/doors")
    assert refused(lambda: writer.update_repo_settings("alice/doors", private=False), "manage-repos")
    assert refused(lambda: writer.create_repo("alice/more"), "contribute-repos or manage-repos")
    manager.create_repo("alice/more")
    manager.delete_repo("alice/more")
    sign_in("write-collections").create_collection("By an app")
    assert refused(lambda: sign_in("contribute-repos").run_job(image="x", command=["x"]), "scope jobs")
    job = sign_in("jobs").run_job(image="x", command=["x"])
    assert refused(lambda: reader.inspect_job(job_id=job.id, namespace="alice"), "scope jobs")
    assert refused(lambda: list(reader.fetch_job_logs(job_id=job.id, namespace="alice")), "scope jobs")
    assert sign_in("jobs").inspect_job(job_id=job.id, namespace="alice").id == job.id


def test_gated_files_need_their_scope(alice: HfApi, sign_in: Callable[..., HfApi], tmp_path: Path) -> None:
    alice.create_repo("alice/gated")
    put(alice, "alice/gated")
    alice.update_repo_settings("alice/gated", gated="manual")
    alice.grant_access("alice/gated", "bob")
    with pytest.raises(GatedRepoError):
        sign_in("contribute-repos", user="bob").hf_hub_download("alice/gated", "a.txt", cache_dir=tmp_path)
    allowed = sign_in("contribute-repos gated-repos", user="bob")
    assert Path(allowed.hf_hub_download("alice/gated", "a.txt", cache_dir=tmp_path)).read_bytes() == b"text"


def test_a_token_expires(hub: FaultyHub, sign_in: Callable[..., HfApi], monkeypatch: pytest.MonkeyPatch) -> None:
    lasting = sign_in("read-repos")
    monkeypatch.setattr(hub.hub.grants, "seconds", 0)
    with pytest.raises(HfHubHTTPError, match="401"):
        sign_in("read-repos").list_repo_files("alice/gated")
    assert lasting.whoami()["name"] == "alice"


def test_gradio_signs_in_with_it(hub: FaultyHub) -> None:
    """Authlib, which gradio uses, with what it keeps of a session."""
    from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]

    configuration = json.loads(ask(hub, "/.well-known/openid-configuration")[2])
    with OAuth2Client("merging-app", "secret", scope="openid profile contribute-repos", redirect_uri=CALLBACK) as client:
        address, state = client.create_authorization_url(configuration["authorization_endpoint"])
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        found = choose(hub, "alice", **query)
        assert found["state"] == state
        token = client.fetch_token(configuration["token_endpoint"], authorization_response=f"{CALLBACK}&{urlencode(found)}")
        assert client.get(configuration["userinfo_endpoint"]).json()["preferred_username"] == "alice"
    assert HfApi(endpoint=hub.url, token=token["access_token"]).whoami()["name"] == "alice"
