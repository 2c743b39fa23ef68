import json
import math

import cma
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hfsafemerge.errors import RecipeError, SearchError
from hfsafemerge.searching import (
    SEARCH_STRATEGIES,
    Candidate,
    Gene,
    Measurement,
    Objective,
    Query,
    SearchStrategy,
    TermScore,
    one_by_one,
    pareto_front,
    read_candidates,
    search,
)

INFINITE = float("inf")


def genes(count=3, parameter="weight", high=INFINITE, start=0.5):
    return [Gene(parameter, f"e{i}", 0, start, 0.0, high) for i in range(count)]


class Bowl:
    """Safety and domain are quadratics of the genome, each with a top of its own. A part of the data moves their tops a little."""

    def __init__(self, count=3, tops=(0.3, 0.8), noise=0.0, stretch=1.0, seed=0):
        random = np.random.default_rng(seed)
        turn = np.linalg.qr(random.normal(size=(count, count)))[0] if stretch > 1 else np.eye(count)
        self.bend = (turn * np.geomspace(1, 1 / stretch, count)) @ turn.T
        self.tops = {name: np.broadcast_to(top, count) for name, top in zip(("safety", "domain"), tops, strict=True)}
        self.noise = noise
        self.asked = []

    def __call__(self, query):
        self.asked.append(query)
        moved = np.random.default_rng(query.part).normal(size=len(query.genome)) * self.noise * math.sqrt(1 / query.share - 1)
        scores = {}
        for name, top in self.tops.items():
            away = np.array(query.genome) - top - moved
            slope = tuple((-self.bend @ away).tolist()) if query.with_slope else ()
            scores[name] = TermScore(float(-away @ self.bend @ away / 2), 8, 0.01, slope)
        return scores

    def fitness(self, genome, objective=None):
        return (objective or Objective()).fitness(self(Query([*genome])))

    @property
    def top(self):
        """Where safety + 0.3 domain is highest: both bend alike."""
        return (self.tops["safety"] + 0.3 * self.tops["domain"]) / 1.3


SETTINGS = {
    "expert_merging": {"start": 0.5},
    "grid": {"values": {"weight": [0.1, 0.3, 0.5]}},
    "random_search": {"ranges": {"weight": [0, 1]}},
}
MORE = [
    ("grid", {"values": None, "preset": "paper"}),
    ("cma_es", {"bounds": "transform", "separable": True, "max_evaluations": 40}),
    ("cma_es", {"share": 0.25, "max_evaluations": 20}),
    ("gradient", {"share": 1.0}),
    ("gradient", {"max_cost": 4.0}),
    ("gradient", {"max_cost": 30.0, "share": 0.3}),
    ("surrogate", {"share": 0.25, "max_evaluations": 15}),
    ("pareto", {"preferences": 3, "steps": 1, "share": 1.0}),
]


def make(name, found=None, seed=0, **settings):
    return SEARCH_STRATEGIES.get(name).make(found or genes(), seed, **(SETTINGS.get(name, {}) | settings))


def run(strategy, log, measure=None, objective=None, **more):
    return search(strategy, one_by_one(measure or Bowl()), objective or Objective(), log, **more)


every_strategy = pytest.mark.parametrize(
    ("name", "settings"), [(name, {}) for name in SEARCH_STRATEGIES.names()] + MORE, ids=lambda value: str(value)[:60]
)


@every_strategy
def test_every_strategy_keeps_the_protocol(name, settings, tmp_path):
    kind = SEARCH_STRATEGIES.get(name)
    kind.check(kind.methods[0] if kind.methods else "ties", {k: v for k, v in (SETTINGS.get(name, {}) | settings).items() if v is not None})
    assert len(kind.summary) < 150 and kind.summary.endswith((".", ":"))
    found = genes(2)
    strategy = make(name, found, **settings)
    assert isinstance(strategy, SearchStrategy)
    bowl = Bowl(2, noise=0.05)
    result = run(strategy, tmp_path / "search.jsonl", bowl)
    lines = read_candidates(tmp_path / "search.jsonl")
    assert [line.number for line in lines] == list(range(1, result.tried + 1))
    assert [line.query for line in lines] == bowl.asked
    assert result.cost == pytest.approx(sum(line.query.cost for line in lines))
    assert any(line.query.with_slope for line in lines) == kind.needs_slopes
    assert bool(lines) == kind.needs_data
    if kind.needs_data:
        assert len(result.genome) == 2 and result.fitness == bowl.fitness(result.genome)
        assert strategy.total >= result.tried - 1  # what is recommended may be evaluated once more
        assert lines[result.number - 1].genome == result.genome and lines[result.number - 1].whole
        if kind.ranks:
            assert result.fitness == max(line.fitness for line in lines if line.whole)


