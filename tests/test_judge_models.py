"""What judges judge with in a run: the models that a recipe names or that they are made for, each loaded once."""

import shutil

import pytest
import yaml
from test_run import small
from tiny_guard import taught, tiny_classifier

from hfsafemerge.errors import JudgeError, RecipeError
from hfsafemerge.judges.qwen3guard import turns
from hfsafemerge.judging import HARMLESS, JUDGES, Exchange
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.language_model import TextClassifier, TransformersModel, user
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, inputs

DOUBTFUL = Exchange("What is big ?", "It is old .")
TRIO = ("qwen3guard", "qwen3guard_loose", "qwen3guard_refusal")
OPEN = "Qwen/Qwen3Guard-Gen-0.6B"


def recipe_of(**parts):
    """A recipe of the Hub's with ready prompts; nothing of it is fetched."""
    base = {"name": "r", "base": {"repo_id": "a/base"}, "experts": [{"repo_id": "a/x"}], "merge": {"method": "linear"}}
    return Recipe.parse(yaml.safe_dump(base | parts))


def prompts(*judges):
    return {"safety": {"questions": {"repo_id": "a/prompts"}}, "judges": list(judges)}


def benchmark(*judges):
    return {"benchmarks": {"harmful": {"kind": "safety", "dataset": {"repo_id": "a/rows"}, "judges": list(judges)}}}


def models_of(recipe):
    return {name: str(spec.model) for name, spec in recipe.judges.items()}


# What a recipe says


def test_judges_have_the_open_models_that_they_are_made_for():
    recipe = recipe_of(data=prompts("qwen3guard", "qwen3guard_refusal"), evaluation=benchmark("classifier_head", "refusal_phrases"))
    assert models_of(recipe) == {"qwen3guard": OPEN, "qwen3guard_refusal": OPEN, "classifier_head": "hbseong/HarmAug-Guard"}
    assert {role: str(ref) for role, ref in inputs.model_roles(recipe).items()} == {
        "base": "a/base",
        "x": "a/x",
        "judge qwen3guard": OPEN,
        "judge qwen3guard_refusal": OPEN,
        "judge classifier_head": "hbseong/HarmAug-Guard",
    }
    again = Recipe.parse(recipe.to_yaml())
    assert again == recipe and again.fingerprint == recipe.fingerprint


def test_a_model_that_the_recipe_names_is_kept_and_one_that_nobody_asks_for_is_not_named():
    own = {"qwen3guard": {"model": {"repo_id": "a/guard"}}, "qwen3guard_loose": {}, "strongreject": {}}
    recipe = recipe_of(judges=own, data=prompts("qwen3guard_loose", "refusal_phrases"), evaluation=benchmark("qwen3guard"))
    assert models_of(recipe) == {"qwen3guard": "a/guard", "qwen3guard_loose": OPEN, "strongreject": "None"}
    assert recipe_of(data={"judges": ["qwen3guard", "refusal_phrases"]}).judges == {}  # there are no data to judge


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (
            {"data": prompts("llama_guard", "refusal_phrases")},
            r"data\.judges asks the judge llama_guard, which needs a model\. Add .*It is made for ",
        ),
        ({"evaluation": benchmark("wildguard")}, r"It is made for allenai/wildguard, whose terms must be accepted"),
        ({"evaluation": benchmark("strongreject")}, "Any capable instruct model will do"),
        ({"data": prompts("refusal_phrases")}, "a guard has to be among them, such as qwen3guard"),
        ({"data": prompts("qwen3guard")}, "a judge of refusals has to be among them, such as refusal_phrases"),
        ({"judges": 3, "evaluation": benchmark("qwen3guard")}, "judges: Input should be a valid dictionary"),
        ({"judges": {"qwen3guard": {"modle": {}}}, "evaluation": benchmark("qwen3guard")}, r"judges\.qwen3guard\.modle"),
    ],
)
def test_a_judge_without_a_model_is_told_which_one(parts, says):
    with pytest.raises(RecipeError, match=says):
        recipe_of(**parts)


def test_a_classifier_is_not_on_a_server():
    model = {"repo_id": "a/head", "endpoint": {"url": "http://localhost:8000/v1"}}
    with pytest.raises(RecipeError, match=r"judges\.classifier_head\.model is run from its weights.*leave its endpoint out"):
        recipe_of(judges={"classifier_head": {"model": model}}, evaluation=benchmark("classifier_head"))
    assert recipe_of(judges={"llama_guard": {"model": model}}, evaluation=benchmark("llama_guard")).judges["llama_guard"].model.endpoint


# What a run loads


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    """A guard that says in the format of Qwen3Guard-Gen that two exchanges are safe, and a third is controversial."""
    safe = "Safety: Safe\nCategories: None\nRefusal: No"
    doubtful = "Safety: Controversial\nCategories: Violent\nRefusal: Yes"
    guard = taught("chatml", [*((turns(each), safe) for each in HARMLESS), (turns(DOUBTFUL), doubtful)])
    folder = tmp_path_factory.mktemp("qwen")
    guard.model.save_pretrained(folder)
    guard.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def loaded(monkeypatch):
    """The models that were loaded, by name, in order."""
    found = []
    for kind in (TransformersModel, TextClassifier):

        def load(*args, _kind=kind, _load=kind.load, **settings):
            found.append(_load(*args, **settings))
            return found[-1]

        monkeypatch.setattr(kind, "load", load)
    return found


