"""hfsafemerge.lock.json is written: what a run was made of and what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import __version__
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import RunError
from hfsafemerge.examples import load_examples
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.calibrating import CALIBRATION
from hfsafemerge.running.doing import MACHINE
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.merging import MODEL
from hfsafemerge.running.repeating.digesting import digest_of, of_items, of_rows, of_trajectory
from hfsafemerge.running.repeating.locked import FORMAT, LOCK, MADE, SCHEMA, Lock, LockedDataset, LockedModel, LockPart
from hfsafemerge.running.repeating.small_files import small_digests
from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

__all__ = ["LOCK", "lock", "made_on", "rows_of"]


def lock(
    run: "Run", recipe: Recipe, checked: Mapping[str, Any], chosen: Mapping[str, Any], published: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """All that is needed to rebuild the weights, to repeat the search and the scores, and to see whether anything differs.

    Args:
        run: the run.
        recipe: its public recipe.
        checked: check.json, with public references.
        chosen: parameters.json.
        published: by kind, where the run's own data are published.

    Raises:
        RunError: run.json does not say on what a stage was done.
    """
    made = made_on(run)
    if unknown := [name for name in MADE if name in run.seconds() and name not in made]:
        raise RunError(
            f"{run.directory / 'run.json'} does not say on what {', '.join(unknown)} was done, as earlier versions did not. Delete "
            "it to do the stages again."
        )
    candidates = read_candidates(run.directory / LOG)
    held = {
        "$schema": SCHEMA,
        "format": FORMAT,
        "version": __version__,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "seed": recipe.seed,
        "models": {role: _known(LockedModel, found) for role, found in checked["models"].items()},
        "datasets": {role: _known(LockedDataset, found) for role, found in checked["datasets"].items()},
        "published": {kind: {"repo_id": place["repo_id"], "commit": place["commit"]} for kind, place in published.items()},
        "data": {kind: {**found, "ids": None if kind in published else found["ids"]} for kind, found in rows_of(run.directory).items()},
        "calibration": run.read(CALIBRATION) if recipe.needs_importance else None,
        "parameters": chosen,
        "search": {"candidates": len(candidates), "digest": of_trajectory(candidates)},
        "tensors": digests(Checkpoint(run.directory / MODEL)),
        "files": small_digests(run.directory / MODEL),
        "scores": {"digest": digest_of(run.read(SCORES)), "items": of_items(run.read(LABELS))},
        "made_on": made,
    }
    return Lock.model_validate(held).to_json()


def _known(part: type[LockPart], found: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the check found that which a lock holds; who may read something, the Hub is asked each time."""
    return {key: found[key] for key in part.model_fields}


def rows_of(directory: Path) -> dict[str, dict[str, Any]]:
    """By kind, the data of a run's directory: how many rows, their digest, and their ids in order."""
    found = {}
    for file in sorted((directory / "data").glob("*.parquet")):
        examples = load_examples(file)
        found[file.stem] = {"rows": len(examples), "digest": of_rows(examples), "ids": [example.id for example in examples]}
    return found


def made_on(run: "Run") -> dict[str, dict[str, Any]]:
    """By stage, on what it was done, as run.json notes it; none of a stage that is not done."""
    known = {name: entry for name, entry in run.manifest["stages"].items() if entry.get("finished")}
    return {name: known[name][MACHINE] for name in MADE if MACHINE in known.get(name, {})}
