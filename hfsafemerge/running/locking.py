"""hfsafemerge.lock.json: all that is needed to rebuild a published merge, and to see whether anything differs."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from hfsafemerge import __version__
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.calibrating import CALIBRATION
from hfsafemerge.running.merging import MODEL
from hfsafemerge.running.searching import LOG

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

LOCK = "hfsafemerge.lock.json"
PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "cma", "numpy")


def lock(
    run: "Run", recipe: Recipe, checked: Mapping[str, Any], chosen: Mapping[str, Any], published: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    """All that is needed to rebuild the weights, and to see whether anything differs.

    Args:
        run: the run.
        recipe: its public recipe.
        checked: check.json, with public references.
        chosen: parameters.json.
        published: by kind, where the run's own data are published.
    """
    files = [*sorted((run.directory / "data").glob("*.parquet")), run.directory / LOG]
    return {
        "format": 1,
        "version": __version__,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "models": checked["models"],
        "datasets": checked["datasets"],
        "published": {kind: {"repo_id": place["repo_id"], "commit": place["commit"]} for kind, place in published.items()},
        **({"calibration": run.read(CALIBRATION)} if recipe.needs_importance else {}),
        "parameters": chosen,
        "tensors": digests(Checkpoint(run.directory / MODEL)),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of what computes."""
    here = {"hfsafemerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return here | {package: metadata.version(package) for package in PACKAGES}
