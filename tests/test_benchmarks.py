"""Every registered benchmark on rows with the columns that its dataset documents, pushed to the local Hub; and suites."""

import base64
import json
import shutil
import sys
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from commands import command

from hfsafemerge import hub
from hfsafemerge.benchmarking import BENCHMARKS, SUITES, with_registered
from hfsafemerge.cli.stages import show_scores
from hfsafemerge.errors import Cancelled, DataError, RecipeError, RunError, UnknownName
from hfsafemerge.evaluation import Results
from hfsafemerge.examples import load_examples
from hfsafemerge.judging import Exchange, Verdict
from hfsafemerge.lab.world import REFUSAL
from hfsafemerge.language_model import TransformersModel
from hfsafemerge.recipe import ModelRef, Recipe
from hfsafemerge.running import Run, evaluate_models, inputs
from hfsafemerge.running.comparing import names_of
from hfsafemerge.running.measuring import Verdicts, measure
from hfsafemerge.running.naming import model_ref

HAZARDS = ("animal_abuse", "hate_speech,offensive_language", "violence,aiding_and_abetting,incitement")


def beavertails(i, prompt):
    flags = {name: name == HAZARDS[i % 3] for name in HAZARDS}
    return {"prompt": prompt, "response": "r", "category": flags, "is_safe": i % 4 == 3}


def jailbreakbench(i, prompt):
    return {"Index": i, "Goal": prompt, "Target": "Sure", "Behavior": f"b{i}", "Category": f"c{i % 2}", "Source": "Original"}


def xstest(i, prompt):
    focus = f"word {i // 2}"
    return {"prompt": prompt, "type": f"t{i % 2}", "note": "", "label": "safe" if i % 4 < 2 else "unsafe", "focus": focus}


def do_not_answer(i, prompt):
    return {
        "id": i,
        "risk_area": "a",
        "types_of_harm": f"h{i % 3}",
        "specific_harms": "s",
        "question": prompt,
        "GPT4_response": "r",
        "GPT4_harmful": 0,
        "GPT4_action": 0,
    }


def sorry_bench(i, prompt):
    return {"question_id": i, "category": str(i % 44), "turns": [prompt], "prompt_style": "base" if i % 2 == 0 else "slang"}


def plain(i, prompt):
    return {"prompt": prompt, "category": f"c{i % 2}"}


def strongreject(i, prompt):
    return {"prompt": prompt, "category": f"c{i % 2}", "source": "custom"}


ROWS = {  # what each dataset's rows look like, which rows count, and what the topic of a counted one is
    "beavertails": (beavertails, lambda i: i % 4 != 3, lambda i: HAZARDS[i % 3]),
    "harmbench": (plain, lambda i: True, lambda i: f"c{i % 2}"),
    "jailbreakbench_harmful": (jailbreakbench, lambda i: True, lambda i: f"c{i % 2}"),
    "jailbreakbench_benign": (jailbreakbench, lambda i: True, lambda i: f"c{i % 2}"),
    "strongreject": (strongreject, lambda i: True, lambda i: f"c{i % 2}"),
    "xstest_safe": (xstest, lambda i: i % 4 < 2, lambda i: f"t{i % 2}"),
    "xstest_unsafe": (xstest, lambda i: i % 4 >= 2, lambda i: f"t{i % 2}"),
    "or_bench_hard": (plain, lambda i: True, lambda i: f"c{i % 2}"),
    "or_bench_toxic": (plain, lambda i: True, lambda i: f"c{i % 2}"),
    "do_not_answer": (do_not_answer, lambda i: True, lambda i: f"h{i % 3}"),
    "sorry_bench": (sorry_bench, lambda i: i % 2 == 0, lambda i: str(i % 44)),
    "template_jailbreaks": (jailbreakbench, lambda i: True, None),
}


def publish(name, prompts, folder, repo_id):
    """A dataset of the benchmark's schema, config and split on the Hub; the reference to it."""
    place = dict(BENCHMARKS.get(name).dataset)
    row = ROWS[name][0]
    file = folder / f"{repo_id.rpartition('/')[2]}.parquet"
    pq.write_table(pa.Table.from_pylist([row(i, prompt) for i, prompt in enumerate(prompts)]), file)
    files = {"config_name": place.get("config", "default"), "data_files": [{"split": place["split"], "path": "rows.parquet"}]}
    card = folder / "README.md"
    card.write_text("---\n" + yaml.safe_dump({"license": "mit", "configs": [files]}) + "---\n")
    target = hub.Place(repo_id, "dataset", marker="README.md", private=False)
    hub.publish(target, {"README.md": card, "rows.parquet": file}, "rows")
    return {**{key: value for key, value in place.items() if key != "revision"}, "repo_id": repo_id}


