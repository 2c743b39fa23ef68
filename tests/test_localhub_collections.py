"""Collections on the local Hub, through huggingface_hub."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[FaultyHub]:
    with serve_with_faults(root) as running:
        api = HfApi(endpoint=running.url, token="hf_alice")
        api.create_repo("alice/model")
        api.create_repo("alice/data", repo_type="dataset")
        api.create_repo("alice/app", repo_type="space", space_sdk="gradio")
        yield running


@pytest.fixture
def alice(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def bob(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_bob")


def items(api: HfApi, slug: str) -> list[tuple[str, str, str | None]]:
    return [(item.item_type, item.item_id, item.note) for item in api.get_collection(slug).items]


def test_a_collection_ties_model_dataset_and_space(alice: HfApi, bob: HfApi, hub: FaultyHub) -> None:
    made = alice.create_collection("A merge & its data", description="All of it")
    assert made.slug.startswith("alice/a-merge-its-data-")
    assert (made.title, made.description, made.owner, made.private, made.items) == ("A merge & its data", "All of it", "alice", False, [])
    alice.add_collection_item(made.slug, "alice/model", "model", note="the merge")
    alice.add_collection_item(made.slug, "alice/data", "dataset")
    after = alice.add_collection_item(made.slug, "alice/app", "space")
    assert [item.item_id for item in after.items] == ["alice/model", "alice/data", "alice/app"]
    _, data, app = after.items
    alice.update_collection_item(made.slug, app.item_object_id, position=0, note="try it")
    alice.delete_collection_item(made.slug, data.item_object_id)
    expected = [("space", "alice/app", "try it"), ("model", "alice/model", "the merge")]
    assert items(bob, made.slug) == expected
    assert [(found.slug, found.items[0].item_id) for found in bob.list_collections(item="models/alice/model")] == [(made.slug, "alice/app")]
    assert list(bob.list_collections(item="datasets/alice/data")) == []
    with urllib.request.urlopen(made.url) as page:
        assert b'<a href="/spaces/alice/app">alice/app</a> (space) try it' in page.read()


def test_an_owner_has_one_collection_of_a_title(alice: HfApi, bob: HfApi) -> None:
    first = alice.create_collection("Once")
    assert alice.create_collection("Once", exists_ok=True).slug == first.slug
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_collection("Once")
    assert bob.create_collection("Once").slug != first.slug
    assert {alice.create_collection("Once", namespace="acme").owner, first.owner} == {"acme", "alice"}


def test_an_item_is_in_a_collection_once_and_exists(alice: HfApi) -> None:
    slug = alice.create_collection("Items").slug
    alice.add_collection_item(slug, "alice/model", "model")
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.add_collection_item(slug, "alice/model", "model")
    assert len(alice.add_collection_item(slug, "alice/model", "model", exists_ok=True).items) == 1
    with pytest.raises(HfHubHTTPError, match="404"):
        alice.add_collection_item(slug, "alice/model", "dataset")
    with pytest.raises(HfHubHTTPError, match="404"):
        alice.delete_collection_item(slug, "0" * 24)


def test_limits_are_those_of_the_hub(alice: HfApi) -> None:
    for title, description in (("", "x"), ("x" * 61, ""), ("x", "x" * 151)):
        with pytest.raises(HfHubHTTPError, match="malformed"):
            alice.create_collection(title, description=description)
    slug = alice.create_collection("Limits").slug
    with pytest.raises(HfHubHTTPError, match="malformed"):
        alice.add_collection_item(slug, "alice/model", "model", note="x" * 501)


def test_a_title_may_change_and_old_links_hold(alice: HfApi) -> None:
    old = alice.create_collection("Before").slug
    new = alice.update_collection_metadata(old, title="After", theme="pink", private=True)
    assert (new.slug.split("-")[0], new.theme, new.private) == ("alice/after", "pink", True)
    assert alice.get_collection(old).slug == new.slug
    assert alice.create_collection("Before").slug != old


def test_only_the_owner_changes_a_collection_and_sees_a_private_one(alice: HfApi, bob: HfApi) -> None:
    public, hidden = alice.create_collection("Public").slug, alice.create_collection("Hidden", private=True).slug
    for attempt in (
        lambda: bob.add_collection_item(public, "alice/model", "model"),
        lambda: bob.delete_collection(public),
        lambda: bob.create_collection("Mine", namespace="acme"),
        lambda: HfApi(endpoint=alice.endpoint, token="hf_alice_ro").update_collection_metadata(public, title="x"),
    ):
        with pytest.raises(HfHubHTTPError, match="403"):
            attempt()
    with pytest.raises(HfHubHTTPError, match="404"):
        bob.get_collection(hidden)
    assert {public} <= {found.slug for found in bob.list_collections(owner="alice")}
    assert hidden not in {found.slug for found in bob.list_collections(owner="alice")}
    alice.delete_collection(hidden)
    with pytest.raises(HfHubHTTPError, match="404"):
        alice.delete_collection(hidden)
    alice.delete_collection(hidden, missing_ok=True)


def test_private_and_deleted_repositories_do_not_show(alice: HfApi, bob: HfApi) -> None:
    slug = alice.create_collection("Partly").slug
    for name in ("alice/kept", "alice/private", "alice/deleted"):
        alice.create_repo(name, private=name == "alice/private")
        alice.add_collection_item(slug, name, "model")
    alice.delete_repo("alice/deleted")
    assert [name for _, name, _ in items(bob, slug)] == ["alice/kept"]
    assert [name for _, name, _ in items(alice, slug)] == ["alice/kept", "alice/private"]


def test_collections_survive_a_restart(tmp_path: Path) -> None:
    with serve_with_faults(tmp_path) as first:
        api = HfApi(endpoint=first.url, token="hf_alice")
        api.create_repo("alice/model")
        slug = api.create_collection("Kept", description="d").slug
        api.add_collection_item(slug, "alice/model", "model", note="n")
    with serve_with_faults(tmp_path) as second:
        assert items(HfApi(endpoint=second.url, token="hf_alice"), slug) == [("model", "alice/model", "n")]
