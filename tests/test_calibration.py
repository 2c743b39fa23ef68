"""Importance scores: against plain autograd, in a run that is killed in the middle, and all the way to a merged model."""

import json
import secrets
import shutil
import subprocess
import sys

import numpy as np
import pytest
import reference
import torch
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file
from test_run import small
from tiny import tiny_model
from transformers import LlamaForCausalLM

from hfsafemerge import hub
from hfsafemerge.calibration import AbsoluteGradients, write_importance
from hfsafemerge.checkpoint import Checkpoint, TensorInfo, digests
from hfsafemerge.errors import DataError, HubError, IncompatibleExperts, NotReproduced, RecipeError
from hfsafemerge.examples import load_examples
from hfsafemerge.lab.recipes import InFolder, OnHub, lab_recipe
from hfsafemerge.language_model import Question, TransformersModel
from hfsafemerge.live_merge import SearchData
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, inputs, reproduce, stages
from hfsafemerge.running.calibrating import calibrate
from hfsafemerge.running.candidates import questions
from hfsafemerge.running.repeating.locking import LOCK
from hfsafemerge.searching import Query

QUESTIONS = [
    Question("how do i zorp the red flim ?", "sorry , i cannot help ."),
    Question("what is 3 wug plus 4 ?", "it is 7"),
    Question("what is 2 wug plus 2 ?", "it is 4"),
]


def load(folder):
    return TransformersModel.load(folder, name="tiny", device="cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_scores_are_those_of_plain_autograd(tmp_path, tied):
    """|W| times the sum over examples of |grad| of transformers' own loss on the answer."""
    model = load(tiny_model(tmp_path / "model", 0, tied=tied))
    tokens = model.tokenized(QUESTIONS)
    told = []
    headers = dict(Checkpoint(tmp_path / "model").tensors)
    embedding = headers["model.embed_tokens.weight"]
    more = {"lm_head.weight": embedding, "rotary.inv_freq": TensorInfo("F32", (3,)), "position_ids": TensorInfo("I64", (4,))}
    write_importance(model, tokens, headers | more, tmp_path / "scores", progress=lambda done, total: told.append((done, total)))
    plain = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    wanted = {name: torch.zeros_like(parameter) for name, parameter in plain.named_parameters()}
    for prompt, answer in tokens:
        plain.zero_grad()
        labels = torch.tensor([[-100] * len(prompt) + answer])
        plain(input_ids=torch.tensor([prompt + answer]), labels=labels).loss.backward()
        for name, parameter in plain.named_parameters():
            wanted[name] += parameter.grad.abs()
    found = load_file(tmp_path / "scores" / "model.safetensors")
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(found.pop(name), parameter.detach().abs() * wanted[name], rtol=1e-4, atol=1e-9)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert found.pop("rotary.inv_freq").tolist() == [0, 0, 0]
    if tied:  # a file may hold the head beside the embeddings that it is
        assert torch.equal(found.pop("lm_head.weight"), load_file(tmp_path / "scores" / "model.safetensors")["model.embed_tokens.weight"])
    assert not found and [path.name for path in (tmp_path / "scores").iterdir()] == ["model.safetensors"]
    assert all(parameter.grad is None and not parameter._post_accumulate_grad_hooks for parameter in model.model.parameters())


def test_magnitudes_are_added_up_example_by_example(tmp_path):
    """Two examples in one pass could cancel out; here the scores of both are the sum of those of each."""
    model = load(tiny_model(tmp_path / "model", 0))
    headers, tokens = Checkpoint(tmp_path / "model").tensors, model.tokenized(QUESTIONS[:2])
    parts = []
    for number, chosen in enumerate([tokens, tokens[:1], tokens[1:]]):
        write_importance(model, chosen, headers, tmp_path / str(number))
        parts.append(load_file(tmp_path / str(number) / "model.safetensors"))
    for name, both in parts[0].items():
        torch.testing.assert_close(both, parts[1][name] + parts[2][name], rtol=1e-5, atol=1e-12)


def test_a_gradient_is_freed_as_soon_as_it_appears(tmp_path):
    model = load(tiny_model(tmp_path / "model", 0))
    sums, alive = AbsoluteGradients(model.model, tmp_path / "sums"), []
    parameters = list(model.model.parameters())
    with sums.adding():
        for parameter in parameters:  # these run after those of the sums
            parameter.register_post_accumulate_grad_hook(lambda _: alive.append(sum(p.grad is not None for p in parameters)))
        (-model.answer_likelihood(*model.encode(QUESTIONS[:1])).sum()).backward()
    assert alive == [0] * len(parameters)


def test_scores_may_be_kept_in_bfloat16(tmp_path):
    model = load(tiny_model(tmp_path / "model", 0, dtype=torch.bfloat16))
    headers, tokens = Checkpoint(tmp_path / "model").tensors, model.tokenized(QUESTIONS)
    write_importance(model, tokens, headers, tmp_path / "exact")
    write_importance(model, tokens, headers, tmp_path / "rounded", dtype="bfloat16")
    exact, rounded = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "rounded"))
    assert all(torch.equal(exact[name].bfloat16(), rounded[name]) and exact[name].dtype == torch.float32 for name in exact)