@cache
def world(lab, kind, count):
    return [e.prompt for e in load_examples(lab / "world" / kind / "test.parquet")][:count]


def guards(lab):
    guard = {"model": {"path": str(lab / "guard")}}
    return dict.fromkeys(("qwen3guard", "qwen3guard_refusal", "llama_guard"), guard)


def test_every_benchmark_is_tried_here():
    assert set(ROWS) == set(BENCHMARKS.names())


def test_each_reads_the_rows_of_its_schema(lab, tmp_path, repo_name):
    """All of them in one recipe: checked on the Hub, then read at the commits that were found."""
    prompts = {name: [f"{name} {i} ?" for i in range(12)] for name in ROWS}
    benchmarks = {
        name: {"dataset": publish(name, prompts[name], tmp_path, f"alice/{repo_name}-{name}"), "registered": name} for name in ROWS
    }
    recipe = Recipe.model_validate(
        {
            "name": "all",
            "base": {"path": str(lab / "aligned")},
            "experts": [{"path": str(lab / "sums-expert"), "name": "sums"}],
            "judges": guards(lab),
            "merge": {"method": "linear"},
            "evaluation": {"benchmarks": benchmarks},
        }
    )
    recipe.check()
    run = Run(recipe, tmp_path / "run")
    run.do("check")
    for name, (_, counts, topic) in ROWS.items():
        kept = [i for i in range(12) if counts(i)]
        found = inputs.benchmark_examples(run, name)
        assert {e.kind for e in found} == {BENCHMARKS.get(name).kind}
        assert len(run.read("check.json")["datasets"][f"benchmark {name}"]["commit"]) == 40  # resolved, and locked
        if topic is None:
            assert len(found) == 4 * len(kept) and {e.request for e in found} == set(prompts[name])
            continue
        assert [(e.prompt, e.topic) for e in found] == [(prompts[name][i], topic(i)) for i in kept]
    assert [e.cluster for e in inputs.benchmark_examples(run, "xstest_safe")] == ["word 0"] * 2 + ["word 2"] * 2 + ["word 4"] * 2


def test_a_dataset_of_another_schema_is_refused_in_words(lab, tmp_path, repo_name):
    place = publish("harmbench", ["a ?"], tmp_path, f"alice/{repo_name}")
    recipe = evaluation_recipe(lab, {"strongreject": {"dataset": {**place, "columns": {"topic": "source"}}, "registered": "strongreject"}})
    run = Run(recipe, tmp_path / "run")
    run.do("check")
    with pytest.raises(DataError, match="no column 'source' for the topic"):
        inputs.benchmark_examples(run, "strongreject")


def evaluation_recipe(lab, benchmarks, **more):
    return Recipe.model_validate(
        {
            "name": "b",
            "base": {"path": str(lab / "aligned")},
            "experts": [{"path": str(lab / "sums-expert"), "name": "sums"}],
            "judges": guards(lab),
            "merge": {"method": "linear"},
            "evaluation": {"benchmarks": benchmarks, **more},
        }
    )


# What is registered


def test_revisions_are_whole_commits_or_left_to_the_check():
    for benchmark in BENCHMARKS:
        revision = benchmark.dataset.get("revision")
        assert revision is None or (len(revision) == 40 and int(revision, 16)), benchmark.name
        assert benchmark.license and benchmark.gate and benchmark.metric, benchmark.name


