"""Forms out of the registries, recipes out of the forms, and which recipes are taken from whom."""

from dataclasses import replace

import gradio as gr
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from space_cases import SMALL

from hfsafemerge.errors import HfSafeMergeError, RecipeError
from hfsafemerge.lab.behaviour import ASK_DOMAIN, ASK_HARMFUL, PREFILL
from hfsafemerge.lab.choices import IN_WORDS, LabChoices
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES
from space.accounts import on_space
from space.actions import api, data, method, models, running
from space.forms import parameters, presets, recipes, visitors
from space.forms.fields import GUARDS, TOPICS, ExpertField

pytestmark = pytest.mark.usefixtures("space_runs")


def said_of(recipe: str) -> str:
    """What the app says of a recipe."""
    try:
        return recipes.describe(visitors.parse(recipe, own_machine=not on_space()))
    except HfSafeMergeError as error:
        return str(error)


def test_help_comes_from_the_registration() -> None:
    for kind in MERGE_METHODS:
        text = parameters.method_help(kind.name)
        assert kind.summary in text and all(part.name in text for part in (*kind.parameters, *kind.options))
    for strategy in SEARCH_STRATEGIES:
        assert strategy.summary in parameters.strategy_help(strategy.name)
    assert "linear only" in parameters.strategy_help("lm_cocktail")
    assert "For 1 expert." in parameters.method_help("slerp")


def experts(*named: tuple[str, str]) -> tuple[ExpertField, ...]:
    return tuple(ExpertField(model, topic) for model, topic in named)


def test_fields_become_a_recipe() -> None:
    fields = replace(recipes.read(SMALL), base=" me/base ".strip(), experts=experts(("me/law@v2", "law"), ("", ""), ("me/sums", "")))
    filled = recipes.write(recipes.with_method(fields, "dare_ties"), SMALL)
    recipe = yaml.safe_load(filled)
    assert recipe["base"] == {"repo_id": "me/base"}
    assert recipe["experts"] == [{"repo_id": "me/law", "revision": "v2", "topic": "law"}, {"repo_id": "me/sums"}]
    assert recipe["merge"] == {"method": "dare_ties", "parameters": {"normalize": False, "density": 0.5}, "layers_per_group": 1}
    assert recipe["search"] == {"strategy": "cma_es", "settings": {"max_evaluations": 5}, "use": ["safety", "domain"]}
    assert recipe["judges"] == yaml.safe_load(SMALL)["judges"]
    assert recipe["data"]["safety"] == yaml.safe_load(SMALL)["data"]["safety"]


def test_what_the_fields_do_not_change_stays_letter_for_letter() -> None:
    for start in (SMALL, *map(presets.preset, presets.PRESETS)):
        assert recipes.write(recipes.read(start), start) == start


@settings(deadline=None)
@given(st.data())
def test_what_is_written_is_read_back(data: st.DataObject) -> None:
    start = presets.preset("evomm")
    method = data.draw(st.sampled_from(MERGE_METHODS.names()))
    strategy = data.draw(st.sampled_from([s.name for s in SEARCH_STRATEGIES if not s.methods or method in s.methods]))
    topics = st.sampled_from([*TOPICS, ""])
    models = data.draw(
        st.lists(st.tuples(st.sampled_from(["a/b", "c/d@main", "e/f"]), topics), min_size=1, max_size=3, unique_by=lambda e: e[0])
    )
    fields = replace(
        recipes.read(start),
        experts=experts(*models),
        guard=data.draw(st.sampled_from(list(GUARDS))),
        safety=data.draw(st.sampled_from(["beavertails", "own"])),
        domain=data.draw(st.sampled_from(["shown", "magpie", "none"])),
        benign=data.draw(st.sampled_from(["written", "none"])),
        count=data.draw(st.integers(1, 2000)),
        alpha=data.draw(st.floats(0, 2, allow_nan=False)),
        suite=data.draw(st.sampled_from(["quick", "standard", "paper"])),
    )
    fields = recipes.with_strategy(recipes.with_method(fields, method), strategy)
    try:
        text = recipes.write(fields, start)
        read = recipes.read(text)
    except RecipeError:  # what does not go together is told, and never half written
        return
    if not any(topic for _, topic in models) and fields.domain == "shown":
        return  # nothing is shown for no topic
    assert replace(read, safety=fields.safety) == fields
    assert read.safety == "beavertails"


def test_parameters_that_another_method_does_not_know_are_dropped() -> None:
    fields = recipes.with_strategy(recipes.with_method(recipes.read(SMALL), "linear"), "lm_cocktail")
    assert fields.parameters == {"normalize": False} and fields.settings == {}
    visitors.parse(recipes.write(fields, SMALL), own_machine=True)


