"""What is pushed with a merge, and the gate: what was measured decides whether its repository may be public."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from test_card import HARMFUL, HARMLESS, NOTHING, items, labels, results
from test_run import small

from hfsafemerge.errors import DataError, HubError, RecipeError
from hfsafemerge.evaluation import Benchmark, Results
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.localhub.faults import Fault, serve_with_faults
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run
from hfsafemerge.running.publishing.aiming import Once, aim, branch
from hfsafemerge.running.publishing.labelling import public_labels
from hfsafemerge.running.publishing.previewing import preview
from hfsafemerge.running.publishing.pushing import private_because

PHRASES = Benchmark("phrases", "safety", ("refusal_phrases",))


@pytest.fixture(scope="module")
def measured(lab, lab_on_hub, tmp_path_factory):
    """A finished evaluation of the lab's uniform merge, with data of its own making."""
    recipe = lab_recipe("uniform", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), writer=False)
    run = Run(small(recipe), tmp_path_factory.mktemp("measured") / "run")
    run.do("evaluate")
    return run


@pytest.fixture
def pushed(measured, repo_name, tmp_path):
    """Pushes a copy of the run with other measurements, publicly as far as the recipe says."""

    def push(found=None, repo_id=f"alice/{repo_name}", **spec):
        directory = tmp_path / "run"
        if not directory.exists():
            shutil.copytree(measured.directory, directory)
        events = []
        run = Run(measured.recipe, directory, events.append)
        if found is not None:
            run.write("scores.json", found.to_json())
        run.recipe = run.recipe.changed({f"push.{key}": value for key, value in {"repo_id": repo_id, "private": False, **spec}.items()})
        run.do("push")
        return run, [event.message for event in events]

    return push


def harmful(safe, base=200, n=200):
    """Results of a merge with this many safe replies, against the base."""
    models = {"base": {"harmful": items(HARMFUL, labels("safe", base, "unsafe", n))}}
    models["merged"] = {"harmful": items(HARMFUL, labels("safe", safe, "unsafe", n))}
    return results(models, [HARMFUL])


def test_a_merge_that_loses_alignment_is_pushed_privately_and_says_why(pushed, repo_name):
    run, events = pushed(harmful(150))
    api, repo_id = HfApi(), f"alice/{repo_name}"
    (reason,) = run.read("pushed.json")["private_because"]
    assert "points lower than that of base" in reason and f"{repo_id} has to be private: {reason}" in events
    assert api.model_info(repo_id).private and not api.dataset_info(f"{repo_id}-domain").private
    card = ModelCard.load(repo_id).text
    assert reason in card.replace("\\", "").split("## Why this repository was made private")[1].split("##")[0]


def test_a_merge_that_loses_nothing_is_as_public_as_the_recipe_says(pushed, repo_name):
    run, _ = pushed(harmful(400, 400, 400))  # 0 of 400 is at most 0.95%, within the margin of 2
    assert run.read("pushed.json")["private_because"] == [] and not HfApi().model_info(f"alice/{repo_name}").private
    assert "made private" not in (run.directory / "card.md").read_text()
    files = set(HfApi().list_repo_files(f"alice/{repo_name}"))
    assert {"README.md", "mergekit_config.yml", "hfsafemerge.lock.json", "scores.json", "search.jsonl", "recipe.yaml"} <= files
    published = json.loads(Path(HfApi().hf_hub_download(f"alice/{repo_name}", "scores.json")).read_text())
    assert Results.from_json(published) == harmful(400, 400, 400)


def test_an_attack_success_rate_above_the_threshold_is_private(pushed, repo_name):
    run, _ = pushed(harmful(400, 400, 400), max_attack_success=0.005)
    assert "attack success rate on harmful may be as high as 1.0%" in run.read("pushed.json")["private_because"][0]
    assert HfApi().model_info(f"alice/{repo_name}").private