def test_the_wrappers_hold_the_request_and_judges_read_the_request():
    from hfsafemerge.benchmarks.template_jailbreaks import WRAPPERS, wrapped
    from hfsafemerge.evaluation import Benchmark, reply_to
    from hfsafemerge.examples import Example

    found = wrapped(Example("safety", "how do i zorp ? {encoded}"))
    assert [e.topic for e in found] == list(WRAPPERS) and len({e.cluster for e in found}) == 1 and len({e.id for e in found}) == 4
    *others, encoded = found
    assert all("how do i zorp ? {encoded}" in e.prompt for e in others)
    assert base64.b64decode(encoded.prompt.split()[-1]).decode() == "how do i zorp ? {encoded}"

    class Silent:
        name, can_prefill = "silent", False

        def generate(self, conversations, **settings):
            from hfsafemerge.language_model import Reply

            return [Reply("no .", True) for _ in conversations]

        def log_likelihood(self, questions):
            return []

    exchanges, _ = reply_to(Silent(), Benchmark("t", "safety", ("refusal_phrases",)), found)
    assert {exchange.prompt for exchange in exchanges} == {"how do i zorp ? {encoded}"}


# What a recipe says


def test_a_registered_benchmark_is_taken_by_its_name(lab):
    spec = evaluation_recipe(lab, {"xstest_safe": {}}).evaluation.benchmarks["xstest_safe"]
    assert (spec.kind, spec.dataset.repo_id, spec.dataset.where, spec.registered) == (
        "benign",
        "walledai/XSTest",
        {"label": "safe"},
        "xstest_safe",
    )
    mine = evaluation_recipe(lab, {"few": {"registered": "harmbench", "limit": 7, "judges": ["llama_guard"]}}).evaluation.benchmarks["few"]
    assert (mine.registered, mine.limit, mine.judges, mine.dataset.config) == ("harmbench", 7, ("llama_guard",), "standard")


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_a_suite_is_its_benchmarks_and_reads_back_equal(lab, suite):
    recipe = evaluation_recipe(lab, {"harmbench": {"limit": 5}}, suite=suite)
    assert set(recipe.evaluation.benchmarks) == {*SUITES[suite].benchmarks, "harmbench"}
    assert recipe.evaluation.benchmarks["harmbench"].limit == 5 and set(recipe.evaluation.tasks) == set(SUITES[suite].tasks)
    again = Recipe.parse(recipe.to_yaml())
    assert again == recipe and again.fingerprint == recipe.fingerprint


def test_judges_of_open_models_need_no_model_in_the_recipe(lab):
    found = Recipe.model_validate({**evaluation_recipe(lab, {}).model_dump(), "judges": {}, "evaluation": {"suite": "quick"}})
    assert found.judges["qwen3guard"].model.repo_id == "Qwen/Qwen3Guard-Gen-0.6B"
    found.check()
    gated = Recipe.model_validate({**evaluation_recipe(lab, {}).model_dump(), "judges": {}, "evaluation": {"suite": "paper"}})
    with pytest.raises(RecipeError, match="llama_guard, which needs a model"):
        gated.check()


@pytest.mark.parametrize(
    ("evaluation", "told"),
    [
        ("{suite: quik}", "Did you mean 'quick'"),
        ("{benchmarks: {xstest_saef: {}}}", "Did you mean 'xstest_safe'"),
        ("{benchmarks: {mine: {registered: harmbensh}}}", "Did you mean 'harmbench'"),
        (
            "{benchmarks: {mine: {official: true, kind: safety, dataset: {repo_id: a/b}, judges: [refusal_phrases]}}}",
            "official is for a registered",
        ),
        ("{benchmarks: {xstest_safe: {official: true, temperature: 1.0}}}", "leave it or max_new_tokens"),
        ("{benchmarks: {harmbench: {}}, tasks: {harmbench: {}}}", "a benchmark and a task"),
        ("{benchmarks: {harmbench: {limit: 0}}}", "greater than 0"),
        ("{benchmarks: 3}", "dictionary"),
        ("{suite: 3}", "string"),
    ],
)
def test_what_can_t_be_meant_is_told(lab, evaluation, told):
    text = f"{{name: b, base: {{path: {lab}/aligned}}, merge: {{method: passthrough}}, evaluation: {evaluation}}}"
    with pytest.raises(RecipeError, match=told):
        Recipe.parse(text)


def test_the_authors_decoding_is_asked_for(lab):
    ours, theirs, sampled = evaluation_recipe(
        lab,
        {
            "xstest_safe": {},
            "theirs": {"registered": "xstest_safe", "official": True},
            "sampled": {"registered": "strongreject", "official": True},
        },
    ).benchmarks
    assert (ours.max_new_tokens, ours.temperature, ours.samples, ours.system) == (512, 0.0, 1, "")
    assert (theirs.max_new_tokens, theirs.samples, theirs.system) == (256, 1, "You are a helpful assistant.")
    assert (sampled.max_new_tokens, sampled.temperature, sampled.samples) == (2048, 0.75, 3)


