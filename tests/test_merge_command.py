"""`hfsafemerge merge` as users of mergekit meet it: their YAML, adapters, stacked layers, other tokenizers, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from commands import command
from test_adapter import adapted, merged_by_peft
from tiny import tiny_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from hfsafemerge.checkpoint import Checkpoint
from hfsafemerge.errors import CheckpointError, HubError, IncompatibleExperts, RecipeError
from hfsafemerge.mergekit import from_mergekit
from hfsafemerge.running import Run, load_recipe

WEIGHT = "model.layers.{}.mlp.up_proj.weight"


@pytest.fixture
def models(tmp_path):
    """Folders of a base and two experts with four layers each."""
    return {name: tiny_model(tmp_path / name, seed, num_hidden_layers=4) for seed, name in enumerate(("base", "a", "b"))}


def merged(tmp_path, config, events=None):
    """The folder that merging this mergekit configuration writes."""
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(json.loads(json.dumps(config, default=str))))
    run = Run(load_recipe(tmp_path / "mergekit.yml"), tmp_path / "run", (events if events is not None else []).append)
    run.do("merge")
    return run.directory / "model"


def read(folder, layer=0):
    return Checkpoint(folder).read(WEIGHT.format(layer))


def ties(models, **more):
    each = [{"model": models[name], "parameters": {"weight": 0.5, "density": 0.5}} for name in ("a", "b")]
    return {"merge_method": "ties", "models": each, "base_model": models["base"], "dtype": "float32"} | more


def test_mergekits_yaml_is_merged_and_written_again(tmp_path, models):
    folder = merged(tmp_path, ties(models))
    assert AutoModelForCausalLM.from_pretrained(folder).config.num_hidden_layers == 4
    again = (folder / "mergekit_config.yml").read_text()
    found, first = from_mergekit(again, "again.yml"), load_recipe(tmp_path / "mergekit.yml")
    assert found.merge == first.merge and found.base == first.base
    (tmp_path / "again").mkdir()
    other = merged(tmp_path / "again", yaml.safe_load(again))
    assert torch.equal(read(folder), read(other))


def test_what_mergekit_has_no_word_for_is_told(tmp_path, models):
    events = []
    recipe = {"name": "safe", "base": {"path": str(models["base"])}, "merge": {"method": "safe_lora", "chat_template": "base"},
              "experts": [{"path": str(models["a"])}, {"path": str(models["b"])}]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run", events.append)
    run.do("merge")
    assert not (run.directory / "model" / "mergekit_config.yml").exists()
    assert any("no mergekit_config.yml: mergekit can't make this merge" in event.message for event in events)


def test_layers_are_stacked(tmp_path, models):
    slices = [{"sources": [{"model": models["a"], "layer_range": [0, 3]}]}, {"sources": [{"model": models["b"], "layer_range": [1, 4]}]}]
    folder = merged(tmp_path, {"merge_method": "passthrough", "slices": slices, "dtype": "bfloat16"})
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert loaded.config.num_hidden_layers == 6 and loaded.dtype == torch.bfloat16 and len(loaded.model.layers) == 6
    assert torch.equal(read(folder, 5), read(models["b"], 3).bfloat16()) and torch.equal(read(folder, 2), read(models["a"], 2).bfloat16())
    assert loaded(torch.arange(5)[None]).logits.isfinite().all()


def test_layers_that_a_model_does_not_have_are_refused_at_check(tmp_path, models):
    slices = [{"sources": [{"model": models["a"], "layer_range": [0, 9]}]}]
    with pytest.raises(IncompatibleExperts, match=r"takes layers of base up to 8; it has 4"):
        merged(tmp_path, {"merge_method": "passthrough", "slices": slices})


def test_an_adapter_is_an_expert(tmp_path, models):
    trained = adapted(models["base"], tmp_path / "lora", target_modules=["q_proj", "up_proj"])
    config = {"merge_method": "task_arithmetic", "base_model": models["base"], "dtype": "float32",
              "models": [{"model": f"{models['base']}+{tmp_path / 'lora'}", "parameters": {"weight": 1.0}}]}  # fmt: skip
    folder = merged(tmp_path, config)
    torch.testing.assert_close(read(folder), merged_by_peft(trained).state_dict()[WEIGHT.format(0)])


def test_a_recipe_may_name_an_adapter_alone_and_run_its_model(tmp_path, models):
    from hfsafemerge.running import inputs

    adapted(models["base"], tmp_path / "lora", target_modules=["q_proj", "up_proj"])
    recipe = {"name": "one", "base": {"path": str(models["base"])}, "merge": {"method": "linear"},
              "experts": [{"name": "x", "adapter": {"path": str(tmp_path / "lora")}}]}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    run.do("merge")
    expert = inputs.source(run, "x").weights().read(WEIGHT.format(1))
    assert not torch.equal(expert, read(models["base"], 1))
    torch.testing.assert_close(read(run.directory / "model", 1), (expert + read(models["base"], 1)) / 2)
    with inputs.language_model(run, "x") as model:
        assert torch.equal(dict(model.model.named_parameters())[WEIGHT.format(1)], expert)
    assert inputs.label(run, "x").startswith("base+lora@local-")
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    with pytest.raises(Exception, match=r"lora has changed since the run was checked"):
        inputs.source(run, "x")


def test_an_adapter_of_another_kind_is_refused_at_check(tmp_path, models):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    models_ = [{"model": f"{models['base']}+{tmp_path / 'lora'}", "parameters": {"weight": 1.0}}]
    with pytest.raises(CheckpointError, match="an adapter of type IA3; only LORA is read"):
        merged(tmp_path, {"merge_method": "task_arithmetic", "base_model": models["base"], "models": models_})


@pytest.mark.parametrize(("source", "size"), [("union", 1), ("base", 0)])
def test_tokens_are_united_or_left_to_the_base(tmp_path, models, source, size):
    tokenizer = AutoTokenizer.from_pretrained(models["a"])
    before = len(tokenizer)
    tokenizer.add_tokens(["<think>"])
    expert = AutoModelForCausalLM.from_pretrained(models["a"])
    expert.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    expert.save_pretrained(models["a"])
    tokenizer.save_pretrained(models["a"])
    events = []
    with pytest.raises(IncompatibleExperts, match=r"say with merge\.tokenizer which tokens|embed_tokens"):
        merged(tmp_path, ties(models))
    (tmp_path / "again").mkdir()
    folder = merged(tmp_path / "again", ties(models, tokenizer_source=source), events)
    loaded, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert len(words) == before + size == loaded.config.vocab_size == loaded.get_input_embeddings().weight.shape[0]
    told = [event.message for event in events if "tokens" in event.message and event.stage == "merge"]
    assert any(("added" if size else "dropped") in line for line in told)


def test_a_chat_template_of_the_recipe_s_own_is_written(tmp_path, models):
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    folder = merged(tmp_path, ties(models, chat_template=template))
    written = AutoTokenizer.from_pretrained(folder).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    assert written == "[user] hi"


def test_options_of_the_command_change_what_is_written(tmp_path, models):
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(json.loads(json.dumps(ties(models), default=str))))
    options = ["--out-dtype", "bfloat16", "--max-shard-size", "50KB", "--max-memory", "1GB", "--device", "cpu"]
    done = command("merge", tmp_path / "mergekit.yml", "-d", tmp_path / "run", *options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "run" / "model"
    assert AutoConfig.from_pretrained(folder).dtype == torch.bfloat16 and read(folder).dtype == torch.bfloat16
    assert len(list(folder.glob("*.safetensors"))) > 1
    assert command("merge", tmp_path / "mergekit.yml", "--max-memory", "much").returncode == 1
    assert "it must be" not in done.stderr


def test_a_merge_imports_no_transformers(tmp_path, models):
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(json.loads(json.dumps(ties(models), default=str))))
    code = (
        "import sys; from hfsafemerge.cli import main; sys.argv = ['hfsafemerge', 'merge', *sys.argv[1:]]; code = main();"
        "assert not {'transformers', 'datasets', 'peft', 'gradio'} & set(sys.modules), 'heavy'; sys.exit(code)"
    )
    command_ = [sys.executable, "-c", code, tmp_path / "mergekit.yml", "-d", tmp_path / "run"]
    done = subprocess.run(command_, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"merge_methd": "ties"}, r"Did you mean 'merge_method'"),
        ({"parameters": {"densty": 0.3}}, r"densty.*Did you mean 'density'"),
        ({"base_modle": "x"}, r"base_modle.*Did you mean 'base_model'"),
        ({"base_model": "/nowhere/at/all"}, r"/nowhere/at/all does not exist"),
    ],
)
def test_a_faulty_file_is_one_line(tmp_path, models, changes, message):
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(json.loads(json.dumps(ties(models, **changes), default=str))))
    with pytest.raises((RecipeError, HubError), match=message):
        run = Run(load_recipe(tmp_path / "mergekit.yml"), tmp_path / "run")
        run.do("merge")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_merge_that_is_stopped_leaves_no_model_and_goes_on(tmp_path, how):
    """Models of many tensors, so that there is time to stop in the middle."""
    from safetensors.torch import save_file

    for seed, name in enumerate(("base", "a")):
        folder = tiny_model(tmp_path / name, seed)
        tensors = {f"model.layers.{i}.w.weight": torch.full((64, 64), float(seed)) for i in range(3000)}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {"merge_method": "linear", "models": [{"model": str(tmp_path / n), "parameters": {"weight": 1}} for n in ("base", "a")]}
    (tmp_path / "m.yml").write_text(yaml.safe_dump(config))
    command_ = [sys.executable, "-m", "hfsafemerge", "merge", str(tmp_path / "m.yml"), "-d", str(tmp_path / "run")]
    process = subprocess.Popen(command_, stderr=subprocess.PIPE, text=True)
    part = tmp_path / "run" / "model.part"
    while not part.exists() and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, how)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (130 if how == signal.SIGINT else -9), said
    assert "Traceback" not in said and not (tmp_path / "run" / "model").exists()
    assert subprocess.run(command_, capture_output=True, timeout=300).returncode == 0
    assert torch.equal(Checkpoint(tmp_path / "run" / "model").read("model.layers.7.w.weight"), torch.full((64, 64), 0.5))
    assert not part.exists()


def test_an_adapter_on_the_hub_is_merged_published_and_rebuilt(tmp_path, models, repo_name):
    from huggingface_hub import HfApi

    from hfsafemerge.running import reproduce

    adapted(models["base"], tmp_path / "lora", target_modules=["q_proj"])
    api = HfApi()
    for name, folder in (("base", models["base"]), ("lora", tmp_path / "lora")):
        api.create_repo(f"alice/{repo_name}-{name}")
        api.upload_folder(repo_id=f"alice/{repo_name}-{name}", folder_path=folder, allow_patterns=["*.json", "*.safetensors", "*.jinja"])
    recipe = {
        "name": "adapter", "base": {"repo_id": f"alice/{repo_name}-base"}, "merge": {"method": "linear"},
        "experts": [{"adapter": {"repo_id": f"alice/{repo_name}-lora"}}],
        "push": {"repo_id": f"alice/{repo_name}", "license": "mit"},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    run.do("push")
    checked = run.read("check.json")["models"][f"{repo_name}-lora"]
    assert checked["adapter_commit"] == api.model_info(f"alice/{repo_name}-lora").sha
    assert reproduce(f"alice/{repo_name}").tensors > 0
    published = Path(api.hf_hub_download(f"alice/{repo_name}", "mergekit_config.yml")).read_text()
    assert f"alice/{repo_name}-lora@{checked['adapter_commit']}" in published or checked["adapter_commit"] in published
    assert str(tmp_path) not in published


@pytest.mark.parametrize("device", ["cuda", "cuda:99", "meta", "mps", "nonsense"])
def test_a_device_that_is_not_there_is_told_at_check(tmp_path, models, device):
    if device == "cuda" and torch.cuda.is_available():
        device = "cuda:77"
    (tmp_path / "mergekit.yml").write_text(yaml.safe_dump(json.loads(json.dumps(ties(models), default=str))))
    run = Run(load_recipe(tmp_path / "mergekit.yml").changed({"compute.device": device}), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"compute\.device is"):
        run.do("check")


def test_a_tower_beside_the_decoder_can_not_be_stacked(tmp_path, models):
    from safetensors.torch import load_file, save_file

    for name in ("a", "b"):
        tensors = load_file(models[name] / "model.safetensors") | {"vision_tower.layers.0.weight": torch.ones(2)}
        save_file(tensors, models[name] / "model.safetensors", metadata={"format": "pt"})
    slices = [{"sources": [{"model": models[name], "layer_range": [0, 1]}]} for name in ("a", "b")]
    with pytest.raises(IncompatibleExperts, match=r"has layers in model\., vision_tower\.; models of several parts can't be stacked"):
        merged(tmp_path, {"merge_method": "passthrough", "slices": slices})


def test_a_malformed_small_file_is_told(tmp_path, models):
    (models["base"] / "generation_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json is malformed"):
        merged(tmp_path, ties(models))


def test_nothing_of_this_machine_is_copied_into_the_configuration(tmp_path, models):
    config = json.loads((models["base"] / "config.json").read_text())
    (models["base"] / "config.json").write_text(json.dumps(config | {"inner": {"_name_or_path": "/home/me/secret"}}))
    assert "secret" not in (merged(tmp_path, ties(models)) / "config.json").read_text()


def test_a_model_that_was_touched_after_the_merge_is_not_published(tmp_path, models, repo_name):
    from hfsafemerge.errors import RunError

    merged(tmp_path, ties(models))
    run = Run(load_recipe(tmp_path / "mergekit.yml"), tmp_path / "run")
    (tmp_path / "run" / "model" / "config.json").write_text("{}")
    with pytest.raises(RunError, match="was changed after the merge"):
        run.push(f"alice/{repo_name}", license="mit")


def test_merging_leaves_torch_s_threads_as_they_were(tmp_path, models):
    import threading

    found = []
    merged(tmp_path, ties(models))
    threading.Thread(target=lambda: found.append(torch.get_num_threads())).start()
    while not found:
        time.sleep(0.01)
    assert found == [torch.get_num_threads()] == [2]
