"""The stage check: every revision resolved, and the models compared before their weights are fetched."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge.card import resolve_license
from hfsafemerge.checkpoint import DTYPES, TensorInfo, check_mergeable
from hfsafemerge.errors import IncompatibleExperts
from hfsafemerge.lm_eval_tasks import require_tasks
from hfsafemerge.merging import Groups, Slices
from hfsafemerge.recipe import DatasetRef, ModelRef, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.merging import NAMES, device_of
from hfsafemerge.running.publishing.datasets import made_kinds, sources
from hfsafemerge.running.room import needs, require_room

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


def check(run: "Run") -> None:
    """Resolve every revision, and compare the models by their headers, before any weights are downloaded."""
    recipe = run.recipe
    device_of(recipe.compute.device)
    found, checked = find(run)
    base, *experts = (found[name] for name in recipe.models)
    check_mergeable(
        base.summary,
        [expert.summary for expert in experts],
        same_chat_template=recipe.merge.chat_template == "same",
        same_vocabulary=recipe.merge.tokenizer == "same",
        same_layers=not recipe.merge.slices,
    )
    if (recipe.strategy.needs_data or recipe.merge.per_tensor) and len({found[name].summary.tied for name in recipe.models}) > 1:
        told = ", ".join(f"{name} {'ties' if found[name].summary.tied else 'does not tie'}" for name in recipe.models)
        raise IncompatibleExperts(
            f"A search runs the base's own model, so all models must tie their output head to the embeddings, or none: {told}. "
            "Merge with fixed parameters for layers instead, which makes copies where they are missing."
        )
    groups, tensors = recipe.groups(base.summary.tensors), {name: found[name].summary.tensors for name in recipe.models}
    recipe.parameters(groups.count)
    if isinstance(groups, Slices):
        groups.check(tensors)
    needed = needs(run.directory, found.values(), checked["datasets"].values(), _size(recipe, groups, tensors))
    run.emit(f"{len(base.summary.tensors)} tensors fit together; {needed}")
    require_room(run.directory, needed)
    if recipe.push is not None:  # better known now than after hours of work
        resolve_license(inputs.licenses(recipe, checked), recipe.push.license)
        for kind in made_kinds(recipe):
            found_under = sources(recipe, checked, kind)
            resolve_license(found_under, recipe.push.license, of=f"the {kind} data", sources="their sources")
    if recipe.strategy.needs_data and recipe.search.executor == "ray":
        from hfsafemerge.running.ray_cluster import the_library  # imported where it is asked for, since it is optional

        the_library()
    run.write(inputs.CHECKED, checked | {"needs": needed.as_dict()})


def find(run: "Run") -> tuple[dict[str, hub.FoundModel], dict[str, Any]]:
    """Every model that is loaded, by role, and what check.json holds: all models and datasets of a recipe with their commits."""
    recipe, found, served = run.recipe, {}, {}
    if recipe.tasks:
        require_tasks([task.name for task in recipe.tasks])
    roles = inputs.model_roles(recipe)
    for done, (role, ref) in enumerate(roles.items(), 1):
        if ref.endpoint is not None and role not in recipe.models:  # none of its files are read
            served[role] = _served(ref, run.emit)
            run.emit(f"{role}: {ref}, served by {ref.endpoint.host}", done, len(roles))
            continue
        found[role] = hub.find_model(ref, run.emit)
        run.emit(f"{role}: {found[role].label}", done, len(roles))
    datasets = {role: _dataset(data, run.emit) for role, data in inputs.dataset_roles(recipe).items()}
    models = {
        role: {
            "ref": str(m.ref),
            "commit": m.commit,
            "adapter_commit": m.adapter_commit,
            "license": m.license,
            "architecture": m.summary.architecture,
            "dtypes": m.summary.dtypes,
            "bytes": m.download,
            "bytes_to_fetch": m.to_fetch,
            "access": m.access,
            "adapter_access": m.adapter_access,
        }
        for role, m in found.items()
    }
    return found, {"models": models | served, "datasets": datasets}


def _served(ref: ModelRef, notify: hub.Notify) -> dict[str, Any]:
    """What check.json holds of a model that a server runs: no more than its repository's commit and licence, where it names one."""
    told = None if ref.only_served or ref.path is not None else hub.look_up(ref, "model", notify)
    return {
        "ref": str(ref),
        "commit": told.commit if told is not None else "" if ref.only_served else hub.resolve(ref),
        "adapter_commit": hub.resolve(ref.adapter, "model", notify) if ref.adapter is not None else None,
        "license": told.license if told is not None else None,
        "architecture": "served",
        "dtypes": "",
        "bytes": 0,
        "bytes_to_fetch": 0,
        "access": told.access if told is not None else "local",
        "adapter_access": None,
    }


def _dataset(ref: DatasetRef, notify: hub.Notify) -> dict[str, Any]:
    """What check.json holds of a dataset. Of its files only the sizes are known, not which of them hold the split: at most all do."""
    if ref.path is not None:
        return {"ref": str(ref), "commit": hub.resolve(ref), "license": None, "bytes_at_most": 0, "access": "local"}
    told = hub.look_up(ref, "dataset", notify)
    files = hub.row_files(hub.listing(str(ref.repo_id), "dataset", told.commit))
    size = hub.bytes_to_fetch(str(ref.repo_id), "dataset", told.commit, files)
    return {"ref": str(ref), "commit": told.commit, "license": told.license, "bytes_at_most": size, "access": told.access}


def _size(recipe: Recipe, groups: Groups, tensors: Mapping[str, Mapping[str, TensorInfo]]) -> int:
    """Bytes of the result, as far as they are known from headers: without tokens that a union adds."""
    total = 0
    for name in groups.names(tensors):
        model, source = next((m, s) for m in tensors if (s := groups.source(name, m)) is not None)
        info = tensors[model][source]
        written = DTYPES[NAMES[recipe.merge.out_dtype]] if recipe.merge.out_dtype else DTYPES[info.dtype]
        total += info.numel * written.itemsize
    return total
