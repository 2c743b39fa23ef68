"""mergekit's YAML, read and written. With HFSAFEMERGE_MERGEKIT naming a Python that has mergekit, its merges are compared with ours."""

import contextlib
import json
import os
import subprocess
from dataclasses import asdict

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.torch import load_file
from tiny import tiny_model

from hfsafemerge.errors import RecipeError
from hfsafemerge.mergekit import from_mergekit, is_mergekit, to_mergekit
from hfsafemerge.mergekit.references import read_reference, write_reference
from hfsafemerge.merging import MERGE_METHODS, TensorMerger, layer_of
from hfsafemerge.recipe import Recipe

EXAMPLES = {
    "linear": """
merge_method: linear
models:
  - {model: org/chat, parameters: {weight: 1.0}}
  - {model: org/sums, parameters: {weight: 0.3}}
  - {model: org/code, parameters: {weight: 0.5}}
dtype: float16
""",
    "slerp": """
merge_method: slerp
base_model: org/chat
slices:
  - sources:
      - {model: org/chat, layer_range: [0, 32]}
      - {model: org/sums, layer_range: [0, 32]}
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: bfloat16
""",
    "ties": """
merge_method: ties
base_model: org/base
models:
  - {model: org/chat, parameters: {density: [1, 0.7, 0.1], weight: 1.0}}
  - {model: org/sums, parameters: {density: 0.5, weight: [0, 0.3, 0.7, 1]}}
  - model: org/code
    parameters:
      density: 0.33
      weight: [{filter: mlp, value: 0.5}, {value: 0}]
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
    "task_arithmetic": """
merge_method: task_arithmetic
base_model: org/base
models:
  - model: org/base
  - {model: org/chat, parameters: {weight: 0.4}}
  - {model: org/sums, parameters: {weight: 0.7}}
parameters: {lambda: 1.2}
""",
    "dare_ties": """
merge_method: dare_ties
base_model: org/base@v1
models:
  - {model: org/chat@0123abc, parameters: {density: 0.53, weight: 0.4}}
  - {model: org/sums, parameters: {density: 0.53, weight: 0.3}}
parameters: {int8_mask: true}
dtype: bfloat16
""",
    "dare_linear": """
merge_method: dare_linear
base_model: org/base
models: [{model: org/chat, parameters: {density: 0.6, weight: 1}}, {model: org/sums, parameters: {weight: 0.5}}]
parameters: {normalize: true, rescale: false}
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: org/base
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums, parameters: {weight: 0.5, gamma: 0.02}}]
parameters: {density: 0.9}
""",
    "breadcrumbs_ties": """
merge_method: breadcrumbs_ties
base_model: org/base
models: [{model: org/chat}, {model: org/sums}]
parameters: {density: 0.9, weight: 0.5}
""",
    "della": """
merge_method: della
base_model: org/base
models: [{model: org/chat, parameters: {weight: 1, density: 0.5, epsilon: 0.1}}, {model: org/sums, parameters: {weight: 0.5}}]
parameters: {density: 0.7, lambda: 1.1}
""",
    "della_linear": """
merge_method: della_linear
base_model: org/base
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums, parameters: {weight: 0.5}}]
parameters: {density: 0.7}
""",
    "model_stock": """
merge_method: model_stock
base_model: org/base
models: [{model: org/chat}, {model: org/sums}, {model: org/code}]
parameters: {filter_wise: true}
""",
    "sce": """
merge_method: sce
base_model: org/base
models: [{model: org/chat}, {model: org/sums}]
parameters: {select_topk: 0.8}
""",
    "multislerp": """
merge_method: multislerp
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums, parameters: {weight: 0.5}}]
parameters: {normalize_weights: false}
""",
    "multislerp around a base": """
merge_method: multislerp
base_model: org/base
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums, parameters: {weight: 0.5}}]
""",
    "karcher": """
merge_method: karcher
models: [{model: org/chat}, {model: org/sums}, {model: org/code}]
parameters: {max_iter: 20, tol: 1e-6}
""",
    "passthrough": """
merge_method: passthrough
slices:
  - sources: [{model: org/chat, layer_range: [0, 24]}]
  - sources: [{model: org/sums, layer_range: [8, 32], parameters: {scale: [{filter: o_proj, value: 0.0}, {value: 1.0}]}}]
dtype: float16
""",
    "one model, layers twice": """
merge_method: passthrough
slices: [{sources: [{model: org/chat, layer_range: [0, 24]}]}, {sources: [{model: org/chat, layer_range: [8, 32]}]}]
""",
    "an adapter alone": """
merge_method: passthrough
models: [{model: org/chat@v2+org/lora@v3}]
""",
    "slices with weights": """
