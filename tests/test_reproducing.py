"""Published runs done again from the Hub alone: weights, search and scores; what differs is explained, and nothing else is read."""

import json
import re
import secrets
import shutil

import pytest
from commands import command
from huggingface_hub import CommitOperationAdd, HfApi
from safetensors.torch import load_file, save_file
from test_run import small

from hfsafemerge import hub
from hfsafemerge.errors import HubError, NotReproduced, RunError
from hfsafemerge.evaluation import Results, build_results
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.running import Run, reproduce
from hfsafemerge.running.repeating import reproducing
from hfsafemerge.running.repeating.digesting import digest_of, of_items, of_trajectory
from hfsafemerge.running.repeating.locked import LOCK, read_lock
from hfsafemerge.running.repeating.published import items_of
from hfsafemerge.running.repeating.rebuilding import Rebuilt
from hfsafemerge.running.repeating.repeatable import recipe_of
from hfsafemerge.running.repeating.reproducing import rebuild
from hfsafemerge.running.repeating.rescoring import rescored
from hfsafemerge.searching import read_candidates


def held(name, file=LOCK):
    return json.loads(hub.fetch(name, file)[0].read_text())


@pytest.fixture
def branch(published_run, tmp_path):
    """A branch of the published model with other files; its name."""
    api, repo_id = HfApi(), published_run[1]

    def change(files):
        branched = f"changed-{secrets.token_hex(4)}"
        api.create_branch(repo_id, branch=branched)
        operations = [CommitOperationAdd(name, str(found) if name.endswith("safetensors") else found) for name, found in files.items()]
        api.create_commit(repo_id, operations, commit_message="changed", revision=branched)
        return branched

    return change


@pytest.fixture(scope="module")
def _kept(published_run, tmp_path_factory):
    """The published run, rebuilt and measured once."""
    directory = tmp_path_factory.mktemp("kept") / "run"
    assert rebuild(published_run[1], evaluate=True, directory=directory).agrees
    return directory


@pytest.fixture
def kept(_kept):
    return Rebuilt.opened(_kept)


@pytest.fixture
def relocked(published_run, monkeypatch, tmp_path):
    """Changes what the lock says, and fails when anything but the lock is fetched."""
    lock = held(published_run[1])

    def change(edit):
        edit(lock)
        (tmp_path / LOCK).write_text(json.dumps(lock))
        monkeypatch.setattr(hub, "fetch", lambda repo_id, file, *more: (tmp_path / file, "0" * 40))
        for name in ("pull", "pull_adapter", "rows", "read_json"):
            monkeypatch.setattr(hub, name, lambda *asked, name=name: pytest.fail(f"{name} of {asked}"))
        return published_run[1]

    return change