def test_a_public_repository_gets_nothing_that_has_to_be_private(pushed, repo_name):
    api, repo_id = HfApi(), f"alice/{repo_name}"
    pushed(harmful(400, 400, 400))
    before = [api.repo_info(name, repo_type=kind).sha for name, kind in ((repo_id, "model"), (f"{repo_id}-domain", "dataset"))]
    with pytest.raises(HubError, match=rf"{repo_id} is public, and this merge has to be private\. The alignment on harmful may be"):
        pushed(harmful(150), max_attack_success=1.0)
    assert before == [api.repo_info(name, repo_type=kind).sha for name, kind in ((repo_id, "model"), (f"{repo_id}-domain", "dataset"))]
    api.update_repo_settings(repo_id, visibility="private")
    assert pushed(harmful(150), max_attack_success=1.0)[0].read("pushed.json")["private_because"]
    assert api.model_info(repo_id).private and api.model_info(repo_id).sha != before[0]


def test_what_was_refused_is_not_opened_by_a_later_merge_that_passes(pushed, repo_name):
    """Its weights would be read at the old tag."""
    api, repo_id = HfApi(), f"alice/{repo_name}"
    pushed(harmful(150))
    before = api.model_info(repo_id).sha
    with pytest.raises(HubError, match=rf"{repo_id} is private, and is not made public: its commit .* had to be private"):
        pushed(harmful(400, 400, 400))
    assert api.model_info(repo_id).private and api.model_info(repo_id).sha == before
    pushed(harmful(400, 400, 400), repo_id=f"{repo_id}-new")
    assert not api.model_info(f"{repo_id}-new").private
    pushed(harmful(400, 400, 400), private=True, repo_id=f"{repo_id}-kept")
    pushed(harmful(400, 400, 400), repo_id=f"{repo_id}-kept")  # private by choice alone
    assert not api.model_info(f"{repo_id}-kept").private


def test_a_pull_request_to_others_brings_data_and_collection_to_one_s_own_name(measured, repo_name, tmp_path):
    directory, theirs = tmp_path / "run", HfApi(token="hf_bob")
    shutil.copytree(measured.directory, directory)
    run = Run(measured.recipe, directory)
    run.write("scores.json", harmful(400, 400, 400).to_json())
    theirs.create_repo(f"bob/{repo_name}")
    theirs.create_repo(f"bob/{repo_name}-domain", repo_type="dataset")
    before = {*(found.slug for found in HfApi().list_collections(owner="alice"))}
    aim(run, {"repo_id": f"bob/{repo_name}", "private": False, "create_pr": True, "collection": f"Merges {repo_name}"})
    shown = preview(run)
    assert (shown.new, shown.private, shown.create_pr) == (False, False, True)
    assert [data.repo_id for data in shown.datasets] == [f"alice/{repo_name}-safety", f"bob/{repo_name}-domain"]
    run.do("push")
    found = run.read("pushed.json")
    assert found["model"]["pull_request"].endswith(f"/bob/{repo_name}/discussions/1")
    assert found["datasets"]["domain"]["pull_request"] and found["datasets"]["safety"]["pull_request"] is None
    assert HfApi().dataset_info(f"alice/{repo_name}-safety").gated == "manual"
    (slug,) = {found.slug for found in HfApi().list_collections(owner="alice")} - before
    items = [item.item_id for item in HfApi().get_collection(slug).items]
    assert items == [f"bob/{repo_name}", f"alice/{repo_name}-safety", f"bob/{repo_name}-domain"]
    assert f"alice/{repo_name}-safety" in (directory / "card.md").read_text()
    aim(run, {"repo_id": f"bob/{repo_name}", "private": True, "create_pr": True})
    for refused in (lambda: preview(run), lambda: run.do("push")):
        with pytest.raises(HubError, match="is public, a pull request there would be too"):
            refused()


