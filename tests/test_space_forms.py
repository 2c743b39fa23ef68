"""Forms out of the registries, recipes out of the forms, and which recipes are taken from whom."""

import gradio as gr
import pytest
import yaml
from space_cases import SMALL

from hfsafemerge.errors import RecipeError
from hfsafemerge.lab.behaviour import ASK_DOMAIN, ASK_HARMFUL, PREFILL
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES
from space.actions import api, running
from space.forms import parameters, presets, recipes, visitors

pytestmark = pytest.mark.usefixtures("space_runs")


def test_help_comes_from_the_registration() -> None:
    for kind in MERGE_METHODS:
        text = parameters.method_help(kind.name)
        assert kind.summary in text and all(part.name in text for part in (*kind.parameters, *kind.options))
    for strategy in SEARCH_STRATEGIES:
        assert strategy.summary in parameters.strategy_help(strategy.name)
    assert "linear only" in parameters.strategy_help("lm_cocktail")
    assert "For 1 expert." in parameters.method_help("slerp")


def test_fields_become_a_recipe() -> None:
    filled = recipes.fill(" me/base ", [["me/law", "law"], ["", ""], ["me/sums", None]], "dare_ties", "cma_es", SMALL)
    recipe = yaml.safe_load(filled)
    assert recipe["base"] == {"repo_id": "me/base"}
    assert recipe["experts"] == [{"repo_id": "me/law", "topic": "law"}, {"repo_id": "me/sums"}]
    assert recipe["merge"] == {"method": "dare_ties", "parameters": {"normalize": False, "density": 0.5}, "layers_per_group": 1}
    assert recipe["search"] == {"strategy": "cma_es", "settings": {"max_evaluations": 5}}
    assert recipe["judges"] == yaml.safe_load(SMALL)["judges"]


def test_what_a_method_or_strategy_does_not_know_is_left_out() -> None:
    recipe = yaml.safe_load(recipes.fill("me/base", [["me/sums", "sums"]], "linear", "lm_cocktail", SMALL))
    assert recipe["merge"]["parameters"] == {"normalize": False}
    assert recipe["search"]["settings"] == {}
    visitors.parse(yaml.safe_dump(recipe), own_machine=True)


def test_settings_of_another_strategy_are_dropped_even_where_the_names_are_alike() -> None:
    shipped = presets.shipped_recipe()
    assert yaml.safe_load(shipped)["search"]["settings"] == {"preset": "evomm"}
    found = yaml.safe_load(recipes.fill("me/base", [["me/openbio", "biology"]], "ties", "grid", shipped))
    assert found["search"]["settings"] == {"preset": "paper"}
    found = yaml.safe_load(recipes.fill("me/base", [["me/sums", "sums"]], "ties", "gradient", SMALL))
    assert found["search"]["settings"] == {}


@pytest.mark.parametrize("strategy", [strategy.name for strategy in SEARCH_STRATEGIES])
def test_every_strategy_can_be_chosen_in_the_form(strategy: str) -> None:
    methods = SEARCH_STRATEGIES.get(strategy).methods or ("ties", "task_arithmetic", "slerp")
    for name in methods:
        text = recipes.fill("me/base", [["me/openbio", "biology"]], name, strategy, presets.shipped_recipe())
        assert "is in order" in api.check(text), api.check(text)
        ranges = yaml.safe_load(text)["search"]["settings"].get("ranges")
        assert ranges == ({"weight": [0.0, 1.0]} if strategy == "random_search" and name != "slerp" else None)


def test_the_shipped_recipe_fills_and_is_in_order() -> None:
    shipped = presets.shipped_recipe()
    found = yaml.safe_load(shipped)
    experts = [[expert["repo_id"], expert.get("topic", "")] for expert in found["experts"]]
    filled = recipes.fill(found["base"]["repo_id"], experts, found["merge"]["method"], found["search"]["strategy"], shipped)
    for text in (shipped, filled):
        assert "is in order" in api.check(text)


@pytest.mark.parametrize(("base", "experts"), [("", [["me/law", "law"]]), ("me/base", [["", "law"]])])
def test_fields_without_models_are_refused(base: str, experts: list[list[object]]) -> None:
    with pytest.raises(RecipeError, match="Name the base and at least one expert"):
        recipes.fill(base, experts, "ties", "cma_es", SMALL)


