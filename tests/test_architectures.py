"""Tiny models of the architectures that are merged most: our merge, loaded by transformers, against one in plain torch."""

import copy
import json
from dataclasses import dataclass, field

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter
from hfsafemerge.language_model import Batch, TransformersModel
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, TensorMerger, merge_checkpoints, resolve_parameters

NAMES, WEIGHTS = ("base", "a", "b"), (0.5, 0.3, 0.4)
COMMON = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
IDS = torch.arange(3, 35).reshape(2, 16)


@dataclass(frozen=True)
class Architecture:
    """A model class of transformers, and what is particular about one of its models here."""

    name: str
    settings: dict = field(default_factory=dict)
    tied: bool = False
    dtype: torch.dtype = torch.float32
    shard: int = 10**9
    config: str = ""
    packed: bool = False
    """Whether transformers keeps in one parameter what is several tensors in the file."""

    def __str__(self):
        return f"{self.name}{' tied' if self.tied else ''}"


EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
ARCHITECTURES = [
    Architecture("Llama"),
    Architecture("Llama", tied=True, shard=20_000),
    Architecture("Mistral", {"sliding_window": 8}, shard=20_000),
    Architecture("Qwen2", tied=True),
    Architecture("Qwen3", dtype=torch.bfloat16),
    Architecture("Gemma2", {"query_pre_attn_scalar": 8, "sliding_window": 8}, tied=True),
    Architecture("Gemma3", {"query_pre_attn_scalar": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
                 tied=True, config="Gemma3TextConfig"),
    Architecture("Phi3"),
    Architecture("Olmo"),
    Architecture("Olmo2"),
    Architecture("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, packed=True),
    Architecture("Qwen2Moe", EXPERTS | {"shared_expert_intermediate_size": 24}, packed=True),
    Architecture("Qwen3Moe", EXPERTS, packed=True, shard=20_000),
]  # fmt: skip


def new_models(architecture):
    """A base with random weights, and two experts that differ from it by a little noise everywhere."""
    config_class = getattr(transformers, architecture.config or f"{architecture.name}Config")
    config = config_class(**(COMMON | architecture.settings), tie_word_embeddings=architecture.tied)
    model = getattr(transformers, f"{architecture.name}ForCausalLM")(config)
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_((0.2 if name == "base" else 0.02) * torch.randn(parameter.shape, generator=generator))
        yield name, copy.deepcopy(model).to(architecture.dtype).eval()


@pytest.fixture(params=ARCHITECTURES, ids=str)
def saved(request, tmp_path):
    """An architecture, and its three models as transformers saves them: their folders, and their state dicts."""
    states = {}
    for name, model in new_models(request.param):
        model.save_pretrained(tmp_path / name, max_shard_size=request.param.shard)
        states[name] = model.state_dict()
    return request.param, {name: tmp_path / name for name in NAMES}, states


def merged(folders, target, method, shard, **given):
    """Our merge, loaded by transformers."""
    models = {name: Checkpoint(folder) for name, folder in folders.items()}
    parameters = resolve_parameters(MERGE_METHODS.get(method), given, list(NAMES), 1)
    merger = TensorMerger(MERGE_METHODS.get(method), parameters, LayerGroups(2), list(NAMES[1:]), 0)
    target.mkdir()
    writer = CheckpointWriter(target, models["base"].tensors, max_shard_size=shard)
    merge_checkpoints(merger, models, writer)
    (target / "config.json").write_bytes((folders["base"] / "config.json").read_bytes())
    return loaded(target)


def loaded(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


def stored(folder):
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def ties(base, experts, density):
    """arXiv:2306.01708 for one tensor: trim, elect signs, mean of those that agree."""
    deltas = torch.stack([(expert.float() - base.float()).flatten() for expert in experts])
    for delta in deltas:
        order = delta.abs().sort(descending=True, stable=True).indices
        delta[order[round(density * delta.numel()) :]] = 0
    agreeing = deltas * (torch.where(deltas.sum(0) >= 0, 1.0, -1.0) * deltas > 0)
    joined = agreeing.sum(0) / (agreeing != 0).sum(0).clamp(min=1)
    return (base.float() + joined.reshape(base.shape)).to(base.dtype)


def agree(found, wanted, dtype):
    """Both give the same logits: to single precision, or to three units in the last place of what bfloat16 sums up."""
    tolerance = dict(rtol=1e-4, atol=1e-4) if dtype == torch.float32 else dict(rtol=2**-6, atol=2**-6 * wanted.float().abs().max())
    assert wanted.float().std() > 0.05  # the comparison says something
    torch.testing.assert_close(found.float(), wanted.float(), **tolerance)


def test_a_linear_merge_is_the_weighted_mean_of_the_state_dicts(saved, tmp_path):
    architecture, folders, states = saved
    if architecture.shard < 10**9:
        assert all(len(list(folder.glob("*.safetensors"))) > 1 for folder in folders.values())
    found = merged(folders, tmp_path / "merged", "linear", architecture.shard, weight=list(WEIGHTS))
    wanted = copy.deepcopy(found)
    mean = {
        name: (sum(weight * states[model][name].float() for weight, model in zip(WEIGHTS, NAMES, strict=True)) / sum(WEIGHTS)).to(
            tensor.dtype
        )
        for name, tensor in states["base"].items()
    }
    wanted.load_state_dict(mean)
    assert (found.lm_head.weight is found.model.embed_tokens.weight) is architecture.tied
    for name, tensor in found.state_dict().items():
        assert tensor.dtype == architecture.dtype
        torch.testing.assert_close(tensor, mean[name], rtol=1e-5 if tensor.dtype == torch.float32 else 2**-7, atol=1e-7)
    with torch.no_grad():
        agree(found(IDS).logits, wanted(IDS).logits, architecture.dtype)
        assert not torch.allclose(found(IDS).logits, loaded(folders["base"])(IDS).logits, atol=1e-2)


def test_a_ties_merge_is_ties_of_the_tensors_in_the_files(saved, tmp_path):
    """Of the files, since trimming looks at one tensor at a time, and transformers may pack several into one parameter."""
    architecture, folders, states = saved
    files = {name: stored(folder) for name, folder in folders.items()}
    packed = {name for name in files["base"] if ".experts." in name}
    assert files["base"].keys() - states["base"].keys() >= packed and bool(packed) is architecture.packed
    found = merged(folders, tmp_path / "merged", "ties", architecture.shard, density=0.5)
    (tmp_path / "plain").mkdir()
    tensors = {name: ties(tensor, [files["a"][name], files["b"][name]], 0.5) for name, tensor in files["base"].items()}
    save_file(tensors, tmp_path / "plain" / "model.safetensors", {"format": "pt"})
    (tmp_path / "plain" / "config.json").write_bytes((folders["base"] / "config.json").read_bytes())
    with torch.no_grad():
        agree(found(IDS).logits, loaded(tmp_path / "plain")(IDS).logits, architecture.dtype)
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["architectures"] == [f"{architecture.name}ForCausalLM"]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=str)
def test_what_all_rows_begin_with_is_run_once_and_changes_nothing(architecture):
    """Also where rows are padded after it; where a window slides, nothing is shared."""
    _, model = next(new_models(architecture))
    running = TransformersModel.__new__(TransformersModel)  # it is given tokens, so it needs no tokenizer
    running.model = model
    if getattr(model.config, "sliding_window", None):
        assert not running.can_share
        return
    assert running.can_share and "sliding_window" not in architecture.settings
    shared, rows = torch.arange(40, 52), torch.arange(3, 33).reshape(3, 10)
    mask = torch.ones_like(rows)
    mask[1, :4] = 0
    labels = torch.full_like(rows, -100)
    labels[:, -3:] = rows[:, -3:]
    found = running.answer_likelihood(Batch([0, 1, 2], shared, rows, mask, labels, 3))
    for row in range(3):
        whole = torch.cat([shared, rows[row][mask[row] == 1]])[None]
        only = torch.full_like(whole, -100)
        only[:, -3:] = whole[:, -3:]
        alone = running.answer_likelihood(Batch([0], shared[:0], whole, torch.ones_like(whole), only, 3))
        assert found[row].item() == pytest.approx(alone.item(), rel=1e-4 if architecture.dtype == torch.float32 else 2e-2)
