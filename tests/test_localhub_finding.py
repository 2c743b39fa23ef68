"""Lists and searches of the local Hub, through huggingface_hub."""

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults

CONFIG = json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyHub]:
    with serve_with_faults(tmp_path_factory.mktemp("hub")) as running:
        api = HfApi(endpoint=running.url, token="hf_alice")
        for name, files in (
            ("alice/Llama-bio", {"config.json": CONFIG, "model.safetensors": b"\0w"}),
            ("alice/llama-old", {"config.json": CONFIG, "pytorch_model.bin": b"\0w"}),
            ("acme/llama-secret", {"config.json": CONFIG, "model.safetensors": b"\0w"}),
            ("acme/encoder", {"README.md": b"---\nlibrary_name: sentence-transformers\npipeline_tag: feature-extraction\n---\n"}),
        ):
            api.create_repo(name, private="secret" in name)
            api.create_commit(name, [CommitOperationAdd(path, content) for path, content in files.items()], commit_message="Files")
        api.create_repo("acme/llama-questions", repo_type="dataset")
        card = b"---\ntask_categories: [text-generation]\ntags: [synthetic]\n---\n"
        api.create_commit("acme/llama-questions", [CommitOperationAdd("README.md", card)], commit_message="Card", repo_type="dataset")
        api.create_repo("alice/llama-app", repo_type="space", space_sdk="gradio")
        api.create_collection("Llama things", private=True)
        yield running


@pytest.fixture
def alice(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture
def bob(hub: FaultyHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_bob")


def quick(hub: FaultyHub, query: str, token: str = "hf_bob") -> Any:
    request = urllib.request.Request(f"{hub.url}/api/quicksearch?{query}", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_models_that_write_text_are_found_by_part_of_their_name(alice: HfApi, bob: HfApi) -> None:
    wanted = ["text-generation", "safetensors"]
    assert [model.id for model in bob.list_models(search="llama", filter=wanted, sort="downloads", limit=10)] == ["alice/Llama-bio"]
    assert [model.id for model in alice.list_models(search="LLAMA", filter=wanted)] == ["acme/llama-secret", "alice/Llama-bio"]
    assert [model.id for model in alice.list_models(search="bio llama")] == ["alice/Llama-bio"]
    assert [model.id for model in alice.list_models(search="llama", limit=1)] == ["acme/llama-secret"]
    assert [model.id for model in bob.list_models(author="acme")] == ["acme/encoder"]
    assert [model.id for model in bob.list_models(filter="transformers")] == ["alice/Llama-bio", "alice/llama-old"]


def test_library_and_task_come_from_the_card_and_else_from_the_files(alice: HfApi) -> None:
    model = alice.model_info("alice/Llama-bio")
    assert (model.library_name, model.pipeline_tag) == ("transformers", "text-generation")
    assert model.tags == ["transformers", "text-generation", "llama", "safetensors"]
    card = alice.model_info("acme/encoder")
    assert (card.library_name, card.pipeline_tag) == ("sentence-transformers", "feature-extraction")


def test_the_newest_come_first_when_asked(alice: HfApi) -> None:
    alice.create_commit("alice/llama-old", [CommitOperationAdd("a.txt", b"x")], commit_message="Touch")
    assert [model.id for model in alice.list_models(sort="last_modified", limit=1)] == ["alice/llama-old"]
    assert [model.id for model in alice.list_models(sort="created_at", limit=1)] == ["acme/encoder"]


def test_a_list_tells_less_than_a_page_unless_asked(bob: HfApi) -> None:
    plain = next(iter(bob.list_models(search="bio")))
    assert (plain.sha, plain.siblings, plain.card_data, plain.config, plain.pipeline_tag) == (None, None, None, None, "text-generation")
    full = next(iter(bob.list_models(search="bio", full=True, fetch_config=True)))
    assert (full.sha, full.config) == (bob.model_info("alice/Llama-bio").sha, json.loads(CONFIG))
    expanded = next(iter(bob.list_models(search="bio", expand=["sha"])))
    assert (expanded.sha, expanded.tags) == (full.sha, None)
    assert bob.model_info("alice/Llama-bio", expand=["gated"]).sha is None
    assert bob.model_info("alice/Llama-bio", expand=["gated"]).gated is False


def test_datasets_are_found_too(bob: HfApi) -> None:
    assert [data.id for data in bob.list_datasets(search="questions", filter="synthetic")] == ["acme/llama-questions"]
    assert [data.id for data in bob.list_datasets(task_categories="text-generation")] == ["acme/llama-questions"]
    assert list(bob.list_datasets(author="alice")) == []


def test_a_quick_search_finds_every_kind_that_one_may_see(hub: FaultyHub) -> None:
    found = quick(hub, "q=llama")
    assert {kind: [repo["id"] for repo in found[kind]] for kind in ("models", "datasets", "spaces")} == {
        "models": ["alice/Llama-bio", "alice/llama-old"], "datasets": ["acme/llama-questions"], "spaces": ["alice/llama-app"],
    }  # fmt: skip
    assert (found["modelsCount"], found["collections"]) == (2, [])
    found = quick(hub, "q=llama&type=model&limit=1", token="hf_alice")
    assert ([repo["id"] for repo in found["models"]], found["modelsCount"], found["datasets"]) == (["acme/llama-secret"], 3, [])
    assert [each["title"] for each in quick(hub, "q=LLAMA", token="hf_alice")["collections"]] == ["Llama things"]


def test_what_a_scan_found_is_told_to_those_who_ask(bob: HfApi, hub: FaultyHub) -> None:
    assert bob.model_info("alice/llama-old").security_repo_status is None
    assert bob.model_info("alice/llama-old", securityStatus=True).security_repo_status == {"scansDone": True, "filesWithIssues": []}
    hub.hub.issues["models", "alice/llama-old"] = {"pytorch_model.bin": "unsafe"}
    status = bob.model_info("alice/llama-old", securityStatus=True).security_repo_status
    assert status == {"scansDone": True, "filesWithIssues": [{"path": "pytorch_model.bin", "level": "unsafe"}]}
    first = bob.list_repo_commits("alice/llama-old")[-1].commit_id
    status = bob.model_info("alice/llama-old", securityStatus=True, revision=first).security_repo_status
    assert status == {"scansDone": True, "filesWithIssues": []}