def test_entries_that_are_no_mappings_are_left_to_the_fields():
    assert with_registered({"mine": 3}, None) == {"mine": 3}


# Measured for real


@pytest.fixture(scope="module")
def placed(lab, tmp_path_factory):
    """A safety and a benign benchmark of the registered schemas with the world's prompts, and a domain of the lab's own."""
    folder = tmp_path_factory.mktemp("placed")
    harmful = publish("harmbench", world(lab, "harmful", 30), folder, "alice/test-benchmarks-harmful")
    wrapped = publish("template_jailbreaks", world(lab, "harmful", 4), folder, "alice/test-benchmarks-wrapped")
    harmless = publish("xstest_safe", world(lab, "lookalike", 40), folder, "alice/test-benchmarks-harmless")
    sums = {"path": str(lab / "world" / "sums" / "test.parquet")}
    short = {"max_new_tokens": 16}
    return {
        "harmbench": {"registered": "harmbench", "dataset": harmful, "judges": ["llama_guard", "refusal_phrases"], **short},
        "template_jailbreaks": {"registered": "template_jailbreaks", "dataset": wrapped, "judges": ["refusal_phrases"], **short},
        "xstest_safe": {"registered": "xstest_safe", "dataset": harmless, "judges": ["refusal_phrases"], **short},
        "sums": {"kind": "domain", "dataset": sums, "judges": ["exact_match"], "limit": 30, **short},
    }


ERRORS = {"caught": 45, "unsafe": 50, "passed": 98, "safe": 100, "source": "alice/labelled@1"}


def measured(lab, directory, placed, listener=lambda event: None, **settings):
    models = [ModelRef(path=lab / "aligned"), ModelRef(path=lab / "sums-expert")]
    given = {"judges": {"llama_guard": guards(lab)["llama_guard"]}, "listener": listener, **settings}
    return evaluate_models(models, directory, {"benchmarks": placed, "judge_errors": {"llama_guard": ERRORS}}, **given)


@pytest.fixture(scope="module")
def compared(lab, placed, tmp_path_factory):
    return measured(lab, tmp_path_factory.mktemp("compared") / "run", placed)


def test_two_models_are_measured_without_a_merge(lab, compared):
    results = Results.from_json(compared.read("scores.json"))
    assert list(results.scores) == ["aligned", "sums-expert"] and results.reference == "aligned"
    rates = {(name, s.benchmark, s.judge): s for name, found in results.scores.items() for s in found}
    for name in results.scores:  # counted by hand from the model's own replies
        model = TransformersModel.load(lab / name, name=name, device="cpu")
        for benchmark, kind, count, at in (
            ("harmbench", "harmful", 30, range(30)),
            ("xstest_safe", "lookalike", 40, [i for i in range(40) if i % 4 < 2]),
        ):
            prompts = [world(lab, kind, count)[i] for i in at]
            replies = model.generate([[{"role": "user", "content": p}] for p in prompts], max_new_tokens=16)
            refused = sum(reply.text.strip() == REFUSAL for reply in replies) / len(prompts)
            score = rates[name, benchmark, "refusal_phrases"]
            assert (score.value, score.n) == (pytest.approx(refused), len(prompts))
    assert rates["aligned", "harmbench", "llama_guard"].value == 1 and rates["sums-expert", "harmbench", "llama_guard"].value < 0.5
    assert {(c.model, c.other, c.benchmark) for c in results.comparisons} == {
        ("sums-expert", "aligned", name) for name in ("harmbench", "template_jailbreaks", "xstest_safe", "sums")
    }
    assert next(c for c in results.comparisons if c.benchmark == "harmbench").non_inferior is False
    assert (
        rates["aligned", "template_jailbreaks", "refusal_phrases"].n == 16
        and len(rates["aligned", "template_jailbreaks", "refusal_phrases"].categories) == 4
    )
    assert {p.name for p in compared.directory.glob("*.png")} == {"alignment.png", "refusals.png", "categories.png"}


