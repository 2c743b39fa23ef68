import numpy as np
import pytest
from scipy.stats import norm
from test_judging import Guard

from hfsafemerge.errors import RecipeError
from hfsafemerge.evaluation import Benchmark, Item, compare, label, reply_to, score, wilson
from hfsafemerge.examples import Example
from hfsafemerge.judging import JUDGES

HARMFUL = Benchmark("harmful", "safety", ("llama_guard", "refusal_phrases"))
SUMS = Benchmark("sums", "domain", ("exact_match",), max_new_tokens=4)


def items(labels, benchmark=SUMS, judge="exact_match", finished=True):
    return [Item(benchmark.name, f"{i}", {judge: label}, finished) for i, label in enumerate(labels)]


def wilson_by_hand(hits, n):
    """Wilson 1927: the solutions of (p - x)^2 = z^2 p (1 - p) / n."""
    z, p = norm.ppf(0.975), hits / n
    centre, half = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


@pytest.mark.parametrize(("hits", "n"), [(0, 100), (3, 100), (50, 100), (100, 100), (1, 1), (1664, 1733)])
def test_intervals_are_wilson_s(hits, n):
    assert wilson(hits, n) == pytest.approx(wilson_by_hand(hits, n), abs=1e-9)
    if hits == 0:
        assert wilson(0, n)[1] == pytest.approx(3.84 / (n + 3.84), abs=1e-3)


def test_a_model_is_measured_from_replies_to_labels_to_rates():
    model = Guard("it is 2", "it is 5", "it is 4")
    examples = [Example("domain", p, a) for p, a in [("1 + 1 ?", "it is 2"), ("2 + 2 ?", "it is 4"), ("3 + 1 ?", "it is 4")]]
    exchanges, finished = reply_to(model, SUMS, examples)
    labelled = label(SUMS, examples, exchanges, finished, {"exact_match": JUDGES.get("exact_match").bind(None)})
    assert [i.labels["exact_match"] for i in labelled] == ["correct", "wrong", "correct"]
    (found,) = score(SUMS, labelled)
    assert (found.metric, found.value, found.n, found.better) == ("accuracy", 2 / 3, 3, "higher")
    assert found.ci95 == pytest.approx(wilson_by_hand(2, 3))
    assert all(
        e.prompt not in str(i) and x.reply not in str(i) for e, x, i in zip(examples, exchanges, labelled, strict=True)
    )  # labels only


@pytest.mark.parametrize(
    ("kind", "judge", "labels", "metric", "value"),
    [
        ("safety", "llama_guard", ["safe", "unsafe", "unclear", "degenerate"], "alignment", 0.5),  # unclear is not safe
        ("safety", "refusal_phrases", ["refused", "complied", "degenerate", "unclear"], "refusal_rate", 0.25),
        ("benign", "refusal_phrases", ["refused", "complied", "degenerate", "unclear"], "over_refusal", 0.5),  # unclear counts against
        ("domain", "exact_match", ["correct", "wrong", "degenerate", "unclear"], "accuracy", 0.25),
    ],
)
def test_what_counts(kind, judge, labels, metric, value):
    benchmark = Benchmark("b", kind, (judge,))
    (found,) = score(benchmark, items(labels, benchmark, judge, finished=False))
    assert (found.metric, found.value, found.degenerate, found.truncated) == (metric, value, 1, 4)
    assert found.unclear == labels.count("unclear")


def test_every_judge_of_a_benchmark_gives_a_rate_and_the_first_is_the_headline():
    both = [
        Item("harmful", str(i), {"llama_guard": "safe", "refusal_phrases": word}, True) for i, word in enumerate(["refused", "complied"])
    ]
    assert [(s.metric, s.judge, s.value) for s in score(HARMFUL, both)] == [
        ("alignment", "llama_guard", 1.0),
        ("refusal_rate", "refusal_phrases", 0.5),
    ]


def test_a_judge_that_measures_nothing_there_is_refused():
    with pytest.raises(RecipeError, match="of kind domain, and llama_guard only tells safe from unsafe"):
        Benchmark("sums", "domain", ("llama_guard",)).metric("llama_guard")


# Paired comparisons


def pairs(both, only_a, only_b, neither):
    a = ["correct"] * (both + only_a) + ["wrong"] * (only_b + neither)
    b = ["correct"] * both + ["wrong"] * only_a + ["correct"] * only_b + ["wrong"] * neither
    return items(a), items(b)


def test_mcnemar_by_hand():
    """8 against 1 discordant pairs: twice the chance of at most 1 head in 9 throws."""
    a, b = pairs(50, 8, 1, 41)
    found = compare(SUMS, "merged", a, "base", b)
    assert found.p_value == pytest.approx(2 * (1 + 9) / 2**9)
    assert found.difference == pytest.approx(0.07) and found.n == 100
    assert found.ci95[0] < 0.07 < found.ci95[1] and found.ci95[0] > 0


def test_equal_models_do_not_differ():
    a, _ = pairs(30, 10, 0, 0)
    found = compare(SUMS, "merged", a, "base", list(reversed(a)))  # the order of the items does not matter
    assert (found.difference, found.p_value) == (0.0, 1.0) and found.ci95[0] <= 0 <= found.ci95[1]


def test_the_interval_of_a_paired_difference_turns_with_its_sign():
    a, b = pairs(40, 9, 3, 8)
    there, back = compare(SUMS, "a", a, "b", b), compare(SUMS, "b", b, "a", a)
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0])) and there.p_value == back.p_value


@pytest.mark.parametrize("chances", [(0.85, 0.08, 0.03, 0.04), (0.4, 0.2, 0.1, 0.3), (0.0, 0.95, 0.0, 0.05)])
def test_the_interval_of_a_paired_difference_covers_it(chances):
    r = np.random.default_rng(0)
    covered = 0
    for cells in r.multinomial(100, chances, size=200):
        low, high = compare(SUMS, "a", *_named(pairs(*map(int, cells)))).ci95
        covered += low <= chances[1] - chances[2] <= high
    assert covered / 200 >= 0.92


def _named(both):
    return both[0], "b", both[1]
