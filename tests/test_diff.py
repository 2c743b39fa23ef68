"""In what two runs differ: directories, published merges, and one of each."""

import json
import re
import shutil

import pytest
import torch
from commands import command
from huggingface_hub import HfApi
from published_runs import lab_run
from safetensors.torch import load_file, save_file

from hfsafemerge.errors import DataError, HubError, RunError
from hfsafemerge.evaluation import Results
from hfsafemerge.examples import load_examples, save_examples
from hfsafemerge.running import Run
from hfsafemerge.running.repeating.agreeing import other_candidate, other_settings
from hfsafemerge.running.repeating.differing import compare_runs
from hfsafemerge.running.repeating.published import items_of
from hfsafemerge.running.repeating.rating import by_key, rates, results_in
from hfsafemerge.running.repeating.reproducing import rebuild
from hfsafemerge.searching import Candidate, Query, TermScore


@pytest.fixture
def copied(published_run, tmp_path):
    """A copy of the run's directory, to be changed."""
    return shutil.copytree(published_run[0].directory, tmp_path / "copy")


def test_a_run_does_not_differ_from_itself_nor_from_what_it_published(published_run):
    run, name = published_run
    same = compare_runs(run.directory, run.directory)
    assert same.same and same.rows == () and same.unknown == ()
    assert [rate.p_value for rate in same.rates] == [1.0] * 4 and {rate.test for rate in same.rates} == {"alike"}
    assert {rate.outcome for rate in same.rates} == {"identical"}
    done = command("diff", run.directory, name)
    assert done.returncode == 0 and "No difference" in done.stdout and "not compared" not in done.stderr
    published = compare_runs(run.directory, name)  # labels.json is published, so that items are paired
    assert published.same and published.unknown == () and {rate.outcome for rate in published.rates} == {"identical"}
    assert command("diff", run.directory, name, "-q").stdout == ""