def test_settings_of_another_strategy_are_dropped_even_where_the_names_are_alike() -> None:
    fields = recipes.read(presets.preset("evomm"))
    assert fields.settings == {"preset": "evomm"}
    assert recipes.with_strategy(fields, "grid").settings == {"preset": "paper"}
    assert recipes.with_strategy(recipes.read(SMALL), "gradient").settings == {}
    assert recipes.with_strategy(fields, "cma_es") == fields


@pytest.mark.parametrize("strategy", [strategy.name for strategy in SEARCH_STRATEGIES])
def test_every_strategy_can_be_chosen_in_the_form(strategy: str) -> None:
    shipped = presets.preset("evomm")
    for name in SEARCH_STRATEGIES.get(strategy).methods or ("ties", "task_arithmetic", "slerp"):
        fields = recipes.with_strategy(recipes.with_method(recipes.read(shipped), name), strategy)
        assert "is in order" in said_of(recipes.write(fields, shipped))
        ranges = fields.settings.get("ranges")
        assert ranges == ({"weight": [0.0, 1.0]} if strategy == "random_search" and name != "slerp" else None)


@pytest.mark.parametrize(("base", "named"), [("", [("me/law", "law")]), ("me/base", [("", "law")])])
def test_fields_without_models_are_refused(base: str, named: list[tuple[str, str]]) -> None:
    with pytest.raises(RecipeError, match="Name the base and at least one expert"):
        recipes.write(replace(recipes.read(SMALL), base=base, experts=experts(*named)), SMALL)


def test_fields_of_methods_and_strategies_come_from_their_registrations() -> None:
    ties = {field.name: field for field in parameters.fields_of_method("ties")}
    assert list(ties) == ["weight", "lambda_", "density", "normalize"]
    assert (ties["density"].kind, ties["density"].low, ties["density"].high, ties["density"].default) == ("number", 0, 1, None)
    assert (ties["normalize"].kind, ties["normalize"].default) == ("flag", True)
    led = {field.name: field for field in parameters.fields_of_method("led")}
    assert led["keep"].choices == ("largest", "smallest")
    cma = {field.name: field for field in parameters.fields_of_strategy("cma_es")}
    assert (cma["max_evaluations"].kind, cma["max_evaluations"].low, cma["max_evaluations"].default) == ("integer", 1, 100)
    assert cma["bounds"].choices == ("fold", "transform") and cma["share"].high == 1
    for strategy in SEARCH_STRATEGIES:
        assert [field.name for field in parameters.fields_of_strategy(strategy.name)] == list(strategy.settings)


def test_what_is_entered_is_kept_and_what_is_emptied_is_left_out() -> None:
    density, normalize = parameters.fields_of_method("ties")[2:]
    assert parameters.changed({"normalize": False}, density, 0.3) == {"normalize": False, "density": 0.3}
    assert parameters.changed({"density": 0.3}, density, None) == {}
    assert parameters.changed({"normalize": False}, normalize, True) == {}
    evaluations = parameters.fields_of_strategy("cma_es")[1]
    assert (
        parameters.changed({}, evaluations, 40.0) == {"max_evaluations": 40}
        and type(parameters.changed({}, evaluations, 40.0)["max_evaluations"]) is int
    )
    ranges = parameters.fields_of_strategy("random_search")[1]
    assert parameters.changed({}, ranges, "{weight: [0, 1]}") == {"ranges": {"weight": [0, 1]}}
    assert parameters.shown(ranges, {"ranges": {"weight": [0, 1]}}) == "{weight: [0, 1]}"
    with pytest.raises(RecipeError, match="not plain YAML"):
        parameters.changed({}, ranges, "{weight: [0")


def test_the_steps_write_the_recipe_or_say_what_is_wrong() -> None:
    said = models.set_models(SMALL, "", [])[1]
    assert "Name the base" in said
    text, said = models.set_models(presets.preset("evomm"), "me/base", [["me/law", "law"], ["", None]])
    assert "me/law" in text and "professional_law" in text and said == ""
    text, _ = method.set_method(SMALL, "dare_ties", "grid", "constrained", 0.5)
    assert recipes.read(text).objective == "constrained" and recipes.read(text).settings == {"preset": "paper"}
    density = parameters.fields_of_method("ties")[2]
    assert recipes.read(method.set_value("parameters", density, SMALL, 0.25)[0]).parameters["density"] == 0.25
    unchanged, said = method.set_value("parameters", density, "a: [", 0.25)
    assert unchanged == "a: [" and "not plain YAML" in said
    text, said = data.set_data(SMALL, "qwen3guard", "beavertails", "magpie", "written", 50.0, "quick")
    assert (recipes.read(text).guard, recipes.read(text).count, said) == ("qwen3guard", 50, "")
    assert "OpenBioLLM" in models.use_preset("evomm", SMALL)[0] and "no preset" in models.use_preset("x", SMALL)[1]
    assert [update["visible"] for update in models.choose("own")] == [False, True] * 3


