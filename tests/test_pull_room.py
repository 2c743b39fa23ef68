"""What a check says that a run will take, and when it refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
from tiny import tiny_model

from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import OutOfDisk
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run
from hfsafemerge.running.room import Needs, require_room

NEEDS = Needs(
    weights_to_fetch=10_000_000_000,
    weights_cached=6_000_000_000,
    datasets_at_most=50_000_000,
    result=16_000_000_000,
    free_for_cache=30_000_000_000,
    free_for_run=30_000_000_000,
    one_disk=True,
)


def test_needs_in_words():
    told = "10.0 GB of weights to download (about 3 min at 50 MB/s), 6.0 GB in the cache, at most 50.0 MB of datasets, 16.0 GB to write"
    assert str(NEEDS) == told and NEEDS.as_dict()["seconds_to_fetch"] == 200.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),  # (10 + 16) * 1.02 = 26.5
        ({"free_for_run": 26_500_000_000}, r"needs 16.0 GB for the result, and the cache on the same disk 10.0 GB.*; 26.5 GB are free"),
        ({"free_for_run": 26_500_000_000, "weights_to_fetch": 0}, None),  # all is cached
        ({"free_for_run": 26_500_000_000, "one_disk": False}, None),
        ({"free_for_cache": 10_100_000_000, "one_disk": False}, r"needs 10.0 GB for weights and has 10.1 GB free"),
        ({"free_for_run": 16_100_000_000, "one_disk": False}, r"needs 16.0 GB and has 16.1 GB free"),
        ({"datasets_at_most": 10**15}, None),  # which of their files are read is not known yet
    ],
)
def test_what_does_not_fit_is_refused_with_numbers(change, message):
    needed = replace(NEEDS, **change)
    if message is None:
        require_room(Path("runs/x"), needed)
        return
    with pytest.raises(OutOfDisk, match=message):
        require_room(Path("runs/x"), needed)


def test_a_check_tells_and_writes_down_what_a_run_takes(tmp_path):
    base, expert = tiny_model(tmp_path / "base", 0), tiny_model(tmp_path / "expert", 1)
    recipe = Recipe.parse(
        f"name: x\nbase: {{path: {base}}}\nexperts: [{{path: {expert}}}]\nmerge: {{method: linear, parameters: {{weight: 0.5}}}}\n"
    )
    events = []
    run = Run(recipe, tmp_path / "run", events.append)
    run.do("check")
    needed, size = run.read("check.json")["needs"], (base / "model.safetensors").stat().st_size
    assert (needed["weights_to_fetch"], needed["weights_cached"], needed["one_disk"]) == (0, 0, True)
    assert 0 < size - needed["result"] < 10_000 and needed["assumed_bytes_per_second"] == 50_000_000  # all but the header
    assert any(f"{in_words(needed['result'])} to write" in event.message for event in events)