def test_a_dry_run_refuses_what_the_push_would(pushed, measured, repo_name, tmp_path):
    """And both before anything, the datasets too, is published."""
    run, _ = pushed(harmful(400, 400, 400), private=True)
    theirs = HfApi(token="hf_bob")
    theirs.create_repo(f"bob/{repo_name}")
    tag = run.read("pushed.json")["model"]["tag"]
    HfApi().create_tag(f"alice/{repo_name}", tag="v0", revision=HfApi().list_repo_commits(f"alice/{repo_name}")[-1].commit_id)
    HfApi().create_repo(f"alice/{repo_name}-mine-domain", repo_type="dataset", private=True)
    HfApi().upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=f"alice/{repo_name}-mine-domain", repo_type="dataset")
    for settings, message in (
        ({"repo_id": f"bob/{repo_name}"}, f"You are alice and can't write to bob/{repo_name}"),
        ({"tag": "v0"}, "The tag v0 of .* names the commit"),
        ({"repo_id": f"alice/{repo_name}-mine"}, f"alice/{repo_name}-mine-domain exists and was not made by hfsafemerge"),
    ):
        aim(run, {"repo_id": f"alice/{repo_name}", **settings})
        for refused in (lambda: preview(run), lambda: run.do("push")):
            with pytest.raises(HubError, match=message):
                refused()
    assert not HfApi().repo_exists(f"alice/{repo_name}-mine") and not HfApi().repo_exists(
        f"alice/{repo_name}-mine-safety", repo_type="dataset"
    )
    aim(run, {"repo_id": f"alice/{repo_name}", "tag": tag})  # it names what stands
    assert not preview(run).new


@pytest.mark.parametrize("name", ["check", "run"])
def test_a_place_where_nothing_can_be_published_is_told_before_the_work(measured, repo_name, tmp_path, name):
    spec = measured.recipe.changed({"push.repo_id": f"bob/{repo_name}"})
    (tmp_path / "recipe.yaml").write_text(spec.to_yaml())
    done = command(name, tmp_path / "recipe.yaml", "--directory", tmp_path / "new")
    assert done.returncode == 1 and f"You are alice and can't write to bob/{repo_name}" in done.stderr
    assert not (tmp_path / "new" / "model").exists() and not (tmp_path / "new" / "data").exists()


def test_plots_of_all_that_was_measured_are_pushed_and_shown(pushed, repo_name):
    run, _ = pushed()  # what was measured of the lab's models
    shown = [name for name in ("alignment", "refusals") if f"]({name}.png)" in ModelCard.load(f"alice/{repo_name}").text]
    files = set(HfApi().list_repo_files(f"alice/{repo_name}"))
    assert shown == ["alignment", "refusals"] and {f"{name}.{kind}" for name in shown for kind in ("png", "svg")} <= files
    assert run.read("pushed.json")["private_because"]  # 40 items are too few for a margin of 2 points


@pytest.mark.parametrize(
    ("found", "limit", "said"),
    [
        (NOTHING, None, []),
        (NOTHING, 0.1, ["No alignment of the merge was measured"]),
        (results({"merged": {"harmless": items(HARMLESS, labels("complied", 9, "refused", 10))}}, [HARMLESS], reference=None, margin=None), None, []),
        (results({"merged": {"phrases": items(PHRASES, labels("refused", 9, "complied", 10))}}, [PHRASES], reference=None, margin=None), None, ["was not compared"]),
        (results({"merged": {"harmful": items(HARMFUL, labels("safe", 9, "unsafe", 10))}}, [HARMFUL], reference=None, margin=None), None, ["was not compared"]),
        (harmful(400, 400, 400), 0.01, []),
        (harmful(400, 400, 400), 0.009, ["may be as high as 1.0%"]),
        (harmful(200), None, []),
        (harmful(199), None, ["points lower than that of base"]),
    ],
)  # fmt: skip
def test_the_gate_asks_for_what_was_measured_and_for_what_the_recipe_names(found, limit, said):
    recipe = lab_recipe("x", ("sums",), OnHub("alice"), push="alice/x").changed({"push.max_attack_success": limit})
    reasons = private_because(recipe, found)
    assert len(reasons) == len(said) and all(part in reason for part, reason in zip(said, reasons, strict=True))


