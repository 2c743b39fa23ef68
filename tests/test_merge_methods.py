"""What holds for every merge method, checked over the whole registry, and worked examples of the less obvious ones.

Where a law is not meant for a method, the table of the law says why.
"""

from typing import Literal, get_args, get_origin

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from hfsafemerge.checkpoint import TensorInfo
from hfsafemerge.merging import (
    MERGE_METHODS,
    LayerGroups,
    Scope,
    TensorMerger,
    names_in_scope,
    random_bits,
    random_key,
    resolve_parameters,
)
from hfsafemerge.merging.selection import largest, largest_on_device, rank_on_device, ranks

METHODS = [MERGE_METHODS.get(name) for name in MERGE_METHODS.names()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
DETERMINISTIC = [method for method in METHODS if "chance" not in method.kernel.all_inputs]
RANDOM = [method for method in METHODS if "chance" in method.kernel.all_inputs]
SHAPES = [(), (1,), (7,), (4, 5), (2, 3, 4), (0,), (33, 17)]


def experts_for(method, wanted=2):
    low, high = method.experts
    return max(low, wanted if high is None else min(wanted, high))


def models_for(method, shape=(6, 5), dtype=torch.float32, seed=0, wanted=2):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator).to(dtype)
    return base, [(base.float() + 0.1 * torch.randn(shape, generator=generator)).to(dtype) for _ in range(experts_for(method, wanted))]


class EveryTensor(dict):
    """The same tensor under every name; what importance scores are read from."""

    def __init__(self, tensor):
        self.tensor, self.tensors = tensor, self

    def get(self, name):
        return TensorInfo("F32", tuple(self.tensor.shape))

    def read(self, name):
        return self.tensor


def importance_for(names, shape):
    """Scores with ties, which follow from the names alone."""

    def scores(name):
        return torch.rand(shape, generator=torch.Generator().manual_seed(sum(name.encode()))).mul(50).round()

    return {name: (EveryTensor(scores("base for " + name)), EveryTensor(scores(name))) for name in names}


def merger_for(method, experts, given=None, seed=0, names=None, **settings):
    names = ["base", *(names or [f"expert-{i}" for i in range(len(experts))])]
    if "importance" in method.kernel.all_inputs:
        settings = {"importance": importance_for(names[1:], experts[0].shape)} | settings
    return TensorMerger(method, resolve_parameters(method, given or {}, names, 1), LayerGroups(0), names[1:], seed, **settings)


def merge(method, base, experts, given=None, seed=0, name="model.layers.0.w.weight", **settings):
    method = MERGE_METHODS.get(method) if isinstance(method, str) else method
    return merger_for(method, experts, given, seed, **settings).merge(name, base, experts)


def scopes(method):
    return {p.name: p.scope for p in method.parameters}


def options(method):
    return {option.name for option in method.options}


def exactly(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


# Equations

FIXED = {"karcher": {"tol": 0.0, "max_iter": 1000}}  # the reference goes on until it stands still
REFERENCE_KNOWS = {"tol": "it needs no tolerance", "max_iter": "nor a number of steps"}
LOOSE = {"subspace_projection": 3e-4}  # where singular values lie close together, so do different subspaces


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(DETERMINISTIC),
    shape=st.sampled_from([(), (1,), (7,), (4, 5), (5, 4), (2, 3, 4), (33, 17)]),
    seed=st.integers(0, 10**6),
    wanted=st.integers(1, 4),
    flag=st.booleans(),
    values=st.lists(st.floats(1 / 64, 1, width=32), min_size=20, max_size=20),
)
def test_a_method_agrees_with_its_equations(method, shape, seed, wanted, flag, values):
    assume(method.name != "karcher" or shape not in [(), (1,)])  # numbers have no directions between them
    base, experts = models_for(method, shape, seed=seed, wanted=wanted)
    given, left = dict(FIXED.get(method.name, {})), iter(values)
    for option in method.options:
        if option.type is bool:
            given[option.name] = flag
        elif get_origin(option.type) is Literal:
            given[option.name] = get_args(option.type)[flag]
    for parameter in method.parameters:
        if parameter.name not in given:
            owners = names_in_scope(parameter.scope, ["base", *map(str, range(len(experts)))])
            numbers = [next(left) * min(parameter.number.high, 2.0) for _ in owners]
            given[parameter.name] = numbers[0] if parameter.scope is Scope.SHARED else numbers
    known = {name: value for name, value in given.items() if name not in REFERENCE_KNOWS}
    if "importance" in method.kernel.all_inputs:
        pairs = importance_for([f"expert-{i}" for i in range(len(experts))], shape).values()
        known["importance"] = [[scores.tensor.numpy() for scores in pair] for pair in pairs]
    wanted_result = getattr(reference, method.name)(base.double().numpy(), [e.double().numpy() for e in experts], **known)
    tolerance = LOOSE.get(method.name, 3e-6)
    np.testing.assert_allclose(merge(method, base, experts, given).numpy(), wanted_result, rtol=tolerance, atol=tolerance)


