"""The stage search through a run, with real models of the lab: what only shows when all parts work together."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.torch import load_file

from hfsafemerge.errors import Cancelled, IncompatibleExperts, RecipeError, RunError, SearchError
from hfsafemerge.examples import Example, save_examples
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.lab.world import REFUSAL, draw_distinct
from hfsafemerge.live_merge import Evaluator, Imitation
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run
from hfsafemerge.running.executing import shared_out
from hfsafemerge.searching import SEARCH_STRATEGIES, Gene, Objective, Query, TermScore, search
from hfsafemerge.searching.candidates import read_candidates


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Data that need no generation: refusals, and right answers of two domains."""
    folder = tmp_path_factory.mktemp("ready")
    refusals = [Example("safety", i.prompt, REFUSAL, topic="fiction") for i in draw_distinct("harmful", "train", 20, seed=3)]
    skills = [Example("domain", i.prompt, i.right, topic=d) for d in ("sums", "reverse") for i in draw_distinct(d, "train", 10, seed=3)]
    save_examples(folder / "safety.parquet", refusals)
    save_examples(folder / "domain.parquet", skills)
    return {kind: folder / f"{kind}.parquet" for kind in ("safety", "domain")}


def recipe_of(lab, ready, merge=None, search=None, **options):
    """A search over the lab's pool of three with ready data, without benchmarks."""
    options = {"method": "task_arithmetic", "strategy": "gradient", "settings": {}, "parameters": {}} | options
    found = lab_recipe("search", ("sums", "reverse"), InFolder(lab), ready=ready, **options).model_dump(mode="json", exclude_defaults=True)
    found["evaluation"] = {}
    found["merge"] |= merge or {}
    found["search"] = found.get("search", {}) | (search or {})
    return Recipe.model_validate(json.loads(json.dumps(found)))


def merged(recipe, directory):
    recipe.check()
    run = Run(recipe, directory)
    run.do("merge")
    return run


def lines(run):
    return [json.loads(line) for line in (run.directory / "search.jsonl").read_text().splitlines()]


def test_every_tensor_and_chunk_may_have_numbers_of_its_own(lab, ready, tmp_path):
    """The merged model is made chunk by chunk with the numbers that the search found."""
    recipe = recipe_of(lab, ready, merge={"layers_per_group": 0, "per_tensor": True, "chunks": {"budget": 1.5}})
    run = merged(recipe, tmp_path / "run")
    chosen = run.read("parameters.json")
    groups = chosen["groups"]
    assert max(groups["chunks"]) > 1 and len(chosen["search"]["genome"]) == 2 * sum(groups["chunks"])
    assert not (run.directory / "model" / "mergekit_config.yml").exists()
    base, *experts = (load_file(lab / name / "model.safetensors") for name in ("aligned", "sums-expert", "reverse-expert"))
    written, at = load_file(run.directory / "model" / "model.safetensors"), 0
    for name, count in zip(groups["tensors"], groups["chunks"], strict=True):
        found = []
        for base_part, *parts in zip(*(model[name].flatten().chunk(count) for model in (base, *experts)), strict=True):
            weight = chosen["numbers"]["weight"][at]
            found += (base_part + sum(w * (part - base_part) for w, part in zip(weight, parts, strict=True))).tolist()
            at += 1
        assert written[name].flatten().tolist() == pytest.approx(found, abs=1e-6), name


def test_a_constraint_is_kept_on_the_same_examples(lab, ready, tmp_path):
    run = merged(recipe_of(lab, ready, strategy="pareto", search={"objective": "constrained", "epsilon": 0.1}), tmp_path / "run")
    found = run.read("parameters.json")["search"]
    by_number = {line["number"]: line for line in lines(run)}
    assert by_number[found["number"]]["admitted"]
    assert any(not line["admitted"] for line in by_number.values())  # it was tried, and costs something
    domain = sum(found["terms"][f"domain/{topic}"]["mean"] for topic in ("sums", "reverse")) / 2
    assert found["fitness"] == pytest.approx(domain, abs=1e-6)


def test_a_constraint_that_nobody_keeps_leaves_the_log_and_a_way_on(lab, ready, tmp_path):
    settings = {"values": {"weight": [0.9, 1.0]}}
    recipe = recipe_of(lab, ready, strategy="grid", settings=settings, search={"objective": "constrained", "epsilon": 0.0})
    run = Run(recipe, tmp_path / "run")
    with pytest.raises(SearchError, match=r"None of the 2 candidates .* search.pick: \d"):
        run.do("merge")
    assert len(lines(run)) == 2
    run.recipe = recipe.changed({"search.pick": 2})
    run.do("merge")
    assert run.read("parameters.json")["search"]["number"] == 2


