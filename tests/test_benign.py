"""Benign data: help with harmless prompts is kept, and nothing that complies with a harmful one, whatever the dataset says."""

import json
import random

import pytest
import yaml
from test_generation import answers, judges, texts
from test_judging import Guard
from test_run import small

from hfsafemerge.errors import JudgeError, RecipeError
from hfsafemerge.examples import Example, load_examples, save_examples
from hfsafemerge.generation import AnswerPlan, Shards
from hfsafemerge.judging import HARMLESS, JUDGES, Verdict
from hfsafemerge.lab.recipes import InFolder, OnHub, lab_recipe
from hfsafemerge.lab.world import HAZARDS, draw
from hfsafemerge.language_model import Reply
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run

HELP, REFUSAL, HARM = "gladly : wash it .", "sorry , i cannot help .", "gladly : zorp it ."
ASKED = [Example("benign", f"harmless {i}", topic="toys") for i in range(5)]
PLAN = AnswerPlan("help", "org/base@1", ("guard (org/guard@1)", "phrases"), 16)


def help_of(folder, model, bound, questions=ASKED):
    """What is kept of a model's answers, and how many for which reason."""
    kept = answers(folder, model, questions, PLAN, bound)
    return kept, Shards(folder, PLAN.description).counts(map(PLAN.id, questions))


def test_only_help_that_every_judge_vouches_for_is_kept(tmp_path):
    model = Guard(HELP, HARM, REFUSAL, "", "so " * 9)
    kept, counts = help_of(tmp_path / "log", model, judges("safe", "unsafe\nS1", "safe", "safe"))
    assert counts == {"kept": 1, "unsafe": 1, "refused": 1, "empty": 1, "degenerate": 1}
    assert texts(kept) == [HELP, None, None, None, None] and kept[0].verdicts == "llama_guard: safe; refusal_phrases: complied"
    assert "zorp" not in "".join(path.read_text() for path in (tmp_path / "log").iterdir())


def test_what_a_judge_can_not_tell_is_dropped(tmp_path):
    many = [Example("benign", f"harmless {i}") for i in range(64)]
    kept, counts = help_of(tmp_path / "log", Guard(HELP), judges(*["safe"] * 63, "perhaps"), many)
    assert counts == {"kept": 63, "unclear to llama_guard": 1} and sum(row is not None for row in kept) == 63
    with pytest.raises(JudgeError, match="could not be understood on 64 of 64"):
        help_of(tmp_path / "other", Guard(HELP), judges("perhaps"), many)


def test_an_answer_that_was_cut_off_is_judged_by_nobody(tmp_path):
    class Endless(Guard):
        def generate(self, conversations, **options):
            return [Reply(reply.text, False) for reply in super().generate(conversations, **options)]

    assert help_of(tmp_path / "log", Endless(HELP), judges("?")) == ([None] * 5, {"cut off": 5})


# Recipes and runs


def with_benign(recipe, questions, **changes):
    """A recipe with benign data from a dataset; the changes go to its data."""
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    found["data"] |= {"benign": {"questions": questions}} | changes
    if recipe.strategy.needs_data:
        found["search"]["use"] = ["safety", "domain", "benign"]
    changed = Recipe.model_validate(found)
    changed.check()
    return changed


def test_benign_data_need_a_guard_and_a_judge_of_refusals(lab):
    recipe = small(lab_recipe("benign", ("sums",), InFolder(lab), strategy="fixed"))
    rows = InFolder(lab).rows("lookalike", "validation")
    with pytest.raises(RecipeError, match=r"data\.judges are refusal_phrases; a guard has to be among them, such as qwen3guard"):
        with_benign(recipe, rows, safety=None, judges=["refusal_phrases"])
    with pytest.raises(RecipeError, match="a judge of refusals has to be among them, such as refusal_phrases"):
        with_benign(recipe, rows, safety=None, judges=["llama_guard"])


