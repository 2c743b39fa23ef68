"""hfsafemerge.lock.json is written: what a run was made of and what came of it."""

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hfsafemerge import __version__
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.examples import load_examples
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.calibrating import CALIBRATION
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.merging import MODEL, device_of
from hfsafemerge.running.repeating.digesting import digest_of, of_items, of_rows, of_trajectory
from hfsafemerge.running.repeating.locked import FORMAT, LOCK, SCHEMA, Lock, LockedDataset, LockedModel, LockPart
from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

__all__ = ["LOCK", "device", "lock", "rows_of", "versions"]

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "cma", "numpy")


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
    """
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
        "scores": {"digest": digest_of(run.read(SCORES)), "items": of_items(run.read(LABELS))},
        "packages": versions(),
        "device": device(recipe.compute.dtype, checked["models"]["base"]["dtypes"], device_of(run.recipe.compute.device)),
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


def versions() -> dict[str, str]:
    """The versions of what computes."""
    here = {"hfsafemerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return here | {package: metadata.version(package) for package in PACKAGES}


def device(dtype: str, weights: str, where: str) -> dict[str, Any]:
    """What computes here, as far as results may depend on it.

    Args:
        dtype: that the recipe wants models to run in; auto is that of their weights.
        weights: the dtype of the base's weights.
        where: cpu, cuda or cuda:1.
    """
    on_gpu = where.startswith("cuda")
    name = torch.cuda.get_device_name(where) if on_gpu else _processor()
    capability = ".".join(map(str, torch.cuda.get_device_capability(where))) if on_gpu else torch.backends.cpu.get_cpu_capability()
    return {
        "type": "cuda" if on_gpu else "cpu",
        "name": name,
        "capability": capability,
        "threads": torch.get_num_threads(),
        "dtype": weights if dtype == "auto" else dtype,
    }


def _processor() -> str:
    """What the processor calls itself; Linux alone tells more than its architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