@every_strategy
@pytest.mark.parametrize("high", [1.0, INFINITE])
def test_every_strategy_keeps_the_bounds(name, settings, high, tmp_path):
    """The tops are far outside, on both sides."""
    found = [Gene("weight", "a", 0, 0.5, 0.0, high), Gene("weight", "b", 0, 0.0, 0.0, high), Gene("density", "b", 0, 1.0, 0.0, 1.0)]
    if name == "random_search":
        settings = settings | {"ranges": {"weight": [0.2, 0.9]}}
    run(make(name, found, **settings), tmp_path / "log", Bowl(tops=([2.0, -1.0, 2.0], [-1.0, -1.0, 3.0]), noise=0.3))
    for candidate in read_candidates(tmp_path / "log"):
        assert all(gene.low <= value <= gene.high and math.isfinite(value) for gene, value in zip(found, candidate.genome, strict=True))


@every_strategy
@pytest.mark.parametrize("survived", [0, 1, 5, 9, 50])
def test_a_search_that_was_killed_goes_on_to_the_same_end(name, settings, survived, tmp_path):
    finalists = 2 if SEARCH_STRATEGIES.get(name).ranks else 0
    whole = run(make(name, genes(2), 3, **settings), tmp_path / "whole.jsonl", Bowl(2, noise=0.1), finalists=finalists)
    lines = (tmp_path / "whole.jsonl").read_text().splitlines(keepends=True)
    torn = "" if survived >= len(lines) else lines[survived][:17]  # a line that the kill cut short
    (tmp_path / "killed.jsonl").write_text("".join(lines[:survived]) + torn)
    bowl = Bowl(2, noise=0.1)
    resumed = run(make(name, genes(2), 3, **settings), tmp_path / "killed.jsonl", bowl, finalists=finalists)
    assert resumed == whole
    assert len(bowl.asked) == max(0, len(lines) - survived)  # nothing is evaluated twice
    strip = lambda path: [json.loads(line) | {"seconds": 0} for line in path.read_text().splitlines()]  # noqa: E731
    assert strip(tmp_path / "killed.jsonl") == strip(tmp_path / "whole.jsonl")


@every_strategy
def test_every_strategy_takes_one_gene_and_a_fitness_that_nothing_changes(name, settings, tmp_path):
    def flat(query):
        return {"safety": TermScore(-1.0, 2, 0.0, (0.0,) if query.with_slope else ())}

    result = run(make(name, genes(1), **settings), tmp_path / "flat", flat)
    assert result.fitness in (None, -1.0)
    run(make(name, genes(1), **settings), tmp_path / "bowl", Bowl(1))


# The loop


def test_the_log_of_another_search_is_refused(tmp_path):
    run(make("cma_es", seed=1), tmp_path / "search.jsonl")
    with pytest.raises(SearchError, match=r"holds another search: its candidate 1 is not the one asked for"):
        run(make("cma_es", seed=2), tmp_path / "search.jsonl")


@pytest.mark.parametrize("damage", [b'{"number": 1}\n', b"[1]\n", b"\xff\xfe\n", b"nonsense\n", b"\n"])
def test_a_damaged_log_is_refused(tmp_path, damage):
    (tmp_path / "log").write_bytes(damage)
    with pytest.raises(SearchError, match="is no log of a search, or damaged"):
        run(make("cma_es"), tmp_path / "log")


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_fitness_that_is_no_number_stops_the_search_and_keeps_the_log(tmp_path, bad):
    count = iter(range(100))
    with pytest.raises(SearchError, match="The fitness came out as"):
        run(make("cma_es"), tmp_path / "log", lambda query: {"safety": TermScore(bad if next(count) == 5 else -1.0, 1)})
    assert len((tmp_path / "log").read_text().splitlines()) == 5


def test_a_slope_that_is_no_number_stops_the_search(tmp_path):
    with pytest.raises(SearchError, match="A derivative of the fitness is no finite number"):
        run(make("gradient", genes(1)), tmp_path / "log", lambda query: {"safety": TermScore(-1.0, 1, 0.0, (float("nan"),))})


def test_a_search_without_data_is_refused(tmp_path):
    with pytest.raises(SearchError, match="no kind of data has examples"):
        run(make("cma_es"), tmp_path / "log", lambda query: {})


