"""Data as datasets: in which order they are published, what a kill leaves, who can read them, and what is refused."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import command
from huggingface_hub import HfApi
from test_dataset_card import examples
from test_run import small

from hfsafemerge import hub
from hfsafemerge._recipe_evaluation import JudgeErrors
from hfsafemerge.dataset_card import ROWS
from hfsafemerge.errors import DataError, HubError, RecipeError, RunError
from hfsafemerge.examples import load_examples, save_examples
from hfsafemerge.hub import client, retrying, writing
from hfsafemerge.lab.recipes import InFolder, OnHub, lab_recipe
from hfsafemerge.localhub.faults import Fault, serve_with_faults
from hfsafemerge.running import Run
from hfsafemerge.running.publishing.datasets import MADE_BY, Target, funnel, push_folder, push_run

KINDS = ("safety", "domain", "benign")


def quiet(message):
    """What is told of progress is of no interest."""


def published(found, name):
    return Path(HfApi().hf_hub_download(found.repo_id, name, repo_type="dataset", revision=found.commit)).read_bytes()


@pytest.fixture
def folder(tmp_path):
    """Rows of every kind, as this tool writes them."""
    (tmp_path / "rows").mkdir()
    for kind in KINDS:
        save_examples(tmp_path / "rows" / f"{kind}.parquet", examples(kind))
    return tmp_path / "rows"


# The order


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    with serve_with_faults(tmp_path / "hub") as server:
        alice = HfApi(endpoint=server.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
        yield server


@pytest.fixture
def files(tmp_path):
    (tmp_path / "f").mkdir()
    for name in ("README.md", MADE_BY, "rows"):
        (tmp_path / "f" / name).write_bytes(b"---\nlicense: mit\n---\n" if name == "README.md" else b"PAR1" + bytes(2000))
    return {"README.md": tmp_path / "f" / "README.md", MADE_BY: tmp_path / "f" / MADE_BY, ROWS: tmp_path / "f" / "rows"}


def publish(files, repo_id="alice/x", *, private=False, gated=True):
    return hub.publish(hub.Place(repo_id, "dataset", MADE_BY, private=private, gated=gated), files, "one", tag="data-1")


def propose(repo_id, files, message, *, gated):
    return hub.propose(hub.Place(repo_id, "dataset", MADE_BY, private=False, gated=gated), files, message)


def anyone_can_read(url, repo_id="alice/x"):
    """Whether somebody without a token gets the rows, of which the local Hub keeps no cache."""
    try:
        with urllib.request.urlopen(f"{url}/datasets/{repo_id}/resolve/main/{ROWS}") as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        assert error.code in (401, 403, 404)
        return False


def state(server, repo_id="alice/x"):
    api = HfApi(endpoint=server.url, token="hf_alice")
    if not api.repo_exists(repo_id, repo_type="dataset"):
        return None
    found = api.dataset_info(repo_id)
    files = api.list_repo_files(repo_id, repo_type="dataset")
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id, repo_type="dataset").tags}
    commits = [commit.title for commit in api.list_repo_commits(repo_id, repo_type="dataset")]
    return {"private": found.private, "gated": found.gated, "rows": ROWS in files, "tags": tags, "commits": commits, "head": found.sha}


def requests_of_a_push(server):
    return [f"{request.method} {request.path}" for request in server.app.log]


def test_the_order_is_create_gate_commit_tag_public(faulty, files):
    pushed = publish(files)
    changes = [asked for asked in requests_of_a_push(faulty) if not asked.startswith(("GET", "HEAD"))]
    wanted = ["/api/repos/create", "/settings", "/commit/main", "/tag/", "/settings"]
    kept = [asked for asked in changes if any(part in asked for part in wanted)]
    assert len(kept) == 5 and all(part in asked for part, asked in zip(wanted, kept, strict=True))
    made = state(faulty)
    assert made == {
        "private": False, "gated": "manual", "rows": True, "tags": {"data-1": pushed.commit}, "commits": ["one", "initial commit"],
        "head": pushed.commit,
    }  # fmt: skip
    assert pushed.tag == "data-1" and pushed.url == f"{faulty.url}/datasets/alice/x" and not anyone_can_read(faulty.url)


def test_it_is_public_only_on_demand_and_open_only_when_harmless(faulty, files):
    publish(files, private=True)
    assert state(faulty)["private"] and state(faulty)["gated"] == "manual"
    publish(files, private=False)
    assert not state(faulty)["private"] and len(state(faulty)["commits"]) == 2
    before = state(faulty)
    with pytest.raises(HubError, match=r"alice/x is public, and the data are to be private\. Make it private, choose another name, or say"):
        publish({**files, ROWS: files["README.md"]}, private=True)
    assert state(faulty) == before
    client.api().update_repo_settings("alice/x", repo_type="dataset", visibility="private")
    publish(files, private=True)
    assert state(faulty)["private"]
    publish(files, "alice/open", gated=False)
    assert not state(faulty, "alice/open")["gated"] and anyone_can_read(faulty.url, "alice/open")


@pytest.mark.parametrize("lost", [False, True])
def test_a_push_that_was_stopped_at_any_request_leaks_nothing_and_goes_on(faulty, files, lost):
    """A kill before a request is one that is refused for good; a kill before its answer is one that is done all the same."""
    publish(files, "alice/whole")
    count = len(faulty.app.log)
    assert count > 10
    for stop in range(count):
        repo_id = f"alice/stopped-{stop}"
        faulty.app.faults = [Fault(".", status=418, after=stop, lost=lost)]
        try:
            publish(files, repo_id)
        except HubError as error:
            assert "injected fault" in str(error) or "418" in str(error)
        faulty.app.faults = []
        left = state(faulty, repo_id)
        assert not anyone_can_read(faulty.url, repo_id)
        if left is not None and left["rows"]:
            assert left["gated"] == "manual"
        if left is not None and not left["private"]:
            assert left["gated"] == "manual" and left["rows"] and left["tags"]
        pushed = publish(files, repo_id)
        done = state(faulty, repo_id)
        assert done["commits"] == ["one", "initial commit"] and done["tags"] == {"data-1": pushed.commit}
        assert (done["private"], done["gated"], done["head"]) == (False, "manual", pushed.commit)


@pytest.mark.parametrize("request_to", ["/api/repos/create", "/settings", "/commit/main", "/tag/"])
@pytest.mark.parametrize("lost", [False, True])
def test_faults_that_pass_are_outlasted(faulty, files, request_to, lost):
    faulty.app.faults = [Fault(request_to, status=503, times=2, lost=lost)]
    pushed = publish(files)
    done = state(faulty)
    assert done["commits"] == ["one", "initial commit"] and done["tags"] == {"data-1": pushed.commit}
    assert (done["private"], done["gated"]) == (False, "manual") and faulty.app.faults[0].times < 2


def test_a_gate_that_was_opened_meanwhile_keeps_it_private(faulty, files, monkeypatch):
    commit = writing.commit_files

    def and_open(place, *arguments, **options):
        made = commit(place, *arguments, **options)
        client.api().update_repo_settings(place.repo_id, repo_type="dataset", gated=False)
        return made

    monkeypatch.setattr(writing, "commit_files", and_open)
    with pytest.raises(HubError, match="was opened while it was published, so it stays as it is"):
        publish(files)
    assert state(faulty)["private"]


def test_a_public_repository_gets_its_gate_before_its_rows(faulty, files):
    client.api().create_repo("alice/x", repo_type="dataset", private=False)
    faulty.app.faults = [Fault("/commit/main", status=418)]
    with pytest.raises(HubError):
        publish(files)
    assert state(faulty)["gated"] == "manual" and not state(faulty)["rows"]


def test_a_gate_that_opens_by_itself_is_closed_before_the_rows_are_there(faulty, files):
    client.api().create_repo("alice/x", repo_type="dataset", private=False)
    client.api().update_repo_settings("alice/x", repo_type="dataset", gated="auto")
    faulty.app.faults = [Fault("/commit/main", status=418)]
    with pytest.raises(HubError):
        publish(files)
    assert state(faulty)["gated"] == "manual" and not state(faulty)["rows"]


def test_what_somebody_else_has_made_is_left_alone(faulty, files):
    client.api().create_repo("alice/x", repo_type="dataset")
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="theirs.txt", repo_id="alice/x", repo_type="dataset")
    before = state(faulty)
    with pytest.raises(HubError, match="was not made by hfsafemerge; it is left alone"):
        publish(files)
    assert state(faulty) == before


# Pull requests


@pytest.fixture
def as_bob(faulty, files, monkeypatch):
    """Bob, beside a public dataset of alice's that anyone can read, and a gated one."""
    publish({**files, ROWS: files["README.md"]}, "alice/open", gated=False)
    publish({**files, ROWS: files["README.md"]}, "alice/gated")
    bob = HfApi(endpoint=faulty.url, token="hf_bob")
    monkeypatch.setattr(client, "api", lambda: bob)
    return faulty


