"""The stage merge: the model that the chosen parameters make."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter, atomic_folder
from hfsafemerge.merging import LayerGroups, MergeParameters, TensorMerger, merge_checkpoints
from hfsafemerge.recipe import Recipe
from hfsafemerge.run import inputs
from hfsafemerge.run.searching import PARAMETERS

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

WRITTEN_WHERE = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file")
MODEL, TENSORS = "model", "tensors.json"


def merge(run: "Run") -> None:
    """Write the model that the chosen parameters make: weights, and the base's configuration and tokenizer."""
    chosen = run.read(PARAMETERS)
    folders = {name: inputs.folder(run, name) for name in run.recipe.models}
    with atomic_folder(run.directory / MODEL) as part:
        digests = write_merge(run.recipe, chosen, folders, part, lambda done, total: run.emit("tensors merged", done, total))
    run.write(TENSORS, digests)


def write_merge(
    recipe: Recipe, chosen: Mapping[str, Any], folders: Mapping[str, Path], target: Path, progress: Callable[[int, int], None]
) -> dict[str, str]:
    """Merge the models of the given folders, by role, into a folder; the digest of each tensor by name."""
    base, *experts = (Checkpoint(folders[name]) for name in recipe.models)
    groups = LayerGroups(**chosen["groups"])
    parameters = MergeParameters(chosen["numbers"], chosen["options"])
    merger = TensorMerger(recipe.method, parameters, groups, recipe.models[1:], recipe.seed)
    writer = CheckpointWriter(target, base.tensors)
    merge_checkpoints(merger, base, experts, writer, progress)
    for pattern in hub.SMALL_FILES:
        for file in folders["base"].glob(pattern):
            _copy(file, target / file.name)
    return writer.digests


def _copy(file: Path, target: Path) -> None:
    """Copy a small file, without what older versions of transformers wrote into it about the machine they ran on."""
    found = json.loads(file.read_text()) if file.suffix == ".json" else None
    if isinstance(found, dict) and (kept := {key: found[key] for key in found if key not in WRITTEN_WHERE}) != found:
        target.write_text(json.dumps(kept, indent=2) + "\n")
    else:
        shutil.copyfile(file, target)