def test_a_constraint_that_nobody_keeps_is_an_error_and_one_that_some_keep_is_kept(tmp_path):
    bowl = Bowl()
    objective = Objective("constrained", epsilon=0.05)
    reference = lambda mean: {"reference": lambda query: {"safety": TermScore(mean, 8)}}  # noqa: E731
    with pytest.raises(SearchError, match=r"None of the 3 candidates .* keeps the constraint search\.epsilon"):
        run(make("grid"), tmp_path / "none", bowl, objective, **reference(0.5))
    grid = make("grid", values={"weight": [0.8, 0.49, 0.47, 0.3]})
    result = run(grid, tmp_path / "some", bowl, objective, **reference(0.0))  # 3 * (x - 0.3)^2 / 2 <= 0.05 up to 0.4826
    assert result.genome == [0.47] * 3 and result.fitness == bowl(Query([0.47] * 3))["domain"].mean
    grid = make("grid", values={"weight": [0.8, 0.49, 0.47, 0.3]})
    again = run(grid, tmp_path / "some", bowl, objective, finalists=4, **reference(0.0))
    assert {finalist.number for finalist in again.finalists} == {3, 4}  # the others don't keep it


def test_the_fittest_on_the_data_set_aside_wins(tmp_path):
    """On the data of the search 0.3 is best, on that set aside 0.1."""

    def measure(query):
        top = 0.3 if query.split == "search" else 0.1
        return {"safety": TermScore(-sum((x - top) ** 2 for x in query.genome), 8, 0.02)}

    plain = run(make("grid"), tmp_path / "plain", measure)
    assert plain.genome == [0.3] * 3 and not plain.finalists
    result = run(make("grid", values={"weight": [0.1, 0.31, 0.5, 0.9]}), tmp_path / "log", measure, finalists=3)
    assert result.genome == [0.1] * 3 and result.number == 1
    assert result.fitness == pytest.approx(-3 * 0.04)  # still on the data of the search
    assert [finalist.number for finalist in result.finalists] == [2, 1, 3]
    assert [finalist.selection_fitness for finalist in result.finalists] == pytest.approx([-3 * 0.21**2, 0, -3 * 0.16])
    assert result.finalists[0].selection_error == pytest.approx(0.02)
    assert result.tried == 7 and result.cost == 4.0  # what is set aside is not counted
    assert [c.query.split for c in read_candidates(tmp_path / "log")] == ["search"] * 4 + ["selection"] * 3


def test_strategies_that_do_not_rank_say_so():
    assert {kind.name for kind in SEARCH_STRATEGIES if not kind.ranks} >= {"fixed", "lm_cocktail"}
    assert SEARCH_STRATEGIES.get("lm_cocktail").rule == "pooled"
    assert {kind.name for kind in SEARCH_STRATEGIES if kind.needs_slopes} >= {"gradient", "pareto"}


def test_queries_are_answered_in_their_order_and_the_log_has_where_the_experts_were(tmp_path):
    def evaluate(queries):
        for query in queries:
            yield Measurement({"safety": TermScore(-query.genome[0], 1)}, 2.5, "in memory")

    told = []
    search(make("grid"), evaluate, Objective(), tmp_path / "log", lambda candidate, total: told.append((candidate, total)))
    assert [(c.genome[0], c.fitness, c.seconds, c.memory, total) for c, total in told] == [
        (value, -value, 2.5, "in memory", 3) for value in (0.1, 0.3, 0.5)
    ]
    assert [candidate for candidate, _ in told] == read_candidates(tmp_path / "log")


@pytest.mark.parametrize(
    ("query", "cost"), [(Query([1.0]), 1), (Query([1.0], with_slope=True), 3), (Query([1.0], 0.25, with_slope=True), 0.75)]
)
def test_a_slope_costs_three_evaluations(query, cost):
    assert query.cost == cost


# The objective


def test_fitness_is_safety_plus_alpha_times_domain():
    terms = {"safety": TermScore(-0.5, 10, 0.1), "domain": TermScore(-2.0, 30, 0.2)}
    assert Objective().fitness(terms) == pytest.approx(-0.5 + 0.3 * -2.0)
    assert Objective().error(terms) == pytest.approx(math.hypot(0.1, 0.3 * 0.2))
    assert Objective(alpha=0).fitness(terms) == -0.5
    assert Objective().fitness({"domain": terms["domain"]}) == -2.0  # alone it is not scaled
    assert Objective().fitness({"safety": terms["safety"]}) == -0.5
    assert Objective("pooled").fitness(terms) == pytest.approx((10 * -0.5 + 30 * -2.0) / 40)
    assert Objective(beta=0.5).fitness(terms | {"benign": TermScore(-4.0, 5)}) == pytest.approx(-1.1 - 2.0)


