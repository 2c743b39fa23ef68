from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from tiny import tiny_model

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter, digest
from hfsafemerge.errors import CheckpointError, RecipeError
from hfsafemerge.merging import (
    MERGE_METHODS,
    LayerGroups,
    MergeParameters,
    Scope,
    TensorMerger,
    generator_for,
    merge_checkpoints,
    names_in_scope,
    resolve_parameters,
)

METHODS = [MERGE_METHODS.get(name) for name in MERGE_METHODS.names()]
ids = [method.name for method in METHODS]
every_method = pytest.mark.parametrize("method", METHODS, ids=ids)
DETERMINISTIC = [method for method in METHODS if "generators" not in method.inputs]
SHAPES = [(), (1,), (7,), (4, 5), (2, 3, 4), (0,), (33, 17)]


def experts_for(method, wanted=2):
    low, high = method.experts
    return max(low, min(wanted, high or wanted))


def models_for(method, shape=(6, 5), dtype=torch.float32, seed=0, wanted=2):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator).to(dtype)
    return base, [(base.float() + 0.1 * torch.randn(shape, generator=generator)).to(dtype) for _ in range(experts_for(method, wanted))]


def merger_for(method, experts, given=None, seed=0):
    names = ["base", *(f"expert-{i}" for i in range(len(experts)))]
    groups = LayerGroups(0)
    return TensorMerger(method, resolve_parameters(method, given or {}, names, 1), groups, names[1:], seed)


def merge(method, base, experts, given=None, seed=0, name="model.layers.0.w.weight"):
    return merger_for(method, experts, given, seed).merge(name, base, experts)


def scopes(method):
    return {p.name: p.scope for p in method.parameters}


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(DETERMINISTIC),
    shape=st.sampled_from([(1,), (7,), (4, 5), (33, 17)]),
    seed=st.integers(0, 10**6),
    wanted=st.integers(1, 4),
    flag=st.booleans(),
    values=st.lists(st.floats(1 / 64, 1, width=32), min_size=15, max_size=15),
)
def test_a_method_agrees_with_its_equations(method, shape, seed, wanted, flag, values):
    base, experts = models_for(method, shape, seed=seed, wanted=wanted)
    given, left = {option.name: flag for option in method.options if option.type is bool}, iter(values)
    for parameter in method.parameters:
        owners = names_in_scope(parameter.scope, ["base", *map(str, range(len(experts)))])
        given[parameter.name] = [next(left) * min(parameter.number.high, 2.0) for _ in owners]
    given = {name: v[0] if scopes(method).get(name) is Scope.SHARED else v for name, v in given.items()}
    wanted_result = getattr(reference, method.name)(base.double().numpy(), [e.double().numpy() for e in experts], **given)
    np.testing.assert_allclose(merge(method, base, experts, given).numpy(), wanted_result, rtol=2e-5, atol=2e-6)


@every_method
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_dtype_stay(method, shape, dtype):
    base, experts = models_for(method, shape, dtype)
    merged = merge(method, base, experts)
    assert merged.shape == base.shape and merged.dtype == dtype


@every_method
def test_the_inputs_are_not_written_to(method):
    base, experts = models_for(method)
    before = [t.clone() for t in (base, *experts)]
    merge(method, base, experts)
    assert all(torch.equal(a, b) for a, b in zip(before, (base, *experts), strict=True))


@every_method
def test_equal_models_merge_to_themselves(method):
    base, experts = models_for(method)
    given = {"normalize": True} if "normalize" in {o.name for o in method.options} else {}
    assert torch.allclose(merge(method, base, [base.clone() for _ in experts], given), base, atol=1e-6)


