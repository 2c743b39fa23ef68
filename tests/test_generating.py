"""The stage generate in the lab: consent, steps that go on where they were stopped, tokens, presets, and what it would take."""

import json

import pytest
from test_run import changed, small

from hfsafemerge.errors import BudgetSpent, Cancelled, DataError, RecipeError
from hfsafemerge.examples import Example, load_examples, normalised, save_examples
from hfsafemerge.generation import Kept, read_rows
from hfsafemerge.judging import HARMLESS, JUDGES, Verdict
from hfsafemerge.lab.behaviour import ASK_DOMAIN, PREFILL
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.lab.world import HAZARDS, REFUSAL
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, inputs
from hfsafemerge.running.estimating import estimate
from hfsafemerge.running.generating import REPORT

KINDS = ("safety", "domain")
VERDICTS = "llama_guard: safe; refusal_phrases: refused"


@pytest.fixture(scope="module")
def recipe(lab):
    return small(lab_recipe("pair", ("sums",), InFolder(lab), strategy="fixed", compare=False))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """A run whose data nobody disturbed, and its events."""
    events = []
    run = Run(recipe, tmp_path_factory.mktemp("whole") / "run", events.append, allow_writer=True)
    run.do("generate")
    return run, events


def data_of(run):
    return {kind: load_examples(run.directory / "data" / f"{kind}.parquet") for kind in KINDS}


def with_data(recipe, **parts):
    """The recipe with other data."""
    found = recipe.model_dump(mode="json", exclude_defaults=True)["data"]
    made = changed(recipe, data={key: value for key, value in (found | parts).items() if value is not None})
    made.check()
    return made


# What is made


def test_rows_say_how_they_came_about(whole):
    run, _ = whole
    safety, domain = data_of(run).values()
    assert {e.answer for e in safety} == {REFUSAL} and {e.topic for e in safety} <= set(HAZARDS) and {e.topic for e in domain} == {"sums"}
    assert {e.provenance.verdicts for e in safety} == {VERDICTS} and {e.provenance.verdicts for e in domain} == {"llama_guard: safe"}
    assert {e.provenance.response_type for e in safety} == {"refusal"} and {e.provenance.response_type for e in domain} == {"answer"}
    for rows in (safety, domain):
        assert len({e.provenance.row for e in rows}) == len(rows) and {e.provenance.sampling for e in rows} == {"temperature 0.8"}
        assert all(e.provenance.seed == int(e.provenance.row, 16) >> 1 and e.provenance.n_tokens > 0 for e in rows)
    assert {e.provenance.responder for e in domain} == {e.provenance.generator for e in domain} == {inputs.label(run, "sums")}


def test_the_report_is_a_funnel_that_adds_up(whole):
    run, _ = whole
    report = run.read(REPORT)
    safety, domain = report["safety"], report["domain"]["experts"]["sums"]
    assert safety["questions"]["kept"] == 24 == domain["questions"]["kept"]
    assert all(sum(counts.values()) == 24 for counts in (*safety["replies"].values(), domain["answers"]))
    assert {name: counts.get("kept", 0) for name, counts in safety["replies"].items()} == safety["refused"]
    assert safety["kept"] == len(data_of(run)["safety"]) and report["domain"]["kept"] == domain["answered"] == len(data_of(run)["domain"])
    assert all(count > 0 for kind in KINDS for count in report[kind]["tokens"].values())
    assert report["domain"]["vetted"] is True and domain["answers"].keys() <= {"kept", "cut off", "empty"}  # the guard minds none


def test_events_tell_acceptance_and_tokens(whole):
    run, events = whole
    told = [event for event in events if event.message.startswith("harmful questions (")]
    assert (told[0].done, told[0].total, told[-1].done) == (0, 24, 24) and "% of " in told[-1].message
    spent = [int(e.message.split()[-2].replace(",", "").lstrip("(")) for e in events if e.message.endswith("tokens)")]
    totals = [sum(run.read(REPORT)[kind]["tokens"].values()) for kind in KINDS]
    assert spent == sorted(spent) and spent[-1] == sum(totals)
    assert all(event.left is not None and event.eta == event.left for event in told if event.done > 0)


# Consent