merge_method: task_arithmetic
base_model: org/base
parameters: {weight: 0.2, lambda: 0.9}
slices:
  - sources: [{model: org/base, layer_range: [0, 2]}, {model: org/chat, layer_range: [0, 2], parameters: {weight: 1}}]
  - parameters: {weight: [0.5, 0.7]}
    sources: [{model: org/base, layer_range: [2, 8]}, {model: org/chat, layer_range: [4, 10]}]
""",
    "tokenizers": """
merge_method: linear
base_model: org/chat
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums+me/lora, parameters: {weight: 0.3}}]
tokenizer:
  source: union
  tokens:
    <|a|>: {source: org/chat}
    <|b|>: {source: {kind: zero}}
    <|c|>: {source: {kind: model_token, model: org/sums+me/lora, token: </s>}, force: true}
  pad_to_multiple_of: 64
chat_template: chatml
dtype: float32
out_dtype: bfloat16
""",
    "another's tokenizer": """
merge_method: linear
models: [{model: org/chat, parameters: {weight: 1}}, {model: org/sums, parameters: {weight: 0.3}}]
tokenizer_source: org/sums
chat_template: "{{ messages[0]['content'] }}\\n\\n"
""",
}


def chosen_by(recipe: Recipe, layers: int = 32):
    """What parameters.json holds for a recipe that leaves nothing to search."""
    names = [f"model.layers.{layer}.mlp.weight" for layer in range(layers)]
    groups = recipe.groups(names)
    parameters = recipe.parameters(groups.count)
    found = {"method": recipe.merge.method, "groups": asdict(groups), "numbers": parameters.numbers, "options": parameters.options}
    return json.loads(json.dumps(found))


def read(text: str) -> dict:
    return from_mergekit(text).model_dump(mode="json", exclude_defaults=True)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_goes_through_our_words_and_back(name):
    recipe = from_mergekit(EXAMPLES[name], "some folder/my merge.yml")
    assert recipe.name == "my-merge" and recipe.search.strategy == "fixed" and is_mergekit(EXAMPLES[name])
    assert Recipe.parse(recipe.to_yaml()) == recipe
    assert from_mergekit(to_mergekit(recipe, chosen_by(recipe)), "my merge.yml") == recipe


def test_models_in_a_row_are_merged_with_the_weights_given():
    assert read(EXAMPLES["linear"]) == {
        "name": "mergekit",
        "base": {"repo_id": "org/chat"},
        "experts": [{"repo_id": "org/sums"}, {"repo_id": "org/code"}],
        "merge": {
            "method": "linear",
            "parameters": {"weight": {"base": 1.0, "sums": 0.3, "code": 0.5}, "normalize": True},
            "chat_template": "base",
            "out_dtype": "float16",
        },
    }


def test_slices_gradients_and_filters():
    assert read(EXAMPLES["slerp"])["merge"] == {
        "method": "slerp",
        "parameters": {
            "t": {
                "filter": {
                    "self_attn": {"gradient": [0.0, 0.5, 0.3, 0.7, 1.0]},
                    "mlp": {"gradient": [1.0, 0.5, 0.7, 0.3, 0.0]},
                    "*": 0.5,
                }
            }
        },
        "slices": [{"layers": {"base": [0, 32], "sums": [0, 32]}}],
        "chat_template": "base",
        "out_dtype": "bfloat16",
    }
    franken = read(EXAMPLES["passthrough"])
    assert franken["base"] == {"repo_id": "org/chat"} and franken["experts"] == [{"repo_id": "org/sums"}]
    assert franken["merge"]["slices"] == [
        {"layers": {"base": [0, 24]}, "parameters": {"scale": 1.0}},
        {"layers": {"sums": [8, 32]}, "parameters": {"scale": {"filter": {"o_proj": 0.0, "*": 1.0}}}},
    ]
    assert "experts" not in read(EXAMPLES["one model, layers twice"])


def test_the_defaults_are_mergekit_s_and_not_ours():
    ties = read(EXAMPLES["ties"])
    assert ties["base"] == {"repo_id": "org/base"} and len(ties["experts"]) == 3
    assert ties["merge"]["parameters"]["weight"]["code"] == {"filter": {"mlp": 0.5, "*": 0.0}}
    assert ties["merge"]["parameters"]["lambda_"] == 1.0 and ties["merge"]["parameters"]["normalize"] is True
    dare = read(EXAMPLES["dare_ties"])["merge"]["parameters"]
    assert dare == {"weight": {"chat": 0.4, "sums": 0.3}, "lambda_": 1.0, "density": 0.53, "rescale": True, "normalize": False}
    linear = read(EXAMPLES["dare_linear"])["merge"]["parameters"]
    assert linear["density"] == {"chat": 0.6, "sums": 1.0} and linear["rescale"] is False and linear["normalize"] is True
    assert read(EXAMPLES["breadcrumbs"])["merge"]["parameters"]["gamma"] == {"chat": 0.01, "sums": 0.02}
    della = read(EXAMPLES["della"])["merge"]["parameters"]
    assert della["density"] == {"chat": 0.5, "sums": 0.7} and della["epsilon"] == {"chat": 0.1, "sums": 0.15}
    assert read(EXAMPLES["sce"])["merge"]["parameters"] == {"density": 0.8}
    assert read(EXAMPLES["model_stock"])["merge"]["parameters"] == {"filter_wise": True}
    assert read(EXAMPLES["karcher"])["merge"]["parameters"] == {"max_iter": 20, "tol": 1e-6}


def test_multislerp_has_its_origin_in_the_base_if_there_is_one():
    free, around = (read(EXAMPLES[name])["merge"]["parameters"] for name in ("multislerp", "multislerp around a base"))
    assert free == {"weight": {"base": 1.0, "sums": 0.5}, "normalize": False, "origin": "zero"}
    assert around == {"weight": {"base": 0.0, "chat": 1.0, "sums": 0.5}, "normalize": True, "origin": "base"}


def test_what_is_given_closer_to_a_model_counts_more():
    merge = read("""
