import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from tiny import tiny_model

from hfsafemerge import hub
from hfsafemerge.errors import CheckpointError, DataError, HubError, UnsafeRepository
from hfsafemerge.examples import Example, save_examples
from hfsafemerge.hub import client, redacting, retrying
from hfsafemerge.localhub.faults import Fault, serve_with_faults
from hfsafemerge.recipe import DatasetRef, ModelRef


@pytest.fixture
def api():
    return HfApi()


def publish(api, repo_id, folder, **options):
    api.create_repo(repo_id, **options)
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=options.get("repo_type"))
    return repo_id


@pytest.fixture
def model(api, repo_name, tmp_path):
    folder = tiny_model(tmp_path / "model", 0)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# tiny\n")
    return publish(api, f"alice/{repo_name}", folder)


def test_a_model_is_known_by_its_headers_without_its_weights(model, tmp_path):
    found = hub.find_model(ModelRef(repo_id=model))
    local = hub.find_model(ModelRef(path=tmp_path / "model"))
    assert found.summary.tensors == local.summary.tensors and found.summary.vocabulary == local.summary.vocabulary
    assert found.summary.chat_template == local.summary.chat_template and found.summary.architecture == "LlamaForCausalLM"
    assert (found.license, local.license) == ("mit", None)
    assert len(found.commit) == 40 and local.commit.startswith("local-")
    cached = Path(client.api().snapshot_download(model, revision=found.commit, allow_patterns="*.json", local_files_only=True))
    assert not list(cached.glob("*.safetensors"))  # the weights stayed on the Hub
    assert found.download == (tmp_path / "model" / "model.safetensors").stat().st_size


def test_only_what_a_merge_needs_is_pulled(api, model):
    api.upload_file(path_or_fileobj=b"x", path_in_repo="training_args.bin", repo_id=model)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="original/consolidated.00.pth", repo_id=model)
    folder = hub.pull(ModelRef(repo_id=model), hub.resolve(ModelRef(repo_id=model)))
    assert (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pth"))


def test_a_branch_is_resolved_to_the_commit_it_stands_for(api, model):
    first = hub.resolve(ModelRef(repo_id=model))
    api.upload_file(path_or_fileobj=b"more", path_in_repo="notes.txt", repo_id=model)
    assert hub.resolve(ModelRef(repo_id=model)) != first == hub.resolve(ModelRef(repo_id=model, revision=first))


def test_a_local_path_is_known_by_what_is_in_it(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "a").write_text("1")
    first = hub.resolve(ModelRef(path=tmp_path / "m"))
    (tmp_path / "m" / "b").write_text("2")
    assert hub.resolve(ModelRef(path=tmp_path / "m")) != first
    with pytest.raises(HubError, match="does not exist"):
        hub.resolve(ModelRef(path=tmp_path / "none"))


# What goes wrong with models


def test_a_missing_repository_says_where_it_was_looked_for(hub_url):
    with pytest.raises(HubError, match=rf"alice/none does not exist at {hub_url}, or is private"):
        hub.find_model(ModelRef(repo_id="alice/none"))


def test_a_missing_revision_is_told_from_a_missing_repository(model):
    with pytest.raises(HubError, match=r"@v9: there is no such branch, tag or commit"):
        hub.find_model(ModelRef(repo_id=model, revision="v9"))


def test_a_repository_without_safetensors_says_what_it_has(api, repo_name, tmp_path):
    folder = tiny_model(tmp_path / "m", 0)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"has no model.safetensors, only pytorch_model.bin and the like"):
        hub.find_model(ModelRef(repo_id=publish(api, f"alice/{repo_name}", folder)))


@pytest.mark.parametrize("file", ["modeling_x.py", "sub/evil.py"])
def test_a_repository_with_code_is_refused(api, model, file):
    api.upload_file(path_or_fileobj=b"print('run me')", path_in_repo=file, repo_id=model)
    with pytest.raises(UnsafeRepository, match=rf"holds Python code \({file}\)"):
        hub.find_model(ModelRef(repo_id=model))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_repository_that_asks_for_its_own_code_is_refused(tmp_path, file):
    folder = tiny_model(tmp_path / "m", 0)
    config = json.loads((folder / file).read_text()) | {"auto_map": {"AutoModel": "x.Y"}}
    (folder / file).write_text(json.dumps(config))
    with pytest.raises(UnsafeRepository, match="auto_map"):
        hub.find_model(ModelRef(path=folder))