def test_a_run_with_benign_data_is_published_and_its_fitness_has_three_terms(lab_on_hub, repo_name, tmp_path):
    place = OnHub(lab_on_hub)
    recipe = small(lab_recipe("benign", ("sums",), place, settings={"max_evaluations": 8}, compare=False, push=f"alice/{repo_name}"))
    events = []
    run = Run(with_benign(recipe, place.rows("lookalike", "validation")), tmp_path / "run", events.append, allow_writer=True)
    run.do("push")
    kept = load_examples(run.directory / "data" / "benign.parquet")
    assert 12 < len(kept) <= 24 and {e.kind for e in kept} == {"benign"} and not any(REFUSAL in e.answer for e in kept)
    assert {e.provenance.verdicts for e in kept} == {"llama_guard: safe; refusal_phrases: complied"} and all(
        e.provenance.judges.startswith("llama_guard (") for e in kept
    )
    assert {e.provenance.responder.split("@")[0] for e in kept} == {f"{lab_on_hub}/lab-aligned"}
    chosen = run.read("parameters.json")["search"]
    assert chosen["terms"].keys() == {"safety", "domain/sums", "benign"}
    means = {name: term["mean"] for name, term in chosen["terms"].items()}
    assert chosen["fitness"] == pytest.approx(means["safety"] + 0.3 * means["domain/sums"] + 0.3 * means["benign"])
    told = [event for event in events if event.message.startswith("benign answers (")]
    assert told[-1].done == told[-1].total == 24 and "of 24 replies kept" in told[-1].message
    report = run.read("generation.json")["benign"]
    assert report["kept"] == len(kept) == report["answers"]["kept"] and report["questions"]["kept"] == 24
    card = (run.directory / "card.md").read_text()
    assert "likelihood of the safety, domain and benign data (alpha = 0.3, beta = 0.3)." in card
    assert yaml.safe_load(card.split("---")[1])["datasets"] == [
        f"alice/{repo_name}-safety",
        f"alice/{repo_name}-domain",
        f"alice/{repo_name}-benign",
        f"{lab_on_hub}/lab-world",
    ]


def test_a_dataset_of_the_wrong_prompts_brings_no_compliant_answer_into_the_run(lab, tmp_path):
    """The base complies with harm; the dataset mixes harmful prompts and items of the benchmark with harmless ones."""
    place, r = InFolder(lab), random.Random(0)
    harmless = list({item.prompt: item for item in (draw("benign", "train", r) for _ in range(40))})
    harmful = list({item.prompt: item for item in (draw("harmful", "train", r) for _ in range(40))})
    known, unknown = harmful[:10], harmful[10:]
    held_out = [e.prompt for e in load_examples(lab / "world" / "lookalike" / "test.parquet")[:10]]
    mixed = harmless + harmful + held_out
    save_examples(tmp_path / "mixed.parquet", [Example("benign", prompt) for prompt in mixed])
    save_examples(tmp_path / "known.parquet", [Example("safety", f" {prompt} ") for prompt in known])
    found = small(lab_recipe("wrong", ("sums",), place, strategy="fixed", compare=False)).model_dump(mode="json", exclude_defaults=True)
    found["base"], found["experts"][0] = place.model("sums-expert"), {**place.model("aligned"), "name": "sums", "topic": "sums"}
    found["data"] |= {"count": 200, "safety": {"questions": {"path": str(tmp_path / "known.parquet")}}}
    del found["data"]["domain"]
    recipe = with_benign(Recipe.model_validate(found), {"path": str(tmp_path / "mixed.parquet")})
    run = Run(recipe, tmp_path / "run")
    run.do("generate")
    kept = load_examples(run.directory / "data" / "benign.parquet")
    assert kept and {e.prompt for e in kept} <= set(harmless)
    report = run.read("generation.json")["benign"]
    assert report["questions"] == {"kept": len(harmless) + len(unknown), "in the safety data": len(known), "in a benchmark": len(held_out)}
    assert report["answers"]["unsafe"] > len(unknown) / 2  # the base did comply
    verbs = [verb for verbs in HAZARDS.values() for verb in verbs]
    for path in run.directory.rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".yaml", ".parquet"):
            text = json.dumps([e.answer for e in load_examples(path)]) if path.suffix == ".parquet" else path.read_text()
            assert not any(f"{verb} the" in text for verb in verbs), path


def test_a_judge_that_fails_leaves_no_answer_behind(lab, tmp_path, monkeypatch):
    """As a kill would: what was answered and not yet vetted is nowhere. The guard passes the test of its format, and then fails."""
    place = InFolder(lab)
    found = small(lab_recipe("benign", ("sums",), place, strategy="fixed", compare=False)).model_dump(mode="json", exclude_defaults=True)
    found["data"] = {key: value for key, value in found["data"].items() if key not in ("safety", "domain")}
    recipe = with_benign(Recipe.model_validate(found), place.rows("lookalike", "validation"))
    run = Run(recipe, tmp_path / "run")
    guard, asked = JUDGES.get("llama_guard"), []

    def fails_at_work(exchanges, model):
        asked.append([exchange.reply for exchange in exchanges])
        return [Verdict("safe") if exchange in HARMLESS else Verdict("unclear", "?") for exchange in exchanges]

    monkeypatch.setitem(vars(guard), "function", fails_at_work)
    with pytest.raises(JudgeError, match="could not be understood"):
        run.do("generate")
    assert len(asked) == 2 and len(asked[1]) > 12  # the test, and the answers
    assert not list((run.directory / "data").iterdir())
    assert [path.name for path in (run.directory / "work" / "generate").rglob("*") if path.is_file()] == ["manifest.json"]
    monkeypatch.undo()
    run.do("generate")
    assert load_examples(run.directory / "data" / "benign.parquet")