merge_method: task_arithmetic
base_model: org/base
parameters: {weight: 0.1, lambda: 0.5}
slices:
  - parameters: {weight: [{filter: mlp, value: 0.2}], lambda: 0.6}
    sources:
      - {model: org/base, layer_range: [0, 4]}
      - {model: org/one, layer_range: [0, 4], parameters: {weight: [{filter: up_proj, value: 0.3}, {filter: mlp, value: 0.4}]}}
      - {model: org/two, layer_range: [0, 4], parameters: {weight: 0.5}}
      - {model: org/three, layer_range: [0, 4]}
""")["merge"]
    assert merge["parameters"]["lambda_"] == 0.6
    assert merge["parameters"]["weight"] == {
        "one": {"filter": {"up_proj": 0.3, "mlp": 0.4, "*": 0.1}},
        "two": 0.5,
        "three": {"filter": {"mlp": 0.2, "*": 0.1}},
    }


def test_slices_of_one_merge_have_parameters_of_their_own():
    merge = read(EXAMPLES["slices with weights"])["merge"]
    assert merge["parameters"] == {"lambda_": 0.9, "normalize": False}
    assert merge["slices"] == [
        {"layers": {"base": [0, 2], "chat": [0, 2]}, "parameters": {"weight": 1.0}},
        {"layers": {"base": [2, 8], "chat": [4, 10]}, "parameters": {"weight": {"gradient": [0.5, 0.7]}}},
    ]


def test_tokenizers_tokens_templates_and_dtypes():
    found = from_mergekit(EXAMPLES["tokenizers"])
    assert found.models == ["base", "lora"] and str(found.model("lora")) == "org/sums+me/lora"
    assert (found.merge.tokenizer, found.merge.pad_to_multiple_of, found.merge.out_dtype) == ("union", 64, "bfloat16")
    assert {token: (spec.model, spec.token, spec.every_model) for token, spec in found.merge.tokens.items()} == {
        "<|a|>": ("base", None, False),
        "<|b|>": ("zero", None, False),
        "<|c|>": ("lora", "</s>", True),
    }
    assert "<|im_start|>" in found.merge.chat_template
    other = from_mergekit(EXAMPLES["another's tokenizer"]).merge
    assert other.tokenizer == "sums" and other.chat_template == "{{ messages[0]['content'] }}\n\n"
    plain = EXAMPLES["linear"]
    assert from_mergekit(plain).merge.tokenizer == "same"
    assert from_mergekit(plain + "chat_template: auto").merge.chat_template == "same"
    assert from_mergekit(plain + "tokenizer_source: base").merge.chat_template == "base"
    assert from_mergekit(plain + "tokenizer_source: org/sums").merge.chat_template == "same"
    assert from_mergekit(plain.replace("float16", "torch.bfloat16")).merge.out_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("name", "prompt", "reply"),
    [
        ("chatml", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n", "A<|im_end|>\n"),
        (
            "llama3",
            "[bos]<|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nQ<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            "A<|eot_id|>",
        ),
        ("mistral", "[bos][INST] S\n\nQ [/INST]", " A[eos]"),
        ("alpaca", "S\n\n### Instruction:\nQ\n\n### Response:\n", "A\n\n"),
        ("exaone", "[|system|]S[|endofturn|]\n[|user|]Q\n[|assistant|]", "A[|endofturn|]\n"),
    ],
)
def test_chat_templates_by_name(name, prompt, reply):
    text = from_mergekit(EXAMPLES["linear"] + f"chat_template: {name}").merge.chat_template
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(text)
    asked = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]
    tokens = {"bos_token": "[bos]", "eos_token": "[eos]"}
    assert template.render(messages=asked, add_generation_prompt=True, **tokens) == prompt
    answered = template.render(messages=[*asked, {"role": "assistant", "content": "A"}], add_generation_prompt=False, **tokens)
    assert answered == prompt + reply


@pytest.mark.parametrize(
    ("text", "place", "revision", "adapter"),
    [
        ("org/one", "org/one", None, None),
        ("org/one@main", "org/one", "main", None),
        ("org/one+me/lora", "org/one", None, "me/lora"),
        ("org/one@v1+me/lora@v2", "org/one", "v1", "me/lora@v2"),
        ("/models/one", "/models/one", None, None),
        ("../one+./lora", "../one", None, "lora"),
        ({"model": {"path": "/my models/one"}, "lora": "me/lora"}, "/my models/one", None, "me/lora"),
    ],
)
def test_names_of_models(text, place, revision, adapter):
    ref = read_reference(text)
    assert (str(ref.repo_id or ref.path), ref.revision, ref.adapter and str(ref.adapter)) == (place, revision, adapter)
    assert read_reference(write_reference(ref)) == ref
    pinned = read_reference(write_reference(ref, "c0ffee", "beef"))
    assert pinned.revision == ("c0ffee" if ref.repo_id else None)
    assert adapter is None or pinned.adapter.revision == ("beef" if ref.adapter.repo_id else None)


def test_a_folder_that_is_there_is_no_repository(working_directory):
    (working_directory / "org" / "one").mkdir(parents=True)
    assert read_reference("org/one").path is not None and read_reference("org/two").repo_id == "org/two"


@pytest.mark.parametrize(
    "wrong", ["gpt2", "org/one@a@b", "org/one@", "a/b+c/d+e/f", "./one@v1", "", 3, {"path": "x"}, {"model": "a/b", "lroa": "c/d"}]
)
def test_names_of_no_model_are_refused(wrong):
    with pytest.raises(ValueError, match=r"\w"):
        read_reference(wrong)


PLAIN = [None, True, -1, 0.5, float("nan"), "x", "*", "", "\0", "x" * 5000, "org/a..b"]
JUNK = st.sampled_from([*PLAIN, [], {}, [1, "a"], [[1]], [{"value": 1}], {"value": []}, {1: 2}, {"model": []}])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(EXAMPLES)), junk=JUNK, data=st.data())
def test_nothing_but_a_recipe_error_comes_of_junk(name, junk, data):
    found = at = yaml.safe_load(EXAMPLES[name])
    while True:
        key = data.draw(st.sampled_from(list(at))) if isinstance(at, dict) else data.draw(st.integers(0, len(at) - 1))
        if not at[key] or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    at[key] = junk
    with contextlib.suppress(RecipeError):
        from_mergekit(yaml.safe_dump(found))


def changed(name: str, *path, to=None) -> str:
    found = at = yaml.safe_load(EXAMPLES[name])
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return yaml.safe_dump(found, sort_keys=False)


WEIGHT = ("models", 0, "parameters", "weight")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("ties", "base_modle", to="x/y"), r"base_modle: There is no key named 'base_modle'. Did you mean 'base_model'\?"),
        (changed("ties", "models", 0, "parameterz", to={}), r"models.0.parameterz: .* Did you mean 'parameters'\?"),
        (
            changed("ties", "models", 0, "parameters", "densty", to=1),
            r"models.0.parameters.densty: There is no parameter of ties .*'density'\?",
        ),
        (changed("ties", "parameters", "normalise", to=True), r"parameters.normalise: .* Did you mean 'normalize'\?"),
        (changed("linear", "parameters", to={"density": 1}), r"There is no parameter of linear named 'density'. Known: normalize, weight"),
        (changed("slerp", "slices", 0, "source", to=[]), r"slices.0.source: .* Did you mean 'sources'\?"),
        (changed("slerp", "slices", 0, "sources", 1, "layers", to=[]), r"slices.0.sources.1.layers: .* Did you mean 'layer_range'\?"),
        (changed("slerp", "slices", 0, "parameters", to={"T": 1}), r"slices.0.parameters.T: There is no parameter of slerp"),
        (changed("tokenizers", "tokenizer", "pad_to_multiple", to=8), r"tokenizer.pad_to_multiple: .* Did you mean 'pad_to_multiple_of'\?"),
        (changed("tokenizers", "tokenizer", "tokens", "<|a|>", "focre", to=True), r"tokens.<\|a\|>.focre: .* Did you mean 'force'\?"),
        (changed("tokenizers", "tokenizer", "tokens", "<|b|>", "source", to={"knd": "zero"}), r"source.knd: .* Did you mean 'kind'\?"),
        (changed("ties", "merge_method", to="tise"), r"no merge method of mergekit named 'tise'. Did you mean 'ties'\?"),
        (changed("ties", "chat_template", to="chatlm"), r"Did you mean 'chatml'\?"),
        (changed("ties", *WEIGHT, to=[{"filtr": "mlp", "value": 1}]), r"models.0.parameters.weight: .* no key 'filtr'"),
        (changed("ties", "dtype", to="float8"), r"dtype: Input should be 'float32', 'bfloat16' or 'float16' \(found 'float8'\)"),
    ],
)
def test_misspelt_words_are_refused_by_name_wherever_they_stand(text, message):
    with pytest.raises(RecipeError, match=message):
        from_mergekit(text)


def test_all_faults_stand_in_one_message():
    with pytest.raises(RecipeError) as caught:
        from_mergekit(
            "merge_method: ties\nbase_modle: x/y\nmodels: [{model: gpt2, parameters: {densty: 1}}]\nparameters: {normalize: 3}", "my.yml"
        )
    message = str(caught.value)
    assert message.startswith("my.yml: ") and all(word in message for word in ("base_modle", "gpt2", "densty", "normalize: 3 is neither"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed("ties", "base_model", to=None), "ties needs a base_model"),
        (changed("model_stock", "models", to=[{"model": "org/chat"}]), "model_stock merges 3 or more model.* found 2: org/chat, org/base"),
        (changed("slerp", "slices", 0, "sources", 0, "layer_range", to=[0, 31]), "as many layers each; they have 31, 32"),
        (changed("slerp", "slices", 0, "sources", 0, "layer_range", to=[4, 4]), r"layer_range \[4, 4\] holds no layer"),
        (changed("slerp", "slices", 0, "sources", 0, "model", to="org/else"), "base_model org/chat is not among the sources"),
        (changed("slerp", "slices", 0, "residual_weight", to=1.0), "residual_weight: mergekit itself does nothing with it"),
        (changed("slerp", "slices", 0, "base_model", to="org/sums"), "all slices must have one base, org/chat"),
        (changed("passthrough", "slices", 0, "sources", to=yaml.safe_load(EXAMPLES["slerp"])["slices"][0]["sources"]), "passthrough merges 1 model"),
        (changed("ties", *WEIGHT, to=[]), "a gradient needs a number"),
        (changed("ties", *WEIGHT, to="heavy"), "'heavy' is neither a number"),
        (changed("ties", *WEIGHT, to=True), "True is no number"),
        (changed("ties", *WEIGHT, to=[{"value": 1}, {"filter": "mlp", "value": 2}]), "after the value for all tensors"),
        (changed("ties", *WEIGHT, to=[{"filter": "mlp.*", "value": 2}]), "a part of a name, such as mlp, and no pattern"),
        (changed("ties", *WEIGHT, to=[{"filter": "mlp", "value": 2}]), "weight of org/chat: it has no value for the tensors that no filter names"),
        (changed("ties", *WEIGHT, to=-1), r"weight is -1.0; it must lie in \[0, inf\]"),
        (changed("ties", "models", 0, "parameters", to={}), "weight of org/chat: it has to be given"),
        (changed("ties", "models", 0, "parameters", "lambda", to=2), "one lambda for all models. Move it"),
        (changed("ties", "models", 0, "model", to="org/base"), "weight of org/base has no effect, since it is the base_model"),
        (changed("ties", "models", 0, "model", to="org/sums"), "a model is there twice"),
        (changed("ties", "parameters", "rescale", to=True), "rescale is True; ties has it only at False here"),
        (changed("ties", "parameters", "normalize", to=[{"filter": "mlp", "value": True}]), "normalize is one value for all tensors"),
        (changed("multislerp", "parameters", "eps", to=1), "eps is 1.0; multislerp has it only at 1e-08 here"),
        (changed("linear", "base_model", to="org/base"), "weight of org/base: it has to be given. mergekit merges base_model too"),
        (changed("ties", "tokenizer_source", to="org/else"), "tokenizer_source: org/else is none of the models that are merged"),
        (changed("tokenizers", "tokenizer_source", to="base"), "either tokenizer_source or tokenizer"),
        (changed("tokenizers", "tokenizer", "tokens", "<|b|>", "source", to={"kind": "model_token", "model": "org/chat", "token_id": 5}), "Name the token itself"),
        (changed("tokenizers", "tokenizer", "tokens", "<|b|>", "source", to={"kind": "model_token", "model": "org/chat"}), "with a model and a token"),
        (changed("ties", "models", to=[]), "either models or slices"),
        (changed("ties", "modules", to={}), "models of several modules"),
        (changed("ties", "base_model", to={"model": "org/base", "override_architecture": "Llama"}), "override_architecture is not needed"),
        (changed("ties", "merge_method", to="nuslerp"), "nuslerp is not offered. Take slerp"),
        (changed("ties", "merge_method", to="nearswap"), "nearswap is not offered"),
        ("merge_method: ties\n---\nmerge_method: slerp\n", "several merges"),
        ("merge_method: ties\nparameters: &all {weight: 1}\nmodels: [{model: a/b, parameters: *all}]", "alias"),
        ("- merge_method: ties", "must be a mapping"),
        ("merge_method: [", "not plain YAML"),
        ("models: [{model: a/b}]", "merge_method is missing"),
    ],
)  # fmt: skip
def test_what_mergekit_refuses_or_passes_over_is_refused_before_any_download(text, message):
    with pytest.raises(RecipeError, match=message):
        from_mergekit(text)


def test_a_filter_may_name_a_layer_only_where_layers_stay():
    moved = changed(
        "slices with weights", "slices", 1, "sources", 1, "parameters", to={"weight": [{"filter": "layers.5.", "value": 1}, {"value": 0}]}
    )
    with pytest.raises(RecipeError, match="weight of org/chat has a filter that names a layer, and layers move here"):
        from_mergekit(moved)
    assert from_mergekit(moved.replace("layer_range:\n    - 4\n    - 10", "layer_range:\n    - 2\n    - 8"))


def test_one_model_with_several_adapters():
    recipe = from_mergekit("""