def test_topics_weigh_by_their_examples_or_as_told():
    terms = {"safety": TermScore(-1.0, 10), "domain/law": TermScore(-2.0, 30), "domain/sums": TermScore(-4.0, 10)}
    assert Objective().fitness(terms) == pytest.approx(-1.0 - 0.3 * (0.75 * 2 + 0.25 * 4))
    assert Objective(weights={"sums": 3.0}).fitness(terms) == pytest.approx(-1.0 - 0.3 * (0.25 * 2 + 0.75 * 4))
    assert Objective("even").fitness(terms) == -7.0
    assert Objective("even", weights={"sums": 0.5}).fitness(terms) == -5.0
    assert Objective("pooled", weights={"sums": 9.0}).fitness(terms) == pytest.approx(-(10 + 60 + 40) / 50)


def test_a_constraint_takes_off_ten_times_what_is_missed():
    objective = Objective("constrained", epsilon=0.05, reference={"safety": TermScore(-0.5, 10)})
    terms = {"safety": TermScore(-0.55, 10), "domain": TermScore(-2.0, 30)}
    assert objective.admits(terms) and objective.fitness(terms) == -2.0
    missed = terms | {"safety": TermScore(-0.65, 10)}
    assert not objective.admits(missed) and objective.fitness(missed) == pytest.approx(-2.0 - 10 * 0.1)
    assert Objective().admits(missed)


SCORES = st.floats(-5, 0)
OBJECTIVES = st.tuples(
    st.sampled_from(["weighted", "constrained", "pooled", "even"]),
    st.floats(0, 2),
    st.floats(0, 2),
    st.sampled_from([{}, {"law": 2.0}, {"law": 0.0, "sums": 1.0}]),
    st.floats(0, 1),
    st.fixed_dictionaries({"safety": SCORES, "benign": SCORES}),
)


def objective_of(rule, alpha, beta, weights, epsilon, reference):
    return Objective(rule, alpha, beta, weights, epsilon, {name: TermScore(mean, 5) for name, mean in reference.items()})


@settings(max_examples=50, deadline=None)
@given(OBJECTIVES, SCORES, SCORES, st.floats(0, 1))
def test_more_safety_is_never_less_fit(drawn, safety, domain, gain):
    objective = objective_of(*drawn)
    fitness = lambda s: objective.fitness({"safety": TermScore(s, 1), "domain": TermScore(domain, 1)})  # noqa: E731
    assert fitness(min(0.0, safety + gain)) >= fitness(safety)


@settings(max_examples=100, deadline=None)
@given(
    OBJECTIVES,
    st.sets(st.sampled_from(["safety", "benign", "domain/law", "domain/sums"]), min_size=1),
    st.lists(st.tuples(SCORES, st.integers(1, 9), st.floats(-1, 1), st.floats(-1, 1)), min_size=4, max_size=4),
)
def test_the_slope_is_the_derivative_of_the_fitness(rule, names, drawn):
    """Terms that are linear in two genes, against finite differences."""
    objective = objective_of(*rule)

    def terms(x, y):
        rows = zip(sorted(names), drawn, strict=False)
        return {name: TermScore(mean + a * x + b * y, n, 0.0, (a, b)) for name, (mean, n, a, b) in rows}

    if objective.rule == "constrained":  # not where it has a kink
        assume(
            all(
                abs(objective.reference[n].mean - objective.epsilon - t.mean) > 1e-2
                for n, t in terms(0, 0).items()
                if n in ("safety", "benign")
            )
        )
    h = 1e-3
    wanted = [
        (objective.fitness(terms(h, 0)) - objective.fitness(terms(-h, 0))) / (2 * h),
        (objective.fitness(terms(0, h)) - objective.fitness(terms(0, -h))) / (2 * h),
    ]
    assert objective.slope(terms(0, 0)) == pytest.approx(wanted, abs=1e-8)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 0), st.integers(-3, 0), st.integers(-3, 0)), max_size=12))
def test_the_pareto_front_is_what_nothing_else_beats(points):
    terms = [{name: TermScore(float(mean), 1) for name, mean in zip("abc", point, strict=True)} for point in points]
    front = pareto_front(terms)
    for i, point in enumerate(points):
        beaten = any(all(a >= b for a, b in zip(other, point, strict=True)) and other != point for other in points)
        assert (i in front) == (not beaten and point not in points[:i])


# The strategies


def tell(strategy, asked, measure, objective=None):
    """Answer queries by hand."""
    objective = objective or Objective()
    answers = []
    for number, query in enumerate(asked, 1):
        terms = measure(query)
        slope = tuple(objective.slope(terms)) if query.with_slope else ()
        answers.append(Candidate(number, query, terms, objective.fitness(terms), slope, True, 0.0))
    strategy.tell(answers)
    return [answer.fitness for answer in answers]


