"""The configuration of a merged model: the base's, with what the merge has changed."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfsafemerge import hub
from hfsafemerge.checkpoint import TIED
from hfsafemerge.errors import CheckpointError
from hfsafemerge.merging import Groups, Slices
from hfsafemerge.recipe import Recipe

WRITTEN_WHERE = ("_name_or_path", "name_or_path", "special_tokens_map_file", "tokenizer_file")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
DTYPE = ("dtype", "torch_dtype")
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"


def copy_small_files(folder: Path, target: Path) -> None:
    """Copy configuration and tokenizer, without what older versions of transformers wrote about the machine they ran on."""
    for pattern in hub.SMALL_FILES:
        for file in folder.glob(pattern):
            try:
                found = json.loads(file.read_text()) if file.suffix == ".json" else None
                kept = _without_places(found)
            except (ValueError, RecursionError) as error:
                raise CheckpointError(f"{file} is malformed: {error}. Download it again.") from error
            if kept != found:
                (target / file.name).write_text(json.dumps(kept, indent=2) + "\n")
            else:
                shutil.copyfile(file, target / file.name)


def _without_places(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _without_places(value) for key, value in found.items() if key not in WRITTEN_WHERE}
    return [_without_places(value) for value in found] if isinstance(found, list) else found


def adapt_configuration(target: Path, recipe: Recipe, groups: Groups, changes: Mapping[str, Any], generation: Mapping[str, Any]) -> None:
    """Write into the copied configuration what is no longer the base's.

    Args:
        target: the folder of the merged model.
        recipe: the recipe, for its dtype and chat template.
        groups: how its layers follow from those of the models.
        changes: further keys of config.json and their values.
        generation: those of generation_config.json.
    """
    config = json.loads((target / "config.json").read_text())
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config  # models that also see keep the language model's part by itself
    if recipe.merge.out_dtype is not None:
        config |= {key: recipe.merge.out_dtype for key in DTYPE if key in config} or {"dtype": recipe.merge.out_dtype}
    if isinstance(groups, Slices):
        _stack(text, groups)
    text.update(changes)
    config |= {key: value for key, value in changes.items() if key in config or key == TIED}  # the outer one decides whether they are tied
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if generation and (file := target / GENERATION).exists():
        file.write_text(json.dumps(json.loads(file.read_text()) | generation, indent=2) + "\n")
    if recipe.merge.chat_template not in ("same", "base"):
        _set_template(target, recipe.merge.chat_template)


def _stack(config: dict[str, Any], slices: Slices) -> None:
    """The number of layers, and every list with a value for each layer."""
    before = next((config[key] for key in LAYERS if key in config), 0)
    config |= {key: slices.layers for key in LAYERS if key in config}
    for key, value in config.items():
        if isinstance(value, list) and len(value) == before and before > 1:
            config[key] = [value[min(layer, before - 1)] for layer in slices.source_layers()]


def _set_template(target: Path, template: str) -> None:
    (target / TEMPLATE).write_text(template)
    settings = target / "tokenizer_config.json"
    if settings.exists():
        found = json.loads(settings.read_text())
        found.pop("chat_template", None)
        settings.write_text(json.dumps(found, indent=2) + "\n")