def test_what_can_t_be_scored_is_refused_and_leaves_nothing(tmp_path):
    folder = tiny_model(tmp_path / "model", 0)
    model, headers = load(folder), Checkpoint(folder).tensors
    with pytest.raises(DataError, match="no examples to calibrate tiny with"):
        write_importance(model, [], headers, tmp_path / "scores")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="tiny gives the answer of an example a loss of nan"):
        write_importance(load(folder), model.tokenized(QUESTIONS), headers, tmp_path / "scores")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


# The recipe

TEXT = """
name: led
base: {repo_id: org/base}
experts:
- {repo_id: org/aligned, name: aligned}
- {repo_id: org/sums, name: sums, topic: sums}
merge: {method: led}
calibration: {safety: aligned, data: {sums: {repo_id: org/world, config: sums, split: validation}}}
judges: {llama_guard: {model: {repo_id: org/guard}}}
data: {safety: {examples: {repo_id: org/refusals}}}
evaluation:
  benchmarks:
    sums: {kind: domain, dataset: {repo_id: org/world, config: sums, split: test}, judges: [exact_match]}
"""


ALL = {"calibration__data__aligned": {"repo_id": "org/other"}}


def parsed(**changes):
    found = yaml.safe_load(TEXT)
    for place, value in changes.items():
        *above, last = place.split("__")
        at = found
        for step in above:
            at = at.setdefault(step, {})
        at[last] = value
    return Recipe.parse(yaml.safe_dump(found))


def test_a_recipe_says_what_its_experts_are_calibrated_on():
    recipe = parsed()
    assert recipe.needs_importance and recipe.loads_models and recipe.calibration.samples == 128
    assert not parsed(merge={"method": "ties"}).needs_importance
    assert parsed(push={"repo_id": "me/led"}, calibration__safety=None, **ALL).push  # others can read both datasets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"calibration": {}}, r"led finds out on examples what matters to aligned, and there are none. Add `calibration: \{data: \{al"),
        ({"calibration": {}}, r"if it is the aligned model, calibration.safety: aligned and data.safety\.$"),
        ({"calibration__data": {}}, "what matters to sums, and there are none"),
        ({"data": {}}, "what matters to aligned, .* or data.safety.$"),
        ({"calibration__safety": "alinged"}, "calibration.safety: There is no expert named 'alinged'. Did you mean 'aligned'?"),
        ({"calibration__data__other": {"repo_id": "org/other"}}, "calibration.data: There is no expert named 'other'"),
        ({"calibration__data__aligned": {"repo_id": "org/other"}}, "leave one of them out"),
        ({"calibration__data__sums__split": "test"}, "The benchmark sums is also used to make the merge"),
        ({"merge__tokenizer": "union"}, "takes no merge.slices and no other merge.tokenizer"),
        (
            {"push": {"repo_id": "me/led"}},
            r"aligned is calibrated on those of data\.safety\.examples .* under calibration\.data\.aligned inst",
        ),
        (
            {"push": {"repo_id": "me/led"}, "calibration": {"data": {"sums": {"path": "/rows"}}}} | ALL,
            r"data\.sums is /rows on this machine",
        ),
        ({"calibration__samples": 0}, "calibration.samples"),
        ({"merge__parameters": {"disjoint": "safety"}}, "disjoint is 'safety'; it must be 'symmetric', 'safety_priority', 'off'"),
    ],
    ids=lambda value: None,
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        parsed(**changes)


