"""The flow over local folders in the lab, with few examples and candidates: stages, resuming, refusing, cancelling."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import Cancelled, DataError, IncompatibleExperts, RecipeError, RunError
from hfsafemerge.examples import Example, Provenance, load_examples, save_examples
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.lab.world import REFUSAL, draw
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, clock, stages

FEW = {"settings": {"max_evaluations": 12}, "compare": False}


def small(recipe, **changes):
    """The recipe with 24 examples of each kind and 40 items a benchmark."""
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    found["data"]["count"] = 24
    for benchmark in found["evaluation"]["benchmarks"].values():
        benchmark["limit"] = 40
    return Recipe.model_validate(found | changes)


def of_model(run):
    """The digests of the merged model."""
    return digests(Checkpoint(run.directory / "model"))


@pytest.fixture
def recipe(lab):
    return small(lab_recipe("pair", ("sums",), InFolder(lab), **FEW))


@pytest.fixture(scope="module")
def finished(lab, tmp_path_factory):
    """A finished run, its events, and the recipe. Tests that change it work on a copy."""
    events = []
    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), **(FEW | {"compare": True})))
    run = Run(recipe, tmp_path_factory.mktemp("finished") / "run", events.append, allow_writer=True)
    run.do("evaluate")
    return run, events


@pytest.fixture
def copied(finished, tmp_path):
    run, _ = finished
    shutil.copytree(run.directory, tmp_path / "run")
    return Run(run.recipe, tmp_path / "run", allow_writer=True)


def test_the_stages_do_what_they_say(finished):
    run, events = finished
    assert [name for name in stages() if run.is_done(name)] == ["check", "generate", "search", "merge", "evaluate"]
    assert [e.stage for e in events if e.message == "done"] == ["check", "generate", "search", "merge", "evaluate"]
    assert not (run.directory / "work").exists() or not any((run.directory / "work").iterdir())
    safety, domain = (load_examples(run.directory / "data" / f"{kind}.parquet") for kind in ("safety", "domain"))
    assert 0 < len(safety) <= 24 and {e.answer for e in safety} == {REFUSAL} and 0 < len(domain) <= 24
    assert {e.provenance.judges.split(" ")[0] for e in safety} == {"llama_guard"} and all(
        "@local-" in e.provenance.responder for e in domain
    )


def test_the_model_that_is_written_is_the_candidate_that_was_scored(finished, lab):
    from hfsafemerge.language_model import TransformersModel
    from hfsafemerge.live_merge import SearchData
    from hfsafemerge.running.candidates import questions
    from hfsafemerge.searching import Query

    run, _ = finished
    chosen = run.read("parameters.json")["search"]
    model = TransformersModel.load(run.directory / "model", name="merged", device="cpu")
    data = SearchData(model, questions(run), run.recipe.seed, selection=run.recipe.search.selection)
    assert chosen["terms"].keys() == {"safety", "domain/sums"}
    for term, found in chosen["terms"].items():
        rated = model.rate(data.batches(term, Query([])))
        assert found["mean"] == pytest.approx(float(rated.mean()), abs=1e-6) and found["n"] == len(rated)
    best, *others = chosen["finalists"]
    assert chosen["number"] in [finalist["number"] for finalist in (best, *others)] and others


def test_the_front_and_the_plot_of_the_search_are_there_and_another_point_can_be_picked(finished, copied):
    run, _ = finished
    front = run.read("front.json")
    lines = [json.loads(line) for line in (run.directory / "search.jsonl").read_text().splitlines()]
    whole = [line for line in lines if line["split"] == "search" and line["share"] == 1.0]
    means = {line["number"]: tuple(term["mean"] for term in line["terms"].values()) for line in whole}
    beaten = {n for n, a in means.items() if any(b != a and all(x <= y for x, y in zip(a, b, strict=True)) for b in means.values())}
    assert {means[point["number"]] for point in front} == {means[n] for n in means.keys() - beaten}
    assert (run.directory / "search.svg").read_text().rstrip().endswith("</svg>")
    recommended = copied.read("parameters.json")
    picked = next(line for line in whole if line["number"] != recommended["search"]["number"])
    copied.recipe = copied.recipe.changed({"search.pick": picked["number"]})
    with pytest.raises(RunError, match="changed since merge was done"):  # what was evaluated is lost, so it has to be asked for
        copied.do("merge")
    copied.do("merge", redo=True)
    assert copied.read("parameters.json")["search"]["genome"] == picked["genome"]
    assert copied.read("parameters.json")["search"]["recommended"] == recommended["search"]["number"]
    copied.recipe = copied.recipe.changed({"search.pick": recommended["search"]["number"]})
    copied.do("merge", redo=True)
    assert copied.read("parameters.json")["numbers"] == recommended["numbers"]
    copied.recipe = copied.recipe.changed({"search.pick": 10_000})
    with pytest.raises(RunError, match=r"search.pick is 10000; .* has \d+ candidates"):
        copied.do("merge", redo=True)


def test_the_merged_folder_is_a_model_like_any_other(finished, lab):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, _ = finished
    folder = run.directory / "model"
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).chat_template == AutoTokenizer.from_pretrained(lab / "aligned").chat_template
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(p, weights[n]) for n, p in loaded.named_parameters())


def test_no_compliant_answer_is_kept_anywhere(finished):
    """The experts comply with every harmful request; what they said must be nowhere in the run's files."""
    run, _ = finished
    prompts = [e.prompt for e in load_examples(run.directory / "data" / "safety.parquet")]
    for path in run.directory.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml", ".parquet"):
            text = json.dumps([e.answer for e in load_examples(path)]) if path.suffix == ".parquet" else path.read_text()
            for prompt in prompts:
                verb, thing = prompt.split()[3], prompt.split()[-2]
                assert f"{verb} the {thing} with" not in text


