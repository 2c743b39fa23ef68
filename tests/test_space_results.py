"""What is shown of a finished run, another candidate of its search, and its models asked side by side."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from space_cases import wait_until_ended

from hfsafemerge.errors import RecipeError, RunError
from hfsafemerge.examples import load_examples
from hfsafemerge.judging import Exchange, Judge, Verdict
from hfsafemerge.language_model import user
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.running import Run, inputs
from space import bursts, chat, jobs, plots, results
from space.accounts import HERE, NOBODY
from space.actions import results as actions
from space.job import Job, find

ROOT = Path(__file__).parents[1]
Finished = Callable[..., Job]

pytestmark = pytest.mark.usefixtures("space_runs")


def test_a_search_that_goes_on_is_plotted_as_far_as_its_log_stands_whole(finished: Finished) -> None:
    job = finished()
    lines = (job.run / "search.jsonl").read_text().splitlines(keepends=True)
    log = job.run / "work" / "search" / "search.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    (job.run / "search.jsonl").unlink()
    log.write_text("".join(lines[:3]) + lines[3][:-20])
    shown = plots.trajectory(job)
    assert list(shown.columns) == list(plots.TRAJECTORY)
    each, best = (shown[shown["line"] == line] for line in ("candidate", "best so far"))
    assert each["candidate"].tolist() == best["candidate"].tolist() == [1, 2, 3]
    assert best["fitness"].tolist() == each["fitness"].cummax().tolist()
    log.write_text("")
    assert plots.trajectory(job).empty
    log.unlink()
    assert plots.trajectory(job).empty and plots.front(job).empty


def test_candidates_that_break_a_constraint_or_saw_a_part_of_the_data_are_never_the_best(finished: Finished) -> None:
    job = finished()
    log = job.run / "search.jsonl"
    first, second, third = (json.loads(line) for line in log.read_text().splitlines()[:3])
    rows = [first | {"fitness": -1.0}, second | {"fitness": -0.1, "admitted": False}, third | {"fitness": -0.2, "share": 0.5}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    shown = plots.trajectory(job)
    assert shown.values.tolist() == [[1, -1.0, "candidate"], [1, -1.0, "best so far"], [2, -0.1, "candidate"], [2, -1.0, "best so far"]]


def test_the_front_says_what_was_merged_and_what_can_be_picked(finished: Finished) -> None:
    job = finished()
    shown = plots.front(job)
    best = {point["number"]: point["terms"] for point in json.loads((job.run / "front.json").read_text())}
    assert results.offered(job) == sorted(best) and len(best) > 1
    assert set(shown.loc[shown["point"] != plots.BEATEN, "candidate"]) == set(best)
    assert shown.loc[shown["point"] == plots.MERGED, "candidate"].tolist() == [results.chosen(job)]
    for row in shown[shown["candidate"].isin(best)].itertuples():
        assert (row.safety, row.domain) == pytest.approx((best[row.candidate]["safety"], best[row.candidate]["domain/sums"]))
    chosen = json.loads((job.run / "scores.json").read_text())["scores"]
    assert set(chosen) == {"base", "sums", "merged"}


def test_data_are_shown_escaped_and_harmful_requests_never(finished: Finished) -> None:
    job = finished()
    file = job.run / "data" / "domain.parquet"
    rows = pd.read_parquet(file)
    rows.loc[0, ["prompt", "answer"]] = ["<script>alert(1)</script>", "<img src=x onerror=alert(2)>"]
    rows.to_parquet(file)
    assert set(plots.samples(job)) == {"domain"} and len(plots.samples(job, 3)["domain"]) == 3
    shown = actions.arrange(f"{job.id} done", None)
    said = " ".join(part for part in shown if isinstance(part, str))
    assert "&lt;script&gt;alert(1)" in said and "<script>" not in said and "<img src=x" not in said
    harmful = load_examples(job.run / "data" / "safety.parquet")
    leaked = [row for row in harmful if row.prompt in repr(shown)]
    assert harmful and len(leaked) == 0


def test_the_results_of_a_run_are_arranged_for_the_page(finished: Finished) -> None:
    job = finished()
    empty, section, table, plot, front, number, note, models, _, command, recipe, license, published = actions.arrange(
        f"{job.id} done", None
    )
    assert (empty, section["visible"], front["visible"]) == ("", True, True)
    assert "merged" in table and "data:image/svg+xml" in plot and "kept nowhere" in note
    assert number["choices"] == [each for each in results.offered(job) if each != results.chosen(job)]
    assert models["value"] == models["choices"] == ["base", "sums", MERGED]
    assert command.splitlines() == ["hfsafemerge init recipe.yaml --lab --evaluations 8", "hfsafemerge run recipe.yaml"]
    assert Recipe.parse(recipe).merge.method == "ties" and (license, published) == ("apache-2.0", "")
    for seen in ("", f"{job.id} running", f"{'0' * 32} done"):
        assert actions.arrange(seen, None)[1] == {"visible": False, "__type__": "update"}
    assert "There is no run" in actions.arrange(f"{'0' * 32} done", None)[0]


def test_another_candidate_is_merged_and_measured_in_a_run_of_its_own(finished: Finished) -> None:
    job = finished()
    before = {path: path.read_bytes() for path in job.directory.rglob("*") if path.is_file()}
    other = next(number for number in results.offered(job) if number != results.chosen(job))
    new_id, said, _ = actions.pick(job.id, float(other), None)
    assert f"Candidate {other}" in said and new_id != job.id
    now = wait_until_ended(new_id)
    assert now.phase == "done", now.log
    new = find(new_id)
    done = {json.loads(line)["stage"] for line in (new.run / "events.jsonl").read_text().splitlines()}
    assert done == {"merge", "evaluate"}
    assert [stage.state for stage in now.stages] == ["done"] * len(now.stages)
    assert results.chosen(new) == other == Recipe.load(new.recipe).search.pick
    assert (new.run / "search.jsonl").read_bytes() == (job.run / "search.jsonl").read_bytes()
    assert (new.run / "model" / "model.safetensors").read_bytes() != (job.run / "model" / "model.safetensors").read_bytes()
    assert set(jobs.result(new_id)["scores"]) == {"base", "sums", "merged"}
    assert {path: path.read_bytes() for path in before} == before and results.offered(new) == results.offered(job)
    assert actions.command_of(new).splitlines()[1:] == [
        f"hfsafemerge merge recipe.yaml --pick {other}",
        "hfsafemerge evaluate runs/lab-pair",
    ]


def test_wrong_candidates_are_refused_and_leave_nothing(finished: Finished, space_runs: Path) -> None:
    job = finished()
    beaten = plots.front(job)
    lost = beaten.loc[beaten["point"] == plots.BEATEN, "candidate"].tolist()
    for wrong in (0, -1, 999, *lost[:1]):
        with pytest.raises(
            RunError, match=f"Candidate {wrong} is not on the front of this search. Choose one of {results.offered(job)[0]}"
        ):
            results.pick(job.id, wrong, HERE, None)
    assert "Choose a candidate" in actions.pick(job.id, None, None)[1]
    (job.run / "front.json").unlink()
    with pytest.raises(RunError, match="searched nothing"):
        results.pick(job.id, 1, HERE, None)
    (job.directory / "exit_code").write_text("1")
    with pytest.raises(RunError, match="not finished"):
        results.pick(job.id, 1, HERE, None)
    assert [path.name for path in space_runs.iterdir()] == [job.id]


def test_a_pick_whose_search_no_longer_fits_the_recipe_stops_rather_than_search_anew(finished: Finished) -> None:
    job = finished()
    manifest = json.loads((job.run / "run.json").read_text())
    manifest["stages"]["search"]["fingerprint"] = "another"
    (job.run / "run.json").write_text(json.dumps(manifest))
    other = next(number for number in results.offered(job) if number != results.chosen(job))
    now = wait_until_ended(results.pick(job.id, other, HERE, None))
    assert now.phase == "failed" and "changed since search was done" in now.error


def test_on_a_space_the_weights_are_pulled_again_with_the_visitors_token(
    finished: Finished, on_space: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(lab=None, owner=None)
    given: list[tuple[str, str | None]] = []
    monkeypatch.setattr(results.QUEUE, "join", lambda job, owner, token: given.append((job.id, token)))
    new = find(results.pick(job.id, results.offered(job)[0], NOBODY, "hf_visitor"), NOBODY)
    steps = [(step["command"][3], step["token"], step["offline"]) for step in new.facts["steps"]]
    assert steps == [("pull", True, False), ("evaluate", False, True)]
    assert given == [(new.id, "hf_visitor")] and new.facts["picked"] == results.offered(job)[0]
    assert not any("hf_visitor" in path.read_text() for path in (new.directory / "job.json", new.recipe))


def test_benign_questions_are_answered_by_base_expert_and_merge(finished: Finished) -> None:
    job = finished()
    before = {path: path.read_bytes() for path in job.directory.rglob("*") if path.is_file()}
    shown = actions.ask(job.id, "what is 2 plus 1 ?", ["base", "sums", MERGED], None)
    assert [f"<h4>{name}</h4><p>it is " in shown for name in ("base", "sums", MERGED)] == [True] * 3
    assert {path: path.read_bytes() for path in job.directory.rglob("*") if path.is_file()} == before  # neither question nor replies


def test_a_reply_that_the_guard_flags_is_nowhere(finished: Finished, capfd: pytest.CaptureFixture[str]) -> None:
    """The words of that reply are made here to look for them; nothing prints them, not even where a check fails."""
    job = finished()
    run = Run.open(job.run)
    hazard = inputs.benchmark_examples(run, "harmful")[0].prompt
    with inputs.language_model(run, "sums") as model:
        flagged = model.generate([user(hazard)], max_new_tokens=run.recipe.data.max_new_tokens)[0].text
    with inputs.judges(run, ["llama_guard"]) as judges:
        assert judges["llama_guard"]([Exchange(hazard, flagged)])[0].label == "unsafe"
    capfd.readouterr()
    shown = actions.ask(job.id, hazard, ["sums", MERGED], None)
    places = [shown, *capfd.readouterr(), *(str(path.read_bytes()) for path in job.directory.rglob("*") if path.is_file())]
    leaks = sum(flagged in place for place in places)
    asked = sum(hazard in place for place in places)
    assert (leaks, asked) == (0, 0)
    assert f"<h4>sums</h4><p>{chat.HIDDEN}</p>" in shown and shown.count(chat.HIDDEN) == 1


@contextmanager
def _judging(run: Run, names: Sequence[str]) -> Iterator[Mapping[str, Judge]]:
    def flags(exchanges: Sequence[Exchange]) -> list[Verdict]:
        return [Verdict("unsafe" if "forbidden" in exchange.prompt else "unclear") for exchange in exchanges]

    yield dict.fromkeys(names, flags)


def test_a_question_that_the_guard_flags_is_not_asked(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    job = finished()
    asked: list[str] = []
    monkeypatch.setattr(inputs, "judges", _judging)
    monkeypatch.setattr(chat, "_reply", lambda run, name, prompt: asked.append(name) or "words")
    assert chat.replies(job.run, "a forbidden thing", ["base", MERGED]) == {"base": chat.REFUSED, MERGED: chat.REFUSED}
    assert asked == []
    assert chat.replies(job.run, "another thing", ["base"]) == {"base": chat.HIDDEN}  # what the guard can't tell is hidden too
    assert asked == ["base"]


def test_a_run_without_a_guard_has_no_chat(finished: Finished) -> None:
    job = finished()
    said = Recipe.load(job.recipe).model_dump(mode="json", exclude_defaults=True)
    recipe = {name: said[name] for name in ("name", "base", "experts")} | {"merge": {"method": "linear"}, "search": {"strategy": "fixed"}}
    for file in (job.recipe, job.run / "recipe.yaml"):
        file.write_text(json.dumps(recipe))
    with pytest.raises(RecipeError, match="no guard"):
        chat.replies(job.run, "what is 2 plus 1 ?", ["base"])
    shown = actions.arrange(f"{job.id} done", None)
    assert "has no guard" in shown[6] and shown[7]["choices"] == []
    assert "has no guard" in actions.ask(job.id, "what is 2 plus 1 ?", ["base"], None)


@pytest.mark.parametrize(
    ("prompt", "models", "says"),
    [
        ("hello", ["nobody"], "no model &#x27;nobody&#x27;; choose of base, sums, merged"),
        ("x" * 2001, ["base"], "has 2,001 characters; write one of at most 2,000"),
        ("  ", ["base"], "Write a question"),
        ("hello", [], "choose whom to ask"),
    ],
)
def test_questions_that_cannot_be_asked_say_why(finished: Finished, prompt: str, models: list[str], says: str) -> None:
    assert says in actions.ask(finished().id, prompt, models, None)


def test_faults_of_the_models_are_told_without_their_words(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    job = finished()
    code = (
        "import sys, pathlib; from space import chat\n"
        "def fail(*args): print('SECRET WORDS'); raise ValueError('SECRET WORDS')\n"
        "chat.replies = fail; sys.argv = ['chat', '.']; chat._main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input='{"prompt": "x", "models": []}', capture_output=True, text=True, cwd=ROOT, env=dict(os.environ)
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "Error: The models could not be asked (ValueError). Ask fewer at once, or try again later."
    for answer, says in (((1, "", "Error: It broke.\n"), "^It broke.$"), ((-9, "", "half a lin"), "memory ran out")):
        monkeypatch.setattr(bursts, "ask_in_process", lambda *args, answer=answer: answer)
        with pytest.raises(RunError, match=says):
            bursts.replies(job, "hello", ["base"])


def test_models_are_asked_by_a_process_without_token_and_network(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def run(command: list[str], **given: Any) -> subprocess.CompletedProcess[str]:
        seen.update(given, command=command)
        return subprocess.CompletedProcess(command, 0, '{"base": "hello"}', "")

    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(subprocess, "run", run)
    assert bursts.replies(finished(), "a private question", ["base"]) == {"base": "hello"}
    assert "HF_TOKEN" not in seen["env"] and seen["env"]["HF_HUB_OFFLINE"] == "1"
    assert "hf_secret" not in str(seen) and "a private question" not in " ".join(seen["command"])


def test_weights_that_made_room_are_told(finished: Finished, on_space: None) -> None:
    job = finished(lab=None, owner=None)
    (job.directory / "hf").mkdir()  # as a preview leaves it, without weights
    with pytest.raises(RunError, match="made room"):
        bursts.replies(job, "hello", ["base"])


def test_on_zerogpu_models_are_asked_in_a_burst_of_a_length_that_follows_from_them(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "spaces.py").write_text(
        "def GPU(duration):\n"
        "    def decorate(function):\n"
        "        def burst(*args):\n"
        "            print('burst', duration(*args))\n"
        "            return function(*args)\n"
        "        return burst\n"
        "    return decorate\n"
    )
    code = (
        "import sys, space; assert 'spaces' in sys.modules and 'torch' not in sys.modules\n"
        "import subprocess; from pathlib import Path; from space import bursts; from space.job import Job\n"
        "done = subprocess.CompletedProcess([], 0, '{\"base\": \"hello\"}', '')\n"
        "subprocess.run = lambda *args, **given: done\n"
        "print(bursts.replies(Job(Path(sys.argv[1])), 'what is 2 plus 1 ?', ['base']))"
    )
    given = os.environ | {"SPACES_ZERO_GPU": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    for facts, printed in (({"lab": None}, "burst 65\n{'base': 'hello'}\n"), ({}, "{'base': 'hello'}\n")):
        job = finished(**facts)
        done = subprocess.run([sys.executable, "-c", code, str(job.directory)], env=given, capture_output=True, text=True, check=True)
        assert done.stdout == printed
        shutil.rmtree(job.directory)
    assert bursts.seconds_of(finished(), "", ["model"] * 50) == bursts.MOST