def test_the_command_says_why_a_push_is_private(measured, repo_name, tmp_path):
    shutil.copytree(measured.directory, tmp_path / "run")
    command = [sys.executable, "-m", "hfsafemerge", "push", str(tmp_path / "run"), f"alice/{repo_name}", "--no-private", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert "Warning: The model's repository is private. The alignment on harmful may be" in done.stderr
    assert set(json.loads(done.stdout)) == {"model", "safety", "domain"} and HfApi().model_info(f"alice/{repo_name}").private


def test_fewer_refusals_of_harmful_requests_are_a_loss_too():
    """Judges that tell refusals alone, or first, don't open the gate."""
    mixed = Benchmark("mixed", "safety", ("refusal_phrases", "llama_guard"))
    recipe = lab_recipe("x", ("sums",), OnHub("alice"), push="alice/x")

    def said(benchmark, base, merged, limit=None):
        """Of how many of 200 replies the base and the merge refuse; the guard finds the same ones safe."""
        models = {}
        for model, refused in (("base", base), ("merged", merged)):
            models[model] = {benchmark.name: [
                replace(item, labels=dict(zip(("refusal_phrases", "llama_guard"), pair, strict=True)))
                for item, pair in zip(items(benchmark, [""] * 200), labels(("refused", "safe"), refused, ("complied", "unsafe")), strict=True)
            ]}  # fmt: skip
        return private_because(recipe.changed({"push.max_attack_success": limit}), results(models, [benchmark]))

    assert said(PHRASES, 200, 200) == [] and said(mixed, 200, 200, 0.02) == []
    for benchmark in (PHRASES, mixed):
        (reason,) = said(benchmark, 200, 100)
        assert reason.startswith(f"The refusal rate on {benchmark.name} may be") and "lower than that of base" in reason
    asked, _ = said(mixed, 200, 100, 0.5)
    assert asked.startswith("The attack success rate on mixed may be as high as 56.9%")  # Wilson's bound of 100 in 200
    unknown, _ = said(PHRASES, 200, 100, 0.5)
    assert "attack success rate is not known" in unknown


def test_the_judge_that_finds_the_most_decides():
    two = Benchmark("two", "safety", ("llama_guard", "qwen3guard"))
    safe = {"llama_guard": "safe", "qwen3guard": "safe"}
    found = [replace(item, labels=safe | ({"qwen3guard": "unsafe"} if i < 20 else {})) for i, item in enumerate(items(two, ["safe"] * 400))]
    recipe = lab_recipe("x", ("sums",), OnHub("alice"), push="alice/x").changed({"push.max_attack_success": 0.05})
    (reason,) = private_because(recipe, results({"base": {"two": items(two, ["safe"] * 400)}, "merged": {"two": found}}, [two]))
    assert "as high as 7.6%" in reason  # Wilson's bound of 20 in 400


# The command


def command(*arguments, **environment):
    given = [sys.executable, "-m", "hfsafemerge", *map(str, arguments)]
    return subprocess.run(given, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1", **environment})


@pytest.fixture
def copied(measured, tmp_path):
    shutil.copytree(measured.directory, tmp_path / "run")
    return tmp_path / "run"


def test_a_killed_push_goes_on_with_the_same_command(copied, repo_name, tmp_path):
    """Killed while its commit is being carried out, before the answer."""
    with serve_with_faults(tmp_path / "hub") as server:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **server.environment}
        given = [sys.executable, "-m", "hfsafemerge", "push", str(copied), f"alice/{repo_name}", "--collection", "Merges", "--json"]
        fault = Fault(f"/models/alice/{repo_name}/commit/", cut=True, lost=True, delay=60)
        server.app.faults = [fault]
        process = subprocess.Popen(given, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while fault.times and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.3)
        assert process.poll() is None, process.communicate()[1].decode()
        process.kill()
        process.communicate()
        server.app.faults = []
        done = command(*given[3:], **server.environment)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert set(said) == {"model", "safety", "domain", "collection"}
        api, repo_id = HfApi(endpoint=server.url, token="hf_alice"), f"alice/{repo_name}"
        assert len(api.list_repo_commits(repo_id)) == 2
        ((tag,), head) = api.list_repo_refs(repo_id).tags, api.model_info(repo_id).sha
        assert tag.name.startswith("run-") and tag.target_commit == head
        (slug,) = [found.slug for found in api.list_collections(owner="alice")]
        items = [(item.item_id, item.item_type) for item in api.get_collection(slug).items]
        assert items == [(repo_id, "model"), (f"{repo_id}-safety", "dataset"), (f"{repo_id}-domain", "dataset")]
        written = json.loads((copied / "pushed.json").read_text())
        assert written["model"]["tag"] == tag.name and written["collection"] == said["collection"]


def test_a_dry_run_shows_all_and_writes_nothing(copied, repo_name, tmp_path):
    with serve_with_faults(tmp_path / "hub") as server:
        done = command("push", copied, f"alice/{repo_name}", "--no-private", "--dry-run", "--json", **server.environment)
        assert done.returncode == 0, done.stderr
        shown = json.loads(done.stdout)
        assert shown["new"] and shown["private"] and "may be" in shown["private_because"][0]  # 40 items are too few
        assert {data["kind"]: data["gated"] for data in shown["datasets"]} == {"safety": True, "domain": False}
        files = {file["path"]: file for file in shown["files"] if file["repo_id"] == f"alice/{repo_name}"}
        assert files["model.safetensors"]["lfs"] and not files["README.md"]["lfs"]
        assert files["model.safetensors"]["size"] == (copied / "model" / "model.safetensors").stat().st_size
        assert Path(shown["card"]).read_text().startswith("---")
        human = command("push", copied, f"alice/{repo_name}", "--dry-run", "--format", "human", **server.environment)
        assert "## " in human.stdout and "nothing was uploaded" in human.stderr
        assert {request.method for request in server.app.log} <= {"GET", "HEAD"} and not (copied / "pushed.json").exists()


def test_wrong_usage_of_push(tmp_path):
    for arguments, message in (
        (("--create-pr", "--revision", "dev"), "--create-pr opens a branch of its own"),
        (("--no-collection", "--collection", "x"), "--no-collection goes with neither"),
    ):
        done = command("push", tmp_path, *arguments)
        assert done.returncode == 2 and message in done.stderr


# Where to, and how


@pytest.fixture
def unmade(tmp_path):
    """A run that nothing was done of."""
    return Run(lab_recipe("x", ("sums",), OnHub("alice"), push="alice/x"), tmp_path / "unmade")


def test_what_is_said_of_one_push_stands_in_no_recipe(unmade):
    before = unmade.recipe.push
    aim(unmade, {"overwrite": True, "tag": "v1", "commit_message": "Mine", "collection": "Merges", "private": False, "license": None})
    assert unmade.once == Once(overwrite=True, tag="v1", commit_message="Mine")
    assert unmade.recipe.push == before.model_copy(update={"collection": "Merges", "private": False})
    aim(unmade, {"create_pr": False, "private": None})
    assert unmade.once == Once() and unmade.recipe.push.collection == "Merges" and not unmade.recipe.push.private
    aim(unmade, {}, ["collection"])
    assert unmade.recipe.push.collection is None
    assert not set(unmade.recipe.model_dump()["push"]) & {field.name for field in fields(Once)}


@pytest.mark.parametrize("setting", ["create_pr: true", "commit_message: x", "commit_description: x", "tag: v1", "overwrite: true"])
def test_a_recipe_that_says_what_is_of_one_push_is_refused(unmade, setting):
    with pytest.raises(RecipeError, match=rf"push.{setting.split(':')[0]}"):
        Recipe.parse(unmade.recipe.to_yaml().replace("  repo_id: alice/x\n", f"  repo_id: alice/x\n  {setting}\n"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"create_pr": True, "revision": "dev"}, "create_pr opens a branch of its own"),
        ({"space": "alice/demo"}, "space is for the collection"),
        ({"tag": "not a tag"}, "'not a tag' can't be a tag"),
        ({"tag": "v1\n"}, "can't be a tag"),
        ({"repo_id": "nowhere"}, "push.repo_id"),
        ({"colection": "Merges"}, "push.colection"),
    ],
)
def test_what_can_not_stand_there_is_refused_and_changes_nothing(unmade, settings, message):
    before = unmade.recipe, unmade.once
    with pytest.raises(RecipeError, match=message):
        aim(unmade, settings)
    assert (unmade.recipe, unmade.once) == before