@pytest.mark.parametrize(("content", "message"), [("{", "can't read config.json"), ("[]", "config.json is no mapping")])
def test_a_malformed_configuration_is_refused(tmp_path, content, message):
    folder = tiny_model(tmp_path / "m", 0)
    (folder / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        hub.find_model(ModelRef(path=folder))


def test_a_gated_model_names_its_page(api, repo_name, tmp_path, hub_url, monkeypatch):
    folder = tiny_model(tmp_path / "m", 0)
    repo_id = publish(api, f"alice/{repo_name}", folder)
    api.update_repo_settings(repo_id, gated="manual")
    bob = HfApi(token="hf_bob")
    monkeypatch.setattr(client, "api", lambda: bob)
    with pytest.raises(HubError, match=rf"{repo_id} is gated, .*{hub_url}/{repo_id}"):
        hub.find_model(ModelRef(repo_id=repo_id))


def test_an_unreachable_hub_says_so(monkeypatch):
    away = HfApi(endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(client, "api", lambda: away)
    with pytest.raises(HubError, match=r"Can't reach http://127.0.0.1:9 for alice/x.* Check the connection, or HF_ENDPOINT"):
        hub.find_model(ModelRef(repo_id="alice/x"))


# Datasets


@pytest.fixture
def dataset(api, repo_name, tmp_path):
    folder = tmp_path / "data"
    (folder / "harmful").mkdir(parents=True)
    save_examples(folder / "harmful" / "test.parquet", [Example("safety", "q1", "a1"), Example("safety", "q2", "a2")])
    front = "---\nconfigs:\n- config_name: harmful\n  data_files:\n  - {split: test, path: harmful/test.parquet}\n---\n"
    (folder / "README.md").write_text(front)
    return publish(api, f"alice/{repo_name}", folder, repo_type="dataset")


def test_rows_are_read_from_the_hub_and_from_a_file(dataset, tmp_path):
    ref = DatasetRef(repo_id=dataset, config="harmful", split="test")
    there = hub.rows(ref, hub.resolve(ref, "dataset"))
    here = hub.rows(DatasetRef(path=tmp_path / "data" / "harmful" / "test.parquet", split="test"), "local")
    assert [row["prompt"] for row in there] == ["q1", "q2"] and there == here


@pytest.mark.parametrize("change", [{"split": "train"}, {"config": "other"}])
def test_a_missing_split_or_config_is_named(dataset, change):
    ref = DatasetRef(**({"repo_id": dataset, "config": "harmful", "split": "test"} | change))
    with pytest.raises(DataError, match=rf"Can't read the dataset {dataset} \(config .*, split .*\)"):
        hub.rows(ref, hub.resolve(ref, "dataset"))


def test_rows_of_another_commit_are_never_taken_instead(api, dataset, tmp_path, monkeypatch):
    """When the Hub fails, datasets takes the newest copy that it has, which may be of another commit."""
    import datasets

    ref = DatasetRef(repo_id=dataset, config="harmful", split="test")
    assert len(hub.rows(ref, hub.resolve(ref, "dataset"))) == 2
    save_examples(tmp_path / "new.parquet", [Example("safety", "q3", "a3")])
    api.upload_file(path_or_fileobj=tmp_path / "new.parquet", path_in_repo="harmful/test.parquet", repo_id=dataset, repo_type="dataset")
    commit = hub.resolve(ref, "dataset")

    def fail(self):
        raise ConnectionError("no answer")

    with monkeypatch.context() as away:
        away.setattr(datasets.load.HubDatasetModuleFactory, "get_module", fail)
        with pytest.raises(HubError, match=f"{dataset} can't be read at the commit {commit[:8]} that was checked"):
            hub.rows(ref, commit)
    assert [row["prompt"] for row in hub.rows(ref, commit)] == ["q3"]


def test_an_empty_dataset_is_refused(tmp_path):
    save_examples(tmp_path / "rows.parquet", [])
    with pytest.raises(DataError, match="has no rows"):
        hub.rows(DatasetRef(path=tmp_path / "rows.parquet"), "local")


# Errors


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    with serve_with_faults(tmp_path / "hub") as server:
        alice = HfApi(endpoint=server.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
        yield server


def test_a_token_that_no_header_may_hold_is_not_quoted(monkeypatch):
    monkeypatch.setattr(redacting, "get_token", lambda: "hf_broken\x1b")
    with pytest.raises(HubError) as caught, hub.hub_errors("alice/x"):
        raise client.httpx.LocalProtocolError("Illegal header value b'Bearer hf_broken\x1b'")
    assert "hf_broken" not in str(caught.value) and "<token>" in str(caught.value)


def test_a_bad_request_is_told_in_the_words_of_the_hub(faulty):
    faulty.app.faults = [Fault("POST /api/repos/create", status=400, headers={"X-Error-Message": "A name can't end with .git"})]
    with pytest.raises(HubError, match=r"^The Hub refused alice/x \(400\): A name can't end with \.git"), hub.hub_errors("alice/x"):
        client.api().create_repo("alice/x")


def test_no_error_holds_the_token(faulty, tmp_path):
    faulty.app.faults = [Fault("GET /api/models/alice/x", status=500, times=99)]
    with pytest.raises(HubError) as caught:
        hub.find_model(ModelRef(repo_id="alice/x"))
    assert "hf_alice" not in str(caught.value)
