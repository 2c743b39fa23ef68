"""The stage merge: the model that the chosen parameters make."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hfsafemerge.checkpoint import DTYPES, CheckpointWriter, TensorInfo, Weights, atomic_folder, settle_output_heads
from hfsafemerge.errors import RecipeError
from hfsafemerge.mergekit import to_mergekit
from hfsafemerge.merging import Importance, MergeParameters, TensorMerger, merge_checkpoints, sources_of
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import calibrating, inputs
from hfsafemerge.running.candidates import stored_groups
from hfsafemerge.running.configuring import adapt_configuration, copy_small_files
from hfsafemerge.running.searching import choose
from hfsafemerge.running.sources import Source
from hfsafemerge.vocabulary import Vocabulary, align

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

MODEL, MERGED_FILES, MERGEKIT = "model", "merged.json", "mergekit_config.yml"
NAMES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
EVERY = 0.2  # seconds between two tellings of how far the work is


def merge(run: "Run") -> None:
    """Write the model that the chosen parameters make: weights, and the base's configuration and tokenizer."""
    chosen = choose(run)
    sources = {name: inputs.source(run, name) for name in run.recipe.models}
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if done == total or time.monotonic() - told > EVERY:
            told = time.monotonic()
            run.emit("tensors merged", done, total)

    with atomic_folder(run.directory / MODEL) as part:
        for note in write_merge(run.recipe, chosen, sources, part, tell, calibrating.importance(run)):
            run.emit(note)
        if reason := write_mergekit_config(run, run.recipe, chosen, part):
            run.emit(f"no {MERGEKIT}: {reason}")
    run.write(MERGED_FILES, stamp(run.directory / MODEL))


def stamp(folder: Path) -> dict[str, list[int]]:
    """Size and time of each file of the merged model: whether anyone has touched it since."""
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir())}


def write_mergekit_config(run: "Run", recipe: Recipe, chosen: Mapping[str, Any], target: Path) -> str | None:
    """Write the YAML with which mergekit makes the same model; why there is none, if it can't."""
    checked = run.read(inputs.CHECKED)["models"]
    dtype = next((name for name, short in NAMES.items() if short == checked["base"]["dtypes"]), "float32")
    try:
        commits, adapter_commits = ({name: checked[name][key] for name in recipe.models} for key in ("commit", "adapter_commit"))
        text = to_mergekit(recipe, chosen, out_dtype=dtype, commits=commits, adapter_commits=adapter_commits)
        (target / MERGEKIT).write_text(text)
    except RecipeError as error:
        return str(error)
    return None


def write_merge(
    recipe: Recipe,
    chosen: Mapping[str, Any],
    sources: Mapping[str, Source],
    target: Path,
    progress: Callable[[int, int], None],
    importance: Importance | None = None,
    accept: Callable[[Mapping[str, TensorInfo]], None] | None = None,
) -> list[str]:
    """Merge the models of the given sources, by role, into a folder; what the user should know of the vocabulary.

    `accept` is told the tensors of the result before any is written, and raises where they are not to be.
    """
    opened = {name: sources[name].opened() for name in recipe.models}
    configs = {name: config for name, (_, config) in opened.items()}
    models: Mapping[str, Weights]
    models, changes = settle_output_heads({name: weights for name, (weights, _) in opened.items()}, configs)
    copy_small_files(sources["base"].folder, target)
    notes, generation = [], {}
    if recipe.merge.tokenizer != "same":
        vocabularies = {name: Vocabulary.read(sources[name].folder) for name in models}
        alignment = align(models, vocabularies, recipe.merge.tokenizer, recipe.merge.tokens, recipe.merge.pad_to_multiple_of)
        alignment.write_tokenizer(target)
        models, changes, notes = alignment.models, changes | alignment.config_changes(configs), alignment.report.sentences()
        generation = alignment.special_ids({name: source.generation() for name, source in sources.items()})
    groups = stored_groups(chosen["groups"])
    dtype = NAMES[recipe.merge.out_dtype] if recipe.merge.out_dtype else sources["base"].dtype() if sources["base"].adapter else None
    merger = TensorMerger(
        recipe.method,
        MergeParameters(chosen["numbers"], chosen["options"]),
        groups,
        recipe.models[1:],
        recipe.seed,
        dtype=DTYPES[dtype] if dtype else None,
        allow_non_finite=recipe.merge.allow_non_finite,
        importance=importance,
    )
    made = results(merger, models, dtype)
    if accept is not None:
        accept(made)
    writer = CheckpointWriter(target, made, max_shard_size=recipe.merge.max_shard_size)
    merge_checkpoints(merger, models, writer, progress, device=device_of(recipe.compute.device), max_memory=recipe.compute.max_memory)
    adapt_configuration(target, recipe, groups, changes, generation)
    return notes


def device_of(wanted: str) -> str:
    """The device to compute on. Raises RecipeError when this machine does not have it."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise RecipeError(f"compute.device is {wanted!r}; write auto, cpu, cuda or cuda:1.") from error
    if device.type != "cpu" and (device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count()):
        raise RecipeError(f"compute.device is {wanted}; this machine has the CPU and {torch.cuda.device_count()} CUDA devices.")
    return str(device)


def results(merger: TensorMerger, models: Mapping[str, Weights], dtype: str | None) -> dict[str, TensorInfo]:
    """The tensors of the result: names, shapes and dtypes. Raises IncompatibleExperts when what they are made of does not fit."""
    found = {}
    for name in merger.groups.names({model: weights.tensors for model, weights in models.items()}):
        (model, source), *_ = sources_of(merger, name, models)
        info = models[model].tensors[source]
        found[name] = TensorInfo(dtype, info.shape) if dtype and DTYPES[info.dtype].is_floating_point else info
    return found
