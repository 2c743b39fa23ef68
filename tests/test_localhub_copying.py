"""Copies within the local Hub, the headers of its weights and checksums, through huggingface_hub."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults


def shard(name: str, shape: list[int]) -> bytes:
    """A safetensors file of one tensor of zeros."""
    size = 4 * shape[0] * shape[1]
    header = json.dumps({"__metadata__": {"format": "pt"}, name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(size)


ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = json.dumps({"metadata": {"total_size": 56}, "weight_map": {"a": ONE, "b": TWO}}).encode()
FILES = {ONE: shard("a", [2, 3]), TWO: shard("b", [2, 4]), "model.safetensors.index.json": INDEX}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with serve_with_faults(tmp_path_factory.mktemp("hub")) as running:
        api = HfApi(endpoint=running.url, token="hf_alice")
        api.create_repo("alice/sharded")
        api.create_commit("alice/sharded", [CommitOperationAdd(path, content) for path, content in FILES.items()], commit_message="Files")
        api.create_tag("alice/sharded", tag="v1")
        yield running


@pytest.fixture
def alice(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def bob(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_bob")


def test_all_headers_come_in_one_answer(bob: HfApi, hub: FaultyHub) -> None:
    before = len(hub.app.log)
    found = bob.get_sharded_safetensors_metadata("alice/sharded")
    assert len(hub.app.log) == before + 1
    assert found == bob.get_safetensors_metadata("alice/sharded")
    assert (found.parameter_count, found.weight_map) == ({"F32": 14}, {"a": ONE, "b": TWO})


def test_headers_that_can_not_be_read_are_named(alice: HfApi) -> None:
    alice.create_repo("alice/broken")
    with pytest.raises(EntryNotFoundError):
        alice.get_sharded_safetensors_metadata("alice/broken")
    for files, error, why in (
        ({"model.safetensors.index.json": b"{}"}, BadRequestError, "no weight_map"),
        ({"model.safetensors.index.json": INDEX}, EntryNotFoundError, ONE),
        ({ONE: b"\xff" * 20, TWO: b"\x02" + bytes(7) + b"no"}, BadRequestError, f"{ONE} does not begin"),
    ):
        alice.create_commit("alice/broken", [CommitOperationAdd(path, content) for path, content in files.items()], commit_message="x")
        with pytest.raises(error, match=why):
            alice.get_sharded_safetensors_metadata("alice/broken")


def test_checksums_tell_a_file_that_has_changed(bob: HfApi, tmp_path: Path) -> None:
    bob.snapshot_download("alice/sharded", local_dir=tmp_path)
    assert bob.verify_repo_checksums("alice/sharded", local_dir=tmp_path).mismatches == []
    (tmp_path / TWO).write_bytes(FILES[TWO][:-1] + b"\1")
    assert [wrong["path"] for wrong in bob.verify_repo_checksums("alice/sharded", local_dir=tmp_path).mismatches] == [TWO]


def test_a_repository_is_duplicated_with_its_history(alice: HfApi, bob: HfApi) -> None:
    url = bob.duplicate_repo("alice/sharded", private=True)
    assert (url.repo_id, url.files_copy_pending) == ("bob/sharded", False)
    assert bob.model_info("bob/sharded").sha == alice.model_info("alice/sharded").sha
    assert [tag.name for tag in bob.list_repo_refs("bob/sharded").tags] == ["v1"]
    bob.create_commit("bob/sharded", [CommitOperationAdd("new.txt", b"x")], commit_message="New")
    assert not alice.file_exists("alice/sharded", "new.txt")
    with pytest.raises(RepositoryNotFoundError):
        alice.model_info("bob/sharded")
    with pytest.raises(HfHubHTTPError, match="409"):
        bob.duplicate_repo("alice/sharded")
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.duplicate_repo("alice/sharded", "acme/sharded")


def test_a_duplicated_space_keeps_variables_and_no_secrets(alice: HfApi, bob: HfApi, hub: FaultyHub) -> None:
    alice.create_repo(
        "alice/app", repo_type="space", space_sdk="gradio", space_secrets=[{"key": "KEY", "value": "x"}],
        space_variables=[{"key": "A", "value": "1"}, {"key": "B", "value": "1"}],
    )  # fmt: skip
    bob.duplicate_repo("alice/app", repo_type="space", space_variables=[{"key": "B", "value": "2"}])
    copy = hub.hub.get("spaces", "bob/app")
    assert copy is not None
    assert {key: variable["value"] for key, variable in copy.settings["variables"].items()} == {"A": "1", "B": "2"}
    assert (copy.settings["secrets"], copy.settings["sdk"], copy.settings["hardware"]) == ({}, "gradio", "cpu-basic")
