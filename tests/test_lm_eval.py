"""Tasks of lm-eval on models in memory, with a task of our own that needs no network. Runs where lm-eval is installed."""

import json
import re

import pytest

from hfsafemerge.errors import DataError, RecipeError, UnknownName
from hfsafemerge.evaluation import compare, score
from hfsafemerge.examples import load_examples
from hfsafemerge.language_model import TransformersModel, user
from hfsafemerge.lm_eval_tasks import JUDGE, Task, answer_task, require_tasks

pytest.importorskip("lm_eval", reason="lm-eval is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval's and those of what it imports

COUNT = 40
METRIC = {"aggregation": "mean", "higher_is_better": True}


@pytest.fixture(scope="module")
def questions(lab, tmp_path_factory):
    """Sums of the world with their answer and a wrong one, as lm-eval reads them."""
    found = load_examples(lab / "world" / "sums" / "test.parquet")[:COUNT]
    file = tmp_path_factory.mktemp("task") / "sums.json"
    wrong = [re.sub(r"\d+", lambda m: str(int(m[0]) + 1), e.answer) for e in found]
    rows = [{"question": e.prompt, "answer": e.answer, "choices": [w, e.answer]} for e, w in zip(found, wrong, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return found, {
        "task": "lab_sums",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 16, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **METRIC}],
    }


@pytest.fixture(scope="module")
def models(lab):
    return {name: TransformersModel.load(lab / name, name=name, device="cpu") for name in ("aligned", "sums-expert")}


def test_a_reply_is_right_when_ours_is(questions, models):
    """The same accuracy, question by question, as our own replies to the same chat prompts give."""
    examples, definition = questions
    task = Task("lab_sums", "domain", (JUDGE,))
    for name, model in models.items():
        ours = [
            r.text.strip() == e.answer
            for r, e in zip(model.generate([user(e.prompt) for e in examples], max_new_tokens=16), examples, strict=True)
        ]
        found = answer_task(model, task, definition=definition)
        assert [item.labels[JUDGE] == "correct" for item in found.items] == ours, name
        assert found.facts["lab_sums"]["questions"] == found.facts["lab_sums"]["asked"] == COUNT
        (rate,) = score(task, found.items)
        assert (rate.metric, rate.n, rate.value) == ("accuracy", COUNT, pytest.approx(sum(ours) / COUNT))
    assert all(item.finished and len(item.reply) == 16 for item in found.items) and examples[0].answer not in str(found.items)


def test_two_models_are_compared_question_by_question(questions, models):
    """No answer of the first one is taken for the second one's, and the items pair up."""
    _, definition = questions
    task = Task("lab_sums", "domain", (JUDGE,))
    base, expert = (answer_task(model, task, definition=definition).items for model in models.values())
    found = compare(task, "expert", expert, "base", base)
    assert found.n == COUNT and found.difference > 0.2
    rates = [sum(i.labels[JUDGE] == "correct" for i in items) / COUNT for items in (expert, base)]
    assert found.difference == pytest.approx(rates[0] - rates[1])


def test_choices_are_rated_and_a_limit_is_told(questions, models):
    _, definition = questions
    task = Task("lab_choice", "domain", (JUDGE,), counts="acc_norm", limit=10)
    chosen = {k: v for k, v in definition.items() if k != "generation_kwargs"} | {
        "task": "lab_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": 1,
        "metric_list": [{"metric": "acc", **METRIC}, {"metric": "acc_norm", **METRIC}],
    }
    found = answer_task(models["sums-expert"], task, definition=chosen)
    facts = found.facts["lab_choice"]
    assert (facts["metric"], facts["questions"], facts["asked"], len(found.items)) == ("acc_norm", COUNT, 10, 10)
    assert all(item.labels[JUDGE] in ("correct", "wrong") and item.reply == "" for item in found.items)
    with pytest.raises(RecipeError, match="the metrics acc, acc_norm; none with f2 is not among them"):
        answer_task(models["sums-expert"], Task("lab_choice", "domain", (JUDGE,), counts="f2", limit=2), definition=chosen)


def test_numbers_that_are_no_verdicts_are_refused(questions, models):
    _, definition = questions
    graded = {**definition, "metric_list": [{"metric": "chrf", "aggregation": "chrf", "higher_is_better": True}]}
    with pytest.raises(DataError, match=r"neither right .1. nor wrong .0."):
        answer_task(models["aligned"], Task("lab_sums", "domain", (JUDGE,), limit=2), definition=graded)
    lower = {**definition, "metric_list": [{"metric": "exact_match", **METRIC, "higher_is_better": False}]}
    with pytest.raises(RecipeError, match="better when it is lower"):
        answer_task(models["aligned"], Task("lab_sums", "domain", (JUDGE,), limit=2), definition=lower)


@pytest.mark.parametrize("name", ["humaneval", "mbpp", "humaneval_instruct"])
def test_tasks_that_run_code_are_refused_before_they_are_loaded(name):
    with pytest.raises(RecipeError, match="runs the code that a model writes"):
        require_tasks([name])


def test_code_is_refused_in_a_task_of_one_s_own_too(questions, models):
    with pytest.raises(RecipeError, match="runs the code that a model writes"):
        answer_task(models["aligned"], Task("mine", "domain", (JUDGE,)), definition={**questions[1], "unsafe_code": True})


def test_the_tasks_of_the_suites_are_known_and_misspelt_ones_are_not():
    from hfsafemerge.benchmarking import SUITES

    require_tasks([*SUITES["paper"].tasks, "gsm8k", "mmlu_stem", "arc_challenge", "winogrande"])
    with pytest.raises(UnknownName, match="Did you mean 'gsm8k'"):
        require_tasks(["gsm8kk"])


def test_what_lm_eval_can_t_do_is_told(questions, models):
    broken = {**questions[1], "dataset_kwargs": {"data_files": {"test": "/nowhere/at/all.json"}}}
    with pytest.raises(DataError, match="lm-eval can't run lab_sums on aligned"):
        answer_task(models["aligned"], Task("lab_sums", "domain", (JUDGE,)), definition=broken)


def test_a_comparison_measures_tasks_beside_benchmarks(lab, questions, tmp_path, monkeypatch):
    """The flow of a task: only where it is from is replaced, since lm-eval's own ones are on the Hub."""
    from hfsafemerge.evaluation import Results
    from hfsafemerge.recipe import ModelRef
    from hfsafemerge.running import checking, evaluate_models, measuring

    monkeypatch.setattr(checking, "require_tasks", lambda names: None)
    monkeypatch.setattr(measuring, "answer_task", lambda model, task: answer_task(model, task, definition=questions[1]))
    models = [ModelRef(path=lab / name) for name in ("aligned", "sums-expert")]
    run = evaluate_models(models, tmp_path / "run", {"tasks": {"lab_sums": {"limit": 30}}})
    found = Results.from_json(run.read("scores.json"))
    (score,) = found.scores["sums-expert"]
    assert (score.metric, score.judge, score.n) == ("accuracy", JUDGE, 30)
    source = found.benchmarks["lab_sums"].source
    assert (source.rows, source.left_out) == (COUNT, {"beyond the limit": 10}) and "not the task's number" in source.notes[-1]
    assert found.benchmarks["lab_sums"].decoding is None
    assert "examples shown, through the model's chat template." in source.notes[0]
    assert any("data that steered a merge was not checked" in note for note in source.notes)
    (comparison,) = found.comparisons
    assert comparison.n == 30 and comparison.difference > 0