merge_method: task_arithmetic
base_model: org/base
models: [{model: org/base+a/lora}, {model: org/base+b/lora}, {model: org/base+b/union}]
parameters: {weight: 1}
""")
    assert recipe.models == ["base", "lora", "lora-2", "union-2"]
    assert [str(recipe.model(name)) for name in recipe.models] == ["org/base", "org/base+a/lora", "org/base+b/lora", "org/base+b/union"]


@pytest.mark.parametrize(
    "text", ["name: a\nbase: {repo_id: a/b}\nmerge: {method: ties}", "a: |\n  merge_method: x", "# merge_method: ties"]
)
def test_our_own_recipes_are_not_mergekit_s(text):
    assert not is_mergekit(text)


# --- written ---


def ours(method: str, parameters: dict, *, experts: int = 2, **merge) -> Recipe:
    names = [{"repo_id": f"org/{name}"} for name in ("one", "two", "three")[:experts]]
    spec = {"method": method, "parameters": parameters, **merge}
    recipe = Recipe.model_validate({"name": "ours", "base": {"repo_id": "org/base"}, "experts": names, "merge": spec})
    recipe.check()
    return recipe


def weights_of(recipe: Recipe) -> dict[str, torch.Tensor]:
    """What a recipe makes of random models of three layers."""
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{n}.{part}.weight" for n in range(3) for part in ("mlp", "attn")),
        "model.norm.weight",
    ]
    groups = recipe.groups(names)
    merger = TensorMerger(recipe.method, recipe.parameters(groups.count), groups, recipe.models[1:], recipe.seed)
    models = {}
    for number, model in enumerate(recipe.models):
        generator = torch.Generator().manual_seed(number)
        models[model] = {name: torch.randn(6, 5, generator=generator) for name in names}
    sources = {name: [models[model][groups.source(name, model)] for model in recipe.models] for name in names}
    return {name: merger.merge(name, found[0], found[1:]) for name, found in sources.items()}


SAME = {
    "linear": {"weight": {"base": 0.2, "one": 1, "two": {"gradient": [0, 1]}}},
    "ties": {"weight": [0.3, {"filter": {"mlp": 1.0, "*": 0.4}}], "density": 0.5, "lambda_": 0.7},
    "aligned_interpolation": {"lambda_": {"gradient": [0.2, 0.6]}, "weight": [1, 3]},
    "mergealign": {"t": {"filter": {"attn": {"gradient": [0.25, 0.75]}, "*": 0.5}}},
    "karcher": {},
    "multislerp": {"weight": [1, 2, 3]},
    "sce": {"density": 0.5},
    "model_stock": {"filter_wise": True},
    "breadcrumbs": {"weight": 0.4, "density": 0.5, "gamma": 0.1},
}


GROUPED = {
    "linear": {"weight": [[0.2, 1, 2], [1, 0, 1]]},
    "ties": {"weight": [[0.3, {"filter": {"mlp": 1.0, "*": 0.4}}], [1, 2]], "density": [[0.5, 0.2], [0.5, 1]], "lambda_": [[0.7], [1.5]]},
    "aligned_interpolation": {"lambda_": [[0.3], [0.9]], "weight": [1, 3]},
    "mergealign": {"t": [[0.25], [0.75]]},
    "karcher": {},
    "multislerp": {"weight": [[1, 2, 3], [3, 2, 1]]},
    "sce": {"density": [[0.25], [0.5]]},
    "model_stock": {},
    "breadcrumbs": {"weight": [[1, 2], [2, 1]], "density": 0.5},
}


@pytest.mark.parametrize("method", SAME)
@pytest.mark.parametrize("grouped", [False, True])
def test_what_is_written_makes_the_same_weights(method, grouped):
    recipe = ours(method, SAME[method])
    chosen = chosen_by(recipe, layers=3)
    if grouped:  # as a search would leave it: other numbers for each group of layers
        recipe = ours(method, GROUPED[method], layers_per_group=2)
        chosen = chosen_by(recipe, layers=3)
    text = to_mergekit(recipe, chosen)
    assert ("slices" in text) == grouped
    expected, found = weights_of(recipe), weights_of(from_mergekit(text))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-5, msg=lambda said, name=name: f"{name}: {said}")


def test_groups_of_layers_become_slices_with_what_comes_before_in_the_first_and_after_in_the_last():
    recipe = ours("task_arithmetic", {"weight": [[1.0, 0.5], [0.25, 0.5]]}, layers_per_group=2)
    found = yaml.safe_load(
        to_mergekit(recipe, chosen_by(recipe, layers=3), out_dtype="bfloat16", commits={"base": "c0ffee", "one": "beef"})
    )
    assert found == {
        "merge_method": "task_arithmetic",
        "base_model": "org/base@c0ffee",
        "slices": [
            {
                "sources": [
                    {"model": "org/base@c0ffee", "layer_range": [0, 2]},
                    {"model": "org/one@beef", "layer_range": [0, 2], "parameters": {"weight": 1.0}},
                    {"model": "org/two", "layer_range": [0, 2], "parameters": {"weight": 0.5}},
                ]
            },
            {
                "sources": [
                    {"model": "org/base@c0ffee", "layer_range": [2, 3]},
                    {"model": "org/one@beef", "layer_range": [2, 3], "parameters": {"weight": 0.25}},
                    {"model": "org/two", "layer_range": [2, 3], "parameters": {"weight": 0.5}},
                ]
            },
        ],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


def test_a_copy_names_the_one_model_that_is_copied():
    recipe = ours("passthrough", {"scale": 0.5})
    assert yaml.safe_load(to_mergekit(recipe, chosen_by(recipe)))["models"] == [{"model": "org/base", "parameters": {"scale": 0.5}}]


def test_the_safety_vector_is_one_with_a_negative_weight():
    recipe = ours("resta", {"weight": [1.0, 0.5]})
    models = yaml.safe_load(to_mergekit(recipe, chosen_by(recipe)))["models"]
    assert models == [{"model": "org/one", "parameters": {"weight": 1.0}}, {"model": "org/two", "parameters": {"weight": -0.5}}]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (ours("safe_lora", {}), "it has no method safe_lora"),
        (ours("mergealign", {"interpolation": "slerp"}), "no mergealign with interpolation: slerp"),
        (ours("karcher", {"weight": [1, 2, 1]}), "karcher has no weights"),
        (ours("multislerp", {"origin": "base"}), "gives the base no weight"),
        (ours("sce", {"normalize": False}), "no normalize: false"),
        (ours("della", {"density": 0.9}), r"density - epsilon and density \+ epsilon within \(0, 1\)"),
        (ours("ties", {"weight": {"gradient": [0, 1]}}, layers_per_group=2), "a gradient over the whole model"),
        (ours("ties", {"weight": {"filter": {"mlp": {"filter": {"up": 1, "*": 2}}, "*": 0}}}), "no filters within filters"),
        (ours("ties", {}, tokenizer="base", tokens={"<x>": {"token": "y"}}), "'<x>' names no model"),
    ],
)
def test_what_mergekit_can_t_make_has_a_reason(recipe, message):
    with pytest.raises(RecipeError, match=f"^mergekit can't make this merge: .*{message}"):
        to_mergekit(recipe, chosen_by(recipe, layers=4))


def test_a_path_that_mergekit_s_strings_have_no_room_for(tmp_path):
    recipe = ours("linear", {}, experts=1).model_copy(update={"base": read_reference({"model": {"path": "/my models/a+b"}})})
    assert yaml.safe_load(to_mergekit(recipe, chosen_by(recipe)))["base_model"] == {"model": {"path": "/my models/a+b"}}


# --- side by side ---

MERGEKIT = os.environ.get("HFSAFEMERGE_MERGEKIT")
SCRIPT = """
import json, sys, yaml
from pathlib import Path
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.merge_methods import get
from mergekit.options import MergeOptions
for job in json.loads(sys.stdin.read()):
    config = MergeConfiguration.model_validate(yaml.safe_load(job["text"]))
    get(config.merge_method)
    if job["out"]:
        run_merge(config, job["out"], MergeOptions(quiet=True), config_source=job["text"])