@pytest.mark.parametrize("preset", [None, "evomm"])
def test_cma_es_is_pycma_with_the_paper_s_settings(preset):
    """The same candidates as pycma itself, told minus the fitness, with |x| and the bounds applied afterwards."""
    found = [*genes(3), *genes(3, "density", 1.0, start=1.0)]
    strategy = make("cma_es", found, 7, preset=preset)
    theirs = cma.CMAEvolutionStrategy(
        [0.5] * 3 + [1.0] * 3, 1 / 6, {"randn": np.random.RandomState(7).randn, "seed": np.nan, "verbose": -9}
    )
    assert theirs.popsize == 4 + math.floor(3 * math.log(6)) == 9
    best = (-INFINITE, [])
    while not strategy.done:
        asked, wanted = strategy.ask(), theirs.ask()
        assert asked == [Query([abs(x) for x in point[:3]] + [min(abs(x), 1) for x in point[3:]]) for point in wanted]
        fitness = tell(strategy, asked, Bowl(6))
        theirs.tell(wanted, [-f for f in fitness])
        best = max([best, *((f, query.genome) for f, query in zip(fitness, asked, strict=True))])
    assert theirs.countevals == 108  # the generation that passes 100 is finished
    assert strategy.recommend() == best[1]


def test_the_preset_refuses_other_settings():
    make("cma_es", preset="evomm", max_evaluations=200, population=5)
    with pytest.raises(RecipeError, match=r"the preset evomm has bounds = fold\. Leave one of the two out"):
        make("cma_es", preset="evomm", bounds="transform")


def test_cma_es_leaves_numpy_s_global_generator_alone(tmp_path):
    before = np.random.get_state()[1].copy()
    run(make("cma_es"), tmp_path / "log")
    assert (np.random.get_state()[1] == before).all()


def test_cma_es_takes_one_gene_and_its_settings(tmp_path):
    result = run(make("cma_es", genes(1), max_evaluations=30, population=6), tmp_path / "log", Bowl(1), Objective(alpha=0))
    assert result.tried == 30 and result.genome[0] == pytest.approx(0.3, abs=0.05)


def test_cma_es_with_transformed_bounds_reaches_an_optimum_at_them(tmp_path):
    found = [*genes(2), *genes(2, "density", 1.0, start=1.0)]
    bowl = Bowl(4, tops=([-0.5, 0.6, 1.5, 0.4],) * 2)
    result = run(make("cma_es", found, bounds="transform", max_evaluations=300), tmp_path / "log", bowl)
    assert result.genome == pytest.approx([0, 0.6, 1, 0.4], abs=0.05)


def test_cma_es_starts_again_with_twice_the_population(tmp_path):
    strategy = make("cma_es", genes(1), population=4, restarts=1, max_evaluations=1000)
    sizes = []
    while not strategy.done:
        asked = strategy.ask()
        sizes.append(len(asked))
        tell(strategy, asked, Bowl(1))
    assert set(sizes) == {4, 8} and sizes == sorted(sizes) and sum(sizes) < 1000
    assert strategy.recommend() == pytest.approx(Bowl(1).top.tolist(), abs=1e-3)


def test_a_generation_sees_one_part_of_the_data_and_the_last_two_candidates_all(tmp_path):
    result = run(make("cma_es", share=0.25, max_evaluations=20), tmp_path / "log", Bowl(noise=0.1))
    *partial, mean, best = read_candidates(tmp_path / "log")
    generations = [partial[i : i + 7] for i in range(0, len(partial), 7)]
    assert [{c.query.part for c in generation} for generation in generations] == [{i % 4} for i in range(len(generations))]
    assert all(c.query.share == 0.25 for c in partial) and mean.whole and best.whole
    assert best.genome in [c.genome for c in generations[-1]] and result.fitness == max(mean.fitness, best.fitness)
    assert 20 <= result.cost < 20 + 7 * 0.25


def test_the_grid_is_the_product_of_its_values(tmp_path):
    found = [*genes(2), *genes(2, "density", 1.0)]
    bowl = Bowl(4)
    result = run(make("grid", found, values={"density": [0.25, 0.5, 1.0], "weight": [0.25, 0.5, 1.0]}), tmp_path / "log", bowl)
    tried = [tuple(candidate.genome) for candidate in read_candidates(tmp_path / "log")]
    assert result.tried == 9 and set(tried) == {(w, w, d, d) for w in (0.25, 0.5, 1.0) for d in (0.25, 0.5, 1.0)}
    assert result.fitness == max(bowl.fitness(genome) for genome in tried)