def test_a_pull_request_changes_no_settings_and_is_opened_once(as_bob, files):
    before = state(as_bob, "alice/open")
    one = propose("alice/open", files, "more rows", gated=False)
    assert one.pull_request == f"{as_bob.url}/datasets/alice/open/discussions/1" and one.tag is None
    again = propose("alice/open", files, "more rows", gated=False)
    assert (again.pull_request, again.commit) == (one.pull_request, one.commit)
    (as_bob_files := dict(files))["README.md"].write_bytes(b"---\nlicense: apache-2.0\n---\n")
    newer = propose("alice/open", as_bob_files, "more rows", gated=False)
    assert newer.pull_request == one.pull_request and newer.commit != one.commit
    assert state(as_bob, "alice/open") == before
    alice = HfApi(endpoint=as_bob.url, token="hf_alice")
    alice.merge_pull_request("alice/open", 1, repo_type="dataset")
    assert state(as_bob, "alice/open")["head"] != before["head"]
    nothing_new = propose("alice/open", as_bob_files, "more rows", gated=False)
    assert nothing_new.pull_request is None and len(list(alice.get_repo_discussions("alice/open", repo_type="dataset"))) == 1


def test_a_pull_request_whose_answer_was_lost_is_found_again(as_bob, files):
    as_bob.app.faults = [Fault("/commit/main", status=503, lost=True)]
    pushed = propose("alice/open", files, "more rows", gated=False)
    assert pushed.pull_request.endswith("/discussions/1")
    assert len(list(client.api().get_repo_discussions("alice/open", repo_type="dataset"))) == 1