def test_every_choice_of_the_lab_is_a_recipe_or_says_why_not() -> None:
    for pool in IN_WORDS:
        for strategy in SEARCH_STRATEGIES:
            for name in strategy.methods or ("ties", "task_arithmetic"):
                LabChoices(pool, name, strategy.name).check()
    for wrong in (
        LabChoices("many"),
        LabChoices(method="tis"),
        LabChoices("three", "linear", "grid"),
        LabChoices(strategy="lm_cocktail"),
        LabChoices(evaluations=0),
    ):
        with pytest.raises(HfSafeMergeError):
            wrong.check()


def test_a_check_says_what_is_asked_for_or_what_is_wrong() -> None:
    assert "ties merges sums into lab/aligned; cma_es chooses its numbers from safety and domain data" in said_of(SMALL)
    assert "There is no key named 'mrge'. Did you mean 'merge'?" in said_of(SMALL.replace("merge:", "mrge:"))
    assert "not plain YAML" in said_of("a: [")
    assert "must be a mapping" in said_of("")


def test_visitors_cannot_name_folders_of_the_machine(on_space: None) -> None:
    local = SMALL.replace("{repo_id: lab/world}", "{path: /etc/passwd}")
    assert "names the local folder /etc/passwd" in said_of(local)
    assert "names the local folder" in running.begin("own", local, None, "pair", "ties", "cma_es", 60, None)[1]
    with pytest.raises(gr.Error, match="local folder"):
        api.start(local, None)


SERVER = "endpoint: {url: 'https://10.0.0.7/v1', key: OWNERS_SECRET}"


@pytest.mark.parametrize("ref", ["lab/aligned", "lab/sums", "lab/guard"])
def test_visitors_cannot_send_the_machine_to_a_server(on_space: None, ref: str) -> None:
    served = SMALL.replace(f"repo_id: {ref}", f"repo_id: {ref}, {SERVER}")
    assert "names the server https://10.0.0.7/v1" in said_of(served)
    assert "names the server" in running.begin("own", served, None, "pair", "ties", "cma_es", 60, None)[1]
    with pytest.raises(gr.Error, match="asks none for its visitors"):
        api.start(served, None)


def test_visitors_cannot_have_harmful_questions_written(on_space: None) -> None:
    written = SMALL.replace("questions: {repo_id: lab/prompts}", "writer: {repo_id: lab/writer}")
    assert "which this app does not do for its visitors. Use ready prompts" in said_of(written)
    with pytest.raises(gr.Error, match=r"data\.safety\.writer"):
        api.start(written, None)
    assert "is in order" in said_of(SMALL)


@pytest.mark.parametrize("kind", ["domain", "benign"])
@pytest.mark.parametrize("part", ["prompt", "prefill"])
def test_visitors_cannot_have_a_model_write_what_they_ask_for(on_space: None, kind: str, part: str) -> None:
    def asked(words: str) -> str:
        recipe = yaml.safe_load(SMALL)
        recipe["data"]["benign"] = {"writer": {"repo_id": "lab/writer"}}
        recipe["data"][kind][part] = words
        return yaml.safe_dump(recipe)

    for words in ("an attack on {topic}", ASK_HARMFUL, ""):
        assert f"data.{kind}.{part} lets a model write whatever it asks for" in said_of(asked(words))
    with pytest.raises(gr.Error, match=rf"data\.{kind}\.{part}"):
        api.start(asked("an attack on {topic}"), None)
    assert "is in order" in said_of(asked({"prompt": ASK_DOMAIN, "prefill": PREFILL}[part]))
    assert visitors.parse(asked("an attack on {topic}"), own_machine=True)


def test_on_a_machine_of_ones_own_servers_and_writers_are_in_order() -> None:
    served = f"writer: {{repo_id: lab/writer, {SERVER}}}"
    assert "is in order" in said_of(SMALL.replace("questions: {repo_id: lab/prompts}", served))


def test_a_model_may_be_called_endpoint_or_path(on_space: None) -> None:
    for name in ("endpoint", "path"):
        called = yaml.safe_load(SMALL)
        called["experts"][0]["name"] = name
        called["merge"]["parameters"] = {"normalize": False, "weight": {name: 0.5}}
        assert "is in order" in said_of(yaml.safe_dump(called))


def test_benchmarks_and_tasks_are_counted() -> None:
    rows = "{kind: benign, dataset: {repo_id: lab/rows}, judges: [refusal_phrases]}"
    assert "is measured on nothing." in said_of(SMALL)
    assert "is measured on 2 tasks." in said_of(SMALL + "evaluation: {tasks: {gsm8k: {}, piqa: {}}}")
    both = f"evaluation: {{benchmarks: {{mine: {rows}}}, tasks: {{gsm8k: {{}}}}}}"
    assert "is measured on 1 benchmark and 1 task." in said_of(SMALL + both)