def test_rates_are_corrected_where_a_judge_s_errors_are_known(compared):
    results = Results.from_json(compared.read("scores.json"))
    corrected = {s.judge: s.corrected for s in results.scores["sums-expert"] if s.benchmark == "harmbench"}
    unsafe = 1 - next(s.value for s in results.scores["sums-expert"] if (s.benchmark, s.judge) == ("harmbench", "llama_guard"))
    assert corrected["refusal_phrases"] is None
    assert corrected["llama_guard"].value == pytest.approx(min(1.0, (unsafe + 0.98 - 1) / (0.9 + 0.98 - 1)))  # Rogan and Gladen 1978


@pytest.mark.parametrize(
    ("errors", "message"),
    [({"llama_gard": ERRORS}, "llama_gard"), ({"llama_guard": {**ERRORS, "caught": 1}}, "no better than chance")],
)
def test_errors_of_judges_that_help_nothing_are_refused(lab, placed, tmp_path, errors, message):
    with pytest.raises(RecipeError, match=message):
        evaluate_models(
            [ModelRef(path=lab / "aligned")],
            tmp_path / "run",
            {"benchmarks": placed, "judge_errors": errors},
            judges={"llama_guard": guards(lab)["llama_guard"]},
        )


def test_what_to_know_of_a_benchmark_stands_beside_its_numbers(compared):
    setups = Results.from_json(compared.read("scores.json")).benchmarks
    assert setups["harmbench"].source.license == "mit" and "direct requests" in setups["harmbench"].source.notes[0]
    assert setups["xstest_safe"].source.left_out == {"of another kind": 20} and setups["xstest_safe"].source.rows == 40
    assert setups["sums"].source.left_out == {"beyond the limit": 270} and "not the benchmark's number" in setups["sums"].source.notes[0]
    assert len(setups["harmbench"].source.dataset.partition("@")[2]) == 12 and setups["harmbench"].judges["llama_guard"].startswith(
        "guard@"
    )


def test_no_reply_and_no_prompt_is_on_the_disk(lab, compared):
    kept = "".join(p.read_text(errors="replace") for p in compared.directory.rglob("*") if p.suffix in (".json", ".jsonl", ".yaml"))
    assert REFUSAL not in kept and world(lab, "harmful", 1)[0] not in kept and '"reply": "' in kept


def test_a_comparison_is_no_merge(compared):
    with pytest.raises(RunError, match="no run directory"):
        Run.open(compared.directory)


def test_a_stopped_comparison_goes_on_and_asks_no_judge_twice(lab, placed, compared, tmp_path):
    events, stop = [], "aligned on harmbench: judged by llama_guard"
    directory = tmp_path / "run"

    def listener(event):
        events.append(event.message)
        if event.message == stop and events.count(stop) == 1:
            (directory / "cancel").touch()

    with pytest.raises(Cancelled):
        measured(lab, directory, placed, listener)
    kept = json.loads((directory / "work" / "evaluate" / "aligned" / "judge-llama_guard.json").read_text())
    assert len(kept) == 30 and {v["reason"] for v in kept.values()} == {""}
    run = measured(lab, directory, placed, listener)
    for file in ("scores.json", "labels.json"):
        assert run.read(file) == compared.read(file)


def test_verdicts_are_kept_by_what_was_judged_and_unclear_ones_are_not(tmp_path):
    asked = []

    def judge(exchanges):
        asked.extend(exchanges)
        return [Verdict("unclear", "what ?") if e.reply == "odd" else Verdict("safe", p_unsafe=0.25) for e in exchanges]

    many = [Exchange("p", f"reply {i}") for i in range(99)]
    first = Verdicts(tmp_path / "v.json")
    first.judge("guard", judge, [*many, many[0], Exchange("p", "odd")])
    assert len(asked) == 100 and first([many[0]])[0].p_unsafe == 0.25 and first([Exchange("p", "odd")])[0].label == "unclear"
    assert "what ?" not in (tmp_path / "v.json").read_text() and "reply 1" not in (tmp_path / "v.json").read_text()
    again = Verdicts(tmp_path / "v.json")
    again.judge("guard", judge, [*many, Exchange("p", "odd")])
    assert asked[100:] == [Exchange("p", "odd")] and again(many) == first(many)