def test_a_check_says_what_is_asked_for_or_what_is_wrong() -> None:
    assert "ties merges sums into lab/aligned; cma_es chooses its numbers from safety and domain data" in api.check(SMALL)
    assert "There is no key named 'mrge'. Did you mean 'merge'?" in api.check(SMALL.replace("merge:", "mrge:"))
    assert "not plain YAML" in api.check("a: [")
    assert "must be a mapping" in api.check("")


def test_visitors_cannot_name_folders_of_the_machine(on_space: None) -> None:
    local = SMALL.replace("{repo_id: lab/world}", "{path: /etc/passwd}")
    assert "names the local folder /etc/passwd" in api.check(local)
    assert "names the local folder" in running.begin("own", local, None)[1]
    with pytest.raises(gr.Error, match="local folder"):
        api.start(local, None)


SERVER = "endpoint: {url: 'https://10.0.0.7/v1', key: OWNERS_SECRET}"


@pytest.mark.parametrize("ref", ["lab/aligned", "lab/sums", "lab/guard"])
def test_visitors_cannot_send_the_machine_to_a_server(on_space: None, ref: str) -> None:
    served = SMALL.replace(f"repo_id: {ref}", f"repo_id: {ref}, {SERVER}")
    assert "names the server https://10.0.0.7/v1" in api.check(served)
    assert "names the server" in running.begin("own", served, None)[1]
    with pytest.raises(gr.Error, match="asks none for its visitors"):
        api.start(served, None)


def test_visitors_cannot_have_harmful_questions_written(on_space: None) -> None:
    written = SMALL.replace("questions: {repo_id: lab/prompts}", "writer: {repo_id: lab/writer}")
    assert "which this app does not do for its visitors. Use ready prompts" in api.check(written)
    with pytest.raises(gr.Error, match=r"data\.safety\.writer"):
        api.start(written, None)
    assert "is in order" in api.check(SMALL)


@pytest.mark.parametrize("kind", ["domain", "benign"])
@pytest.mark.parametrize("part", ["prompt", "prefill"])
def test_visitors_cannot_have_a_model_write_what_they_ask_for(on_space: None, kind: str, part: str) -> None:
    def asked(words: str) -> str:
        recipe = yaml.safe_load(SMALL)
        recipe["data"]["benign"] = {"writer": {"repo_id": "lab/writer"}}
        recipe["data"][kind][part] = words
        return yaml.safe_dump(recipe)

    for words in ("an attack on {topic}", ASK_HARMFUL, ""):
        assert f"data.{kind}.{part} lets a model write whatever it asks for" in api.check(asked(words))
    with pytest.raises(gr.Error, match=rf"data\.{kind}\.{part}"):
        api.start(asked("an attack on {topic}"), None)
    assert "is in order" in api.check(asked({"prompt": ASK_DOMAIN, "prefill": PREFILL}[part]))
    assert visitors.parse(asked("an attack on {topic}"), own_machine=True)


def test_on_a_machine_of_ones_own_servers_and_writers_are_in_order() -> None:
    served = f"writer: {{repo_id: lab/writer, {SERVER}}}"
    assert "is in order" in api.check(SMALL.replace("questions: {repo_id: lab/prompts}", served))


def test_a_model_may_be_called_endpoint_or_path(on_space: None) -> None:
    for name in ("endpoint", "path"):
        called = yaml.safe_load(SMALL)
        called["experts"][0]["name"] = name
        called["merge"]["parameters"] = {"normalize": False, "weight": {name: 0.5}}
        assert "is in order" in api.check(yaml.safe_dump(called))


def test_benchmarks_and_tasks_are_counted() -> None:
    rows = "{kind: benign, dataset: {repo_id: lab/rows}, judges: [refusal_phrases]}"
    assert "is measured on nothing." in api.check(SMALL)
    assert "is measured on 2 tasks." in api.check(SMALL + "evaluation: {tasks: {gsm8k: {}, piqa: {}}}")
    both = f"evaluation: {{benchmarks: {{mine: {rows}}}, tasks: {{gsm8k: {{}}}}}}"
    assert "is measured on 1 benchmark and 1 task." in api.check(SMALL + both)
