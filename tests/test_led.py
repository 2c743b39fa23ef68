"""LED-Merging: worked by hand, its masks, its laws beside those of every method, and as candidates in memory."""

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_live_merge import QUESTIONS, pool
from test_merge_methods import EveryTensor, exactly, importance_for, merge, models_for
from transformers import LlamaForCausalLM

from hfsafemerge.calibration import write_importance
from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter
from hfsafemerge.errors import CheckpointError, RecipeError
from hfsafemerge.language_model import TransformersModel
from hfsafemerge.live_merge import Evaluator, LiveMerge, SearchData, genes_of
from hfsafemerge.merge_methods.led import elect
from hfsafemerge.merging import MERGE_METHODS, Entries, LayerGroups, TensorMerger, merge_checkpoints, resolve_parameters
from hfsafemerge.merging.compiled import can_compile
from hfsafemerge.searching import Query

LED = MERGE_METHODS.get("led")
PATTERNS, DISJOINT, KEEP = ["both", "expert", "base", "neither"], ["symmetric", "safety_priority", "off"], ["largest", "smallest"]


def scores(*numbers):
    return EveryTensor(torch.tensor(numbers, dtype=torch.float32))


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0, 20, 0, 0]),
        ({"disjoint": "safety_priority"}, [1, 20, 0, 0]),
        ({"disjoint": "off"}, [11, 20, 0, 0]),
        ({"pattern": "expert"}, [0, 0, 3, 0]),
        ({"pattern": "base"}, [0, 2, 0, 0]),
        ({"pattern": "neither"}, [0, 0, 30, 0]),  # the first elects 3; the second 2 and 3
        ({"keep": "smallest"}, [0, 0, 30, 0]),  # the base has 2 and 3; the first expert 1 and 3, the second 2 and 3
        ({"weight": [1.0, 0.5]}, [0, 10, 0, 0]),
    ],
    ids=str,
)
def test_by_hand(options, wanted):
    """Half of four entries: the base has 0 and 1 for both experts, the first expert 0 and 2, the second 0 and 1."""
    importance = {
        "expert-0": (scores(4, 3, 2, 1), scores(4, 1, 3, 2)),
        "expert-1": (scores(9, 8, 2, 1), scores(7, 6, 1, 2)),
    }
    experts = [torch.tensor([1.0, 2, 3, 4]), torch.tensor([10.0, 20, 30, 40])]
    found = merge("led", torch.zeros(4), experts, {"density": 0.5, "weight": 1.0} | options, importance=importance)
    assert found.tolist() == wanted


def test_among_equal_scores_the_first_entries_are_located():
    equal = (scores(*[1] * 20), scores(*[1] * 20))
    for keep in KEEP:
        found = merge("led", torch.zeros(20), [torch.ones(20)], {"density": 0.35, "keep": keep}, importance={"expert-0": equal})
        assert found.tolist() == [1.0] * 7 + [0.0] * 13


def entries(tensor):
    return Entries(tensor.numel(), tensor.device, lambda start, stop: tensor[start:stop])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 11),
    size=st.integers(0, 70),
    levels=st.sampled_from([2, 20, 10_000]),
    pattern=st.sampled_from(PATTERNS),
    disjoint=st.sampled_from(DISJOINT),
    keep=st.sampled_from(KEEP),
)
def test_masks_are_those_of_the_equations_and_never_overlap_unless_they_may(seed, count, size, levels, pattern, disjoint, keep):
    generator = torch.Generator().manual_seed(seed)
    pairs = [[torch.randint(levels, (size,), generator=generator).float() / 7 for _ in range(2)] for _ in range(count)]
    density = torch.rand(count, generator=generator)
    given = dict(pattern=pattern, disjoint=disjoint, keep=keep)
    found = elect([tuple(map(entries, pair)) for pair in pairs], density=density, **given).of(torch.ones(count, size), 0)
    ones = [np.ones(size)] * count
    for number in range(count):  # with a weight for one expert alone, the reference gives that one's mask
        weight = [float(number == other) for other in range(count)]
        numbers = [[scores.numpy() for scores in pair] for pair in pairs]
        mask = reference.led(np.zeros(size), ones, weight=weight, density=density.tolist(), importance=numbers, **given)
        assert found[number].tolist() == mask.tolist()
    if disjoint != "off":
        assert bool((found.sum(0) <= 1).all())
    if disjoint == "safety_priority":
        alone = elect([tuple(map(entries, pairs[0]))], density=density[:1], pattern=pattern, keep=keep)
        assert torch.equal(found[0], alone.of(torch.ones(1, size), 0)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3])
def test_with_all_entries_elected_by_all_it_is_task_arithmetic_bit_for_bit(dtype, count):
    base, experts = models_for(LED, (33, 17), dtype, wanted=count)
    weight = [0.3, 0.6, 0.9][:count]
    found = merge("led", base, experts, {"density": 1.0, "disjoint": "off", "weight": weight})
    exactly(found, merge("task_arithmetic", base, experts, {"weight": weight}))