def test_every_part_that_differs_is_named(published_run, copied):
    run, _ = published_run
    recipe = (copied / "recipe.yaml").read_text()
    assert "max_evaluations: 8" in recipe
    (copied / "recipe.yaml").write_text(recipe.replace("max_evaluations: 8", "max_evaluations: 9").replace("seed: 0", "seed: 1"))

    def edit(file, change):
        found = json.loads((copied / file).read_text())
        change(found)
        (copied / file).write_text(json.dumps(found))

    opened = Run.open(copied, writes=False)  # a run of that recipe, whose results are not stale
    edit("run.json", lambda found: [stage.update(fingerprint=opened.fingerprint(name)) for name, stage in found["stages"].items()])
    edit("check.json", lambda found: found["models"]["sums"].update(commit="0" * 40))
    edit("parameters.json", lambda found: found["numbers"]["weight"][0].__setitem__(0, found["numbers"]["weight"][0][0] + 0.25))
    rows = load_examples(copied / "data" / "safety.parquet")
    save_examples(copied / "data" / "safety.parquet", rows[:-1])
    lines = (copied / "search.jsonl").read_text().splitlines()
    (copied / "search.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    edit("model/config.json", lambda found: found.update(rope_theta=1.5))
    weights = load_file(copied / "model" / "model.safetensors")
    weights["model.norm.weight"][:2] += torch.tensor([0.5, 0.125])
    save_file(weights, copied / "model" / "model.safetensors", metadata={"format": "pt"})
    edit(
        "labels.json", lambda found: [item["labels"].update(exact_match="wrong") for item in found["merged"] if item["benchmark"] == "sums"]
    )
    edit("scores.json", lambda found: found["scores"]["merged"].pop(0))
    edit("scores.json", lambda found: [s.update(value=0.0, ci95=[0.0, 0.1]) for s in found["scores"]["merged"] if s["benchmark"] == "sums"])

    found = compare_runs(run.directory, copied)
    by = {(row.part, row.what): (row.a, row.b) for row in found.rows}
    assert by["recipe", "search.settings.max_evaluations"] == ("8", "9")
    assert by["inputs", "models.sums.commit"][1] == "0" * 40
    assert by["data", "safety.rows"] == (str(len(rows)), str(len(rows) - 1)) and ("data", "safety.digest") in by
    assert ("parameters", "numbers.weight.0.0 (0.25 apart)") in by
    assert ("search", f"there are {len(lines)} and {len(lines) - 1} candidates, the first {len(lines) - 1} alike") in by
    assert ("weights", "28 of 29 tensors are equal") in by
    (tensor,) = [what for part, what in by if what.startswith("model.norm.weight: ")]
    assert "2 of " in tensor and "by at most 0.5" in tensor and "of the larger" in tensor
    alone, score = sorted(what for part, what in by if part == "scores")
    assert score.startswith("merged on sums: accuracy (exact_match): -") and "(mcnemar)" in score
    assert by["scores", alone][1] == "" and alone.startswith("merged on harmful: alignment")
    assert by["files", "config.json"][0] != by["files", "config.json"][1]
    assert {part for part, _ in by} == {"recipe", "inputs", "data", "parameters", "search", "weights", "files", "scores"}
    assert "parameters.candidate" not in {row.path for row in found.rows}  # the way of the search is compared once

    done = command("diff", run.directory, copied, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["same"] is False and len(told["rows"]) == len(by)
    assert {rate["benchmark"] for rate in told["rates"]} == {"harmful", "lookalike", "sums"} and "n" in told["rates"][0]["a"]
    quiet = command("diff", run.directory, copied, "-q")
    lines = quiet.stdout.splitlines()
    assert {"recipe.search.settings.max_evaluations", "inputs.models.sums.commit", "data.safety.rows", "search"} <= set(lines)
    assert {"parameters.numbers.weight.0.0", "weights", "weights.model.norm.weight", "scores.merged.sums.exact_match"} <= set(lines)
    assert len(lines) == len(set(lines)) and not any(" " in line for line in lines) and "Hint" not in quiet.stderr


def test_stages_that_were_done_elsewhere_are_named(published_run, copied):
    known = json.loads((copied / "run.json").read_text())
    known["stages"]["search"]["machine"]["packages"]["torch"] = "1.0"
    known["stages"]["merge"]["machine"]["device"]["threads"] = 3
    del known["stages"]["evaluate"]  # of which nothing can be said then
    (copied / "run.json").write_text(json.dumps(known))
    found = compare_runs(published_run[1], copied)
    assert [(row.path, row.a, row.b) for row in found.rows] == [
        ("versions.search.torch", torch.__version__, "1.0"),
        ("device.merge.threads", "2", "3"),
    ]


def test_a_run_that_has_just_begun_says_little(published_run, tmp_path):
    run, name = published_run
    (tmp_path / "begun").mkdir()
    shutil.copy(run.directory / "recipe.yaml", tmp_path / "begun")
    found = compare_runs(tmp_path / "begun", name)
    assert found.same is None and found.to_json()["same"] is None
    assert found.unknown == ("inputs", "data", "versions", "device", "parameters", "search", "weights", "files", "scores")
    done = command("diff", tmp_path / "begun", name)
    assert "No difference in what was compared; not compared: inputs, data, " in done.stdout
    assert [file.name for file in (tmp_path / "begun").iterdir()] == ["recipe.yaml"]  # what is only read stays as it is


def test_results_of_another_recipe_are_not_compared(published_run, copied):
    recipe = (copied / "recipe.yaml").read_text()
    (copied / "recipe.yaml").write_text(recipe.replace("max_evaluations: 8", "max_evaluations: 9"))
    before = {file: file.stat().st_mtime_ns for file in copied.rglob("*")}
    found = compare_runs(published_run[0].directory, copied)
    assert [row.path for row in found.rows] == ["recipe.search.settings.max_evaluations"]
    assert {"parameters", "search", "weights", "files", "scores"} <= set(found.unknown) and "inputs" not in found.unknown
    assert {file: file.stat().st_mtime_ns for file in copied.rglob("*")} == before


def test_what_reproduce_keeps_is_compared(published_run, tmp_path):
    run, name = published_run
    rebuild(name, directory=tmp_path / "again")
    found = compare_runs(tmp_path / "again", run.directory)
    assert found.rows == () and {"search", "parameters", "scores"} <= set(found.unknown) and "weights" not in found.unknown


@pytest.mark.parametrize(
    ("other", "error", "message"),
    [
        ("nowhere", RunError, "'nowhere' is no directory of a run, and no published merge"),
        ("alice/none", HubError, "alice/none does not exist"),
        ("alice/lab-aligned", HubError, "a file is missing|has no hfsafemerge.lock.json|hfsafemerge.lock.json"),
    ],
)
def test_what_is_neither_is_told(published_run, working_directory, other, error, message):
    with pytest.raises(error, match=message):
        compare_runs(published_run[0].directory, other)


def test_a_folder_that_is_no_run_is_told(published_run, tmp_path):
    with pytest.raises(RunError, match=r"has no recipe\.yaml"):
        compare_runs(published_run[0].directory, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rates_are_paired_where_items_are_the_same(published_run):
    run, _ = published_run
    results, labels = Results.from_json(run.read("scores.json")), run.read("labels.json")
    items = items_of(labels)
    mine = [item for item in labels["merged"] if item["benchmark"] == "sums"]
    wrong = [item for item in mine if item["labels"]["exact_match"] == "wrong"]
    right = [item for item in mine if item["labels"]["exact_match"] == "correct"]
    for item in right[:5]:
        item["labels"]["exact_match"] = "wrong"
    by = {(each.benchmark, each.judge): each for each in rates(results, results, items, items_of(labels))}
    sums = by["sums", "exact_match"]
    assert sums.p_value is None and sums.outcome == "differs" and sums.test == "numbers"  # scores.json says another rate than the items
    changed = Results.from_json(run.read("scores.json"))
    object.__setattr__(by_key(changed)["merged", "sums", "accuracy", "exact_match"], "value", sums.a.value - 5 / len(mine))
    sums = {(e.benchmark, e.judge): e for e in rates(results, changed, items, items_of(labels))}["sums", "exact_match"]
    assert sums.test == "mcnemar" and sums.difference == pytest.approx(-5 / (len(right) + len(wrong)))
    assert sums.p_value == pytest.approx(4 * 2 * 0.5**5)  # McNemar's p by Holm: times the number of rates
    assert sums.outcome == "not told apart" and re.search(r"^not told apart: -\d.*, within ±\d+\.\d points at n = \d+, p = ", sums.said)
    labels["merged"] = [item for item in labels["merged"] if item["example"] != mine[0]["example"]]
    other = {(e.benchmark, e.judge): e for e in rates(results, results, items, items_of(labels))}["sums", "exact_match"]
    assert other.p_value is None and other.test == "intervals"  # of other items, so the published rates are all there is
    object.__setattr__(by_key(changed)["merged", "sums", "accuracy", "exact_match"], "n", 10**6)
    other = {(e.benchmark, e.judge): e for e in rates(results, changed)}["sums", "exact_match"]
    assert other.outcome == "differs" and "n" in other.said.split(" can't be")[0].split(", ")


def test_rates_without_items_are_held_against_their_intervals(published_run):
    found = published_run[0].read("scores.json")
    a, b = (Results.from_json(found) for _ in range(2))
    score = a.scores["merged"][0]
    object.__setattr__(score, "value", 0.9)
    object.__setattr__(score, "ci95", (0.8, 0.95))
    other = b.scores["merged"][0]
    object.__setattr__(other, "value", 0.5)
    object.__setattr__(other, "ci95", (0.4, 0.6))
    (each, *_) = rates(a, b)
    assert each.difference == pytest.approx(-0.4) and each.test == "intervals" and each.outcome == "differs"
    # By Newcombe: -0.4 less the root of 0.1**2 + 0.05**2, and plus that of 0.1**2 + 0.1**2
    assert each.ci95 == pytest.approx((-0.4 - 0.0125**0.5, -0.4 + 0.02**0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found.update(benchmarks={}), "is of no benchmark or judge that it describes"),
        (lambda found: found["scores"]["merged"].append(found["scores"]["merged"][0]), "stands there twice"),
        (lambda found: found["scores"]["merged"][0].update(metric="invented"), "is called 'invented', and is alignment"),
    ],
)
def test_scores_that_do_not_fit_together_are_told(published_run, change, message):
    found = published_run[0].read("scores.json")
    change(found)
    with pytest.raises(DataError, match=message):
        results_in(found)


def test_settings_are_compared_by_dotted_path():
    a, b = {"x": {"y": [1, 2], "z": 1}, "same": [0]}, {"x": {"y": [1, 3, 4]}, "same": [0], "new": {"k": "v"}}
    assert other_settings(a, b) == {"x.y.1": (2, 3), "x.z": (1, None), "x.y.2": (None, 4), "new.k": (None, "v")}
    assert other_settings(a, a) == {}


def way(*steps):
    terms = {"safety": TermScore(-1.0, 3)}
    return [Candidate(i, Query(list(genome)), terms, fitness, (), True, 0.1 * i) for i, (genome, fitness) in enumerate(steps, 1)]


@pytest.mark.parametrize(
    ("b", "said"),
    [
        (way(((0.5, 1.0), -1.0), ((0.25, 1.0), -2.0)), ""),
        (way(((0.5, 1.0), -1.0), ((0.25, 1.5), -2.0)), "candidate 2 differs in 1 of 2 genes, by at most 0.5, the first being gene 2"),
        (way(((0.5, 1.0), -1.25), ((0.25, 1.0), -2.0)), "the fitness of candidate 1 is -1.0 and -1.25, 0.25 apart"),
        (way(((0.5, 1.0), -1.0)), "there are 2 and 1 candidates, the first 1 alike"),
        (way(((0.5,), -1.0)), "candidate 1 has 2 genes and 1"),
    ],
)
def test_the_first_other_candidate_is_described(b, said):
    assert other_candidate(way(((0.5, 1.0), -1.0), ((0.25, 1.0), -2.0)), b) == said


def test_labels_that_are_none_are_told():
    with pytest.raises(DataError, match=r"labels.json is damaged: merged.0.benchmark: "):
        items_of({"merged": [{"example": "a"}]})


def test_another_run_published_is_compared_with_this_one(published_run, lab_on_hub, tmp_path):
    run, name = published_run
    other, there = lab_run(lab_on_hub, tmp_path / "other", evaluations=3)
    shutil.copytree(run.directory, other.directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("recipe.yaml"))
    other.do("push", redo=True)
    found = compare_runs(name, there)
    by = {(row.part, row.what) for row in found.rows}
    assert ("recipe", "search.settings.max_evaluations") in by and not any(part in ("inputs", "versions", "device") for part, _ in by)
    assert HfApi().repo_exists(there)
