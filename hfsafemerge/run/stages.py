"""The stages check, merge and evaluate: the models before their weights, the merged model, and what it is measured to do."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge.card import resolve_license
from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter, atomic_folder, check_mergeable, require_space
from hfsafemerge.evaluation import Item, compare, label, reply_to, score
from hfsafemerge.merging import LayerGroups, MergeParameters, TensorMerger, merge_checkpoints
from hfsafemerge.recipe import Recipe
from hfsafemerge.run import inputs
from hfsafemerge.run.searching import PARAMETERS

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

TENSORS, SCORES, MODEL = "tensors.json", "scores.json", "model"


def check(run: "Run") -> None:
    """Resolve every revision, and compare the models by their headers, before any weights are downloaded."""
    recipe = run.recipe
    roles = inputs.model_roles(recipe)
    found = {}
    for done, (role, ref) in enumerate(roles.items(), 1):
        found[role] = hub.find_model(ref)
        run.emit(f"{role}: {found[role].label}", done, len(roles))
    base, *experts = (found[name] for name in recipe.models)
    if recipe.push is not None:  # better known now than after hours of work
        resolve_license({str(found[name].ref): found[name].license for name in recipe.models}, recipe.push.license)
    check_mergeable(base.summary, [e.summary for e in experts], same_chat_template=recipe.merge.chat_template == "same")
    weights = sum(model.download for model in found.values())
    require_space(run.directory, base.summary.size)
    fit = f"{len(base.summary.tensors)} tensors fit together"
    run.emit(f"{fit}; at most {weights / 1e9:.2f} GB to download, {base.summary.size / 1e9:.2f} GB to write")
    datasets = {role: {"ref": str(ref), "commit": hub.resolve(ref, "dataset")} for role, ref in inputs.dataset_roles(recipe).items()}
    models = {
        role: {"ref": str(m.ref), "commit": m.commit, "license": m.license, "architecture": m.summary.architecture, "bytes": m.download}
        for role, m in found.items()
    }
    run.write(inputs.CHECKED, {"models": models, "datasets": datasets})


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
            shutil.copyfile(file, target / file.name)
    return writer.digests


def evaluate(run: "Run") -> None:
    """Measure the merge, and the models it is made of, on the held-out benchmarks."""
    benchmarks = run.recipe.benchmarks
    others = run.recipe.models if run.recipe.evaluation.compare else []
    items = {name: _measured(run, name) for name in [*others, inputs.MERGED]} if benchmarks else {}
    scores = {name: [s.to_json() for b in benchmarks for s in score(b, by[b.name])] for name, by in items.items()}
    merged = items.get(inputs.MERGED, {})
    comparisons = [compare(b, inputs.MERGED, merged[b.name], other, items[other][b.name]).to_json() for b in benchmarks for other in others]
    run.write(SCORES, {"scores": scores, "comparisons": comparisons})


def _measured(run: "Run", name: str) -> dict[str, list[Item]]:
    """The items of one model by benchmark, kept as labels only."""
    file = run.work("evaluate") / f"{name}.json"
    if not file.exists():
        replies = {}
        with inputs.language_model(run, name) as model:
            for done, benchmark in enumerate(run.recipe.benchmarks, 1):
                examples = inputs.benchmark_examples(run, benchmark.name)
                replies[benchmark.name] = (examples, *reply_to(model, benchmark, examples))
                run.emit(f"{name} on {benchmark.name}", done, len(run.recipe.benchmarks))
        names = list(dict.fromkeys(judge for benchmark in run.recipe.benchmarks for judge in benchmark.judges))
        with inputs.judges(run, names) as judges:
            items = [item for benchmark in run.recipe.benchmarks for item in label(benchmark, *replies[benchmark.name], judges)]
        run.write(str(file.relative_to(run.directory)), [asdict(item) for item in items])
    measured = [Item(**item) for item in json.loads(file.read_text())]
    return {benchmark.name: [item for item in measured if item.benchmark == benchmark.name] for benchmark in run.recipe.benchmarks}