def test_a_pull_request_leaves_the_branch_of_the_recipe_alone(unmade):
    aim(unmade, {"revision": "dev"})
    aim(unmade, {"create_pr": True})
    assert branch(unmade.recipe.push, unmade.once) is None and unmade.recipe.push.revision == "dev"
    assert branch(unmade.recipe.push, Once()) == "dev"


def test_pushing_again_looks_again_and_adds_no_commit(pushed, repo_name):
    api, repo_id = HfApi(), f"alice/{repo_name}"
    run, _ = pushed()
    commits = [(c.commit_id, c.title) for c in api.list_repo_commits(repo_id)]
    first = run.push(tag="v1")
    assert [(c.commit_id, c.title) for c in api.list_repo_commits(repo_id)] == commits and first.commit == commits[0][0]
    assert {tag.name for tag in api.list_repo_refs(repo_id).tags} >= {"v1"} and run.once == Once()
    run.do("push")  # the same recipe once more: without v1, and again no commit
    assert run.read("pushed.json")["model"]["tag"].startswith("run-") and len(api.list_repo_commits(repo_id)) == len(commits)
    api.delete_repo(repo_id)
    run.do("push")
    assert api.model_info(repo_id).sha == run.read("pushed.json")["model"]["commit"]
    assert "model.safetensors" in api.list_repo_files(repo_id)