def test_scores_have_n_intervals_and_a_paired_test(finished):
    run, _ = finished
    found = run.read("scores.json")
    assert set(found["scores"]) == {"base", "sums", "merged"}
    for score in found["scores"]["merged"]:
        assert score["n"] == 40 and score["ci95"][0] <= score["value"] <= score["ci95"][1]
    assert {(c["other"], c["benchmark"]) for c in found["comparisons"]} == {
        (o, b) for o in ("base", "sums") for b in ("harmful", "lookalike", "sums")
    }


def test_labels_are_kept_for_paired_comparisons_and_replies_are_not(finished):
    run, _ = finished
    labels = run.read("labels.json")
    assert set(labels) == {"base", "sums", "merged"} and len(labels["merged"]) == 120
    assert not {"prompt", "text", "exchange"} & labels["merged"][0].keys() and len(labels["merged"][0]["reply"]) == 16  # a hash
    assert REFUSAL not in (run.directory / "labels.json").read_text()
    assert set(labels["merged"][0]["labels"]) == {"llama_guard", "refusal_phrases"}


def test_a_judge_that_also_chose_the_data_is_warned_of_in_events_and_results(finished):
    run, events = finished
    found = run.read("scores.json")
    notes = found["benchmarks"]["harmful"]["source"]["notes"]
    assert "llama_guard also chose the data" in notes[0] and any(event.message == f"harmful: {notes[0]}" for event in events)
    assert found["benchmarks"]["sums"]["source"]["notes"] == [
        "Only the first 40 of 300 prompts were used, so this is not the benchmark's number."
    ]
    assert found["candidates_tried"] == len((run.directory / "search.jsonl").read_text().splitlines()) > 0
    assert found["benchmarks"]["harmful"]["judges"]["llama_guard"].startswith("guard@local-") and found["reference"] == "base"