@pytest.mark.parametrize(
    ("found", "points"),
    [
        ([*genes(1), *genes(1, "density", 1.0)], [[w, d] for d in (0.25, 0.5, 1) for w in (0.25, 0.5, 1)]),
        ([*genes(2), *genes(2, "density", 1.0)], [[w, w, d, d] for d in (0.25, 0.5, 1) for w in (0.1, 0.25, 0.33, 0.5, 1)]),
        (genes(1, "t", 1.0), [[t / 10] for t in range(1, 11)]),
        ([*genes(1), *genes(1, "lambda_")], [[w, 0.5] for w in (0.25, 0.5, 1)]),  # what the paper does not search stays
    ],
)
def test_the_grid_of_the_paper(found, points):
    assert [query.genome for query in make("grid", found, values=None, preset="paper").ask()] == points


@pytest.mark.parametrize(
    ("found", "given", "message"),
    [
        (genes(), {"values": {"wieght": [1]}}, "Did you mean 'weight'"),
        (genes(), {"values": {"weight": []}}, "weight lists no values"),
        (genes(2, "density", 1.0), {"values": {"density": [2]}}, "density lists 2; it goes from 0.0 to 1.0"),
        (genes(), {"values": None}, "needs search.settings.values, or search.settings.preset"),
        (genes(), {"preset": "paper"}, "values and preset stand for each other"),
        (genes(3), {"values": None, "preset": "paper"}, "for one or two experts, and there are 3"),
        (genes(1, "gamma"), {"values": None, "preset": "paper"}, "for density, weight and t, not for gamma"),
    ],
)
def test_a_grid_over_nothing_is_refused(found, given, message):
    with pytest.raises(RecipeError, match=message):
        make("grid", found, **given)


def test_lm_cocktail_by_hand(tmp_path):
    """Losses 1, 2 and 3 at temperature 1: weights in proportion to e^-1, e^-2, e^-3, the same in every group."""
    found = [Gene("weight", owner, group, 0.3, 0.0, INFINITE) for group in (0, 1) for owner in ("base", "a", "b")]
    losses = {(1.0, 0.0, 0.0): 1.0, (0.0, 1.0, 0.0): 2.0, (0.0, 0.0, 1.0): 3.0}

    def measure(query):
        first, second = (losses.get(tuple(query.genome[i : i + 3]), 9.0) for i in (0, 3))
        return {"safety": TermScore(-first, 2), "domain": TermScore(-second, 2)}

    result = run(make("lm_cocktail", found), tmp_path / "log", measure, Objective("pooled"))
    mass = [math.exp(-1), math.exp(-2), math.exp(-3)]
    assert result.genome == pytest.approx([m / sum(mass) for m in mass] * 2)
    assert result.tried == 4  # each model alone, then the mixture
    flat = run(make("lm_cocktail", found, temperature=1e9), tmp_path / "flat", measure, Objective("pooled"))
    assert flat.genome == pytest.approx([1 / 3] * 6)


def test_half_a_nat_at_the_library_s_temperature(tmp_path):
    found = [Gene("weight", owner, 0, 0.5, 0.0, INFINITE) for owner in ("base", "a")]
    measure = lambda query: {"domain": TermScore(-1.0 - 0.5 * query.genome[1], 1)}  # noqa: E731
    result = run(make("lm_cocktail", found, temperature=5.0), tmp_path / "log", measure, Objective("pooled"))
    assert result.genome == pytest.approx([0.525, 0.475], abs=1e-3)


def test_fixed_asks_for_nothing(tmp_path):
    result = run(make("fixed"), tmp_path / "log", finalists=3)
    assert (result.genome, result.tried, result.cost) == ([], 0, 0)