def test_a_judge_that_chose_the_data_must_not_measure_alone(lab):
    from hfsafemerge.running.describing import circular

    data = {"safety": {"examples": {"path": "x.parquet"}}, "judges": ["llama_guard", "refusal_phrases"]}

    def notes(judges, named=None):
        given = evaluation_recipe(lab, {"harmbench": {"judges": judges}}).model_dump(mode="json", exclude_defaults=True)
        recipe = Recipe.model_validate(
            {**given, "data": data, "judges": named or {**guards(lab), "qwen3guard": {"model": {"repo_id": "a/b"}}}}
        )
        return circular(recipe, recipe.benchmarks[0])

    assert "overlooked twice" in notes(["llama_guard", "refusal_phrases"])[0]
    assert notes(["llama_guard", "qwen3guard"]) == [] and notes(["qwen3guard", "llama_guard"]) == []
    assert "overlooked twice" in notes(["qwen3guard"], guards(lab))[0]  # another name for the same model


@pytest.mark.parametrize(
    ("models", "evaluation", "told"),
    [
        ([], {"suite": "quick"}, "at least one"),
        (["aligned"], {}, "nothing to measure"),
        (["aligned", "aligned"], {"suite": "quick"}, "named twice"),
        (["aligned"], {"suite": "quik"}, "Did you mean 'quick'"),
        (["aligned"], {"suite": "paper"}, "llama_guard, which needs a model"),
    ],
)
def test_what_can_t_be_compared_is_told(lab, tmp_path, models, evaluation, told):
    with pytest.raises(RecipeError, match=told):
        evaluate_models([ModelRef(path=lab / name) for name in models], tmp_path / "run", evaluation)


def test_tasks_without_lm_eval_are_told_before_any_work(lab, tmp_path, monkeypatch):
    from hfsafemerge import lm_eval_tasks

    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as where it is not installed
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    lm_eval_tasks._manager.cache_clear()
    with pytest.raises(RecipeError, match=r"pip install 'hfsafemerge\[lm-eval\]'"):
        evaluate_models([ModelRef(path=lab / "aligned")], tmp_path / "run", {"tasks": {"gsm8k": {}}})
    assert not (tmp_path / "run" / "check.json").exists()


def test_the_command_measures_models_and_wants_to_know_on_what(lab, working_directory):
    aligned = lab / "aligned"
    for arguments, told in (
        ([aligned], "--suite quick"),
        ([aligned, "--suite", "quick", "--judge", "qwen3guard"], "JUDGE=MODEL"),
        ([aligned, "--suite", "quick", "--judge", "qwen3guard="], "JUDGE=MODEL"),
        ([aligned, "--suite", "quick", "--judge", "qwen3guard=a/b", "--judge", "qwen3guard=a/c"], "twice"),
    ):
        done = command("evaluate", *arguments)
        assert done.returncode == 1 and told in done.stderr
    with pytest.raises(RecipeError, match=r"'org/a--b': repo_id: .*--"):
        model_ref("org/a--b")
    for text in ("", "not a model", "gpt2", "a/b/c", "a/b@", "https://x.org/a/b"):
        with pytest.raises(RecipeError, match="no folder, and no repository"):
            model_ref(text)
    assert (model_ref("me/mine@v1").repo_id, model_ref("me/mine@v1").revision) == ("me/mine", "v1")
    done = command("evaluate", aligned, "--benchmark", "harmbench", f"--judge=qwen3guard={lab / 'guard'}")
    assert done.returncode == 1 and "walledai/HarmBench" in done.stderr  # which is not on this Hub


@pytest.mark.parametrize("options", [["--judge", "qwen3guard=a/b"], ["--limit", "3"], ["--device", "cpu"]])
def test_options_for_models_are_refused_with_a_recipe(working_directory, options):
    done = command("evaluate", "recipe.yaml", *options)
    assert done.returncode == 2 and f"{options[0]} is for models without a recipe" in done.stderr


@pytest.mark.parametrize(
    ("judge", "error", "told"),
    [
        ("qwen3gaurd", UnknownName, "Did you mean 'qwen3guard'"),
        ("llama_guard", RecipeError, "Nothing here is judged by llama_guard: the benchmarks ask qwen3guard, refusal_phrases"),
        ("refusal_phrases", RecipeError, "is a rule"),
    ],
)
def test_a_judge_that_has_no_part_is_told(lab, tmp_path, judge, error, told):
    with pytest.raises(error, match=told):
        evaluate_models(
            [ModelRef(path=lab / "aligned")], tmp_path / "run", {"benchmarks": {"harmbench": {}}}, judges={judge: guards(lab)["qwen3guard"]}
        )


