"""hfsafemerge.lock.json: what it holds, that it fits its schema, and that no other one is read."""

import json

import jsonschema
import pytest
from huggingface_hub import HfApi
from published_runs import published_run  # noqa: F401

from hfsafemerge import hub
from hfsafemerge.errors import HubError
from hfsafemerge.examples import load_examples
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
    assert lock["device"]["type"] == "cpu" and lock["device"]["threads"] == 2 and lock["device"]["dtype"] == "F32"
    assert lock["seed"] == 0 and lock["packages"]["torch"] and "path" not in json.dumps(lock["recipe"])


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