def test_random_search_starts_at_the_start_and_draws_within_its_ranges(tmp_path):
    found = [*genes(2), *genes(1, "density", 1.0)]
    result = run(make("random_search", found, max_evaluations=200, ranges={"weight": [0.2, 0.4]}), tmp_path / "log")
    first, *drawn = (candidate.genome for candidate in read_candidates(tmp_path / "log"))
    assert first == [0.5, 0.5, 0.5] and result.tried == 200
    low, high = np.min(drawn, axis=0), np.max(drawn, axis=0)
    assert low == pytest.approx([0.2, 0.2, 0], abs=0.03) and high == pytest.approx([0.4, 0.4, 1], abs=0.03)
    assert len(make("random_search", found).ask()) == 8  # the log grows while it goes on


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (None, r"weight has no upper bound. Give it one, such as search.settings.ranges: \{weight: \[0, 1\]\}"),
        ({"wieght": [0, 1]}, "Did you mean 'weight'"),
        ({"weight": [1, 0]}, "it must rise and lie in"),
        ({"weight": [-1, 1]}, "it must rise and lie in"),
    ],
)
def test_ranges_are_checked(ranges, message):
    with pytest.raises(RecipeError, match=message):
        make("random_search", ranges=ranges)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_gradient_reaches_the_top_of_a_bowl_within_ten_evaluations(count, tmp_path):
    bowl = Bowl(count, tops=(0.3, 0.8), noise=0.02, stretch=10 if count > 1 else 1)
    result = run(make("gradient", genes(count)), tmp_path / "log", bowl)
    assert result.cost <= 10
    assert bowl.fitness(bowl.top) - result.fitness < 0.01 * (bowl.fitness(bowl.top) - bowl.fitness([0.5] * count)) + 1e-5


def test_gradient_needs_a_tenth_of_what_cma_es_does(tmp_path):
    for count in (6, 12, 64):
        bowl = Bowl(count, tops=(np.linspace(-0.2, 1, count), np.linspace(1, 0.2, count)), noise=0.05, stretch=30)
        slow = run(make("cma_es", genes(count)), tmp_path / f"slow-{count}", bowl)
        fast = run(make("gradient", genes(count)), tmp_path / f"fast-{count}", bowl)
        assert fast.cost <= 10 < 100 <= slow.cost and fast.fitness > slow.fitness


@pytest.mark.parametrize("share", [1.0, 0.5, 1 / 8])
def test_gradient_finds_an_optimum_at_the_bounds(share, tmp_path):
    found = [*genes(2), *genes(2, "density", 1.0, start=1.0)]
    top = [-0.5, 0.6, 1.5, 0.4]
    result = run(make("gradient", found, share=share, max_cost=40), tmp_path / "log", Bowl(4, tops=(top, top), noise=0.05))
    assert result.genome == pytest.approx([0, 0.6, 1, 0.4], abs=0.03)


def test_gradient_steps_on_one_part_and_measures_all_data_twice(tmp_path):
    result = run(make("gradient", seed=11), tmp_path / "log", Bowl(noise=0.2, stretch=10))
    candidates = read_candidates(tmp_path / "log")
    assert {(c.query.share, c.query.part) for c in candidates if not c.whole} == {(1 / 8, 11 % 8)}
    whole = [c for c in candidates if c.whole]
    assert len(whole) == 2 and whole[0].query.with_slope and candidates[-1].whole
    assert candidates[0].genome == [0.5] * 3 and result.cost <= 10


def test_gradient_finds_the_optimum_of_all_data_though_its_part_has_another(tmp_path):
    """The part's optimum is far off; the bowls bend alike, so one slope of all data tells by how much."""
    bowl = Bowl(6, tops=(0.4, 0.6), noise=0.1, stretch=5)
    result = run(make("gradient", genes(6)), tmp_path / "log", bowl)
    assert np.linalg.norm(np.array(result.genome) - bowl.top) < 0.03
    whole = [candidate for candidate in read_candidates(tmp_path / "log") if candidate.whole]
    assert np.linalg.norm(np.array(whole[0].genome) - bowl.top) > 0.2  # where the part alone would have led


def test_gradient_steps_back_from_where_the_fitness_falls(tmp_path):
    """A slope that promises far more than there is, and a ridge beyond which it falls off."""

    def measure(query):
        (x,) = query.genome
        return {
            "safety": TermScore(-abs(x - 0.52) - 10 * max(0.0, x - 0.52), 1, 0.0, (1.0 if x < 0.52 else -11.0,) if query.with_slope else ())
        }

    result = run(make("gradient", genes(1), max_cost=30), tmp_path / "log", measure)
    assert result.genome[0] == pytest.approx(0.52, abs=2e-3)


@pytest.mark.parametrize("count", [1, 3, 6])
def test_a_surrogate_needs_a_third_of_what_cma_es_does(count, tmp_path):
    bowl = Bowl(count, tops=(0.3, 0.8), stretch=10 if count > 1 else 1)
    slow = run(make("cma_es", genes(count)), tmp_path / "slow", bowl)
    fast = run(make("surrogate", genes(count), max_evaluations=35), tmp_path / "fast", bowl)
    assert fast.cost == 35 and fast.fitness >= slow.fitness - 1e-6