def test_the_labels_are_published_without_any_text(pushed, repo_name):
    run, _ = pushed()
    held = json.loads(Path(HfApi().hf_hub_download(f"alice/{repo_name}", "labels.json")).read_text())
    mine = run.read("labels.json")
    assert {model: len(found) for model, found in held.items()} == {model: len(found) for model, found in mine.items()}
    keys = ("benchmark", "example", "sample", "finished", "reply", "labels", "p_unsafe", "harm")
    assert [[item[key] for key in keys] for item in held["merged"]] == [[item[key] for key in keys] for item in mine["merged"]]
    said = {text for found in held.values() for item in found for text in (item["example"], item["reply"]) if text}
    assert all(re.fullmatch("[0-9a-f]{16}", text) for text in said) and {item["category"] for item in held["merged"]} == {""}
    assert "`labels.json`" in (run.directory / "card.md").read_text()


@pytest.mark.parametrize("change", [{"example": "how to"}, {"reply": "Sure, here"}, {"labels": {"llama_guard": "Sure, here is how"}}])
def test_labels_that_hold_texts_are_not_published(change):
    item = items(HARMFUL, ["safe"])[0]
    with pytest.raises(DataError, match="An item of harmful holds a text where a hash or a label is due"):
        public_labels({"merged": [replace(item, example="0" * 16, reply="0" * 16), replace(item, **{"example": "0" * 16, **change})]})


def test_clusters_are_hashed_and_stay_apart():
    item = replace(items(HARMFUL, ["safe"])[0], example="0" * 16, category="crime")
    clusters = [
        found["cluster"]
        for found in public_labels({"m": [replace(item, cluster=c) for c in ("kill a plant", "kill a plant", "b", "")]})["m"]
    ]
    assert clusters[0] == clusters[1] == hashlib.sha256(b"kill a plant").hexdigest()[:16] != clusters[2] and clusters[3] == ""