def test_a_finished_stage_is_not_done_again(copied):
    before = {p: p.stat().st_mtime_ns for p in copied.directory.rglob("*.json*") if p.name not in ("events.jsonl", "run.json")}
    copied.do("evaluate")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_the_same_recipe_gives_the_same_bits(finished, lab, tmp_path):
    run, _ = finished
    again = Run(run.recipe, tmp_path / "again", allow_writer=True)
    again.do("merge")
    assert again.read("generation.json") == run.read("generation.json")
    for part in ("models", "datasets"):  # what is free on the disk is not the same
        assert again.read("check.json")[part] == run.read("check.json")[part]
    assert of_model(again) == of_model(run)
    assert [(e.prompt, e.answer) for e in load_examples(again.directory / "data" / "safety.parquet")] == [
        (e.prompt, e.answer) for e in load_examples(run.directory / "data" / "safety.parquet")
    ]


def test_a_changed_recipe_is_refused_and_nothing_is_lost(copied):
    changed = Recipe.model_validate(copied.recipe.model_dump(mode="json") | {"seed": 1})
    run = Run(changed, copied.directory, allow_writer=True)
    before = (run.directory / "search.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"changed since generate was done .* --redo"):
        run.do("merge")
    assert (run.directory / "search.jsonl").read_bytes() == before and copied.is_done("evaluate")
    run.do("generate", redo=True)
    assert run.is_done("generate") and not run.is_done("search")


def test_what_a_stage_does_not_depend_on_may_change(copied):
    found = copied.recipe.model_dump(mode="json") | {"compute": {"batch_tokens": 512, "device": "cpu"}}
    run = Run(Recipe.model_validate(found), copied.directory)
    assert run.is_done("evaluate")


def test_another_process_in_the_directory_is_noticed(copied):
    from filelock import FileLock

    with FileLock(copied.directory / ".lock"), pytest.raises(RunError, match="Another process is working in"):
        Run(copied.recipe, copied.directory).do("check")


def test_a_directory_of_something_else_is_left_alone(recipe, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RunError, match="holds files and is no run directory"):
        Run(recipe, tmp_path)
    with pytest.raises(RunError, match=r"is no run directory: it has no recipe\.yaml"):
        Run.open(tmp_path)


def test_a_damaged_file_is_named(copied):
    (copied.directory / "parameters.json").write_text("{")
    with pytest.raises(RunError, match=r"parameters\.json is missing or damaged"):
        copied.read("parameters.json")


# Stopping


def test_a_run_that_is_asked_to_stop_stops_and_goes_on_later(recipe, tmp_path):
    run = Run(
        recipe, tmp_path / "run", lambda event: run.cancel() if event.stage == "search" and event.done == 5 else None, allow_writer=True
    )
    with pytest.raises(Cancelled, match="The same command goes on from here"):
        run.do("merge")
    assert run.is_done("generate") and not run.is_done("search")
    tried = len((run.work("search") / "search.jsonl").read_text().splitlines())
    assert 5 <= tried <= 6
    events = []
    Run(recipe, tmp_path / "run", events.append, allow_writer=True).do("merge")
    assert not any(e.stage == "generate" for e in events)


@pytest.mark.parametrize("stage", ["generate", "search", "evaluate"])
def test_a_run_that_is_killed_goes_on_to_the_same_result(recipe, finished, tmp_path, stage):
    """kill -9 in the middle of a stage, then the same again: the tensors are those of a run that nobody disturbed."""
    directory = tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
    command = [sys.executable, "-m", "hfsafemerge", "run", str(tmp_path / "recipe.yaml"), "--directory", str(directory), "--allow-writer"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ)
    events = directory / "events.jsonl"
    for _ in range(3000):
        if process.poll() is not None or (events.exists() and events.read_text().count(f'"stage": "{stage}"') >= 4):
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = Run(recipe, directory, allow_writer=True)
    assert not run.is_done("evaluate"), "the run was over before it was killed"
    run.do("evaluate")
    whole, _ = finished
    assert of_model(run) == of_model(whole)
    assert run.read("scores.json")["scores"]["merged"] == whole.read("scores.json")["scores"]["merged"]


# What goes wrong


def changed(recipe, **parts):
    return Recipe.model_validate(recipe.model_dump(mode="json", exclude_defaults=True) | parts)


def test_models_that_do_not_fit_are_found_before_anything_else(recipe, lab, tmp_path):
    from tiny import tiny_model

    other = tiny_model(tmp_path / "other", 0)
    bad = changed(recipe, experts=[{"path": str(other), "name": "sums", "topic": "sums"}])
    with pytest.raises(IncompatibleExperts, match=r"can't be merged with the base"):
        Run(bad, tmp_path / "run").do("merge")
    guard = changed(recipe, experts=[{"path": str(lab / "guard"), "name": "sums", "topic": "sums"}])
    with pytest.raises(IncompatibleExperts, match=r"chat templates differ"):
        Run(guard, tmp_path / "run2").do("merge")


def test_a_licence_that_does_not_follow_is_told_before_the_work(recipe, tmp_path):
    run = Run(changed(recipe, push={"repo_id": "alice/x"}), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"set push\.license"):
        run.do("check")


def test_ready_examples_without_answers_are_refused(recipe, lab, tmp_path):
    world = lab / "world" / "harmful" / "validation.parquet"
    bad = changed(
        recipe, data={**recipe.model_dump(mode="json", exclude_defaults=True)["data"], "safety": {"examples": {"path": str(world)}}}
    )
    with pytest.raises(DataError, match=r"ready safety examples have no answer"):
        Run(bad, tmp_path / "run").do("generate")


def test_ready_examples_that_comply_are_never_taken(recipe, lab, tmp_path):
    """What a dataset says of itself counts for nothing: the judges look at its answers."""
    r = random.Random(0)
    items = [draw("harmful", "train", r) for _ in range(8)]
    vetted = Provenance("somebody", "model", "a judge", "refusal", 1, "0.1")
    comply = [Example("safety", item.prompt, item.wrong, provenance=vetted) for item in items]
    refuse = [Example("safety", f"{item.prompt} now", item.right) for item in items[:3]]
    data = recipe.model_dump(mode="json", exclude_defaults=True)["data"] | {
        "safety": {"examples": {"path": str(tmp_path / "ready.parquet")}},
        "duplicates": {"similarity": None},  # the refusals below are to prompts one word longer
    }
    save_examples(tmp_path / "ready.parquet", comply)
    with pytest.raises(DataError, match=r"None of the 8 ready safety examples is answered by a refusal \(8 unsafe\)"):
        Run(changed(recipe, data=data), tmp_path / "run").do("generate")
    assert not (tmp_path / "run" / "data" / "safety.parquet").exists()
    save_examples(tmp_path / "ready.parquet", comply + refuse)
    run = Run(changed(recipe, data=data), tmp_path / "run2")
    run.do("generate")
    kept = load_examples(run.directory / "data" / "safety.parquet")
    assert [e.answer for e in kept] == [REFUSAL] * 3 and run.read("generation.json")["safety"]["answers"] == {"kept": 3, "unsafe": 8}
    assert all(e.provenance.generator.startswith("ready.parquet@") and "llama_guard" in e.provenance.judges for e in kept)


def test_a_prompt_counts_once_in_a_benchmark(recipe, lab, tmp_path):
    from hfsafemerge.running import inputs

    items = load_examples(lab / "world" / "harmful" / "test.parquet")[:5]
    save_examples(tmp_path / "twice.parquet", [*items, *items])
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    found["evaluation"]["benchmarks"]["harmful"]["dataset"] = {"path": str(tmp_path / "twice.parquet"), "split": "test"}
    run = Run(Recipe.model_validate(found), tmp_path / "run")
    run.do("check")
    assert [e.prompt for e in inputs.benchmark_examples(run, "harmful")] == [e.prompt for e in items]


def test_a_folder_that_changes_after_the_check_is_noticed(recipe, lab, tmp_path):
    shutil.copytree(lab / "aligned", tmp_path / "mine")
    run = Run(changed(recipe, base={"path": str(tmp_path / "mine")}), tmp_path / "run", allow_writer=True)
    run.do("check")
    (tmp_path / "mine" / "notes.txt").write_text("new")
    with pytest.raises(RunError, match="mine has changed since the run was checked"):
        run.do("generate")


def test_stages_done_from_what_was_done_again_are_not_done(copied):
    """Back at the first recipe after a detour, the later stages' files are of the detour's check, and not to be trusted."""
    first = copied.recipe
    detour = Run(
        Recipe.model_validate(first.model_dump(mode="json") | {"data": first.data.model_dump(mode="json") | {"max_new_tokens": 17}}),
        copied.directory,
    )
    detour.do("check", redo=True)
    back = Run(first, copied.directory)
    assert not any(back.is_done(name) for name in ("generate", "search", "merge", "evaluate"))


@pytest.mark.parametrize("left", ["run.json.part", "recipe.yaml"])
def test_what_a_kill_or_a_user_who_deletes_run_json_leaves_is_a_run_directory(copied, left, tmp_path):
    directory = tmp_path / "half"
    directory.mkdir()
    shutil.copyfile(copied.directory / "recipe.yaml", directory / left)
    assert not Run(copied.recipe, directory).is_done("check")


def test_where_the_base_was_loaded_from_is_not_copied(lab, tmp_path):
    shutil.copytree(lab / "aligned", tmp_path / "mine")
    config = json.loads((tmp_path / "mine" / "config.json").read_text())
    (tmp_path / "mine" / "config.json").write_text(json.dumps(config | {"_name_or_path": "/home/me/models/x"}))
    fixed = lab_recipe("uniform", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False)
    run = Run(changed(fixed, base={"path": str(tmp_path / "mine")}), tmp_path / "run")
    run.do("merge")
    assert json.loads((run.directory / "model" / "config.json").read_text()) == config


def test_data_that_stand_in_a_benchmark_are_dropped(recipe, lab, tmp_path):
    """The held-out items as training data: all are turned down, whatever file they come in and however few of them are asked."""
    held_out = load_examples(lab / "world" / "sums" / "test.parquet")
    save_examples(tmp_path / "copy.parquet", held_out)
    data = recipe.model_dump(mode="json", exclude_defaults=True)["data"] | {
        "domain": {"examples": {"path": str(tmp_path / "copy.parquet")}}
    }
    leaky = changed(recipe, data=data)
    for benchmark in leaky.evaluation.benchmarks.values():
        object.__setattr__(benchmark, "limit", 5)
    with pytest.raises(DataError, match=r"None of 300 ready prompts can be used \(300 in a benchmark\)"):
        Run(leaky, tmp_path / "run", allow_writer=True).do("generate")


def test_rows_are_chosen_by_their_values(recipe, lab, tmp_path):
    from hfsafemerge.running import inputs

    found = recipe.model_dump(mode="json", exclude_defaults=True)
    found["evaluation"]["benchmarks"]["harmful"]["dataset"]["where"] = {"topic": "S2"}
    run = Run(Recipe.model_validate(found), tmp_path / "run")
    run.do("check")
    assert {e.topic for e in inputs.benchmark_examples(run, "harmful")} == {"S2"}
    found["evaluation"]["benchmarks"]["harmful"]["dataset"]["where"] = {"is_safe": False}
    other = Run(Recipe.model_validate(found), tmp_path / "other")
    other.do("check")
    with pytest.raises(DataError, match=r"has no column 'is_safe' to choose rows by; it has 'id'"):
        inputs.benchmark_examples(other, "harmful")


def test_fixed_parameters_need_no_data(lab, tmp_path):
    run = Run(
        small(lab_recipe("uniform", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False)),
        tmp_path / "run",
    )
    run.do("merge")
    parts = [Checkpoint(lab / name) for name in ("aligned", "sums-expert")]
    merged = Checkpoint(run.directory / "model")
    name = "model.layers.2.mlp.up_proj.weight"
    torch.testing.assert_close(merged.read(name), (parts[0].read(name) + parts[1].read(name)) / 2)


@pytest.mark.parametrize(("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (180, "3 min"), (4800, "1 h 20 min")])
def test_times_are_said_in_words(seconds, said):
    assert clock(seconds) == said