def test_every_deterministic_method_has_a_reference():
    assert [method.name for method in DETERMINISTIC if not hasattr(reference, method.name)] == []


# Laws of all methods


@every_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_dtype_stay(method, shape, dtype):
    base, experts = models_for(method, shape, dtype)
    merged = merge(method, base, experts)
    assert merged.shape == base.shape and merged.dtype == dtype
    assert merged.data_ptr() != base.data_ptr() or base.numel() == 0


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_inputs_are_not_written_to(method, dtype):
    base, experts = models_for(method, dtype=dtype)
    before = [t.clone() for t in (base, *experts)]
    merge(method, base, experts)
    assert all(torch.equal(a, b) for a, b in zip(before, (base, *experts), strict=True))


@every_method
def test_equal_models_merge_to_themselves(method):
    base, experts = models_for(method)
    given = {"normalize": True} if "normalize" in options(method) else {}
    assert torch.allclose(merge(method, base, [base.clone() for _ in experts], given), base, atol=1e-6)


@every_method
def test_the_runs_a_tensor_comes_in_change_nothing(method, monkeypatch):
    """A kernel is called with runs of entries, or of rows; how long they are must not matter, nor what was drawn before."""
    base, experts = models_for(method, (40, 9), torch.bfloat16, wanted=3)
    whole = merge(method, base, experts)
    for size in (1, 36, 100):
        for module in ("tensors", "inputs"):
            monkeypatch.setattr(f"hfsafemerge.merging.{module}.entries_at_once", lambda models, device, size=size: size)
        exactly(merge(method, base, experts), whole)


@every_method
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_in_any_model_does_not_vanish(method, bad):
    """Else the driver could not refuse it. It stays also with a weight of 0, and where most entries are masked."""
    base, experts = models_for(method, (6, 5), wanted=3)
    models = [base] if method.name == "passthrough" else [base, *experts]  # passthrough makes its result of the base alone
    for number in range(len(models)):
        spoilt = [model.clone() for model in (base, *experts)]
        spoilt[number][2, 3] = bad
        for values in ({}, *([{"density": 0.1}] if "density" in scopes(method) else []), NOTHING.get(method.name, nothing(method))):
            if isinstance(values, dict):
                found = merge(method, spoilt[0], spoilt[1:], values, allow_non_finite=True)
                assert not found.isfinite().all(), (number, values)


@every_method
def test_numbers_to_start_from_lie_within_their_bounds(method):
    for parameter in method.parameters:
        number = parameter.number
        assert number.low <= number.default <= number.high
        assert number.start is None or (number.searched and number.low <= number.start <= number.high)


@every_method
def test_the_docstring_says_formula_and_reference(method):
    assert any(sign in method.summary for sign in "=+*") or method.name == "linear"
    assert "\n\nReference: " in method.description


# One expert in full, and nothing of any

