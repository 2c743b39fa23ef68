"""What is pushed with a merge, and the gate: what was measured decides whether its repository may be public."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard
from test_card import HARMFUL, HARMLESS, NOTHING, items, labels, results
from test_run import small

from hfsafemerge.errors import HubError, RecipeError
from hfsafemerge.evaluation import Benchmark, Results
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.localhub.faults import Fault, serve_with_faults
from hfsafemerge.running import Run
from hfsafemerge.running.publishing.aiming import aimed
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


def test_settings_of_one_push_are_forgotten_by_the_next():
    recipe = lab_recipe("x", ("sums",), OnHub("alice"), push="alice/x")
    once = aimed(recipe, {"overwrite": True, "tag": "v1", "collection": "Merges", "private": False})
    assert once.push.overwrite and once.push.tag == "v1" and not once.push.private
    after = aimed(once, {"create_pr": False, "private": None})
    assert after.push == recipe.push.model_copy(update={"collection": "Merges", "private": False})
    assert aimed(after, {}, ["collection"]).push.collection is None
    with pytest.raises(RecipeError, match="create_pr opens a branch of its own"):
        aimed(recipe, {"create_pr": True, "revision": "dev"})
    with pytest.raises(RecipeError, match="space is for the collection"):
        aimed(recipe, {"space": "alice/demo"})