def test_the_help_s_example_names_a_judge_that_is_asked():
    line = command("evaluate", "--help").stdout.partition("Examples")[2].split()  # however it is wrapped
    benchmark, judge = (line[line.index(option) + 1] for option in ("--benchmark", "--judge"))
    assert judge.partition("=")[0] in BENCHMARKS.get(benchmark).judges


# What models are called, and which they are


def test_models_are_called_by_as_much_as_tells_them_apart(tmp_path, monkeypatch):
    def names(*places):
        return names_of([model_ref(place) for place in places])

    (tmp_path / "runs" / "my model").mkdir(parents=True)
    for name in ("base", "merged", "modèle"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "runs" / "my model")
    assert names(".", "../../base", "../../merged") == ["my-model", f"{tmp_path.name}--base", f"{tmp_path.name}--merged"]
    assert names("..", "../my model/", "../../modèle") == ["runs", "my-model", "mod-le"]
    assert names("a/x", "b/x", "b/y") == ["a--x", "b--x", "y"]
    assert names("a/x", "a/x@v1", "a/x@refs/pr/2") == ["x", "x-v1", "x-refs-pr-2"]
    assert names("a/x@v1", "b/x@v1") == ["a--x-v1", "b--x-v1"] and names("a/x@v1", "a/merged") == ["x", "a--merged"]
    assert names("a/x", "a/x") == ["a--x", "a--x"]  # which is refused


def test_a_model_called_base_is_measured_itself(lab, placed, tmp_path):
    (tmp_path / "of").mkdir()
    for name in ("base", "merged"):
        shutil.copytree(lab / "sums-expert", tmp_path / "of" / name)
    models = [ModelRef(path=place) for place in (lab / "aligned", tmp_path / "of" / "base", tmp_path / "of" / "merged")]
    run = evaluate_models(models, tmp_path / "run", {"benchmarks": {"sums": placed["sums"]}})
    aligned, *others = [found[0]["value"] for found in run.read("scores.json")["scores"].values()]
    assert list(run.read("scores.json")["scores"]) == ["aligned", "of--base", "of--merged"]
    assert others[0] == others[1] > aligned


def test_scores_of_a_folder_that_has_changed_are_not_taken_for_its_own(lab, placed, tmp_path):
    model, directory = tmp_path / "model", tmp_path / "model" / "runs" / "comparison"  # a run's directory may be within it
    shutil.copytree(lab / "sums-expert", model)

    def go(listener=lambda event: None):
        models = [ModelRef(path=lab / "aligned"), ModelRef(path=model)]
        return evaluate_models(models, directory, {"benchmarks": {"sums": placed["sums"]}}, listener=listener)

    def stop(event):
        if event.message == "aligned on sums: judged by exact_match":
            (directory / "cancel").touch()

    with pytest.raises(Cancelled):
        go(stop)
    run = go()
    assert go().read("scores.json") == run.read("scores.json")  # nothing has changed
    measure(run, "model")
    shutil.copyfile(lab / "aligned" / "model.safetensors", model / "model.safetensors")
    with pytest.raises(RunError, match="has changed since the run was checked"):
        go()
    with pytest.raises(RunError, match="has changed since"):
        measure(run, "model")  # of which every item was kept


def test_two_judges_of_one_metric_stand_side_by_side(capsys):
    class Found:
        def read(self, file):
            def rate(judge, value):
                return {
                    "benchmark": "h",
                    "metric": "alignment",
                    "judge": judge,
                    "value": value,
                    "n": 9,
                    "ci95": [0.0, 1.0],
                    "better": "higher",
                }

            refusals = {**rate("refusal_phrases", 0.5), "metric": "refusal_rate"}
            return {"scores": {"m": [rate("llama_guard", 0.25), rate("qwen3guard", 0.75), refusals]}}

    show_scores(Found())
    shown = capsys.readouterr().out
    for text in ("h alignment (llama_guard)", "25.0", "h alignment (qwen3guard)", "75.0", "h refusal rate", "50.0"):
        assert text.lower() in shown.lower()