# The run


def led(lab, **changes):
    settings = {"strategy": "fixed", "layers_per_group": 0, "compare": False} | changes
    return small(lab_recipe("led", ("sums", "reverse"), InFolder(lab), method="led", writer=False, **settings), calibration={"samples": 5})


@pytest.fixture(scope="module")
def generated(lab, tmp_path_factory):
    """A run whose data are there. Tests work on a copy."""
    run = Run(led(lab), tmp_path_factory.mktemp("generated") / "run")
    run.do("generate")
    return run


@pytest.fixture
def copied(generated, tmp_path):
    shutil.copytree(generated.directory, tmp_path / "run")
    events = []
    return Run(generated.recipe, tmp_path / "run", events.append), events


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from hfsafemerge.running import Run
torch.set_num_threads(2)
def listen(event):
    if event.message == "importance in base for reverse" and event.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
Run.open(Path(sys.argv[1]), listen).do("calibrate")
"""


def test_killed_in_the_middle_of_a_model_it_goes_on_to_the_same_bits(copied, generated, tmp_path):
    run, events = copied
    shutil.copytree(generated.directory, tmp_path / "whole")
    whole = Run(generated.recipe, tmp_path / "whole")
    whole.do("calibrate")
    done = subprocess.run([sys.executable, "-c", KILLED, str(run.directory)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    assert sorted(path.suffix for path in (run.directory / "calibration").iterdir()) == ["", "", ".part"] and not run.is_done("calibrate")
    run.do("calibrate")
    told = {event.message for event in events if "importance" in event.message}
    assert told == {"importance in base for reverse", "importance in reverse"}  # the models before were done
    assert run.read("calibration.json") == whole.read("calibration.json")
    found, there = ({p.name: digests(Checkpoint(p)) for p in (r.directory / "calibration").iterdir()} for r in (run, whole))
    assert found == there and len(found) == 4


def test_a_run_merges_what_matters(copied, lab):
    """From the models' files and the scores alone, in numpy; and the stage is not done again for other numbers."""
    run, events = copied
    run.recipe = run.recipe.changed({"merge.parameters": {"density": {"sums": 0.3, "reverse": 0.5}, "weight": 1.0}})
    run.do("merge")
    assert [event.stage for event in events if event.message == "done"] == ["calibrate", "search", "merge"]
    notes = run.read("calibration.json")
    assert {name: note["samples"] for name, note in notes.items()} == {"sums": 5, "reverse": 5}
    assert run.read("parameters.json")["options"] == {"pattern": "both", "disjoint": "symmetric", "keep": "largest"}
    models = [Checkpoint(lab / name) for name in ("aligned", "sums-expert", "reverse-expert")]
    merged, changed = Checkpoint(run.directory / "model"), 0
    for name in ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"]:
        base, *experts = (model.read(name).double().numpy() for model in models)
        importance = [
            [Checkpoint(run.directory / "calibration" / notes[expert][which]["folder"]).read(name).numpy() for which in ("base", "expert")]
            for expert in ("sums", "reverse")
        ]
        wanted = reference.led(base, experts, weight=[1.0, 1.0], density=np.float32([0.3, 0.5]).tolist(), importance=importance)
        np.testing.assert_allclose(merged.read(name).double().numpy(), wanted, rtol=1e-5, atol=1e-6)
        changed += int((wanted != base).sum())
    assert changed
    events.clear()
    run.recipe = run.recipe.changed({"merge.parameters": {"density": 0.5}})
    run.do("merge", redo=True)
    assert [event.stage for event in events if event.message == "done"] == ["search", "merge"]
    assert digests(Checkpoint(run.directory / "model")) != digests(models[0])