@pytest.mark.parametrize("disjoint", DISJOINT)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("keep", KEEP)
def test_every_variant_agrees_with_the_equations(pattern, disjoint, keep):
    base, experts = models_for(LED, (13, 11), wanted=3)
    given = {"weight": [1.0, 0.5, 2.0], "density": [0.25, 0.5, 0.75], "pattern": pattern, "disjoint": disjoint, "keep": keep}
    pairs = importance_for(["expert-0", "expert-1", "expert-2"], (13, 11)).values()
    numbers = [[scores.tensor.numpy() for scores in pair] for pair in pairs]
    wanted = reference.led(base.double().numpy(), [e.double().numpy() for e in experts], importance=numbers, **given)
    np.testing.assert_allclose(merge("led", base, experts, given).numpy(), wanted, rtol=3e-6, atol=3e-6)


def test_without_scores_or_with_those_of_another_tensor_it_is_refused():
    base, experts = models_for(LED)
    with pytest.raises(RecipeError, match="only a run computes, from the recipe's calibration data"):
        merge("led", base, experts, importance=None)
    with pytest.raises(CheckpointError, match=r"no importance scores for the 30 entries of .*w\.weight"):
        merge("led", base, experts, importance=importance_for(["expert-0", "expert-1"], (6, 4)))


def test_masks_are_kept_while_only_weights_change():
    base, experts = models_for(LED)
    memory, importance = {}, importance_for(["expert-0", "expert-1"], base.shape)
    first = merge("led", base, experts, {"weight": 0.5}, memory=memory, importance=importance)
    again = merge("led", base, experts, {"weight": 0.7}, memory=memory, importance=None)  # so the scores are not looked at
    assert not torch.equal(first, again)
    exactly(again, merge("led", base, experts, {"weight": 0.7}, importance=importance))
    assert not can_compile(LED)


# Candidates in memory


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=str)
def calibrated(request, tmp_path_factory):
    """Three tiny models, and scores of the base and each expert on a question of its own."""
    folder = tmp_path_factory.mktemp("led")
    folders = pool(folder, 2, dtype=request.param, tied=request.param is torch.float32)
    importance = {}
    for name, path, question in zip(["a", "b"], folders[1:], QUESTIONS, strict=True):
        pair = []
        for which in (folders[0], path):
            model = TransformersModel.load(which, name=which.name, device="cpu")
            where = folder / f"{which.name}-{name}-scores"
            write_importance(model, model.tokenized([question]), Checkpoint(which).tensors, where)
            pair.append(Checkpoint(where))
        importance[name] = tuple(pair)
    return folders, importance


def live_merge(calibrated, groups):
    folders, importance = calibrated
    base, a, b = map(Checkpoint, folders)
    model = TransformersModel.load(folders[0], name="base", device="cpu")
    return LiveMerge(model, base, {"a": a, "b": b}, LED, groups, 0, importance=importance, compile=True)


def test_what_is_scored_is_what_is_written(calibrated, tmp_path):
    folders, importance = calibrated
    checkpoints = dict(zip(["base", "a", "b"], map(Checkpoint, folders), strict=True))
    groups = LayerGroups.of(checkpoints["base"].tensors, 1)
    live = live_merge(calibrated, groups)
    live.set(resolve_parameters(LED, {}, live.models, groups.count))  # another candidate before
    given = resolve_parameters(LED, {"weight": [0.4, 0.9], "density": [0.3, 0.6]}, live.models, groups.count)
    live.set(given)
    writer = CheckpointWriter(tmp_path, checkpoints["base"].tensors)
    merge_checkpoints(TensorMerger(LED, given, groups, ["a", "b"], 0, importance=importance), checkpoints, writer)
    (tmp_path / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
    written = dict(LlamaForCausalLM.from_pretrained(tmp_path).named_parameters())
    changed = 0
    for name, parameter in live.model.model.named_parameters():
        assert torch.equal(parameter, written[name])
        changed += int((parameter != checkpoints["base"].read(name)).sum())
    assert 0 < changed < sum(info.numel for info in checkpoints["base"].tensors.values())


def test_slopes_of_weights_are_those_of_finite_differences(calibrated):
    if "lm_head.weight" in Checkpoint(calibrated[0][0]).tensors:
        pytest.skip("differences are too coarse in bfloat16")
    live = live_merge(calibrated, LayerGroups(2))
    genes = genes_of(LED, live.models, 1, {})
    evaluate = Evaluator(live, SearchData(live.model, {"safety": QUESTIONS}, 0), genes, {})
    genome = [{"weight": 0.6, "density": 0.5}[gene.parameter] for gene in genes]
    slope = evaluate(Query(genome, with_slope=True))["safety"].slope
    assert {gene.parameter for gene in genes} == {"weight", "density"} and np.isfinite(slope).all()
    for at, gene in enumerate(genes):
        if gene.parameter == "weight":
            low, high = ([*genome[:at], genome[at] + by, *genome[at + 1 :]] for by in (-0.01, 0.01))
            difference = evaluate(Query(high))["safety"].mean - evaluate(Query(low))["safety"].mean
            assert slope[at] == pytest.approx(difference / 0.02, rel=0.02, abs=2e-4), gene