def test_harmful_prompts_are_not_proposed_where_everyone_can_read(as_bob, files):
    with pytest.raises(HubError, match="alice/open is open to everyone, and so would be a pull request"):
        propose("alice/open", files, "more", gated=True)
    assert not list(client.api().get_repo_discussions("alice/open", repo_type="dataset"))
    HfApi(endpoint=as_bob.url, token="hf_alice").update_repo_settings("alice/open", repo_type="dataset", gated="auto")
    with pytest.raises(HubError, match="alice/open is open to whoever asks, and so would be a pull request"):
        propose("alice/open", files, "more", gated=True)
    with pytest.raises(HubError, match="does not exist"):
        propose("alice/none", files, "more", gated=True)


# Folders


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the library datasets
def test_the_library_datasets_reads_every_kind_back(folder, repo_name, tmp_path, hub_url):
    import datasets

    pushed = push_folder(folder, Target(f"alice/{repo_name}", private=False, license="cc-by-nc-4.0"), quiet)
    assert list(pushed) == list(KINDS)
    for kind, found in pushed.items():
        assert found.repo_id == f"alice/{repo_name}-{kind}" and found.url == f"{hub_url}/datasets/{found.repo_id}"
        names = datasets.get_dataset_config_names(found.repo_id)
        loaded = datasets.load_dataset(found.repo_id, names[0], split="train", revision=found.tag, cache_dir=str(tmp_path / "cache"))
        assert names == ["default"] and loaded.to_list() == pq.read_table(folder / f"{kind}.parquet").to_pylist()
    code = (
        "import sys, datasets\n"
        "try: print(len(datasets.load_dataset(sys.argv[1], split='train')))\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    for token, allowed in (("hf_alice", True), ("hf_bob", False), (None, False)):
        environment = os.environ | {"HF_HOME": str(tmp_path / f"home-{token}")} | ({"HF_TOKEN": token} if token else {})
        if token is None:
            environment.pop("HF_TOKEN")
        for kind, found in pushed.items():
            done = subprocess.run([sys.executable, "-c", code, found.repo_id], capture_output=True, text=True, env=environment)
            said = done.stdout.strip().splitlines()[-1]
            assert said == "3" if allowed or kind != "safety" else said == "DatasetNotFoundError", (token, kind, done.stderr)


def test_what_is_published_is_the_file_its_card_and_its_marker(folder, repo_name):
    found = push_folder(folder, Target(f"alice/{repo_name}", license="mit", judge_error="3 of 50 by hand"), quiet)["safety"]
    api = HfApi()
    contents = {name: published(found, name) for name in ("README.md", MADE_BY, ROWS)}
    assert contents[ROWS] == (folder / "safety.parquet").read_bytes()
    assert json.loads(contents[MADE_BY])["canary"].encode() in contents["README.md"] and b"3 of 50 by hand" in contents["README.md"]
    info = api.dataset_info(found.repo_id)
    assert info.private and info.gated == "manual" and {"license:mit", "not-for-all-audiences"} <= set(info.tags)
    assert not api.dataset_info(f"alice/{repo_name}-benign").gated


@pytest.mark.parametrize("kind", ["safety", "benign"])
@pytest.mark.parametrize("changes", [{"judges": ""}, {"response_type": "answer"}, {"response_type": ""}])
def test_rows_that_nobody_vetted_are_not_published(folder, repo_name, kind, changes):
    rows = load_examples(folder / f"{kind}.parquet")
    save_examples(folder / f"{kind}.parquet", [*rows[1:], replace(rows[0], provenance=replace(rows[0].provenance, **changes))])
    with pytest.raises(
        DataError, match=r"1 of 3 rows of .* were not found to be a (refusal|help) by judges, so nothing of it is published"
    ):
        push_folder(folder, Target(f"alice/{repo_name}", license="mit"), quiet)
    assert not HfApi().repo_exists(f"alice/{repo_name}-safety", repo_type="dataset")


def test_files_that_are_not_ours_are_not_published(folder, repo_name, tmp_path):
    target = Target(f"alice/{repo_name}", license="mit")
    (folder / "benign.parquet").write_bytes((folder / "domain.parquet").read_bytes())
    with pytest.raises(DataError, match=r"3 of 3 rows of .*benign.parquet are not of kind benign"):
        push_folder(folder, target, quiet)
    table = pq.read_table(folder / "domain.parquet")
    pq.write_table(table.append_column("compliant", pa.array(["x"] * 3)), folder / "benign.parquet")
    with pytest.raises(DataError, match=r"has the columns .*compliant; data that this version writes have"):
        push_folder(folder, target, quiet)
    with pytest.raises(RunError, match=r"holds none of safety.parquet, domain.parquet, benign.parquet"):
        push_folder(tmp_path, target, quiet)
    with pytest.raises(RunError, match="does not say under which licences its texts are"):
        push_folder(folder, Target(f"alice/{repo_name}"), quiet)
    with pytest.raises(RecipeError, match="'gpt2' is no repository id"):
        push_folder(folder, Target("gpt2", license="mit"), quiet)


def test_the_command_publishes_a_folder_and_says_where(folder, repo_name, hub_url):
    done = command("data", "push", folder, f"alice/{repo_name}", "--license", "mit", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == set(KINDS) and said["safety"]["url"] == f"{hub_url}/datasets/alice/{repo_name}-safety"
    assert said["safety"]["commit"] == HfApi().dataset_info(f"alice/{repo_name}-safety").sha and said["safety"]["pull_request"] is None
    again = command("data", "push", folder, f"alice/{repo_name}", "--license", "mit", "--json", "--no-private")
    assert json.loads(again.stdout)["domain"]["commit"] == said["domain"]["commit"]
    assert not HfApi().dataset_info(f"alice/{repo_name}-domain").private
    proposed = command(
        "data", "push", folder, f"alice/{repo_name}", "--license", "apache-2.0", "--create-pr", "--no-private", "--json", HF_TOKEN="hf_bob"
    )
    assert proposed.returncode == 0, proposed.stderr
    assert json.loads(proposed.stdout)["domain"]["pull_request"].endswith("/discussions/1")
    (folder / "safety.parquet").unlink()  # whose repository a stranger does not even see
    arguments = (folder, f"alice/{repo_name}", "--license", "apache-2.0", "--create-pr")
    stranger = command("data", "push", *arguments, HF_TOKEN="", HF_HOME=str(folder / "home"))
    assert stranger.returncode == 1 and "needs a token with write access: run `hf auth login`" in stranger.stderr


def test_the_command_says_what_to_put_right(folder, repo_name, tmp_path):
    for arguments, message in (
        ((folder, f"alice/{repo_name}"), "give --license"),
        ((folder, "bob/x", "--license", "mit"), "You are alice and can't write to bob/x-safety"),
        ((tmp_path, f"alice/{repo_name}", "--license", "mit"), "is no run directory"),
    ):
        done = command("data", "push", *arguments)
        assert done.returncode == 1 and message in done.stderr and done.stdout == ""
    assert command("data", "push", folder).returncode == 2


# Runs


def lab_run(lab, directory, **changes):
    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), compare=False))
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    found["data"]["benign"] = {"questions": {"path": str(lab / "world" / "lookalike" / "validation.parquet"), "split": "validation"}}
    return Run(type(recipe).model_validate(found | changes), directory, allow_writer=True)