def test_a_search_chooses_weights_and_shares(copied, lab, tmp_path):
    run, _ = copied
    ready = {kind: run.directory / "data" / f"{kind}.parquet" for kind in ("safety", "domain")}
    recipe = led(lab, strategy="cma_es", settings={"max_evaluations": 8}, ready=ready)
    run = Run(recipe, tmp_path / "searched")
    run.do("merge")
    chosen = run.read("parameters.json")
    assert chosen["method"] == "led" and len(chosen["numbers"]["weight"][0]) == len(chosen["numbers"]["density"][0]) == 2
    model = TransformersModel.load(run.directory / "model", name="merged", device="cpu")
    data = SearchData(model, questions(run), recipe.seed, selection=recipe.search.selection)
    for term, found in chosen["search"]["terms"].items():
        assert float(model.rate(data.batches(term, Query([]))).mean()) == pytest.approx(found["mean"], abs=1e-6)


def test_other_methods_have_no_such_stage(lab, tmp_path):
    assert "calibrate" not in stages() and list(stages(calibrated=True))[2:4] == ["calibrate", "search"]
    recipe = small(lab_recipe("plain", ("sums",), InFolder(lab), writer=False, compare=False))
    assert recipe.calibration == led(lab).calibration.model_copy(update={"samples": 128})  # the default asks for nothing
    plain = Run(recipe, tmp_path / "plain")
    assert not recipe.needs_importance and not plain.is_done("calibrate") and plain.fingerprint("search")


def test_an_expert_whose_topic_has_no_data_is_named(copied):
    run, _ = copied
    found = run.recipe.model_dump(mode="json", exclude_defaults=True)
    found["experts"][1]["topic"], found["data"]["domain"]["in_context"]["other"] = "other", found["data"]["domain"]["in_context"]["reverse"]
    other = Run(Recipe.model_validate(found), run.directory)
    with pytest.raises(
        DataError, match=r"nothing to calibrate reverse with: of 0 examples of the data of other .* calibration.data.reverse"
    ):
        calibrate(other)


def test_models_that_tie_their_heads_and_others_that_don_t_are_refused(tmp_path):
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([]))
    folders = {name: tiny_model(tmp_path / name, seed, tied=name != "b") for seed, name in enumerate(["base", "a", "b"])}
    experts = [{"path": str(folders[name]), "name": name} for name in "ab"]
    recipe = Recipe.model_validate(
        {
            "name": "heads",
            "base": {"path": str(folders["base"])},
            "experts": experts,
            "merge": {"method": "led"},
            "calibration": {"data": {name: {"path": str(rows)} for name in "ab"}},
            "compute": {"device": "cpu"},
        }
    )
    run = Run(recipe, tmp_path / "run")
    run.do("check")
    with pytest.raises(IncompatibleExperts, match=r"must tie their output head to the embeddings, or none: .*b does not tie"):
        run.do("calibrate")


# Published


@pytest.fixture(scope="module")
def published(lab_on_hub, tmp_path_factory):
    """A run whose experts are calibrated on its own data of both kinds and on a dataset of the Hub, and where it is published."""
    place, name = OnHub(lab_on_hub), f"alice/test-{secrets.token_hex(4)}"
    recipe = lab_recipe("led", ("sums", "reverse"), place, method="led", strategy="fixed", layers_per_group=0, compare=False, push=name)
    refusals = {**place.model("aligned"), "name": "refusals", "topic": "sums"}
    found = recipe.model_dump(mode="json", exclude_defaults=True)
    calibration = {"samples": 5, "safety": "refusals", "data": {"reverse": place.rows("reverse", "validation")}}
    recipe = small(recipe, experts=[*found["experts"], refusals], calibration=calibration)
    recipe.check()
    run = Run(recipe, tmp_path_factory.mktemp("published") / "run", allow_writer=True)
    run.do("push")
    return run, name