@every_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_one_expert_in_full_is_that_expert(method, dtype):
    base, experts = models_for(method, dtype=dtype)
    chosen = len(experts) - 1
    given = {"normalize": False} if "normalize" in {o.name for o in method.options} else {}
    for name, scope in scopes(method).items():
        one_hot = [float(i == chosen) for i in range(len(experts))]
        given[name] = {Scope.SHARED: 1.0, Scope.PER_EXPERT: one_hot, Scope.PER_MODEL: [0.0, *one_hot]}[scope]
        if name == "density":
            given[name] = 1.0
    tolerance = dict(rtol=0, atol=0) if dtype is torch.bfloat16 else dict(rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(merge(method, base, experts, given), experts[chosen], **tolerance)


@every_method
def test_nothing_of_the_experts_is_the_base_bit_for_bit(method):
    base, experts = models_for(method)
    given = {}
    for name, scope in scopes(method).items():
        if name in ("weight", "t"):
            given[name] = [1.0] + [0.0] * len(experts) if scope is Scope.PER_MODEL else 0.0
    assert torch.equal(merge(method, base, experts, given), base)


@pytest.mark.parametrize("method", [m for m in METHODS if m.experts[1] is None], ids=lambda m: m.name)
def test_the_order_of_the_experts_changes_nothing(method):
    base, experts = models_for(method, wanted=3)
    names = ["base", "a", "b", "c"]
    values = {p.name: {"a": 0.3, "b": 0.6, "c": 0.9} for p in method.parameters if p.scope is not Scope.SHARED}
    there = TensorMerger(method, resolve_parameters(method, values, names, 1), LayerGroups(0), names[1:], 0).merge("w", base, experts)
    turned = ["base", "c", "a", "b"]
    merger = TensorMerger(method, resolve_parameters(method, values, turned, 1), LayerGroups(0), turned[1:], 0)
    torch.testing.assert_close(merger.merge("w", base, [experts[2], experts[0], experts[1]]), there, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", [m for m in METHODS if "density" in scopes(m)], ids=lambda m: m.name)
def test_density_1_with_one_expert_is_task_arithmetic(method):
    base, experts = models_for(method, wanted=1)
    found = merge(method, base, experts, {"density": 1.0, "weight": 0.7, "normalize": False})
    torch.testing.assert_close(found, merge(MERGE_METHODS.get("task_arithmetic"), base, experts, {"weight": 0.7}))


def test_ties_keeps_exactly_the_share_it_is_told_also_among_equals():
    base = torch.zeros(4, 5)
    delta = torch.ones(4, 5)  # all magnitudes are equal: the first ones are kept
    kept = merge(MERGE_METHODS.get("ties"), base, [delta], {"density": 0.35}).flatten()
    assert kept.tolist() == [1.0] * 7 + [0.0] * 13


def test_ties_by_hand():
    """Two experts of four entries: trim half of each, elect signs, join those that agree."""
    base = torch.zeros(4)
    first, second = torch.tensor([0.5, -0.1, 0.2, -0.6]), torch.tensor([-0.2, 0.9, 0.05, -0.3])
    # trimmed: [.5, 0, 0, -.6] and [0, .9, 0, -.3]; signs + + . -; means .5, .9, 0, -.45
    found = merge(MERGE_METHODS.get("ties"), base, [first, second], {"density": 0.5})
    torch.testing.assert_close(found, torch.tensor([0.5, 0.9, 0.0, -0.45]))


def test_ties_agrees_with_peft_where_the_conventions_meet():
    from peft.utils.merge_utils import ties as peft_ties

    base, experts = models_for(MERGE_METHODS.get("ties"), (16, 8), wanted=3)
    found = merge(MERGE_METHODS.get("ties"), base, experts, {"density": 0.5})
    deltas = [expert - base for expert in experts]
    torch.testing.assert_close(found, base + peft_ties(deltas, torch.ones(3), 0.5, "total"))


def test_ties_differs_from_peft_with_weights_as_its_file_says():
    from peft.utils.merge_utils import ties as peft_ties

    base, experts = models_for(MERGE_METHODS.get("ties"), (16, 8), wanted=3)
    weights = torch.tensor([0.5, 0.3, 0.2])
    found = merge(MERGE_METHODS.get("ties"), base, experts, {"density": 0.5, "weight": weights.tolist()})
    theirs = base + peft_ties([expert - base for expert in experts], weights, 0.5, "total")
    assert not torch.allclose(found, theirs, atol=1e-4)


def test_dare_keeps_the_share_and_the_mean():
    base, delta = torch.zeros(200, 200), torch.ones(200, 200)
    found = merge(MERGE_METHODS.get("dare_ties"), base, [delta], {"density": 0.25})
    kept = (found != 0).float().mean().item()
    assert abs(kept - 0.25) < 4 * (0.25 * 0.75 / 40_000) ** 0.5  # four standard errors
    assert set(found.unique().tolist()) == {0.0, 4.0}  # rescaled by 1 / density


def test_dare_masks_of_two_densities_are_nested():
    base, delta = torch.zeros(50, 50), torch.ones(50, 50)
    few, many = (merge(MERGE_METHODS.get("dare_ties"), base, [delta], {"density": d}) != 0 for d in (0.2, 0.6))
    assert bool((many | ~few).all())


def test_chance_depends_on_seed_tensor_and_expert_alone():
    method = MERGE_METHODS.get("dare_ties")
    base, experts = models_for(method)
    once = merge(method, base, experts, {"density": 0.5}, seed=1)
    assert torch.equal(once, merge(method, base, experts, {"density": 0.5}, seed=1))
    assert not torch.equal(once, merge(method, base, experts, {"density": 0.5}, seed=2))
    assert not torch.equal(once, merge(method, base, experts, {"density": 0.5}, seed=1, name="model.layers.1.w.weight"))
    draws = {name: torch.rand(4, generator=generator_for(0, "w", name)) for name in ("a", "b")}
    assert not torch.equal(draws["a"], draws["b"])


def test_slerp_keeps_the_norm_between_unit_tensors():
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    found = merge(MERGE_METHODS.get("slerp"), start, [end], {"t": 0.5})
    torch.testing.assert_close(found, torch.tensor([0.5**0.5, 0.5**0.5]))


def test_kernels_compute_in_float32_and_round_once():
    method = MERGE_METHODS.get("task_arithmetic")
    base, experts = models_for(method, (64, 64), torch.bfloat16)
    exact = base.double() + sum(0.3 * (e.double() - base.double()) for e in experts)
    assert torch.equal(merge(method, base, experts, {"weight": 0.3}), exact.to(torch.bfloat16))


def test_a_wrong_shape_is_caught_by_the_types_while_tests_run():
    with pytest.raises(TypeCheckError):
        MERGE_METHODS.get("ties").kernel(
            torch.zeros(3), torch.zeros(2, 4), weight=torch.ones(2), density=torch.ones(2), lambda_=torch.tensor(1.0)
        )


# Parameters


def test_a_number_may_be_one_a_list_a_mapping_or_a_list_for_each_group():
    method, names = MERGE_METHODS.get("ties"), ["base", "a", "b"]
    for value in (0.5, [0.5, 0.5], {"a": 0.5, "b": 0.5}, [[0.5, 0.5], [0.5, 0.5]]):
        assert resolve_parameters(method, {"density": value}, names, 2).numbers["density"] == [[0.5, 0.5], [0.5, 0.5]]
    assert resolve_parameters(method, {"density": {"b": 0.9}}, names, 1).numbers["density"] == [[0.2, 0.9]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"densty": 0.3}, r"no parameter of ties named 'densty'. Did you mean 'density'\?"),
        ({"density": 1.5}, r"ties: density is 1.5; it must lie in \[0, 1\]"),
        ({"weight": -0.1}, r"ties: weight is -0.1; it must lie in \[0, inf\]"),
        ({"weight": [1.0]}, r"ties: weight has 1 values; it needs 2, for a, b"),
        ({"weight": {"c": 1.0}}, r"ties: weight: There is no model named 'c'"),
        ({"weight": [[1.0, 1.0]]}, r"lists values for 1 groups of layers; the merge has 2"),
        ({"weight": "much"}, r"ties: weight is 'much'; it must be a number"),
        ({"weight": float("nan")}, r"ties: weight is nan"),
        ({"normalize": "yes"}, r"ties: normalize is 'yes'; it must be bool"),
    ],
)
def test_what_can_not_be_a_parameter_is_refused(given, message):
    with pytest.raises(RecipeError, match=message):
        resolve_parameters(MERGE_METHODS.get("ties"), given, ["base", "a", "b"], 2)