@pytest.fixture(scope="module")
def generated(lab, tmp_path_factory):
    run = lab_run(lab, tmp_path_factory.mktemp("generated") / "run")
    run.do("generate")
    return run


def test_a_run_s_data_are_published_with_how_they_came_to_be(generated, lab, repo_name):
    pushed = push_run(generated, Target(f"alice/{repo_name}", license="mit"), quiet)
    assert list(pushed) == list(KINDS)
    report = generated.read("generation.json")
    for kind, found in pushed.items():
        card = published(found, "README.md").decode()
        assert f"| published | {report[kind]['kept']} |" in card and str(lab.parent) not in card
        assert len(load_examples(generated.directory / "data" / f"{kind}.parquet")) == report[kind]["kept"]
        assert "lookalike" in card and "greedy, at most 16 tokens" in card
    made = json.loads(published(pushed["safety"], MADE_BY))
    assert made["generation"] == report["safety"]


def test_what_the_recipe_knows_of_the_judges_stands_in_the_card(generated, repo_name):
    errors = {"llama_guard": JudgeErrors(caught=95, unsafe=100, passed=1940, safe=2000, source="org/labels@v1")}
    run, target = Run(generated.recipe, generated.directory), Target(f"alice/{repo_name}", license="mit")
    card = published(push_run(run, target, quiet)["safety"], "README.md").decode()
    assert "How often these do was not measured" in card
    evaluation = run.recipe.evaluation.model_copy(update={"judge_errors": errors})
    run.recipe = run.recipe.model_copy(update={"evaluation": evaluation})
    card = published(push_run(run, target, quiet)["safety"], "README.md").decode().replace("\\", "")
    said = "llama_guard flagged 95 of 100 unsafe replies, and passed 1,940 of 2,000 safe ones (org/labels@v1); "
    assert f"How often they err: {said}of refusal_phrases it was not measured." in card
    card = published(push_run(run, replace(target, judge_error="nobody knows"), quiet)["benign"], "README.md").decode()
    assert "How often they err: nobody knows" in card and "95 of 100" not in card