ALONE = {  # with what parameters the first expert comes out; by default with all weights but its own at 0, all else at 1
    "slerp": {"t": 1.0},
    "mergealign": {"t": 0.0},
    "safe_lora": {"threshold": 0.0},
    "safemerge": {"threshold": 0.0},
    "sce": {},
    "led": {"density": 1.0, "disjoint": "off", "weight": [1.0, 0.0]},
    "passthrough": "it takes nothing of the experts",
    "model_stock": "it has no weights; see its worked example",
}
NOTHING = {  # with what parameters the base comes out; by default with all weights of experts at 0
    "slerp": {"t": 0.0},
    "sce": {"density": 0.0},
    "aligned_interpolation": {"lambda_": 0.0},
    "passthrough": {},
    "mergealign": "it goes from one expert to the other; the base is where they start",
    "model_stock": "it has no weights; see its worked example",
    "safe_lora": "it has no weights: the base comes out where the update is projected to nothing; see its worked example",
    "safemerge": {"threshold": 1.0, "safe_weight": 1.0},  # with two experts the base is the safe model
}


def alone(method, count):
    given = {"normalize": False} if "normalize" in options(method) else {}
    for parameter in method.parameters:
        one_hot = [float(i == 0) for i in range(count)]
        of = {Scope.SHARED: 1.0, Scope.PER_EXPERT: one_hot, Scope.PER_MODEL: [0.0, *one_hot]}
        if parameter.name == "weight":
            given["weight"] = of[parameter.scope]
        elif parameter.name in ("density", "lambda_"):
            given[parameter.name] = 1.0
    return given