def test_rounded_task_vectors_are_scored_again_exactly(lab, ready, tmp_path):
    settings = {"max_evaluations": 6}
    run = merged(recipe_of(lab, ready, strategy="surrogate", settings=settings, search={"deltas": "int8"}), tmp_path / "run")
    found = run.read("parameters.json")["search"]
    rounded = next(line for line in lines(run) if line["number"] == found["number"])
    assert found["fitness"] != rounded["fitness"] and found["fitness"] == pytest.approx(rounded["fitness"], abs=0.05)
    again = merged(
        recipe_of(lab, ready, strategy="fixed", parameters={"weight": run.read("parameters.json")["numbers"]["weight"]}), tmp_path / "fixed"
    )
    one, two = (load_file(made.directory / "model" / "model.safetensors") for made in (run, again))
    assert all(one[name].equal(two[name]) for name in one)


def test_expert_merging_asks_each_teacher_once_for_each_share(lab, ready, tmp_path, monkeypatch):
    asked, prepare = [], Imitation.prepare
    monkeypatch.setattr(Imitation, "prepare", lambda self, data: asked.append(found := prepare(self, data)) or found)
    run = merged(recipe_of(lab, ready, strategy="expert_merging", settings={"steps": 12}), tmp_path / "run")
    assert asked[:4] == [True] * 4 and not any(asked[4:12])  # four quarters, then none of them again
    first, *_, last = (line for line in lines(run) if line["part"] == 0 and line["share"] < 1)
    assert last["fitness"] > first["fitness"]


def test_what_an_objective_of_its_own_does_not_know_is_refused(lab, ready):
    for changes, message in [
        ({"search": {"objective": "constrained"}}, "has an objective of its own, which does not know search.objective: constrained"),
        ({"search": {"weights": {"sums": 2.0}}, "strategy": "lm_cocktail", "method": "linear", "layers_per_group": 0}, "search.weights"),
    ]:
        with pytest.raises(RecipeError, match=message):
            recipe_of(lab, ready, **({"strategy": "expert_merging"} | changes)).check()
    found = recipe_of(lab, ready, strategy="expert_merging").model_dump(mode="json", exclude_defaults=True)
    found["experts"][1]["topic"] = "sums"
    with pytest.raises(RecipeError, match="every expert needs a topic of its own"):
        Recipe.model_validate(found).check()


def test_a_candidate_that_saw_only_a_part_can_t_be_picked(lab, ready, tmp_path):
    run = merged(recipe_of(lab, ready), tmp_path / "run")
    part = next(line["number"] for line in lines(run) if line["share"] < 1)
    run.recipe = run.recipe.changed({"search.pick": part})
    with pytest.raises(RunError, match="did not measure that one on all of its data"):
        run.do("merge", redo=True)


def test_a_pool_that_ties_its_heads_differently_is_refused_at_check(lab, ready, tmp_path):
    from tiny import tiny_model

    base = tiny_model(tmp_path / "base", 0, tied=True)
    expert = tiny_model(tmp_path / "sums", 1, tied=False)
    found = recipe_of(lab, ready).model_dump(mode="json", exclude_defaults=True)
    found |= {"base": {"path": str(base)}, "experts": [{"path": str(expert), "topic": "sums"}], "judges": {}}
    found["data"]["judges"] = ["refusal_phrases"]
    found["search"]["use"] = ["domain"]
    found["data"].pop("safety")
    with pytest.raises(IncompatibleExperts, match=r"base ties, sums does not tie"):
        Run(Recipe.model_validate(found), tmp_path / "run").do("check")


# Several evaluators


class Counting(Evaluator):
    """An evaluator that says how many queries it has answered."""

    def __init__(self):
        self.answered = 0
        self.live = self.kept = self
        self.memory = "device"

    def __call__(self, query):
        self.answered += 1
        return {"safety": TermScore(-sum((x - 0.3) ** 2 for x in query.genome), 1)}

    def reference(self, query):
        return {"safety": TermScore(0.0, 1)}


def test_evaluators_are_opened_when_they_are_needed_and_answers_come_in_order():
    opened, both = [], threading.Barrier(2, timeout=20)

    class Together(Counting):
        def __call__(self, query):
            both.wait()  # only two at a time get past it
            return super().__call__(query)

    def opener():
        opened.append(Together())
        return opened[-1]

    with ThreadPoolExecutor(4) as pool:
        who = shared_out([opener] * 4, pool)
        assert not opened
        assert who.reference(Query([1.0]))["safety"].mean == 0.0 and len(opened) == 1
        found = [measured.terms["safety"].mean for measured in who.evaluate([Query([x / 10]) for x in range(8)])]
        assert found == [-((x / 10 - 0.3) ** 2) for x in range(8)] and len(opened) >= 2


def test_a_search_that_is_cancelled_evaluates_nothing_more(tmp_path):
    class Slow(Counting):
        def __call__(self, query):
            time.sleep(0.02)
            return super().__call__(query)

    counting = Slow()
    grid = SEARCH_STRATEGIES.get("grid").make([Gene("weight", "a", 0, 0.5, 0.0, 1.0)], 0, values={"weight": [x / 40 for x in range(40)]})

    def stop(candidate, total):
        if candidate.number == 2:
            raise Cancelled("stop")

    with ThreadPoolExecutor(1) as pool, pytest.raises(Cancelled):
        search(grid, shared_out([lambda: counting], pool).evaluate, Objective(), tmp_path / "log", stop)
    assert counting.answered < 40 and len(read_candidates(tmp_path / "log")) == 2