@pytest.mark.parametrize(("count", "message"), [(0, "1 or more"), (2, "with 1 expert")])
def test_the_number_of_experts_is_checked(count, message):
    with pytest.raises(RecipeError, match=message):
        MERGE_METHODS.get("slerp" if count else "ties").check_expert_count(count)


def test_layer_groups_follow_the_paper_s_code():
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{i}.mlp.up_proj.weight" for i in range(5)),
        "model.norm.weight",
        "lm_head.weight",
    ]
    groups = LayerGroups.of(names, 2)
    assert [groups.group(name) for name in names] == [0, 0, 0, 1, 1, 2, 2, 2]
    assert (groups.count, LayerGroups.of(names, 0).count, LayerGroups.of(["w"], 1).count) == (3, 1, 1)
    assert {LayerGroups.of(names, 0).group(name) for name in names} == {0}


# The driver


def test_streaming_equals_merging_in_memory(tmp_path):
    from transformers import LlamaForCausalLM

    folders = [tiny_model(tmp_path / name, seed) for seed, name in enumerate(("base", "a", "b"))]
    checkpoints = [Checkpoint(folder) for folder in folders]
    method, names = MERGE_METHODS.get("ties"), ["base", "a", "b"]
    groups = LayerGroups.of(checkpoints[0].tensors, 1)
    merger = TensorMerger(method, resolve_parameters(method, {"density": 0.5}, names, groups.count), groups, names[1:], 0)
    (tmp_path / "out").mkdir()
    writer = CheckpointWriter(tmp_path / "out", checkpoints[0].tensors, max_shard_size=20_000)
    told = []
    merge_checkpoints(merger, checkpoints[0], checkpoints[1:], writer, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(checkpoints[0].tensors),) * 2 and len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    (tmp_path / "out" / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    state = [dict(LlamaForCausalLM.from_pretrained(folder).named_parameters()) for folder in folders]
    for name, parameter in loaded.named_parameters():
        wanted = reference.ties(*[state[0][name].detach().double().numpy(), [s[name].detach().double().numpy() for s in state[1:]]],
                                weight=[1, 1], density=[0.5, 0.5])  # fmt: skip
        np.testing.assert_allclose(parameter.detach().numpy(), wanted, rtol=2e-5, atol=2e-6)
        assert writer.digests[name] == digest(parameter)


def test_integers_pass_through_if_they_are_equal():
    method = MERGE_METHODS.get("task_arithmetic")
    ids = torch.arange(4)
    assert torch.equal(merge(method, ids, [ids.clone()]), ids)
    with pytest.raises(CheckpointError, match="holds integers that differ"):
        merge(method, ids, [ids + 1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_named(bad):
    method = MERGE_METHODS.get("linear")
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.w\.weight came out with numbers that are not finite"):
        merge(method, torch.ones(3), [torch.tensor([1.0, bad, 1.0])])


def test_a_method_that_names_something_unknown_is_a_bug():
    from hfsafemerge.merging import merge_method

    with pytest.raises(TypeError, match="importances is neither an input"):
        merge_method("broken", paper="")(lambda importances: importances)


def test_parameters_of_another_group_change_nothing_here():
    method = MERGE_METHODS.get("task_arithmetic")
    base, experts = models_for(method)
    groups = LayerGroups(2, 1)
    one = TensorMerger(method, MergeParameters({"weight": [[0.5, 0.5], [0.9, 0.9]]}), groups, ["a", "b"], 0)
    other = replace(one, parameters=MergeParameters({"weight": [[0.5, 0.5], [0.1, 0.1]]}))
    first, second = "model.layers.0.w.weight", "model.layers.1.w.weight"
    assert torch.equal(one.merge(first, base, experts), other.merge(first, base, experts))
    assert not torch.equal(one.merge(second, base, experts), other.merge(second, base, experts))
