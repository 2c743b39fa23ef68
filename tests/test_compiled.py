"""Compiled kernels give the bits that the same kernels give operation by operation, and are compiled once."""

import jaxtyping
import pytest
import torch
from tiny import tiny_model
from torch._dynamo.utils import counters

from hfsafemerge.checkpoint import Checkpoint
from hfsafemerge.errors import RecipeError
from hfsafemerge.language_model import TransformersModel
from hfsafemerge.live_merge import LiveMerge
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, Scope, TensorMerger, resolve_parameters
from hfsafemerge.merging.compiled import WORTHWHILE, can_compile, check_compiler, compiled

try:
    check_compiler()
except RecipeError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is:DeprecationWarning")  # torch's own use of it
FAST = ["breadcrumbs", "linear", "slerp", "task_arithmetic", "ties"]
METHODS = [
    pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
    for name in MERGE_METHODS.names()
    if can_compile(MERGE_METHODS.get(name))
]


@pytest.fixture(autouse=True)
def unchecked():
    """The checker of annotations asks what can't be known while a kernel is compiled."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def models(method, length, dtype, generator):
    """Random ones, with zeros of both signs, and entries that are equal, huge or no number."""
    base = torch.randn(length, generator=generator)
    experts = [base + 0.1 * torch.randn(length, generator=generator) for _ in range(max(min(3, method.experts[1] or 3), method.experts[0]))]
    base[::7], base[3::70] = 0, -0.0
    experts[0][5::11] = base[5::11]
    if not method.kernel.before or "each_delta" in method.kernel.all_inputs - {"products"}:
        experts[-1][length // 2], experts[0][-1] = torch.nan, torch.inf
    return base.to(dtype), [expert.to(dtype) for expert in experts]


def numbers(method, experts, generator):
    drawn = {}
    for parameter in method.parameters:
        owners = {Scope.SHARED: 1, Scope.PER_EXPERT: len(experts), Scope.PER_MODEL: len(experts) + 1}[parameter.scope]
        values = (torch.rand(owners, generator=generator) * min(parameter.number.high, 2.0)).tolist()
        drawn[parameter.name] = values[0] if parameter.scope is Scope.SHARED else values
    return resolve_parameters(method, drawn, ["base", *experts], 1)


def bits(tensor):
    """What is equal only where every bit is; all NaN are alike."""
    return torch.where(tensor.isnan(), torch.nan, tensor).view({2: torch.int16, 4: torch.int32}[tensor.element_size()])


@pytest.mark.parametrize("name", METHODS)
def test_compiled_bits_are_those_of_single_operations(name, monkeypatch):
    """For lengths with a rest, several runs, and candidates one after the other; each dtype is compiled once."""
    monkeypatch.setattr("hfsafemerge.merging.tensors.RUN", 1 << 16)
    method, generator = MERGE_METHODS.get(name), torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        before = counters["stats"]["unique_graphs"]
        for length in (WORTHWHILE, 5003, (1 << 17) + 5000, (1 << 16) + 3, 3, 1, 0):
            base, experts = models(method, max(length, 20), dtype, generator)
            base, experts = base[:length], [expert[:length] for expert in experts]
            names = [f"expert-{i}" for i in range(len(experts))]
            for _ in range(2):
                settings = (method, numbers(method, names, generator), LayerGroups(0), names, 7)
                wanted = TensorMerger(*settings, allow_non_finite=True).merge("x", base, experts)
                found = TensorMerger(*settings, allow_non_finite=True, compile=True).merge("x", base, experts)
                assert torch.equal(bits(found), bits(wanted)), (dtype, length)
        assert counters["stats"]["unique_graphs"] - before <= 1


def test_methods_of_rows_and_tensors_stay_as_they_are():
    assert not can_compile(MERGE_METHODS.get("della")) and not can_compile(MERGE_METHODS.get("safe_lora"))
    base = torch.randn(64, 128)
    method = MERGE_METHODS.get("della_linear")
    settings = (method, resolve_parameters(method, {}, ["base", "a"], 1), LayerGroups(0), ["a"], 0)
    merged = [TensorMerger(*settings, compile=compile).merge("x", base, [base + 0.1]) for compile in (False, True)]
    assert torch.equal(*merged)


def test_a_kernel_is_kept_for_its_options():
    method = MERGE_METHODS.get("task_arithmetic")
    assert compiled(method, {"normalize": True}) is compiled(method, {"normalize": True})
    assert compiled(method, {"normalize": True}) is not compiled(method, {"normalize": False})


@pytest.mark.parametrize("name", ["ties", "dare_ties"])  # DARE draws random numbers and stays as it is
def test_a_live_candidate_has_the_same_weights_compiled(tmp_path, name, monkeypatch):
    monkeypatch.setattr("hfsafemerge.merging.tensors.WORTHWHILE", 64)  # tiny models have no longer tensors
    folders = [tiny_model(tmp_path / model, seed, dtype=torch.bfloat16) for seed, model in enumerate(["base", "a", "b", "c"])]
    base, *experts = (Checkpoint(folder) for folder in folders)
    method, groups = MERGE_METHODS.get(name), LayerGroups.of(base.tensors, 1)
    lives = []
    for compile in (False, True):
        model = TransformersModel.load(folders[0], name="base", device="cpu")
        lives.append(LiveMerge(model, base, dict(zip("abc", experts, strict=True)), method, groups, 5, compile=compile))
    for density in (0.4, 0.7):
        parameters = resolve_parameters(method, {"weight": [0.3, 0.5, 0.2], "density": density}, ["base", *"abc"], groups.count)
        for live in lives:
            live.set(parameters)
        for mine, theirs in zip(*(live.model.model.parameters() for live in lives), strict=True):
            assert torch.equal(bits(mine.detach()), bits(theirs.detach()))


def test_without_a_compiler_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    folder = tiny_model(tmp_path / "base", 0)
    model, base = TransformersModel.load(folder, name="base", device="cpu"), Checkpoint(folder)
    with pytest.raises(RecipeError, match=r"there is no no-such-compiler. Install g\+\+"):
        LiveMerge(model, base, {"a": base}, MERGE_METHODS.get("linear"), LayerGroups(2), 0, compile=True)
    LiveMerge(model, base, {"a": base}, MERGE_METHODS.get("della"), LayerGroups(2), 0, compile=True)  # it has nothing to compile