def checked(lab, directory, folders, **changes):
    """A run of the lab's models in which judges have these folders, as far as the check."""
    recipe = small(lab_recipe("judged", ("sums",), InFolder(lab), strategy="fixed", use=()), **changes)
    judges = {name: {"model": {"path": str(folder)}} for name, folder in folders.items()}
    run = Run(Recipe.model_validate({**recipe.model_dump(mode="json", exclude_defaults=True), "judges": judges}), directory)
    run.recipe.check()
    run.do("check")
    return run


def test_judges_of_one_model_load_it_once_and_free_it(lab, qwen, loaded, tmp_path):
    run = checked(lab, tmp_path / "run", dict.fromkeys(TRIO, qwen) | {"llama_guard": lab / "guard"})
    with inputs.judges(run, [*TRIO, "refusal_phrases"]) as judges:
        labels = {name: [verdict.label for verdict in judges[name]([HARMLESS[0], DOUBTFUL])] for name in TRIO}
        assert [model.name for model in loaded] == [inputs.label(run, "judge qwen3guard")] and hasattr(loaded[0], "model")
    assert labels == {
        "qwen3guard": ["safe", "unsafe"],
        "qwen3guard_loose": ["safe", "safe"],
        "qwen3guard_refusal": ["complied", "refused"],
    }
    assert not hasattr(loaded[0], "model")
    with inputs.judges(run, ["qwen3guard"]):
        assert len(loaded) == 2 and not hasattr(loaded[0], "model")  # another block loads it anew


def test_the_same_files_in_another_place_are_another_model(lab, qwen, loaded, tmp_path):
    other = shutil.copytree(qwen, tmp_path / "other")
    run = checked(lab, tmp_path / "run", {"qwen3guard": qwen, "qwen3guard_loose": other, "llama_guard": lab / "guard"})
    with inputs.judges(run, ["qwen3guard", "qwen3guard_loose"]):
        assert [model.name.partition("@")[0] for model in loaded] == [qwen.name, "other"]


def test_a_classifier_judges_in_a_run(lab, loaded, tmp_path):
    head = tiny_classifier(tmp_path / "head", longest=64)
    run = checked(lab, tmp_path / "run", {"classifier_head": head, "llama_guard": lab / "guard"})
    exchanges = [*HARMLESS, DOUBTFUL, Exchange("long", "word " * 60)]
    with inputs.judges(run, ["classifier_head"]) as judges:
        found = judges["classifier_head"](exchanges)
        (used,) = loaded
        assert isinstance(used, TextClassifier) and used.name == inputs.judge_models(run)["classifier_head"]
    alone = JUDGES.get("classifier_head").bind(TextClassifier.load(head, name=used.name, device="cpu"))(exchanges)
    assert found == alone and found[3].label == "unclear" and all(0 < verdict.p_unsafe < 1 for verdict in found[:3])
    assert not hasattr(used, "model")


def test_a_classifier_that_reads_too_little_is_no_judge(lab, loaded, tmp_path):
    head = tiny_classifier(tmp_path / "head", longest=8)
    run = checked(lab, tmp_path / "run", {"classifier_head": head, "llama_guard": lab / "guard"})
    with pytest.raises(JudgeError, match=r"classifier_head \(head@.*longer than the 8 tokens"), inputs.judges(run, ["classifier_head"]):
        pass
    assert not hasattr(loaded[0], "model")


def test_a_run_is_measured_by_a_classifier(lab, tmp_path):
    head = tiny_classifier(tmp_path / "head", longest=512)
    rows = InFolder(lab).rows("harmful", "test")
    harmful = {"kind": "safety", "dataset": rows, "judges": ["classifier_head"], "limit": 6, "max_new_tokens": 8}
    folders = {"classifier_head": head, "llama_guard": lab / "guard"}
    run = checked(lab, tmp_path / "run", folders, evaluation={"benchmarks": {"harmful": harmful}, "compare": False}, data={})
    run.do("evaluate")
    (setup,) = run.read("scores.json")["benchmarks"].values()
    commit = run.read("check.json")["models"]["judge classifier_head"]["commit"]
    assert setup["judges"] == {"classifier_head": f"head@{commit[:12]}"}
    with inputs.loaded_model(run, "merged") as model:
        asked = inputs.benchmark_examples(run, "harmful")
        replies = model.generate([user(example.prompt) for example in asked], max_new_tokens=8)
    pairs = [(example.prompt, reply.text) for example, reply in zip(asked, replies, strict=True)]
    chances = TextClassifier.load(head, name="head", device="cpu").probabilities(pairs)
    found = [item["p_unsafe"]["classifier_head"] for item in run.read("labels.json")["merged"]]
    assert found == pytest.approx([unsafe for _, unsafe in chances], abs=1e-6) and len(found) == 6