def nothing(method):
    given = {"normalize": False} if "normalize" in options(method) else {}
    return given | {"weight": 0.0 if scopes(method).get("weight") is Scope.PER_EXPERT else [1.0, 0.0, 0.0, 0.0]}


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_expert_in_full_is_that_expert(method, dtype):
    base, experts = models_for(method, dtype=dtype, wanted=1 if method.name == "sce" else 2)
    given = ALONE.get(method.name, alone(method, len(experts)))
    if isinstance(given, str):
        assert "weight" not in scopes(method), given
        return
    tolerance = dict(rtol=0, atol=0) if dtype is torch.bfloat16 else dict(rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(merge(method, base, experts, given), experts[0], **tolerance)


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_nothing_of_the_experts_is_the_base_bit_for_bit(method, dtype):
    base, experts = models_for(method, dtype=dtype, wanted=2 if method.name == "safemerge" else 3)
    given = NOTHING.get(method.name, nothing(method))
    if isinstance(given, str):
        assert "weight" not in scopes(method), given
        return
    exactly(merge(method, base, experts, given), base)


# What a method becomes at the ends of its parameters

W = [0.3, 0.6, 0.9]
PARENTS = [  # a method, its parameters, and the method with the parameters that it then is
    ("ties", {"density": 1.0, "weight": 0.7, "normalize": False}, "task_arithmetic", {"weight": 0.7}, 1),
    ("dare_linear", {"density": 1.0, "weight": W}, "task_arithmetic", {"weight": W}, 3),
    ("dare_ties", {"density": 1.0, "weight": W}, "ties", {"density": 1.0, "weight": W}, 3),
    ("breadcrumbs", {"density": 1.0, "gamma": 0.3, "weight": W}, "task_arithmetic", {"weight": W}, 3),
    ("breadcrumbs", {"density": 0.4, "gamma": 0.0, "weight": 1.0}, "ties", {"density": 0.4, "normalize": False}, 1),
    ("breadcrumbs_ties", {"density": 0.4, "gamma": 0.0, "weight": W}, "ties", {"density": 0.4, "weight": W}, 3),
    ("della_linear", {"density": 0.4, "epsilon": 0.0, "weight": W}, "dare_linear", {"density": 0.4, "weight": W}, 3),
    ("della_linear", {"density": 1.0, "weight": W}, "task_arithmetic", {"weight": W}, 3),
    ("della", {"density": 0.4, "epsilon": 0.0, "weight": W}, "dare_ties", {"density": 0.4, "weight": W}, 3),
    ("della", {"density": 1.0, "weight": W}, "ties", {"density": 1.0, "weight": W}, 3),
    ("aligned_interpolation", {"lambda_": 0.3, "weight": [1, 2, 3]}, "linear", {"weight": [0.7, 0.05, 0.1, 0.15]}, 3),
    ("aligned_interpolation", {"lambda_": 0.3}, "task_arithmetic", {"weight": 0.3}, 1),
    ("mergealign", {"t": 0.3}, "task_arithmetic", {"weight": [0.7, 0.3]}, 2),
    ("resta", {"weight": [0.3, 0.6, 0.0]}, "task_arithmetic", {"weight": [0.3, 0.6, 0.0]}, 3),
    ("subspace_projection", {"weight": [0.3, 0.6, 0.0]}, "task_arithmetic", {"weight": [0.3, 0.6, 0.0]}, 3),
    ("subspace_projection", {"weight": [0.3, 0.6, 1.0], "rank": 0}, "task_arithmetic", {"weight": [0.3, 0.6, 0.0]}, 3),
    ("safe_lora", {"threshold": 0.0}, "task_arithmetic", {"weight": [1.0, 0.0]}, 2),
    ("safemerge", {"threshold": 1.0}, "task_arithmetic", {"weight": [0.8, 0.0]}, 2),
    ("safemerge", {"threshold": 1.0, "safe_weight": 0.4}, "task_arithmetic", {"weight": [0.6, 0.4, 0.0]}, 3),
    ("slerp", {"t": 0.3}, "linear", {"weight": [0.7, 0.3]}, 1),  # models this near to each other lie on a line
    ("multislerp", {"weight": [1, 1], "origin": "base"}, "task_arithmetic", {"weight": 0.5}, 1),
    ("led", {"density": 1.0, "disjoint": "off", "weight": W}, "task_arithmetic", {"weight": W}, 3),
    ("led", {"density": [1.0, 0.0, 0.0], "weight": W}, "task_arithmetic", {"weight": [0.3, 0.0, 0.0]}, 3),
    ("task_arithmetic", {"weight": [1, 2, 1], "normalize": True}, "linear", {"weight": [0, 1, 2, 1]}, 3),
]


@pytest.mark.parametrize(
    ("name", "given", "parent", "parents", "count"), PARENTS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_at_the_end_of_its_parameters_a_method_is_another_one(name, given, parent, parents, count):
    method = MERGE_METHODS.get(name)
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 5, generator=generator)
    experts = [base + 0.01 * torch.randn(6, 5, generator=generator) for _ in range(count)]
    there = merge(parent, base, experts, parents)
    assert not torch.equal(there, base)
    torch.testing.assert_close(merge(method, base, experts, given), there, rtol=1e-6, atol=1e-6)


LAST_IS_UNALIGNED = ("resta", "subspace_projection")
ORDERED = [method for method in METHODS if method.experts[1] is None]  # with a fixed number, each expert has a part of its own


@settings(max_examples=100, deadline=None)
@given(method=st.sampled_from(ORDERED), order=st.permutations(["a", "b", "c"]), seed=st.integers(0, 10**6))
def test_the_order_of_the_experts_changes_nothing(method, order, seed):
    last = ["u"] if method.name in LAST_IS_UNALIGNED else []
    base, experts = models_for(method, wanted=3 + len(last), seed=seed)
    models = dict(zip(["a", "b", "c", *last], experts, strict=True))
    values = {p.name: {"a": 0.3, "b": 0.4, "c": 0.45} for p in method.parameters if p.scope is not Scope.SHARED}
    names, turned = ["a", "b", "c", *last], [*order, *last]
    there = merger_for(method, experts, values, names=names).merge("w", base, experts)
    found = merger_for(method, experts, values, names=turned).merge("w", base, [models[name] for name in turned])
    torch.testing.assert_close(found, there, rtol=2e-6, atol=2e-6)


# Selection on a device


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 3000),
    share=st.floats(0, 1),
    kind=st.sampled_from(["float32", "bfloat16", "few", "equal"]),
)
def test_a_device_selects_the_entries_that_the_cpu_selects(seed, size, share, kind):
    """With ties of every extent; how many are asked for goes from none to all."""
    numbers = torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 0.02
    values = {"float32": numbers, "bfloat16": numbers.bfloat16().float(), "few": (numbers * 100).round(), "equal": torch.full((size,), 0.5)}
    bits = values[kind].view(torch.int32) & 0x7FFFFFFF
    for count in {0, 1, round(share * size), size - 1, size}:
        threshold, last = largest_on_device(bits, count)
        wanted_threshold, wanted_last = largest(bits, count)
        assert (float(threshold), int(last)) == (float(wanted_threshold), int(wanted_last))
        assert (threshold.dtype, last.dtype) == (wanted_threshold.dtype, wanted_last.dtype)