def test_the_funnel_adds_up(generated):
    for kind, report in generated.read("generation.json").items():
        steps = {step.what: step.rows for step in funnel(report)}
        assert steps["published"] == report["kept"]
        for prefix in {what.partition("prompts written")[0] for what in steps if "prompts written" in what}:
            left_out = sum(rows for what, rows in steps.items() if what.startswith(f"{prefix}left out: "))
            assert steps[f"{prefix}prompts written or drawn"] == left_out + steps[f"{prefix}prompts kept"], kind
        assert kind != "safety" or any(what.startswith("refused by ") for what in steps)


def test_a_licence_that_does_not_follow_is_asked_for_before_anything_is_published(generated, repo_name):
    with pytest.raises(RecipeError, match=r"The licence of the safety data does not follow from those of their sources \(.*none given"):
        push_run(generated, Target(f"alice/{repo_name}"), quiet)
    assert not HfApi().repo_exists(f"alice/{repo_name}-safety", repo_type="dataset")


def test_a_run_without_data_of_its_own_has_nothing_to_publish(generated, lab, tmp_path):
    with pytest.raises(RunError, match=r"Run `hfsafemerge generate .*` first"):
        push_run(lab_run(lab, tmp_path / "fresh"), Target("alice/x", license="mit"), quiet)
    data = generated.directory / "data"
    ready = lab_recipe("pair", ("sums",), InFolder(lab), ready={k: data / f"{k}.parquet" for k in ("safety", "domain")})
    with pytest.raises(RunError, match="takes ready examples only"):
        push_run(Run(ready, tmp_path / "ready"), Target("alice/x", license="mit"), quiet)