@pytest.fixture
def relocked(published, monkeypatch, tmp_path):
    """Changes what the lock says."""
    fetch = hub.fetch

    def change(edit):
        def fetched(repo_id, file, *more):
            found, commit = fetch(repo_id, file, *more)
            if file == LOCK:
                held = json.loads(found.read_text())
                edit(held)
                found = tmp_path / LOCK
                found.write_text(json.dumps(held))
            return found, commit

        monkeypatch.setattr(hub, "fetch", fetched)
        return published[1]

    return change


def test_a_published_merge_is_calibrated_again_and_rebuilt(published, monkeypatch):
    run, name = published
    lock = json.loads(hub.fetch(name, LOCK)[0].read_text())
    assert lock["calibration"] == run.read("calibration.json")
    assert {expert: note["source"] for expert, note in lock["calibration"].items()} == {
        "sums": {"kind": "domain"}, "reverse": {"role": "calibration reverse"}, "refusals": {"kind": "safety"}
    }  # fmt: skip
    own = [example.id for example in load_examples(run.directory / "data" / "domain.parquet") if example.topic == "sums"]
    ids = lock["calibration"]["sums"]["ids"]
    assert len(ids) == 5 and ids == [each for each in own if each in ids]
    info = HfApi().dataset_info(f"{name}-safety")
    assert lock["published"]["safety"] == {"repo_id": info.id, "commit": info.sha} and set(lock["published"]) == {"safety", "domain"}
    card = hub.fetch(name, "README.md")[0].read_text()
    assert "for sums 5 of the data of sums; for reverse 5 of alice/lab-world@" in card and "- alice/lab-world\n" in card
    monkeypatch.setattr(inputs, "benchmark_examples", lambda *asked: pytest.fail("who rebuilds a merge needs no benchmark"))
    told, threads = [], set()

    def listen(event):
        told.append(event)
        if event.message.startswith("importance"):
            threads.add(torch.get_num_threads())

    torch.set_num_threads(1)
    try:
        assert reproduce(name, listener=listen).tensors == 29
        assert threads == {2} == {lock["recipe"]["compute"]["threads"]}
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(2)
    scored = ["base for sums", "sums", "base for reverse", "reverse", "base for refusals"]  # refusals is the base itself
    assert list(dict.fromkeys(event.message for event in told)) == [*(f"importance in {model}" for model in scored), "tensors merged"]
    assert {event.stage for event in told} == {"reproduce"} and told[-1].done == told[-1].total == 29


def test_with_other_scores_the_models_are_named(relocked):
    def edit(held):
        held["calibration"]["reverse"]["ids"].pop()

    message = r"tensors differ, such as .*\. The importance scores of base for reverse, reverse came out otherwise too: another device, "
    with pytest.raises(NotReproduced, match=message + r"processor, number of threads or torch .*\. The versions are the same\."):
        reproduce(relocked(edit))


def test_examples_that_are_not_there_any_more_are_told(relocked):
    def edit(held):
        held["calibration"]["sums"]["ids"][2] = "0123456789abcdef"

    with pytest.raises(DataError, match=r"^1 of the 5 examples that sums was calibrated with are not in the data of sums, such as 01234"):
        reproduce(relocked(edit))


def test_data_that_are_not_published_any_more_are_told(relocked, repo_name):
    def edit(held):
        held["published"]["domain"]["repo_id"] = f"alice/{repo_name}"

    with pytest.raises(HubError, match=f"alice/{repo_name}.* does not exist at"):
        reproduce(relocked(edit))


@pytest.mark.parametrize("part", ["calibration", "published", "models", "datasets"])
def test_a_lock_that_lacks_something_is_told(relocked, part):
    with pytest.raises(HubError, match=f"lock.json that can't be read: {part}: Field required. It needs another version"):
        reproduce(relocked(lambda held: held.pop(part)))