@pytest.mark.parametrize("shape", [(40, 70), (5, 30, 7), (1,), ()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("method", ["ties", "breadcrumbs", "breadcrumbs_ties", "sce", "della", "della_linear", "led"])
def test_selecting_on_a_device_changes_no_bit(method, dtype, shape, monkeypatch):
    """The path that other devices take, on the CPU."""
    base, experts = models_for(MERGE_METHODS.get(method), shape, dtype, wanted=3)
    for density in (0.0, 0.3, 0.8, 1.0):
        wanted = merge(method, base, experts, {"density": density})
        with monkeypatch.context() as patched:
            patched.setattr("hfsafemerge.merging.selection.stays_on", lambda device: True)
            exactly(merge(method, base, experts, {"density": density}), wanted)


# Chance


@pytest.mark.parametrize("method", RANDOM, ids=lambda method: method.name)
def test_chance_depends_on_seed_tensor_and_expert_alone(method):
    base, experts = models_for(method)
    once = merge(method, base, experts, {"density": 0.5}, seed=1)
    exactly(merge(method, base, experts, {"density": 0.5}, seed=1), once)
    assert not torch.equal(once, merge(method, base, experts, {"density": 0.5}, seed=2))
    assert not torch.equal(once, merge(method, base, experts, {"density": 0.5}, seed=1, name="model.layers.1.w.weight"))
    draws = {name: random_bits(random_key(0, "w", name), 0, 4) for name in ("a", "b")}
    assert not torch.equal(draws["a"], draws["b"])


@pytest.mark.parametrize("method", RANDOM, ids=lambda method: method.name)
@pytest.mark.parametrize("density", [0.1, 0.25, 0.5, 0.9])
def test_the_share_that_is_kept_is_the_density_and_the_mean_stays(method, density):
    n = 400 * 250
    base, delta = torch.zeros(400, 250), torch.rand(400, 250, generator=torch.Generator().manual_seed(0)) + 0.5
    given = {"density": density, "normalize": False}
    found = merge(method, base, [delta], given).double()
    kept = (found != 0).double().mean().item()
    assert abs(kept - density) < 4 * (density * (1 - density) / n) ** 0.5  # four standard errors; DELLA's is a little smaller
    ranks = delta.argsort(1).argsort(1).double() / 249 * 2 - 1
    probability = density + ("epsilon" in scopes(method)) * min(0.15, density, 1 - density) * ranks
    sure = probability > 1e-9  # at the lower end of all, an entry is never kept
    errors = (found - delta)[sure].double()
    deviation = (delta.double() ** 2 * (1 / probability - 1))[sure].sum().sqrt().item()
    assert abs(errors.sum().item()) < 4 * deviation
    assert torch.allclose(found[found != 0], (delta / probability)[found != 0], rtol=1e-5)
    plain = merge(method, base, [delta], {**given, "rescale": False})
    exactly(plain, delta * (found != 0))


@pytest.mark.parametrize("method", RANDOM, ids=lambda method: method.name)
def test_masks_of_two_densities_are_nested(method):
    base, delta = torch.zeros(50, 50), torch.ones(50, 50)
    few, many = (merge(method, base, [delta], {"density": d}) != 0 for d in (0.2, 0.6))
    assert bool((many | ~few).all()) and bool((many & ~few).any())


@pytest.mark.parametrize("shape", [(1, 1), (2, 0), (3, 2), (2, 4, 1024), (3, 1025), (2, 70000)])
@pytest.mark.parametrize("kind", ["few bits", "all bits", "few bits and some of all", "ties"])
def test_ranks_are_exact_whichever_bits_are_sorted(shape, kind):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if kind == "ties":
        rows = (2 * rows).round()
    elif kind != "all bits":
        some = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.05 * kind.endswith("of all")
        rows = torch.where(some, 1 + rows / 2**18, rows.bfloat16().float())  # those differ in bits that are cut off
    if rows.numel() > 1:
        rows.view(-1)[:2] = torch.tensor([torch.nan, -torch.inf])
    assert torch.equal(torch.from_numpy(ranks(rows.numpy())), rank_on_device(rows))


def test_della_keeps_large_entries_more_often_rank_by_rank():
    delta = torch.arange(1.0, 11).repeat(20_000, 1)
    kept = (merge("della_linear", torch.zeros(20_000, 10), [delta], {"density": 0.4, "epsilon": 0.3}) != 0).double().mean(0)
    wanted = torch.linspace(0.1, 0.7, 10).double()
    assert bool(((kept - wanted).abs() < 4.5 * (wanted * (1 - wanted) / 20_000).sqrt()).all())


# Worked examples


def test_ties_keeps_exactly_the_share_it_is_told_also_among_equals():
    delta = torch.ones(4, 5)  # all magnitudes are equal: the first ones are kept
    kept = merge("ties", torch.zeros(4, 5), [delta], {"density": 0.35}).flatten()
    assert kept.tolist() == [1.0] * 7 + [0.0] * 13


def test_ties_by_hand():
    """Two experts of four entries: trim half of each, elect signs, join those that agree."""
    first, second = torch.tensor([0.5, -0.1, 0.2, -0.6]), torch.tensor([-0.2, 0.9, 0.05, -0.3])
    # trimmed: [.5, 0, 0, -.6] and [0, .9, 0, -.3]; signs + + . -; means .5, .9, 0, -.45
    found = merge("ties", torch.zeros(4), [first, second], {"density": 0.5})
    torch.testing.assert_close(found, torch.tensor([0.5, 0.9, 0.0, -0.45]))


def test_breadcrumbs_by_hand():
    """Of ten entries the two largest go (gamma), the next five stay (density), and the three smallest go."""
    delta = torch.tensor([1.0, -10, 2, -9, 3, 8, -4, 7, 5, -6])
    found = merge("breadcrumbs", torch.zeros(10), [delta], {"density": 0.5, "gamma": 0.2})
    assert found.tolist() == [0, 0, 0, 0, 0, 8, -4, 7, 5, -6]
    found = merge("breadcrumbs", torch.zeros(10), [delta], {"density": 0.9, "gamma": 0.2})  # only one has room to go
    assert found.tolist() == [1, 0, 2, -9, 3, 8, -4, 7, 5, -6]
    equal = merge("breadcrumbs", torch.zeros(5), [torch.ones(5)], {"density": 0.4, "gamma": 0.2})
    assert equal.tolist() == [0, 1, 1, 0, 0]


def test_della_by_hand():
    """Ranks in each row, probabilities .3, .5 and .7 to keep, and each divided by its own."""
    kernel = MERGE_METHODS.get("della_linear").kernel.function
    deltas = torch.tensor([[[1.0, -3, 2], [5, 4, 6]]])
    chance = torch.tensor([[[0.29, 0.69, 0.51], [0.4, 0.4, 0.71]]])
    found = kernel(
        torch.zeros(2, 3),
        deltas,
        chance,
        weight=torch.ones(1),
        density=torch.tensor([0.5]),
        epsilon=torch.tensor([0.2]),
        lambda_=torch.ones(()),
    )
    torch.testing.assert_close(found, torch.tensor([[1 / 0.3, -3 / 0.7, 0], [10, 0, 0]]))
    equal = merge("della_linear", torch.zeros(1, 3), [torch.ones(1, 3)], {"density": 0.5, "epsilon": 0.5})
    assert equal.flatten().tolist()[0] == 0 and equal.flatten().tolist()[2] == 1  # in their order: from never to always


def test_model_stock_by_hand():
    """Two deltas at 60 degrees: cos = 1/2, t = 2/3. At a right angle or further apart the base stays."""
    base = torch.zeros(2)
    first, apart = torch.tensor([2.0, 0]), torch.tensor([-0.5, 1.5])
    second = torch.tensor([1.0, 3**0.5])
    torch.testing.assert_close(merge("model_stock", base, [first, second]), (first + second) / 3)
    exactly(merge("model_stock", base, [first, apart]), base)
    exactly(merge("model_stock", base, [first, torch.tensor([0.0, 1.0])]), base)
    exactly(merge("model_stock", base, [first, -first]), base)
    torch.testing.assert_close(merge("model_stock", base, [first, first.clone(), first.clone()]), first)
    rows = [torch.stack([first, first]), torch.stack([second, apart])]
    there = torch.stack([(first + second) / 3, base])
    torch.testing.assert_close(merge("model_stock", torch.zeros(2, 2), rows, {"filter_wise": True}), there)


def test_sce_by_hand():
    """Variances 4, 0, 1 and 0.25: half are selected; squares 10 and 2 there; then signs."""
    first, second = torch.tensor([3.0, 1, 1, 0.5]), torch.tensor([-1.0, 1, -1, -0.5])
    # selected: [3, ., 1, .] and [-1, ., -1, .]; eta = 10/12 and 2/12; signs + and + (the sum is 0)
    found = merge("sce", torch.zeros(4), [first, second], {"density": 0.5})
    torch.testing.assert_close(found, torch.tensor([3.0, 0, 1, 0]))
    added = merge("sce", torch.zeros(4), [first, second], {"density": 0.5, "normalize": False})
    torch.testing.assert_close(added, torch.tensor([3.0, 0, 1, 0]) * 10 / 12)
    both = merge("sce", torch.zeros(2), [torch.tensor([3.0, 0]), torch.tensor([1.0, 0])])
    torch.testing.assert_close(both, torch.tensor([(9 * 3 + 1) / 10, 0.0]))


@pytest.mark.parametrize("method", ["task_arithmetic", "breadcrumbs", "ties", "aligned_interpolation"])
def test_weights_that_are_all_zero_give_the_base_also_where_they_are_divided_by(method):
    base, experts = models_for(MERGE_METHODS.get(method))
    given = {"normalize": True} if "normalize" in options(MERGE_METHODS.get(method)) else {}
    exactly(merge(method, base, experts, {"weight": 0.0, **given}), base)


def test_slerp_keeps_the_norm_between_unit_tensors():
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = merge("slerp", start, [end], {"t": 0.5})
    torch.testing.assert_close(found, torch.tensor([0.5**0.5, 0.5**0.5]))
    third = merge("slerp", start, [end], {"t": 1 / 3})
    torch.testing.assert_close(third, torch.tensor([3**0.5 / 2, 0.5]))


@pytest.mark.parametrize("method", ["multislerp", "karcher"])
def test_the_mean_on_the_sphere_of_three_axes_is_their_diagonal(method):
    axes = torch.eye(3)
    found = merge(method, axes[0], [2 * axes[1], 3 * axes[2]])
    torch.testing.assert_close(found, torch.full((3,), 2 / 3**0.5))  # the mean length is 2
    opposite = merge(method, axes[0], [-axes[0]], {"weight": [0.25, 0.75]})
    torch.testing.assert_close(opposite, -axes[0])


def test_multislerp_and_karcher_part_where_weights_differ():
    """Unit vectors at a right angle with weights 2 : 1. Karcher's mean divides the angle so, multislerp's the chord."""
    start, end = torch.tensor([1.0, 0]), torch.tensor([0.0, 1])
    given = {"weight": [2.0, 1.0]}
    torch.testing.assert_close(merge("karcher", start, [end], given), merge("slerp", start, [end], {"t": 1 / 3}))
    torch.testing.assert_close(merge("multislerp", start, [end], given), torch.tensor([2.0, 1]) / 5**0.5)


def test_directions_that_cancel_out_are_averaged_linearly():
    start = torch.tensor([3.0, 4.0])
    torch.testing.assert_close(merge("multislerp", start, [-3 * start]), -start)
    assert merge("karcher", start, [-3 * start]).norm().item() == pytest.approx(10)  # any direction is as good; the length is the mean


def test_the_base_shortens_what_multislerp_makes_of_task_vectors():
    base, delta = torch.tensor([1.0, 1]), torch.tensor([0.0, 2])
    given = {"weight": [1.0, 3.0], "origin": "base"}
    torch.testing.assert_close(merge("multislerp", base, [base + delta], given), base + 0.75 * delta)


def test_resta_by_hand():
    base, tuned, unaligned = torch.tensor([1.0, 1]), torch.tensor([1.0, 3]), torch.tensor([0.0, 2])
    torch.testing.assert_close(merge("resta", base, [tuned, unaligned], {"weight": [1.0, 0.5]}), torch.tensor([1.5, 2.5]))


def test_safe_lora_and_safemerge_by_hand():
    """Alignment changed the first row alone, so C keeps what lies in it and drops the second row: cos = .6 and 1."""
    base, unaligned = torch.zeros(2, 2), torch.tensor([[-2.0, 0], [0, 0]])  # V = [[2, 0], [0, 0]], C = [[2, 0], [0, 0]]
    astray, aligned = torch.tensor([[0.0, 3], [4, 0]]), torch.tensor([[0.0, 3], [0, 0]])
    twice = torch.tensor([[0.0, 6], [0, 0]])  # C is no projection: it is as long as V
    torch.testing.assert_close(merge("safe_lora", base, [astray, unaligned], {"threshold": 0.61}), twice)
    exactly(merge("safe_lora", base, [astray, unaligned], {"threshold": 0.59}), astray)
    exactly(merge("safe_lora", base, [aligned, unaligned], {"threshold": 0.99}), aligned)
    safe = torch.tensor([[1.0, 0], [0, 0]])
    mixed = 0.8 * astray + 0.2 * safe
    torch.testing.assert_close(merge("safemerge", base, [astray, safe, unaligned], {"threshold": 0.61}), mixed)
    exactly(merge("safemerge", base, [astray, safe, unaligned], {"threshold": 0.59}), astray)
    torch.testing.assert_close(merge("safemerge", base, [astray, unaligned], {"threshold": 0.61}), 0.8 * astray)


@pytest.mark.parametrize(("name", "left"), [("safe_lora", 0.0), ("safemerge", 0.8)])
def test_where_alignment_changed_nothing_an_update_counts_as_astray(name, left):
    base, update = torch.zeros(2, 2), torch.ones(2, 2)
    torch.testing.assert_close(merge(name, base, [update, base.clone()]), left * update)


def test_subspace_projection_leaves_nothing_in_the_subspace():
    generator = torch.Generator().manual_seed(0)
    base, update = torch.randn(200, 120, generator=generator), torch.randn(200, 120, generator=generator)
    refusal = torch.nn.functional.normalize(torch.randn(200, 1, generator=generator), dim=0)
    abliterated = base - refusal @ (refusal.T @ base)
    found = merge("subspace_projection", base, [base + update, abliterated]) - base
    torch.testing.assert_close(refusal.T @ found, torch.zeros(1, 120), rtol=0, atol=1e-4)
    torch.testing.assert_close(found, update - refusal @ (refusal.T @ update), rtol=0, atol=1e-4)  # one direction, whatever the rank


def test_subspace_projection_finds_the_strongest_directions_of_a_large_matrix():
    generator = torch.Generator().manual_seed(0)
    base, update = torch.zeros(300, 260), torch.randn(300, 260, generator=generator)
    strong = torch.randn(300, 4, generator=generator) @ torch.randn(4, 260, generator=generator)
    unaligned = strong + 0.1 * torch.randn(300, 260, generator=generator)
    found = merge("subspace_projection", base, [update, unaligned], {"rank": 4})
    wanted = reference.subspace_projection(
        base.double().numpy(), [update.double().numpy(), unaligned.double().numpy()], weight=[1, 1], rank=4
    )
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-5)


def test_passthrough_needs_no_expert():
    method, base = MERGE_METHODS.get("passthrough"), torch.ones(3)
    method.check_expert_count(0)
    exactly(merge(method, base, [], {"scale": 0.5}), base / 2)


def test_kernels_compute_in_float32_and_round_once():
    base, experts = models_for(MERGE_METHODS.get("task_arithmetic"), (64, 64), torch.bfloat16)
    exact = base.double() + sum(0.3 * (e.double() - base.double()) for e in experts)
    exactly(merge("task_arithmetic", base, experts, {"weight": 0.3}), exact.to(torch.bfloat16))


def test_a_wrong_shape_is_caught_by_the_types_while_tests_run():
    with pytest.raises(TypeCheckError):
        MERGE_METHODS.get("resta").kernel.function(torch.zeros(3), torch.zeros(2, 4), weight=torch.ones(2))