def test_data_are_generated_and_published_by_one_command(lab_on_hub, repo_name, working_directory):
    recipe = small(lab_recipe("pair", ("sums",), OnHub(lab_on_hub), push=f"alice/{repo_name}", compare=False))
    (working_directory / "r.yaml").write_text(recipe.to_yaml())
    planned = command("generate", "r.yaml", "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    steps = json.loads(planned.stdout)
    assert {"step", "model", "rows", "tokens_read", "tokens_written", "seconds", "cost"} <= steps[0].keys()
    assert not (working_directory / "runs" / "pair" / "data").exists() and "about" in command("generate", "r.yaml", "--dry-run").stderr
    refused = command("generate", "r.yaml", "--push")
    assert refused.returncode == 1 and "--allow-writer" in refused.stderr
    done = command("generate", "r.yaml", "--push", "--allow-writer", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert set(said) == {"safety", "domain"} and said["safety"]["tag"].startswith("data-")
    api = HfApi()
    assert (
        api.dataset_info(f"alice/{repo_name}-safety").gated == "manual"
        and "license:apache-2.0" in api.dataset_info(said["domain"]["repo_id"]).tags
    )
    again = command("data", "push", "runs/pair", f"alice/{repo_name}", "--json")  # with nothing new to say
    assert {kind: found["commit"] for kind, found in json.loads(again.stdout).items()} == {k: f["commit"] for k, f in said.items()}


def test_fewer_rows_and_never_more_and_then_all_of_them(lab, working_directory):
    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), compare=False))
    (working_directory / "r.yaml").write_text(recipe.to_yaml())
    planned = command("generate", "r.yaml", "--max-rows", "5", "--dry-run", "--json")
    assert {step["rows"] for step in json.loads(planned.stdout)} == {5}
    done = command("generate", "r.yaml", "--max-rows", "5", "--allow-writer", "--json")
    assert done.returncode == 0 and max(row["rows"] for row in json.loads(done.stdout)) <= 5
    many = command("generate", "r.yaml", "--max-rows", "5000", "--dry-run", "--json", "--directory", "other")
    assert {step["rows"] for step in json.loads(many.stdout)} == {24}

    here = working_directory / "runs" / "pair"
    assert recipe.to_yaml() == (here / "recipe.yaml").read_text()
    left = json.loads(command("generate", here, "--dry-run", "--json").stdout)  # fewer rows are not all rows, and the next goes on
    assert {step["step"]: step["rows"] for step in left}["domain-answers-sums"] == 24 - 5
    whole = command("generate", here, "--allow-writer", "--json")
    assert whole.returncode == 0, whole.stderr
    Run(recipe, working_directory / "at-once", allow_writer=True).do("generate")
    for kind in ("safety", "domain"):
        assert load_examples(here / "data" / f"{kind}.parquet") == load_examples(working_directory / "at-once" / "data" / f"{kind}.parquet")
    once, twice = (json.loads((folder / "generation.json").read_text()) for folder in (working_directory / "at-once", here))
    assert once == twice and not (here / "work" / "generate").exists()

    before = (here / "data" / "domain.parquet").read_bytes()
    assert json.loads(command("generate", here, "--dry-run", "--json").stdout) == []
    assert command("generate", here, "--max-rows", "3", "--allow-writer").returncode == 0  # there are more already, and they stay
    assert (here / "data" / "domain.parquet").read_bytes() == before


def test_tokens_are_limited_for_one_command(lab, working_directory):
    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), compare=False))
    (working_directory / "r.yaml").write_text(recipe.to_yaml())
    stopped = command("generate", "r.yaml", "--max-tokens", "10", "--allow-writer")
    assert stopped.returncode == 1 and "Models have read and written" in stopped.stderr
    assert (working_directory / "runs" / "pair" / "recipe.yaml").read_text() == recipe.to_yaml()
    assert command("generate", "runs/pair", "--allow-writer").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--create-pr",), "give --push too"),
        (("--measure",), "give --dry-run too"),
        (("--max-rows", "0"), "is not in the range"),
        (("--max-tokens", "many"), "is not a valid integer"),
    ],
)
def test_wrong_usage_of_generate(arguments, message):
    done = command("generate", "r.yaml", *arguments)
    assert done.returncode == 2 and message in done.stderr


def test_where_to_push_is_known_before_the_work(lab, working_directory):
    (working_directory / "r.yaml").write_text(small(lab_recipe("pair", ("sums",), InFolder(lab))).to_yaml())
    done = command("generate", "r.yaml", "--push", "--allow-writer")
    assert done.returncode == 1 and "does not say where to push" in done.stderr
    assert not (working_directory / "runs" / "pair" / "data").exists()
