"""Repositories of Spaces on the local Hub, through huggingface_hub."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, SpaceHardware
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults

CARD = "---\ntitle: Merge\nsdk: gradio\ncolorFrom: green\nmodels: [alice/x]\ntags: [merge]\n---\n# Merge\n"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with serve_with_faults(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture
def alice(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def bob(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_bob")


def get(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
        return content


def test_a_space_is_a_repository_with_a_place_of_its_own(alice: HfApi, bob: HfApi, hub: FaultyHub, tmp_path: Path) -> None:
    url = alice.create_repo("alice/app", repo_type="space", space_sdk="gradio")
    assert (url.repo_id, url.repo_type, str(url)) == ("alice/app", "space", f"{hub.url}/spaces/alice/app")
    assert alice.create_repo("alice/app", repo_type="space", space_sdk="gradio", exist_ok=True) == url
    files = [CommitOperationAdd("README.md", CARD.encode()), CommitOperationAdd("app.py", b"x"), CommitOperationAdd("w.bin", b"\0w")]
    commit = alice.create_commit("alice/app", files, commit_message="Deploy", repo_type="space")
    assert commit.commit_url == f"{hub.url}/spaces/alice/app/commit/{commit.oid}"
    info = bob.space_info("alice/app")
    assert (info.sdk, info.models, info.datasets, info.sha) == ("gradio", ["alice/x"], [], commit.oid)
    assert set(info.tags or ()) == {"gradio", "merge"}
    assert not bob.repo_exists("alice/app")
    down = Path(bob.snapshot_download("alice/app", repo_type="space", cache_dir=tmp_path))
    assert [(down / file.path_in_repo).read_bytes() for file in files] == [CARD.encode(), b"x", b"\0w"]
    assert b"<h1>Merge</h1>" in get(f"{hub.url}/spaces/alice/app")
    assert b'href="/spaces/alice/app"' in get(hub.url)
    assert [space.id for space in bob.list_spaces(filter="merge")] == ["alice/app"]
    alice.delete_repo("alice/app", repo_type="space")
    with pytest.raises(RepositoryNotFoundError):
        alice.space_info("alice/app")


def test_what_a_space_is_told_at_birth_is_kept_and_secrets_are_not(
    alice: HfApi, hub: FaultyHub, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alice.create_repo(
        "alice/told", repo_type="space", space_sdk="gradio", space_hardware=SpaceHardware.A100_LARGE, space_variables=[{"key": "A", "value": "1"}],
        space_secrets=[{"key": "KEY", "value": "never-to-be-told", "description": "a key"}],
    )  # fmt: skip
    repo = hub.hub.get("spaces", "alice/told")
    assert repo is not None
    assert (repo.settings["sdk"], repo.settings["hardware"], repo.settings["variables"]["A"]["value"]) == ("gradio", "a100-large", "1")
    assert repo.settings["secrets"]["KEY"].keys() == {"key", "description", "updatedAt"}
    assert not [file for file in hub.root.rglob("*") if file.is_file() and b"never-to-be-told" in file.read_bytes()]
    request = hub.app.requests("^POST /api/repos/create")[-1]
    assert json.loads(request.body)["secrets"][0]["value"] == "never-to-be-told"
    assert "never-to-be-told" not in repr(request)


def test_a_space_needs_an_sdk(hub: FaultyHub) -> None:
    headers = {"Authorization": "Bearer hf_alice", "Content-Type": "application/json"}
    body = json.dumps({"name": "bare", "type": "space"}).encode()
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        urllib.request.urlopen(urllib.request.Request(f"{hub.url}/api/repos/create", body, headers))
    assert b"needs an sdk" in caught.value.read()
    caught.value.close()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("sdk: shiny", "sdk"),
        ("sdk: gradio\ncolorTo: beige", "colorTo"),
        (f"sdk: gradio\nshort_description: {'x' * 61}", "short_description"),
    ],
)
def test_the_card_of_a_space_is_checked(alice: HfApi, line: str, complaint: str) -> None:
    alice.create_repo("alice/card", repo_type="space", space_sdk="gradio", exist_ok=True)
    card = CommitOperationAdd("README.md", f"---\n{line}\n---\n".encode())
    with pytest.raises(ValueError, match=f'"{complaint}"'):
        alice.create_commit("alice/card", [card], commit_message="Card", repo_type="space")


def test_a_private_space_is_absent_to_others(alice: HfApi, bob: HfApi) -> None:
    alice.create_repo("alice/hidden", repo_type="space", space_sdk="static", private=True)
    with pytest.raises(RepositoryNotFoundError):
        bob.space_info("alice/hidden")
    assert "alice/hidden" not in [space.id for space in bob.list_spaces()]
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.create_repo("acme/theirs", repo_type="space", space_sdk="gradio")