def test_a_surrogate_works_on_a_part_and_ends_with_three_on_all(tmp_path):
    result = run(make("surrogate", share=0.25, max_evaluations=15, seed=2), tmp_path / "log", Bowl(noise=0.05))
    candidates = read_candidates(tmp_path / "log")
    assert {c.query.part for c in candidates[:-3]} == {2} and [c.whole for c in candidates] == [False] * (len(candidates) - 3) + [True] * 3
    assert result.cost <= 15


def test_a_quadratic_is_found_again_from_its_values():
    from hfsafemerge.searching.quadratic_models import fitted, lowest

    random = np.random.default_rng(0)
    slope, bend = random.normal(size=4), np.diag([1.0, 2.0, 3.0, -1.0]) + 0.1
    steps = random.uniform(-1, 1, (30, 4))
    steps[0] = 0
    found = fitted(steps, steps @ slope + np.einsum("ki,ij,kj->k", steps, bend, steps) / 2)
    assert found[0] == pytest.approx(slope, abs=1e-3) and found[1] == pytest.approx(bend, abs=1e-2)
    ends = np.ones(3)
    convex = np.diag([1.0, 2.0, 3.0]) + 0.5
    step = lowest(slope[:3], convex, -ends, ends)
    rest = slope[:3] + convex @ step  # Karush-Kuhn-Tucker: no slope inside, and outwards at the ends
    assert all(abs(r) < 1e-8 if abs(x) < 1 else r * x <= 0 for r, x in zip(rest, step, strict=True))


def test_pareto_spreads_its_candidates_over_the_front(tmp_path):
    """With two bowls that bend alike the front is the line between their tops."""
    bowl = Bowl(4, tops=([0.2] * 4, [0.9] * 4), stretch=5)
    result = run(make("pareto", genes(4), preferences=8), tmp_path / "log", bowl)
    whole = [candidate for candidate in read_candidates(tmp_path / "log") if candidate.whole]
    assert len(whole) == 8 and len(pareto_front([candidate.terms for candidate in whole])) >= 7
    along = sorted(np.mean(candidate.genome) for candidate in whole)
    assert along[0] < 0.25 and along[-1] > 0.85 and max(np.diff(along)) < 0.25
    assert max(np.std(candidate.genome) for candidate in whole) < 0.1
    assert result.fitness == max(candidate.fitness for candidate in whole)
    assert bowl.fitness(bowl.top) - result.fitness < 1e-3 and result.cost < 20


def test_pareto_has_a_preference_for_benign_too(tmp_path):
    bowl = Bowl(3, tops=([0.2, 0.5, 0.5], [0.5, 0.9, 0.5]))

    def measure(query):
        benign = Bowl(3, tops=([0.5, 0.5, 0.9], [0.0] * 3))(query)["safety"]
        return bowl(query) | {"benign": benign}

    run(make("pareto"), tmp_path / "log", measure)
    whole = [candidate for candidate in read_candidates(tmp_path / "log") if candidate.whole]
    for term in ("safety", "domain", "benign"):
        assert max(candidate.terms[term].mean for candidate in whole) > -0.01


def test_pareto_sweeps_between_topics_where_there_is_nothing_else(tmp_path):
    bowl = Bowl(2, tops=([0.2, 0.2], [0.9, 0.9]))
    measure = lambda query: dict(zip(("domain/law", "domain/sums"), bowl(query).values(), strict=True))  # noqa: E731
    run(make("pareto", genes(2)), tmp_path / "log", measure)
    whole = [candidate.terms for candidate in read_candidates(tmp_path / "log") if candidate.whole]
    assert all(max(terms[name].mean for terms in whole) > -0.01 for name in ("domain/law", "domain/sums"))


def test_settings_are_known_by_name():
    kind = SEARCH_STRATEGIES.get("cma_es")
    defaults = {name: default for name, (_, default) in kind.settings.items()}
    assert defaults.items() >= {"preset": None, "max_evaluations": 100, "sigma0": 1 / 6, "population": None, "bounds": "fold"}.items()
    with pytest.raises(RecipeError, match=r"no setting of cma_es named 'max_evals'. Did you mean 'max_evaluations'"):
        kind.check("ties", {"max_evals": 3})
    with pytest.raises(RecipeError, match=r"search\.settings\.bounds: .*\(found 'wall'\)"):
        kind.check("ties", {"bounds": "wall"})
    with pytest.raises(RecipeError, match=r"search\.settings\.ranges\.weight: .*\(found '\[1\]'\)"):
        SEARCH_STRATEGIES.get("random_search").check("ties", {"ranges": {"weight": [1]}})
    with pytest.raises(RecipeError, match="lm_cocktail works with linear, not with 'ties'"):
        SEARCH_STRATEGIES.get("lm_cocktail").check("ties", {})