"""
COMPARED = {  # with shares that leave whole entries: other ones mergekit rounds down, and the engine to the nearest
    "linear": """
merge_method: linear
models: [{model: A, parameters: {weight: 1.0}}, {model: B, parameters: {weight: 0.3}}, {model: C, parameters: {weight: [0.1, 0.9]}}]
""",
    "slerp": """
merge_method: slerp
base_model: A
models: [{model: B}]
parameters: {t: [{filter: self_attn, value: [0, 0.5, 1]}, {filter: mlp, value: [1, 0.2]}, {value: 0.4}]}
""",
    "slerp with a gradient over everything": """
merge_method: slerp
base_model: A
models: [{model: B}]
parameters: {t: [0.2, 0.5, 0.9]}
""",
    "ties": """
merge_method: ties
base_model: A
models:
  - {model: B, parameters: {density: 0.5, weight: [{filter: mlp, value: 0.5}, {filter: q_proj, value: [1, 0.2]}, {value: 0.8}]}}
  - {model: C, parameters: {density: [0.25, 0.75], weight: 0.7}}
parameters: {normalize: true, lambda: 0.9}
""",
    "ties, not normalized": """
merge_method: ties
base_model: A
models: [{model: B, parameters: {weight: 0.5}}, {model: C, parameters: {weight: 0.7}}]
parameters: {normalize: false, density: 0.5}
""",
    "passthrough": """
