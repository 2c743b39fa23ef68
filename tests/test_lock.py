"""hfsafemerge.lock.json: what it holds, that it fits its schema, and that no other one is read."""

import json
import shutil

import jsonschema
import pytest
import torch
from huggingface_hub import HfApi
from published_runs import published_run  # noqa: F401

from hfsafemerge import hub
from hfsafemerge.errors import HubError, RunError
from hfsafemerge.examples import load_examples
from hfsafemerge.running import Run
from hfsafemerge.running.repeating.digesting import of_items, of_rows, of_trajectory
from hfsafemerge.running.repeating.lock_schema import FILE, lock_schema
from hfsafemerge.running.repeating.locked import LOCK, read_lock
from hfsafemerge.searching import Candidate, Query, TermScore


@pytest.fixture
def lock(published_run):  # noqa: F811
    return json.loads(hub.fetch(published_run[1], LOCK)[0].read_text())


def test_the_published_schema_is_that_of_the_code():
    assert json.loads(FILE.read_text()) == lock_schema(), (
        f"write it anew: python -m hfsafemerge.running.repeating.lock_schema > {FILE.name}"
    )
    jsonschema.Draft202012Validator.check_schema(lock_schema())


def test_a_lock_fits_its_schema_and_pins_everything(lock, published_run):  # noqa: F811
    run, name = published_run
    jsonschema.validate(lock, lock_schema())
    assert {"config.json", "tokenizer.json"} <= lock["files"].keys() and not any(name.endswith("safetensors") for name in lock["files"])
    assert lock["$schema"] == lock_schema()["$id"]
    api = HfApi()
    assert lock["models"]["base"]["commit"] == api.model_info("alice/lab-aligned").sha
    assert lock["models"]["judge llama_guard"]["commit"] == api.model_info("alice/lab-guard").sha
    world = api.dataset_info("alice/lab-world").sha
    assert {"safety questions", "in-context sums", "benchmark harmful"} <= lock["datasets"].keys()
    assert {each["commit"] for each in lock["datasets"].values()} == {world}
    assert {kind: place["commit"] for kind, place in lock["published"].items()} == {
        kind: api.dataset_info(f"{name}-{kind}").sha for kind in ("safety", "domain")
    }
    rows = load_examples(run.directory / "data" / "safety.parquet")
    assert lock["data"]["safety"] == {"rows": len(rows), "digest": of_rows(rows), "ids": None}
    assert lock["search"]["candidates"] == len((run.directory / "search.jsonl").read_text().splitlines())
    assert lock["scores"]["items"].keys() == {"merged"} and len(lock["scores"]["items"]["merged"]) == 3
    assert list(lock["made_on"]) == ["generate", "search", "merge", "evaluate"]
    for made in lock["made_on"].values():
        assert made["device"]["type"] == "cpu" and made["device"]["threads"] == 2 and made["packages"]["torch"] == torch.__version__
    assert lock["seed"] == 0 and "path" not in json.dumps(lock["recipe"])


def test_the_lock_tells_the_machine_of_the_merge_and_not_that_of_the_push(published_run, tmp_path):  # noqa: F811
    """A merge made with three threads is pushed from a process with one."""
    run, name = published_run
    copied = shutil.copytree(run.directory, tmp_path / "copy")
    known = json.loads((copied / "run.json").read_text())
    known["stages"]["merge"]["machine"]["device"] |= {"name": "Another processor", "threads": 3}
    (copied / "run.json").write_text(json.dumps(known))
    opened = Run.open(copied)
    del opened.manifest["stages"]["generate"]["machine"]
    with pytest.raises(RunError, match=r"run\.json does not say on what generate was done"):
        opened.preview()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened.push(revision="another-machine")
    finally:
        torch.set_num_threads(before)
    lock = json.loads(hub.fetch(name, LOCK, "another-machine")[0].read_text())
    assert lock["made_on"]["merge"]["device"]["name"] == "Another processor" and lock["made_on"]["merge"]["device"]["threads"] == 3
    assert lock["made_on"]["search"]["device"]["threads"] == 2 and "push" not in lock["made_on"]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"extra": 1}, "extra"),
        ({"seed": -1}, "seed"),
        ({"published": {"safety": {"repo_id": "alice/x", "commit": "main"}}}, "published.safety.commit"),
        ({"published": {"safety": {"repo_id": "../../x", "commit": "0" * 40}}}, "repo_id"),
        ({"published": {"secrets": {"repo_id": "alice/x", "commit": "0" * 40}}}, "published.secrets"),
        ({"tensors": {"a": "short"}}, "tensors.a"),
    ],
)
def test_what_does_not_fit_is_named(lock, change, place, tmp_path):
    file = tmp_path / LOCK
    file.write_text(json.dumps(lock | change))
    with pytest.raises(HubError, match=rf"^alice/x has a {LOCK} that can't be read: .*{place}.*It needs another version"):
        read_lock(file, "alice/x")


@pytest.mark.parametrize("held", [{"format": 1, "version": "0.9"}, {"format": 3, "version": "2.0"}])
def test_other_formats_are_refused_with_the_version_that_reads_them(held, tmp_path):
    file = tmp_path / LOCK
    file.write_text(json.dumps(held))
    with pytest.raises(HubError, match=rf"of format {held['format']}, .* reads format 2\. Rebuild it with hfsafemerge {held['version']}"):
        read_lock(file, "alice/x")


@pytest.mark.parametrize("text", ["", "[]", "{", '"lock"'])
def test_what_is_no_lock_is_told(text, tmp_path):
    file = tmp_path / LOCK
    file.write_text(text)
    with pytest.raises(HubError, match="that can't be read"):
        read_lock(file, "alice/x")


@pytest.mark.parametrize("deep", [50, 100_000])
def test_a_lock_that_is_nested_too_deep_is_told(lock, deep, tmp_path):
    file, mark = tmp_path / LOCK, "here"
    file.write_text(json.dumps(lock | {"recipe": {"name": mark}}).replace(f'"{mark}"', "[" * deep + "]" * deep))
    with pytest.raises(HubError, match="that can't be read"):
        read_lock(file, "alice/x")


def candidate(number=1, genome=(0.5,), fitness=-1.0, seconds=1.0):
    return Candidate(number, Query(list(genome)), {"safety": TermScore(-1.0, 3)}, fitness, (), True, seconds, "device")


def test_the_digest_of_a_search_follows_from_genomes_fitness_and_order_alone():
    way = [candidate(), candidate(2, (0.25,), -2.0)]
    assert of_trajectory(way) == of_trajectory([candidate(seconds=9.0), candidate(2, (0.25,), -2.0)])
    others = [way[::-1], way[:1], [candidate(fitness=-1.0000000000000002), way[1]], [candidate(genome=(0.5000000000000001,)), way[1]]]
    assert len({of_trajectory(way), *map(of_trajectory, others)}) == 5


def test_the_digest_of_items_follows_from_replies_and_labels():
    item = {"benchmark": "harmful", "example": "a", "sample": 0, "finished": True, "reply": "00", "labels": {"guard": "safe"}}
    found = of_items({"merged": [item]})["merged"]["harmful"]
    assert found == of_items({"merged": [{**item, "category": "x"}]})["merged"]["harmful"]
    for change in ({"reply": "01"}, {"labels": {"guard": "unsafe"}}, {"example": "b"}, {"finished": False}):
        assert of_items({"merged": [item | change]})["merged"]["harmful"] != found
