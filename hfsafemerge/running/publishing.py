"""The stage push: the datasets, then the model with its card, scores, recipe and lock."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import __version__, hub
from hfsafemerge._card_plot import category_rows, plot_alignment, plot_categories, plot_refusals, points_of, refusal_rows
from hfsafemerge.card import alignment_card
from hfsafemerge.errors import HubError, RunError
from hfsafemerge.evaluation import Results, gate
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.calibrating import CALIBRATION
from hfsafemerge.running.datasets import Target, made_kinds, public_references, push_run
from hfsafemerge.running.evaluating import SCORES
from hfsafemerge.running.locking import LOCK, lock
from hfsafemerge.running.merging import MERGED_FILES, MODEL, stamp, write_mergekit_config
from hfsafemerge.running.searching import LOG, PARAMETERS
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


def push(run: "Run") -> None:
    """Publish the datasets, then the model with its card, scores, recipe and lock in one commit.

    Where what was measured speaks against publishing, the model's repository is private whatever the recipe says.

    Raises:
        RunError: the recipe does not say where, or the model was changed after the merge.
        HubError: the Hub refused, or the merge has to be private and the repository is public.
    """
    target = run.recipe.push
    if target is None:
        raise RunError(
            "The recipe does not say where to push. Add `push: {repo_id: namespace/name}`, or give REPO_ID to `hfsafemerge push`."
        )
    if stamp(run.directory / MODEL) != run.read(MERGED_FILES):
        raise RunError(f"{run.directory / MODEL} was changed after the merge. Delete {run.directory / MERGED_FILES} and merge again.")
    recipe = run.recipe.public()
    checked, chosen, results = (
        public_references(recipe, run.read(inputs.CHECKED)),
        run.read(PARAMETERS),
        Results.from_json(run.read(SCORES)),
    )
    reasons = private_because(run.recipe, results)
    hub.check_can_write([target.repo_id])
    _refuse_public(target.repo_id, reasons)
    for reason in reasons:
        run.emit(f"{target.repo_id} has to be private: {reason}")
    linked: dict[str, dict[str, Any]] = {}
    if made_kinds(run.recipe):
        wanted = Target(target.repo_id, target.private, target.license)
        linked = {kind: asdict(found) for kind, found in push_run(run, wanted, run.emit).items()}
    publish = run.work("push")
    steering = {"safety examples", "safety questions", "domain examples", "benign questions", "benign examples"}
    steering |= {f"calibration {name}" for name in recipe.models}
    taken = [ref.repo_id for role, ref in inputs.dataset_roles(run.recipe).items() if role in steering and ref.repo_id]
    card = alignment_card(
        recipe,
        repo_id=target.repo_id,
        endpoint=hub.api().endpoint,
        checked=checked,
        chosen=chosen,
        calibration=run.read(CALIBRATION) if recipe.needs_importance else {},
        candidates=read_candidates(run.directory / LOG),
        results=results,
        datasets=[*(found["repo_id"] for found in linked.values()), *dict.fromkeys(taken)],  # one may give several kinds
        plots=draw(results, publish),
        private_because=reasons,
        emissions=run.emissions(),
    )
    (publish / "README.md").write_text(card)
    (publish / "recipe.yaml").write_text(recipe.to_yaml())
    (publish / LOCK).write_text(json.dumps(lock(run, recipe, checked, chosen, linked), indent=2) + "\n")
    write_mergekit_config(run, recipe, chosen, publish)  # in place of the model's own, which names this machine's folders
    (publish / SCORES).write_text(json.dumps(results.to_json(), indent=2) + "\n")
    shutil.copyfile(run.directory / LOG, publish / LOG)
    files = {path.name: path for folder in (run.directory / MODEL, publish) for path in sorted(folder.iterdir()) if path.is_file()}
    hub.create_repo(target.repo_id, "model", private=target.private or bool(reasons), marker=LOCK)
    _refuse_public(target.repo_id, reasons)  # somebody may have made it, or made it public, meanwhile
    pushed = hub.push_files(target.repo_id, "model", files, f"{run.recipe.name}, merged by hfsafemerge {__version__}", run.emit)
    run.write("pushed.json", {"model": asdict(pushed), "datasets": linked, "private_because": reasons})
    shutil.copyfile(publish / "README.md", run.directory / "card.md")
    run.emit(f"model at {pushed.url}")


def private_because(recipe: Recipe, results: Results) -> list[str]:
    """Why the model may not be public, as sentences; none where nothing speaks against it.

    The margin counts where harmful requests were measured; the largest attack success rate wherever the recipe gives one.
    """
    measured = any(results.benchmarks[score.benchmark].kind == "safety" for score in results.headlines(MERGED))
    limit = recipe.push.max_attack_success if recipe.push is not None else None
    return gate(results, limit, recipe.evaluation.margin if measured else None)


def draw(results: Results, folder: Path) -> dict[str, str]:
    """Draw what there is to draw, each as .png and .svg; by the name of the .png what it shows."""
    scores = results.to_json()["scores"]
    shown = {}
    if panels := points_of(scores):
        plot_alignment(panels, _plot_files(folder, "alignment"))
        shown["alignment.png"] = "Alignment against domain skill"
    if refusal_rows(scores):
        plot_refusals(scores, _plot_files(folder, "refusals"))
        shown["refusals.png"] = "Over-refusal against attack success"
    if category_rows(scores):
        plot_categories(scores, _plot_files(folder, "categories"))
        shown["categories.png"] = "Rates by category"
    return shown


def _plot_files(folder: Path, name: str) -> list[Path]:
    return [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]


def _refuse_public(repo_id: str, reasons: Sequence[str]) -> None:
    """Raise HubError where the model has to be private and its repository is public already."""
    if not reasons:
        return
    with hub.hub_errors(repo_id):
        public = hub.api().repo_exists(repo_id) and not hub.api().repo_info(repo_id).private
    if public:
        raise HubError(
            f"{repo_id} is public, and this merge has to be private. {' '.join(reasons)} Make the repository private, choose another "
            "repo_id, or change the recipe's thresholds."
        )