merge_method: passthrough
slices:
  - sources: [{model: A, layer_range: [0, 2]}]
  - sources: [{model: B, layer_range: [0, 1], parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1}]}}]
  - sources: [{model: C, layer_range: [0, 2]}]
""",
    "task_arithmetic": """
merge_method: task_arithmetic
base_model: A
parameters: {weight: 0.4, lambda: 1.1}
slices:
  - sources: [{model: A, layer_range: [1, 2]}, {model: B, layer_range: [0, 1], parameters: {weight: 0.9}}, {model: C, layer_range: [1, 2]}]
  - parameters: {weight: [0.2, 0.6]}
    sources: [{model: A, layer_range: [0, 2]}, {model: B, layer_range: [0, 2]}, {model: C, layer_range: [0, 2]}]
""",
    "breadcrumbs": """
merge_method: breadcrumbs
base_model: A
models: [{model: B, parameters: {weight: 0.5, gamma: 0.0625}}, {model: C, parameters: {weight: 0.7}}]
parameters: {density: 0.75, gamma: 0.125}
""",
    "multislerp": """
merge_method: multislerp
models: [{model: A}, {model: B, parameters: {weight: 0.5}}, {model: C}]
parameters: {weight: 1}
""",
    "multislerp around a base": """
merge_method: multislerp
base_model: A
models: [{model: B, parameters: {weight: 0.5}}, {model: C, parameters: {weight: 1}}]
""",
    "karcher": """
