import json
import math

import cma
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfsafemerge.errors import RecipeError, SearchError
from hfsafemerge.searching import SEARCH_STRATEGIES, Candidate, Gene, Objective, SearchStrategy, TermScore, search


def genes(count=3, parameter="weight", high=float("inf")):
    return [Gene(parameter, f"e{i}", 0, 0.5, 0.0, high) for i in range(count)]


def bowl(genome):
    """The fittest genome is 0.3 everywhere; the domain likes 1."""
    return {"safety": TermScore(-sum((x - 0.3) ** 2 for x in genome), 4), "domain": TermScore(-sum((x - 1) ** 2 for x in genome) / 10, 6)}


SETTINGS = {"grid": {"values": {"weight": [0.1, 0.3, 0.5]}}}


def make(name, found=None, seed=0, **settings):
    return SEARCH_STRATEGIES.get(name).make(found or genes(), seed, **(SETTINGS.get(name, {}) | settings))


every_strategy = pytest.mark.parametrize("name", SEARCH_STRATEGIES.names())


@every_strategy
def test_every_strategy_keeps_the_protocol(name, tmp_path):
    strategy = make(name)
    assert isinstance(strategy, SearchStrategy)
    result = search(strategy, bowl, Objective(), tmp_path / "search.jsonl")
    lines = [Candidate.from_json(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    assert [line.number for line in lines] == list(range(1, result.tried + 1))
    if SEARCH_STRATEGIES.get(name).needs_data:
        assert len(result.genome) == 3 and result.fitness == Objective().fitness(bowl(result.genome))
        assert strategy.total >= result.tried


@every_strategy
@pytest.mark.parametrize("survived", [0, 1, 5, 9, 50])
def test_a_search_that_was_killed_goes_on_to_the_same_end(name, survived, tmp_path):
    whole = search(make(name), bowl, Objective(), tmp_path / "whole.jsonl")
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    torn = "" if survived >= len(lines) else lines[survived][:17]  # a line that the kill cut short
    (tmp_path / "killed.jsonl").write_text("".join(lines[:survived]) + torn)
    evaluated = []
    resumed = search(make(name), lambda g: evaluated.append(g) or bowl(g), Objective(), tmp_path / "killed.jsonl")
    assert resumed == whole
    assert len(evaluated) == max(0, len(lines) - survived)  # nothing is evaluated twice
    strip = lambda path: [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]  # noqa: E731
    assert strip(tmp_path / "killed.jsonl") == strip(tmp_path / "whole.jsonl")


def test_the_log_of_another_search_is_refused(tmp_path):
    search(make("cma_es", seed=1), bowl, Objective(), tmp_path / "search.jsonl")
    with pytest.raises(SearchError, match=r"holds another search: its candidate 1 is not the one asked for"):
        search(make("cma_es", seed=2), bowl, Objective(), tmp_path / "search.jsonl")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_fitness_that_is_no_number_stops_the_search_and_keeps_the_log(tmp_path, bad):
    count = iter(range(100))
    with pytest.raises(SearchError, match="The fitness came out as"):
        search(
            make("cma_es"),
            lambda g: {"safety": TermScore(bad if next(count) == 5 else -1.0, 1), "domain": TermScore(-1.0, 1)},
            Objective(),
            tmp_path / "log",
        )
    assert len((tmp_path / "log").read_text().splitlines()) == 5


# The objective


def test_fitness_is_safety_plus_alpha_times_domain():
    terms = {"safety": TermScore(-0.5, 10), "domain": TermScore(-2.0, 30)}
    assert Objective().fitness(terms) == pytest.approx(-0.5 + 0.3 * -2.0)
    assert Objective(alpha=0).fitness(terms) == -0.5
    assert Objective(use=("domain",)).fitness(terms) == -2.0
    assert Objective(use=("safety",)).fitness(terms) == -0.5
    assert Objective(pooled=True).fitness(terms) == pytest.approx((10 * -0.5 + 30 * -2.0) / 40)


@settings(max_examples=50, deadline=None)
@given(st.floats(-5, 0), st.floats(-5, 0), st.floats(0, 2), st.floats(0, 1))
def test_more_safety_is_never_less_fit(safety, domain, alpha, gain):
    fitness = lambda s: Objective(alpha=alpha).fitness({"safety": TermScore(s, 1), "domain": TermScore(domain, 1)})  # noqa: E731
    assert fitness(min(0.0, safety + gain)) >= fitness(safety)


# The strategies


def test_cma_es_is_pycma_with_the_paper_s_settings(tmp_path):
    """The same candidates as pycma itself, told minus the fitness, with |x| and the bounds applied afterwards."""
    found = genes(6)
    strategy = SEARCH_STRATEGIES.get("cma_es").make(found, 7)
    theirs = cma.CMAEvolutionStrategy([0.5] * 6, 1 / 6, {"randn": np.random.RandomState(7).randn, "seed": np.nan, "verbose": -9})
    assert theirs.popsize == 4 + math.floor(3 * math.log(6)) == 9
    while not strategy.done:
        asked, wanted = strategy.ask(), theirs.ask()
        assert asked == [[abs(x) for x in point] for point in wanted]
        fitness = [Objective().fitness(bowl(genome)) for genome in asked]
        strategy.tell(list(zip(asked, fitness, strict=True)))
        theirs.tell(wanted, [-f for f in fitness])
    assert theirs.countevals == 108  # the generation that passes 100 is finished
    assert Objective().fitness(bowl(strategy.recommend())) > -0.25


def test_cma_es_leaves_numpy_s_global_generator_alone(tmp_path):
    before = np.random.get_state()[1].copy()
    search(make("cma_es"), bowl, Objective(), tmp_path / "log")
    assert (np.random.get_state()[1] == before).all()


def test_cma_es_keeps_fractions_within_their_bounds(tmp_path):
    strategy = SEARCH_STRATEGIES.get("cma_es").make([Gene("density", "e", 0, 1.0, 0.0, 1.0)] * 2, 0)
    for _ in range(10):
        asked = strategy.ask()
        assert all(0 <= value <= 1 for genome in asked for value in genome)
        strategy.tell([(genome, -genome[0]) for genome in asked])


def test_cma_es_takes_one_gene_and_its_settings(tmp_path):
    result = search(make("cma_es", genes(1), max_evaluations=30, population=6), bowl, Objective(alpha=0), tmp_path / "log")
    assert result.tried == 30 and result.genome[0] == pytest.approx(0.3, abs=0.05)


def test_the_grid_is_the_product_of_its_values(tmp_path):
    found = [*genes(2), *genes(2, "density", 1.0)]
    result = search(
        make("grid", found, values={"density": [0.25, 0.5, 1.0], "weight": [0.25, 0.5, 1.0]}), bowl, Objective(), tmp_path / "log"
    )
    tried = [tuple(json.loads(line)["genome"]) for line in (tmp_path / "log").read_text().splitlines()]
    assert result.tried == 9 and set(tried) == {(w, w, d, d) for w in (0.25, 0.5, 1.0) for d in (0.25, 0.5, 1.0)}
    assert result.fitness == max(Objective().fitness(bowl(genome)) for genome in tried)


@pytest.mark.parametrize(("values", "message"), [({"wieght": [1]}, "Did you mean 'weight'"), ({"weight": []}, "weight lists no values")])
def test_a_grid_over_nothing_is_refused(values, message):
    with pytest.raises(Exception, match=message):
        make("grid", values=values)


def test_lm_cocktail_by_hand(tmp_path):
    """Losses 1, 2 and 3 at temperature 1: weights in proportion to e^-1, e^-2, e^-3, the same in every group."""
    found = [Gene("weight", owner, group, 0.3, 0.0, float("inf")) for group in (0, 1) for owner in ("base", "a", "b")]
    losses = {(1.0, 0.0, 0.0): 1.0, (0.0, 1.0, 0.0): 2.0, (0.0, 0.0, 1.0): 3.0}
    measure = lambda g: {"safety": TermScore(-losses.get(tuple(g[:3]), 9.0), 2), "domain": TermScore(-losses.get(tuple(g[3:]), 9.0), 2)}  # noqa: E731
    result = search(make("lm_cocktail", found), measure, Objective(pooled=True), tmp_path / "log")
    mass = [math.exp(-1), math.exp(-2), math.exp(-3)]
    assert result.genome == pytest.approx([m / sum(mass) for m in mass] * 2)
    assert result.tried == 4  # each model alone, then the mixture
    flat = search(make("lm_cocktail", found, temperature=1e9), measure, Objective(pooled=True), tmp_path / "flat")
    assert flat.genome == pytest.approx([1 / 3] * 6)


def test_fixed_asks_for_nothing(tmp_path):
    result = search(make("fixed"), bowl, Objective(), tmp_path / "log")
    assert (result.genome, result.tried) == ([], 0)


def test_settings_are_known_by_name():
    kind = SEARCH_STRATEGIES.get("cma_es")
    assert {name: default for name, (_, default) in kind.settings.items()} == {"max_evaluations": 100, "sigma0": 1 / 6, "population": None}
    with pytest.raises(RecipeError, match=r"no setting of cma_es named 'max_evals'. Did you mean 'max_evaluations'"):
        kind.check("ties", {"max_evals": 3})
    with pytest.raises(RecipeError, match="lm_cocktail works with linear, not with 'ties'"):
        SEARCH_STRATEGIES.get("lm_cocktail").check("ties", {})