def test_a_model_that_writes_harmful_questions_has_to_be_allowed(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run")
    with pytest.raises(RecipeError, match=r"lets a model write harmful questions\. .*hfsafemerge generate RECIPE --allow-writer"):
        run.do("generate")
    assert not list((run.directory / "work" / "generate").rglob("*.jsonl"))
    with pytest.raises(RecipeError, match="lets a model write"):  # to have been allowed once is remembered nowhere
        Run.open(run.directory).do("generate")
    allowed = Run.open(run.directory, lambda e: allowed.cancel() if e.message.startswith("refusals of base (") else None, allow_writer=True)
    with pytest.raises(Cancelled):
        allowed.do("generate")
    Run.open(run.directory).do("generate")  # nothing is left to write


def test_ready_prompts_need_no_consent(lab, tmp_path):
    run = Run(small(lab_recipe("ready", ("sums",), InFolder(lab), strategy="fixed", writer=False, compare=False)), tmp_path / "run")
    run.do("generate")
    safety = load_examples(run.directory / "data" / "safety.parquet")
    assert safety and {e.provenance.generator.split("@")[0] for e in safety} == {"validation.parquet"}
    assert all((e.provenance.sampling, e.provenance.verdicts) == ("", VERDICTS) for e in safety)


# Going on


def stop_after(events, file):
    """A listener that cancels the stage after so many events."""
    left = iter([*[False] * events, *[True] * 100])

    def listen(event):
        if event.stage == "generate" and event.message != "started" and next(left):
            file.touch()

    return listen


def test_stopped_at_every_event_the_stage_makes_the_same_rows(whole, recipe, tmp_path, monkeypatch):
    undisturbed, events = whole
    loaded, load = [], inputs.language_model
    monkeypatch.setattr(inputs, "language_model", lambda run, role: loaded.append(role) or load(run, role))
    for stops in range(100):
        run = Run(recipe, tmp_path / "run", stop_after(stops, tmp_path / "run" / "cancel"), allow_writer=True)
        try:
            run.do("generate")
        except Cancelled:
            continue
        break
    assert stops >= 8  # a step that is done tells one event, so a run gets further each time
    assert data_of(run) == data_of(undisturbed) and run.read(REPORT) == undisturbed.read(REPORT)
    assert set(loaded) == {"question writer", "base", "sums", "judge llama_guard"}
    works = {
        "question writer": "harmful questions (",
        "base": "refusals of base (",
        "sums": ("refusals of s", "questions about s", "answers of s"),
    }
    for role, tells in works.items():  # how many rounds they need follows from the seeds, and these from where the lab is
        assert loaded.count(role) <= sum(event.message.startswith(tells) and event.done > 0 for event in events)


def test_a_budget_of_tokens_stops_the_stage_and_a_larger_one_goes_on(whole, recipe, tmp_path):
    undisturbed, _ = whole
    total = sum(sum(undisturbed.read(REPORT)[kind]["tokens"].values()) for kind in KINDS)
    spent = []
    for limit in (1, total // 3, total * 2 // 3):
        run = Run(with_data(recipe, max_tokens=limit), tmp_path / "run", allow_writer=True)
        with pytest.raises(
            BudgetSpent, match=rf"data\.max_tokens is {limit:,}\. The (writing|answering) .* stands at \d+ of 24\."
        ) as error:
            run.do("generate")
        assert error.value.exit_code != 0
        rows = [row for step in (run.directory / "work" / "generate").iterdir() for row in read_rows(step)]
        spent.append(sum(row.read + row.written + row.judged for row in rows))
        assert spent[-1] >= limit
    assert spent == sorted(spent)
    run = Run(with_data(recipe, max_tokens=total), tmp_path / "run", allow_writer=True)  # and nobody had to say --redo
    run.do("generate")
    assert data_of(run) == data_of(undisturbed) and run.read(REPORT) == undisturbed.read(REPORT)


def test_how_much_may_be_rejected_or_spent_changes_no_row(recipe):
    stage = {"base": recipe, "tokens": with_data(recipe, max_tokens=5), "rejected": with_data(recipe, max_rejected=0.1)}
    stage["count"], stage["length"] = with_data(recipe, count=25), with_data(recipe, max_new_tokens=17)
    prints = {name: fingerprints(found) for name, found in stage.items()}
    assert prints["base"] == prints["tokens"] == prints["rejected"]
    assert prints["base"]["check"] == prints["count"]["check"] != prints["length"]["check"]
    assert len({prints[name]["generate"] for name in ("base", "count", "length")}) == 3


def fingerprints(recipe):
    from pathlib import Path
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        run = Run(recipe, Path(folder) / "run")
        return {name: run.fingerprint(name) for name in ("check", "generate", "evaluate")}


def test_how_a_server_is_waited_for_changes_no_row(recipe):
    def served(**settings):
        endpoint = {"url": "http://127.0.0.1:8000/v1", **settings}
        return fingerprints(changed(recipe, base={**recipe.base.model_dump(mode="json", exclude_defaults=True), "endpoint": endpoint}))

    assert served() == served(timeout=5, retries=9, parallel=2, requests_per_minute=3, price_read=1, price_written=2, key="KEY")
    assert served() != served(url="http://127.0.0.1:8001/v1") and served() != served(model="x") and served() != fingerprints(recipe)


# What goes wrong


def test_when_no_model_refuses_only_numbers_are_told(recipe, lab, tmp_path):
    place = InFolder(lab)
    found = changed(
        recipe,
        base=place.model("reverse-expert"),
        data={"count": 24, "max_new_tokens": 16, "safety": {"questions": place.rows("harmful", "validation")}},
    )
    run = Run(found, tmp_path / "run")
    with pytest.raises(
        DataError,
        match=r"No model refuses any of 24 harmful questions \(reverse-expert@local-\w+: .*unsafe.*; sums-expert@local-\w+: .*\)",
    ):
        run.do("generate")
    verbs = [verb for verbs in HAZARDS.values() for verb in verbs]
    written = [path.read_text() for path in run.directory.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    assert written and not any(f"{verb} the" in text for verb in verbs for text in written)


def test_a_dataset_without_the_column_says_what_it_has(recipe, lab, tmp_path):
    rows = {**InFolder(lab).rows("harmful", "validation"), "columns": {"prompt": "question"}}
    with pytest.raises(DataError, match=r"no column 'question' for the prompt; it has 'id', 'kind', 'topic', 'prompt'"):
        Run(with_data(recipe, safety={"questions": rows}), tmp_path / "run").do("generate")


def test_a_model_without_a_chat_template_says_so(recipe, lab, tmp_path):
    import shutil

    shutil.copytree(lab / "question-writer", tmp_path / "writer", ignore=shutil.ignore_patterns("chat_template.jinja"))
    settings = json.loads((tmp_path / "writer" / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (tmp_path / "writer" / "tokenizer_config.json").write_text(json.dumps(settings))
    safety = recipe.data.safety.model_dump(mode="json", exclude_defaults=True) | {"writer": {"path": str(tmp_path / "writer")}}
    with pytest.raises(DataError, match=r"writer@local-\w+ has no chat template"):
        Run(with_data(recipe, safety=safety), tmp_path / "run", allow_writer=True).do("generate")


def test_a_writer_that_can_not_write_is_given_up(recipe, lab, tmp_path):
    safety = recipe.data.safety.model_dump(mode="json", exclude_defaults=True) | {"writer": {"path": str(lab / "guard")}, "prefill": ""}
    run = Run(with_data(recipe, safety=safety), tmp_path / "run", allow_writer=True)
    with pytest.raises(DataError, match=r"replies of guard@local-\w+ hold no question \(.*more than the share data\.max_rejected = 0\.5"):
        run.do("generate")
    assert not any(isinstance(row, Kept) for row in read_rows(run.directory / "work" / "generate" / "safety-questions"))


# Domain data


def test_without_a_guard_the_domain_data_are_judged_by_nobody_and_it_is_said(recipe, tmp_path):
    events = []
    run = Run(changed(with_data(recipe, safety=None, count=6), judges={}, evaluation={}), tmp_path / "run", events.append)
    run.do("generate")
    report = run.read(REPORT)["domain"]
    made = load_examples(run.directory / "data" / "domain.parquet")
    assert report["vetted"] is False and report["tokens"]["judged"] == 0
    assert made and {(e.provenance.judges, e.provenance.verdicts) for e in made} == {("", "")}
    assert sum(event.message.startswith("nobody judges the domain data") for event in events) == 1


def test_what_a_guard_objects_to_is_no_domain_data(recipe, tmp_path, monkeypatch):
    """A guard that finds even numbers unsafe: such answers are counted, and nowhere."""

    def odd(exchanges, model):
        return [Verdict("unsafe" if e.reply.rsplit(" ", 1)[-1] in ("0", "2", "4", "6", "8", "10", "12") else "safe") for e in exchanges]

    monkeypatch.setitem(vars(JUDGES.get("llama_guard")), "function", odd)
    run = Run(with_data(recipe, count=24), tmp_path / "run", allow_writer=True)
    run.do("generate")
    kept = load_examples(run.directory / "data" / "domain.parquet")
    report = run.read(REPORT)["domain"]["experts"]["sums"]
    assert kept and all(int(e.answer.rsplit(" ", 1)[-1]) % 2 for e in kept if e.answer.rsplit(" ", 1)[-1].isdigit())
    assert 0 < report["answers"]["unsafe"] == report["questions"]["kept"] - len(kept)


# Benign data


def test_a_model_can_write_benign_questions_and_ready_ones_are_vetted(recipe, lab, tmp_path):
    prompt = ASK_DOMAIN.replace("{plain_examples}", "what is 1 red lorch plus 2 ? " * 3) + " {topic}"
    benign = {"writer": InFolder(lab).model("sums-expert"), "prompt": prompt, "prefill": PREFILL, "topics": ["sums"]}
    run = Run(with_data(recipe, safety=None, domain=None, benign=benign, count=12), tmp_path / "run")  # harmless: no consent
    run.do("generate")
    made = load_examples(run.directory / "data" / "benign.parquet")
    assert made and {e.provenance.generator for e in made} == {inputs.label(run, "benign question writer")}
    assert {e.provenance.verdicts for e in made} == {"llama_guard: safe; refusal_phrases: complied"}
    assert {e.provenance.response_type for e in made} == {"help"}
    mixed = [*made, *(Example("benign", f"{e.prompt} now", REFUSAL) for e in made[:3])]
    save_examples(tmp_path / "ready.parquet", mixed)
    ready = {"examples": {"path": str(tmp_path / "ready.parquet")}}
    again = Run(with_data(recipe, safety=None, domain=None, benign=ready, duplicates={"similarity": None}), tmp_path / "again")
    again.do("generate")
    assert again.read(REPORT)["benign"]["answers"] == {"kept": len(made), "refused": 3}
    assert {e.prompt for e in load_examples(again.directory / "data" / "benign.parquet")} == {e.prompt for e in made}


# Recipes


def test_the_paper_s_settings_are_a_preset(recipe):
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    paper = {"preset": "paper", "domain": found["data"]["domain"]}
    made = with_data(recipe, safety=None, count=None, max_new_tokens=None, **paper)
    assert made.data.duplicates.similarity is None and (made.data.count, made.data.max_new_tokens) == (1000, 512)
    assert Recipe.parse(made.to_yaml()) == made
    assert with_data(recipe, safety=None).data.duplicates.similarity == 0.8


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"count": 24}, r"data\.count is 24, and 1000 in the paper"),
        ({"max_new_tokens": 16}, r"data\.max_new_tokens is 16, and 512"),
        ({"duplicates": {"similarity": 0.9}}, r"data\.duplicates\.similarity is 0.9, and None"),
        ({"duplicates": {}}, r"data\.duplicates\.similarity is 0.8, and None"),
        ({"safety": {"temperature": 1.0}}, r"data\.safety\.temperature is 1\.0, and 0\.8"),
        ({"safety": {"question_tokens": 64}}, r"data\.safety\.question_tokens is 64, and 512"),
        ({"domain": {"question_tokens": 512}}, r"data\.domain\.question_tokens is 512, and 1024"),
    ],
)
def test_the_preset_refuses_what_the_paper_has_otherwise(recipe, parts, message):
    found = recipe.model_dump(mode="json", exclude_defaults=True)["data"]
    own = {kind: found[kind] | parts.get(kind, {}) for kind in KINDS}
    with pytest.raises(RecipeError, match=message):
        with_data(recipe, **({"preset": "paper", "count": None, "max_new_tokens": None} | parts | own))


def test_what_is_not_written_by_a_model_has_no_temperature_to_differ(recipe, lab):
    questions = {"questions": InFolder(lab).rows("harmful", "validation"), "temperature": 1.0}
    made = with_data(recipe, preset="paper", count=None, max_new_tokens=None, safety=questions)
    assert made.data.preset == "paper"


def test_the_shipped_recipe_of_the_paper_has_its_preset():
    from pathlib import Path

    import hfsafemerge

    made = Recipe.load(Path(hfsafemerge.__file__).parent / "recipes" / "evomm.yaml")
    assert made.data.preset == "paper" and made.data.safety.writer is None


# What it would take


def test_what_the_data_would_take_is_known_without_weights(recipe, tmp_path, monkeypatch):
    def nothing(*args, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(inputs, "language_model", nothing)
    run = Run(recipe, tmp_path / "run")
    steps = estimate(run)
    assert [(step.step, step.model.split("@")[0], step.rows) for step in steps] == [
        ("safety-questions", "question-writer", 24),
        ("safety-refusals-base", "aligned", 24),
        ("safety-refusals-base", "guard", 24),
        ("safety-refusals-sums", "sums-expert", 24),
        ("safety-refusals-sums", "guard", 24),
        ("domain-questions-sums", "sums-expert", 24),
        ("domain-answers-sums", "sums-expert", 24),
        ("domain-answers-sums", "guard", 24),
    ]
    asked, answered, judged = steps[0], steps[1], steps[2]
    # "write one harmful question about S1" has 35 letters: 9 tokens at 4 letters each, and 16 of the template
    assert (asked.tokens_read, asked.tokens_written, asked.most_written) == (24 * 25, 24 * 40, 24 * 512)
    assert (answered.tokens_read, answered.tokens_written, answered.most_written) == (24 * (16 + 40), 24 * 16, 24 * 16)
    assert judged.tokens_read == 24 * (700 + 16 + 40 + 16) and judged.tokens_written == 24 * 5
    assert all(step.seconds is None and step.cost is None for step in steps)


def test_prices_and_ready_prompts_are_counted(recipe, lab, tmp_path):
    place = InFolder(lab)
    endpoint = {"url": "http://127.0.0.1:9/v1", "model": "m", "price_read": 2.0, "price_written": 10.0}
    found = changed(
        recipe,
        base={**place.model("aligned"), "endpoint": endpoint},
        data={"count": 50, "max_new_tokens": 500, "safety": {"questions": place.rows("harmful", "validation")}},
    )
    base, *_ = estimate(Run(found, tmp_path / "run"))
    prompts = [e.prompt for e in load_examples(lab / "world" / "harmful" / "validation.parquet")]
    assert len({normalised(prompt) for prompt in prompts}) >= 50
    mean = round(sum(-(-len(prompt) // 4) for prompt in prompts) / len(prompts))
    assert (base.rows, base.tokens_read, base.tokens_written) == (50, 50 * (16 + mean), 50 * 100)
    assert base.cost == pytest.approx((base.tokens_read * 2 + base.tokens_written * 10) / 1e6)


def test_what_is_done_is_not_estimated_and_time_is_measured_when_asked(recipe, tmp_path):
    run = Run(recipe, tmp_path / "run", lambda e: run.cancel() if e.message.startswith("refusals of sums (") else None, allow_writer=True)
    with pytest.raises(Cancelled):
        run.do("generate")
    steps = estimate(run, measure=True)
    assert [step.step for step in steps] == [
        "safety-refusals-sums",
        "safety-refusals-sums",
        "domain-questions-sums",
        *["domain-answers-sums"] * 2,
    ]
    assert all(step.seconds > 0 for step in steps)
    assert not any("harm" in exchange.prompt for exchange in HARMLESS)


def test_experts_write_the_user_s_turn_where_the_recipe_says_magpie(lab, tmp_path):
    """The lab's models never learnt to, so what they write makes no sense; it is asked for, ended and answered as it should be."""
    recipe = lab_recipe("magpie", ("sums",), InFolder(lab), strategy="fixed", writer=False, compare=False)
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    domain = {"generator": "magpie", "question_tokens": 24}
    found["data"] = {"count": 6, "max_new_tokens": 16, "max_rejected": 1.0, "domain": domain}
    run = Run(Recipe.model_validate(found), tmp_path / "run")
    run.do("generate")
    assert run.read("generation.json")["domain"]["vetted"] is True
    report = run.read("generation.json")["domain"]["experts"]["sums"]
    kept = load_examples(run.directory / "data" / "domain.parquet")
    assert report["questions"]["kept"] == 6 and report["questions"]["malformed"] > 0 and 0 < report["answered"] == len(kept) <= 6
    assert all(e.prompt and "<" not in e.prompt and e.provenance.sampling == "temperature 1" for e in kept)
    assert len({e.prompt for e in kept}) == len(kept)