merge_method: karcher
models: [{model: A}, {model: B}, {model: C}]
""",
    "sce": """
merge_method: sce
base_model: A
models: [{model: B}, {model: C}]
""",
}


def loaded(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """For each merge the weights that mergekit makes of its text, that it makes of what we write, and that we make."""
    if MERGEKIT is None:
        pytest.skip("HFSAFEMERGE_MERGEKIT does not name a Python with mergekit")
    from hfsafemerge.running.merging import write_merge
    from hfsafemerge.running.sources import Source

    place = tmp_path_factory.mktemp("mergekit")
    models = {name: tiny_model(place / name, seed, tied=False) for seed, name in enumerate("ABC")}
    jobs = []
    for name, text in COMPARED.items():
        for letter, folder in models.items():
            text = text.replace(f"model: {letter}", f"model: {folder}")
        recipe = from_mergekit(text + "dtype: float32\n")
        chosen = chosen_by(recipe, layers=2)
        (target := place / f"{name} by us").mkdir()
        write_merge(recipe, chosen, {role: Source(recipe.model(role).path) for role in recipe.models}, target, lambda done, total: None)
        jobs.append({"text": text + "dtype: float32\n", "out": str(place / f"{name} by mergekit")})
        jobs.append({"text": to_mergekit(recipe, chosen), "out": str(place / f"{name} written by us")})
    for text in EXAMPLES.values():
        recipe = from_mergekit(text)
        jobs.append({"text": to_mergekit(recipe, chosen_by(recipe)), "out": None})
        jobs.append({"text": text, "out": None})
    done = subprocess.run([MERGEKIT, "-c", SCRIPT], input=json.dumps(jobs), text=True, capture_output=True, cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: [loaded(place / f"{name} {how}") for how in ("by mergekit", "written by us", "by us")] for name in COMPARED}


@pytest.mark.parity
@pytest.mark.parametrize("name", COMPARED)
def test_mergekit_makes_the_same_weights(compared, name):
    theirs, rewritten, own = compared[name]
    assert theirs.keys() == rewritten.keys() == own.keys() and max(map(layer_of, own)) == {"passthrough": 4, "task_arithmetic": 2}.get(
        name, 1
    )
    for tensor, expected in theirs.items():
        torch.testing.assert_close(own[tensor], expected, atol=2e-6, rtol=1e-5, msg=lambda said, tensor=tensor: f"{tensor}: {said}")
        torch.testing.assert_close(rewritten[tensor], expected, atol=1e-7, rtol=1e-6, msg=lambda said, tensor=tensor: f"{tensor}: {said}")


def test_every_method_that_mergekit_has_is_here():
    from hfsafemerge.mergekit.facts import METHODS, NOT_HERE

    assert set(METHODS) <= set(MERGE_METHODS.names()) and not set(NOT_HERE) & set(MERGE_METHODS.names())
