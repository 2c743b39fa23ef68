"""The stage push: the datasets, then the model with its card, scores, recipe and lock, then what ties them together."""

import shutil
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge.evaluation import Results, gate
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.running.evaluating import SCORES
from hfsafemerge.running.publishing.aiming import check_push, data_target, title, wanted
from hfsafemerge.running.publishing.datasets import made_kinds, push_run
from hfsafemerge.running.publishing.packing import Package, draw, pack, refuse_changed

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

__all__ = ["draw", "private_because", "push"]
PUSHED = "pushed.json"


def push(run: "Run") -> None:
    """Publish the datasets, then the model with its card, scores, recipe and lock in one commit, then add them to the collection.

    Where what was measured speaks against publishing, the model's repository is private whatever the recipe says.

    Raises:
        RunError: the recipe does not say where, or the model was changed after the merge.
        HubError: the Hub refused, or would refuse, which is known before anything is published.
    """
    spec, once = wanted(run), run.once
    refuse_changed(run)
    reasons = private_because(run.recipe, Results.from_json(run.read(SCORES)))
    aim = check_push(run.recipe, once, reasons, run.emit)
    for reason in reasons:
        run.emit(f"{spec.repo_id} has to be private: {reason}")
    linked: dict[str, dict[str, Any]] = {}
    if made_kinds(run.recipe):
        linked = {kind: asdict(found) for kind, found in push_run(run, data_target(spec, once), run.emit, aim.data).items()}
    package = pack(run, spec.repo_id, linked, reasons)
    pushed = _push_model(run, aim.model, package)
    collection = None
    if spec.collection is not None:
        items: list[tuple[str, hub.ItemType]] = [(spec.repo_id, "model")]
        items += [(found["repo_id"], "dataset") for found in linked.values()]
        items += [(spec.space, "space")] if spec.space else []
        collection = hub.collect(spec.collection, aim.namespace, items, private=aim.model.hidden, notify=run.emit)
    run.write(PUSHED, {"model": asdict(pushed), "datasets": linked, "private_because": reasons, "collection": collection})
    shutil.copyfile(package.card, run.directory / "card.md")
    run.emit(f"model at {pushed.pull_request or pushed.url}")


def private_because(recipe: Recipe, results: Results) -> list[str]:
    """Why the model may not be public, as sentences; none where nothing speaks against it.

    The margin counts where harmful requests were measured; the largest attack success rate wherever the recipe gives one.
    """
    measured = any(results.benchmarks[score.benchmark].kind == "safety" for score in results.headlines(MERGED))
    limit = recipe.push.max_attack_success if recipe.push is not None else None
    return gate(results, limit, recipe.evaluation.margin if measured else None)


def _push_model(run: "Run", place: hub.Place, package: Package) -> hub.Pushed:
    def progress(message: str, done: int, total: int, left: float | None) -> None:
        run.emit(message, done, total, left=left)

    once = run.once
    message, description = title(run), once.commit_description
    if once.create_pr:
        return hub.propose(place, package.files, message, description=description, notify=run.emit, progress=progress)
    return hub.publish(
        place,
        package.files,
        message,
        description=description,
        tag=once.tag or package.tag,
        new_tag=once.tag is not None,
        notify=run.emit,
        progress=progress,
    )