def test_everything_is_done_again_from_the_hub_alone_in_a_fresh_process(published_run, working_directory):
    _, name = published_run
    done = command("reproduce", name, "--search", "--evaluate", "--json", HF_HOME=str(working_directory / "fresh"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["agrees"] and found["tensors"] == 29 and found["differences"] == [] and found["environment"] == []
    by = {each["what"]: each for each in found["findings"]}
    assert by["weights"]["here"] == "29 are equal bit for bit" and by["search"]["detail"] == "the same way"
    assert by["search"]["published"] == by["search"]["here"] == f"{held(name)['search']['candidates']} candidates"
    rates = [each for what, each in by.items() if what.startswith("merged on ")]
    assert len(rates) == 4 and all(each["published"] == each["here"] for each in rates)
    assert {each["detail"] for each in rates} == {"identical, all labels alike, all replies alike"}
    assert {each["outcome"] for each in found["findings"]} == {"identical"} and all(each["agrees"] for each in found["findings"])
    assert by["files"]["here"] == "all are the same" and by["all of scores.json"]["detail"].startswith("the same rates, intervals")
    assert not list(working_directory.glob("runs*"))


def test_weights_alone_ask_for_neither_data_nor_judges(published_run, working_directory):
    done = command("reproduce", published_run[1], HF_HOME=str(working_directory / "fresh"))
    assert done.returncode == 0 and "29 are equal bit for bit" in done.stdout and "tensors: 29" in done.stdout
    cached = {path.name for path in (working_directory / "fresh" / "hub").iterdir() if path.is_dir() and "--" in path.name}
    assert cached == {"models--alice--lab-aligned", "models--alice--lab-sums-expert", f"models--{published_run[1].replace('/', '--')}"}


def test_gated_data_are_told_with_the_page_where_to_ask(published_run, working_directory):
    _, name = published_run
    HfApi().update_repo_settings(name, private=False)
    HfApi().update_repo_settings(f"{name}-safety", private=False, repo_type="dataset")
    done = command("reproduce", name, "--search", HF_HOME=str(working_directory / "fresh"), HF_TOKEN="hf_bob")
    assert done.returncode == 1 and "The safety data that steered the merge are needed: " in done.stderr
    assert f"{name}-safety" in done.stderr and "gated" in done.stderr and "hf_bob" not in done.stderr


def test_what_was_changed_after_the_push_is_explained(published_run, branch, tmp_path):
    run, name = published_run
    weights = load_file(run.directory / "model" / "model.safetensors")
    weights["model.norm.weight"][3] += 0.25
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    lines = [json.loads(line) for line in (run.directory / "search.jsonl").read_text().splitlines()]
    lines[2]["fitness"] += 0.5
    scores = held(name, "scores.json")
    better = scores["scores"]["merged"][0]
    better["value"] = 0.0 if better["value"] > 0.5 else 1.0
    better["ci95"] = [0.0, 0.1] if better["value"] == 0.0 else [0.9, 1.0]
    revision = branch(
        {
            "model.safetensors": tmp_path / "model.safetensors",
            "search.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "scores.json": json.dumps(scores).encode(),
        }
    )
    found = rebuild(name, revision, search=True, evaluate=True, directory=tmp_path / "again")
    wrong = {each.what: each.detail for each in found.findings if not each.agrees}
    assert re.fullmatch(r"model.norm.weight: 1 of \d+ elements differ, by at most 0.25 .*", wrong.pop("weights"))
    search = wrong.pop("search")
    assert "was changed after the push; what was searched here is; the fitness of candidate 3 is " in search and "0.5 apart" in search
    assert "was changed after the push" in wrong.pop("scores.json")
    assert "scores.merged.0.value: " in wrong.pop("all of scores.json")
    assert [what.split(":")[0] for what in wrong] == ["merged on harmful"] and "points, items not paired" in next(iter(wrong.values()))
    assert len(found.differences) == 5 and not found.agrees
    stages = json.loads((tmp_path / "again" / "run.json").read_text())["stages"]
    assert all(stages[stage]["finished"] for stage in ("merge", "search", "evaluate"))  # the same call does none of them again
    with pytest.raises(
        NotReproduced, match=r"1 of 29 tensors differ, such as model.norm.weight\. The versions are the same, so the weights"
    ):
        found.require()
    done = command("reproduce", name, "--revision", revision, "--directory", tmp_path / "again", "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["agrees"] is False and "Error: " in done.stderr
    quiet = command("reproduce", name, "--revision", revision, "--directory", tmp_path / "again", "-q")
    assert quiet.returncode == 3 and quiet.stdout == f"{name}@{found.commit}\n" and "Hint" not in quiet.stderr


def test_another_search_other_parameters_and_versions_are_explained(published_run, branch, tmp_path):
    run, name = published_run
    lines = [json.loads(line) for line in (run.directory / "search.jsonl").read_text().splitlines()]
    lines[1]["genome"][0] += 0.125
    (tmp_path / "search.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    lock = held(name)
    lock["search"]["digest"] = of_trajectory(read_candidates(tmp_path / "search.jsonl"))
    for made in lock["made_on"].values():
        made["packages"]["torch"] = "1.0"
    lock["made_on"]["merge"]["device"]["threads"] = 3
    changed = lock["parameters"]["numbers"]["weight"]
    changed[0][0] += 0.5
    revision = branch({LOCK: json.dumps(lock).encode(), "search.jsonl": (tmp_path / "search.jsonl").read_bytes()})
    found = rebuild(name, revision, search=True)
    by = {each.what: each for each in found.findings}
    assert "candidate 2 differs in 1 of " in by["search"].detail and "by at most 0.125, the first being gene 1" in by["search"].detail
    assert re.fullmatch(r"1 values differ, by at most 0.5, such as numbers.weight.0.0: .* there, .* here", by["parameters"].detail)
    assert not by["weights"].agrees and [each.split(" there")[0] for each in found.environment] == ["torch 1.0", "threads 3"]
    assert found.environment[1].endswith("threads 3 there, 2 here (merge)")  # and not of the search
    assert "Versions differ: torch 1.0 there, " in found.differences[0] and "; threads 3 there, 2 here." in found.differences[0]


def test_a_lock_with_other_hashes_is_told(published_run, branch):
    lock = held(published_run[1])
    lock["tensors"]["model.norm.weight"] = "0" * 64
    with pytest.raises(
        NotReproduced, match=r"The lock gives other hashes of 1 tensors, such as model.norm.weight, .*changed after the push"
    ):
        reproduce(published_run[1], branch({LOCK: json.dumps(lock).encode()}))


def test_published_labels_are_paired_item_by_item(published_run, branch, tmp_path):
    run, name = published_run
    labels, scores = run.read("labels.json"), held(name, "scores.json")
    flipped = [item for item in labels["merged"] if item["benchmark"] == "harmful"][:12]
    for item in flipped:
        item["labels"]["llama_guard"] = "unsafe" if item["labels"]["llama_guard"] != "unsafe" else "safe"
    changed = branch({"labels.json": json.dumps(labels).encode()})
    by = {each.what: each for each in rebuild(name, changed, evaluate=True, directory=tmp_path / "again").findings}
    assert "the published labels.json is not the one of the lock: it was changed after the push" in by["labels.json"].detail
    assert by["merged on harmful: alignment (llama_guard)"].outcome == "not told apart"  # labels that were changed are not believed
    lock, there = held(name), Results.from_json(scores)
    lock["scores"] = {"digest": digest_of(scores), "items": of_items(labels)}
    both = {"labels.json": json.dumps(labels).encode(), LOCK: json.dumps(lock).encode()}
    by = {each.what: each for each in rebuild(name, branch(both), evaluate=True, directory=tmp_path / "another").findings}
    assert "scores.merged.0.value: " in by["all of scores.json"].detail  # the labels say another rate than the scores
    assert "can't be of the same labels" in by["merged on harmful: alignment (llama_guard)"].detail
    sources = {name: setup.source for name, setup in there.benchmarks.items()}
    judges = {judge: model for setup in there.benchmarks.values() for judge, model in setup.judges.items()}
    by_benchmark = {each: [item for item in items_of(labels)["merged"] if item.benchmark == each] for each in there.benchmarks}
    tried = there.candidates_tried
    made = build_results({"merged": by_benchmark}, run.recipe.benchmarks, sources=sources, judge_models=judges, candidates_tried=tried)
    lock["scores"]["digest"] = digest_of(made.to_json())
    found = rebuild(
        name, branch(both | {"scores.json": json.dumps(made.to_json()).encode(), LOCK: json.dumps(lock).encode()}), evaluate=True
    )
    by = {each.what: each for each in found.findings}
    other = by["merged on harmful: alignment (llama_guard)"]
    assert not other.agrees and "(mcnemar), some labels or replies differ" in other.detail
    assert re.search(r"p = 0\.00\d", other.detail)  # twice 2 ** -12, by Holm times the 4 rates
    assert by["all of scores.json"].agrees and by["all of scores.json"].detail.endswith("follow from the published labels")
    assert by["merged on lookalike: over refusal (refusal_phrases)"].detail == "identical, all labels alike, all replies alike"


def _emptied(scores):
    scores["scores"] = {}


def _invented(scores):
    scores["scores"]["invented"] = scores["scores"]["merged"]
    scores["models"]["invented"] = ""


def _widened(scores):
    scores["scores"]["merged"][0]["ci95"] = [0.0, 1.0]


def _counted(scores):
    scores["scores"]["merged"][0]["n"] *= 100


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (_emptied, {"all of scores.json", "merged on sums: accuracy (exact_match)", "merged on harmful: alignment (llama_guard)"}),
        (_invented, {"all of scores.json", "invented on harmful: alignment (llama_guard)", "invented on sums: accuracy (exact_match)"}),
        (_widened, {"all of scores.json", "merged on harmful: alignment (llama_guard)"}),
        (_counted, {"all of scores.json", "merged on harmful: alignment (llama_guard)"}),
        (lambda scores: scores.update(candidates_tried=0), {"all of scores.json"}),
        (lambda scores: scores["benchmarks"]["harmful"]["source"].update(rows=10**6), {"all of scores.json"}),
    ],
)
def test_scores_that_were_falsified_with_their_lock_do_not_agree(published_run, branch, kept, edit, what):
    name = published_run[1]
    scores, lock = held(name, "scores.json"), held(name)
    edit(scores)
    lock["scores"]["digest"] = digest_of(scores)
    revision = branch({"scores.json": json.dumps(scores).encode(), LOCK: json.dumps(lock).encode()})
    commit = hub.fetch(name, LOCK, revision)[1]
    kept.lock = read_lock(hub.fetch(name, LOCK, revision)[0], name)
    found = {each.what: each for each in rescored(kept, name, commit)}
    assert what <= {each for each, finding in found.items() if not finding.agrees}


def test_scores_of_no_benchmark_are_an_error_of_the_repository(published_run, branch, kept):
    name = published_run[1]
    scores = held(name, "scores.json") | {"benchmarks": {}}
    commit = hub.fetch(name, LOCK, branch({"scores.json": json.dumps(scores).encode()}))[1]
    with pytest.raises(HubError, match=rf"{name} has a scores.json that can't be read: .* is of no benchmark or judge"):
        rescored(kept, name, commit)


def test_small_files_that_were_changed_are_told(published_run, branch, tmp_path):
    run, name = published_run
    config = json.loads((run.directory / "model" / "config.json").read_text()) | {"rope_theta": 1.5}
    changed = {"config.json": json.dumps(config).encode(), "chat_template.jinja": b"obey", "vocab.json": b"{}"}
    found = rebuild(name, branch(changed))
    by = {each.what: each for each in found.findings}
    assert by["weights"].agrees and not found.agrees
    assert "config.json (rope_theta: 1.5 there, " in by["files"].detail and by["files"].detail.endswith("changed after the push")
    assert "chat_template.jinja holds another text" in by["files"].detail or "chat_template.jinja is published alone" in by["files"].detail
    assert "vocab.json, which the merge did not make" in by["other files"].detail


def test_a_lock_that_would_make_other_tensors_writes_nothing(published_run, branch, tmp_path):
    name = published_run[1]
    lock = held(name)
    lock["recipe"]["merge"]["out_dtype"] = "float16"
    with pytest.raises(NotReproduced, match=r"of them are not the same, such as '.*': F32 \[.*\] there and F16 .* here\. Nothing was"):
        rebuild(name, branch({LOCK: json.dumps(lock).encode()}), directory=tmp_path / "again")
    assert not list((tmp_path / "again").rglob("*.safetensors"))


def test_what_is_found_is_shown_and_comes_with_the_error(published_run, branch, monkeypatch):
    told = []
    monkeypatch.setattr(reproducing, "Progress", lambda: told.append)
    lock = held(published_run[1])
    lock["tensors"]["model.norm.weight"] = "0" * 64
    with pytest.raises(NotReproduced) as caught:
        reproduce(published_run[1], branch({LOCK: json.dumps(lock).encode()}))
    found = caught.value.result
    assert [each.outcome for each in found.findings] == ["differs", "identical"]
    assert "29 tensors" in repr(found) and "<td" in found._repr_html_() and "The lock gives other hashes" in found._repr_html_()
    assert "tensors merged 29/29" in str(told[-1])  # progress is shown where nothing is asked for


def test_a_stop_says_whether_anything_is_kept(published_run, tmp_path):
    def stop(event):
        raise KeyboardInterrupt

    for directory, said in ((None, "is not kept"), (str(tmp_path / "again"), "The same command goes on")):
        with pytest.raises(KeyboardInterrupt) as caught:
            rebuild(published_run[1], listener=stop, directory=directory)
        assert [said in note for note in caught.value.__notes__] == [True]


def test_a_kept_directory_goes_on_after_a_stop(published_run, tmp_path):
    _, name = published_run

    def stop(event):
        if "candidate" in event.message and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rebuild(name, listener=stop, search=True, directory=tmp_path / "again")
    log = tmp_path / "again" / "work" / "search" / "search.jsonl"
    before = log.read_text().splitlines()
    assert len(before) == 4
    weights = (tmp_path / "again" / "model" / "model.safetensors").stat().st_mtime_ns
    assert rebuild(name, search=True, evaluate=True, directory=tmp_path / "again").agrees
    made = {file: (tmp_path / "again" / file).stat().st_mtime_ns for file in ("search.jsonl", "scores.json", "parameters.json")}
    assert rebuild(name, search=True, evaluate=True, directory=tmp_path / "again").agrees
    assert {file: (tmp_path / "again" / file).stat().st_mtime_ns for file in made} == made  # nothing is done twice
    assert (tmp_path / "again" / "search.jsonl").read_text().splitlines()[:4] == before  # with the seconds that they took
    assert (tmp_path / "again" / "model" / "model.safetensors").stat().st_mtime_ns == weights
    held_lock = json.loads((tmp_path / "again" / LOCK).read_text())
    (tmp_path / "again" / LOCK).write_text(json.dumps(held_lock | {"version": "0.0.1"}))
    with pytest.raises(RunError, match="holds another model or revision that was rebuilt"):
        rebuild(name, directory=tmp_path / "again")


def test_the_directory_of_a_run_is_left_alone(published_run, tmp_path):
    run, name = published_run
    shutil.copytree(run.directory, tmp_path / "mine")
    with pytest.raises(RunError, match="holds a run of your own"):
        rebuild(name, directory=tmp_path / "mine")


def test_rows_of_another_dataset_are_found_by_their_ids(lab_on_hub, tmp_path, repo_name):
    place = OnHub(lab_on_hub)
    recipe = lab_recipe(
        "ready", ("sums",), place, settings={"max_evaluations": 4}, use=("domain",), compare=False, writer=False, push=f"alice/{repo_name}"
    )
    rows = {"count": 20, "domain": {"examples": place.rows("sums", "validation")}}
    run = Run(small(recipe, data=rows, evaluation={}, judges={}), tmp_path / "run")
    run.do("push")
    lock = held(f"alice/{repo_name}")
    assert lock["published"] == {} and len(lock["data"]["domain"]["ids"]) == lock["data"]["domain"]["rows"] > 10
    found = rebuild(f"alice/{repo_name}", search=True)
    assert found.agrees and [each.what for each in found.findings] == ["weights", "files", "search", "parameters"]


HERE = {"path": "/etc"}
SERVER = {"url": "http://127.0.0.1:9/v1", "model": "m"}


@pytest.mark.parametrize(
    ("place", "value", "levels", "error", "message"),
    [
        ("base", HERE, {}, NotReproduced, r"local folders \(base\)"),
        ("base", {"repo_id": "alice/lab-aligned", "adapter": HERE}, {}, NotReproduced, r"local folders \(base\)"),
        ("base", {"repo_id": "alice/lab-aligned", "endpoint": SERVER}, {}, NotReproduced, r"names servers \(base on 127.0.0.1\)"),
        ("judges.llama_guard.model", HERE, {"evaluate": True}, NotReproduced, r"local folders \(judge llama_guard\)"),
        ("judges.llama_guard.model", {"endpoint": SERVER}, {"evaluate": True}, NotReproduced, r"names servers \(judge llama_guard on 127"),
        ("evaluation.benchmarks.harmful.dataset", HERE, {"evaluate": True}, NotReproduced, r"local folders \(benchmark harmful\)"),
        ("data.domain", {"examples": HERE}, {"search": True}, NotReproduced, r"local folders \(domain examples\)"),
        ("data.domain", {"examples": {"repo_id": "bob/x"}}, {"search": True}, HubError, r"names no commit of domain examples \(bob/x\)"),
        ("base", {"repo_id": "alice/x"}, {}, HubError, r"names no commit of base \(alice/x\)"),
        ("allow_writer", True, {}, HubError, "allow_writer: Extra inputs are not permitted"),
        ("compute.threads", 10**9, {}, HubError, "compute.threads is 1000000000"),
        ("merge.method", "linear", {}, HubError, "its parameters are not of its recipe"),
        ("seed", 5, {}, HubError, "its parameters are not of its recipe"),
    ],
)
def test_what_a_lock_must_not_ask_for_is_refused_before_anything_is_read(relocked, place, value, levels, error, message):
    def edit(lock):
        part, *keys = lock["recipe"], *place.split(".")
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value
        if value == {"repo_id": "alice/x"}:
            lock["models"]["base"]["commit"] = "main"

    with pytest.raises(error, match=message):
        rebuild(relocked(edit), **levels)


def test_of_a_recipe_only_what_is_repeated_is_kept(published_run):
    run, name = published_run
    lock = read_lock(hub.fetch(name, LOCK)[0], name)
    writer = {"endpoint": SERVER}
    found = json.loads(json.dumps(lock.recipe))
    found["data"]["safety"] = {"writer": writer}
    found["search"] |= {"executor": "ray", "workers": 100}
    found["compute"] |= {"device": "cuda:7", "country": "DEU", "max_memory": 1}
    lock = lock.model_copy(update={"recipe": found})
    weights = recipe_of(lock, search=False, evaluate=False)
    assert weights.data.safety is None and not weights.evaluation.benchmarks and not weights.judges and weights.push is None
    assert weights.search.strategy == "fixed" and weights.compute.device == "cpu" and weights.compute.country is None
    assert weights.compute.max_memory is None and weights.compute.threads == 2
    whole = recipe_of(lock, search=True, evaluate=True)
    assert whole.search.executor == "local" and whole.search.workers is None and whole.search.settings == run.recipe.search.settings
    assert whole.data.safety is None and whole.evaluation == run.recipe.evaluation


def test_a_method_without_data_has_nothing_to_search(lab_on_hub, tmp_path, repo_name):
    recipe = lab_recipe(
        "plain", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), ready={}, compare=False, push=f"alice/{repo_name}"
    )
    Run(small(recipe, evaluation={}, judges={}), tmp_path / "run").do("push")
    with pytest.raises(NotReproduced, match="nothing was measured, so there is nothing that could agree"):
        reproduce(f"alice/{repo_name}", evaluate=True)
    found = reproduce(f"alice/{repo_name}", search=True)
    assert [(each.what, each.published) for each in found.findings][2:] == [
        ("search", "nothing was searched"),
        ("parameters", "candidate 0"),
    ]
