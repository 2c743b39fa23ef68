"""What is published of a merge: the model's files, and beside them its card with plots, scores, labels, recipe and lock."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge._card_plot import category_rows, plot_alignment, plot_categories, plot_refusals, points_of, refusal_rows
from hfsafemerge.card import alignment_card
from hfsafemerge.errors import RunError
from hfsafemerge.evaluation import Results
from hfsafemerge.recipe import fingerprint
from hfsafemerge.running import inputs
from hfsafemerge.running.calibrating import CALIBRATION
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.merging import MERGED_FILES, MODEL, stamp, write_mergekit_config
from hfsafemerge.running.publishing.datasets import public_references
from hfsafemerge.running.publishing.labelling import public_labels
from hfsafemerge.running.repeating.locking import LOCK, lock
from hfsafemerge.running.repeating.published import items_of
from hfsafemerge.running.searching import LOG, PARAMETERS
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

STEERING = ("safety examples", "safety questions", "domain examples", "benign questions", "benign examples")


@dataclass(frozen=True)
class Package:
    """What is published: local files by their paths in the repository, the card among them, and a tag that follows from them."""

    files: Mapping[str, Path]
    card: Path
    tag: str


def pack(run: "Run", repo_id: str, linked: Mapping[str, Mapping[str, Any]], reasons: Sequence[str]) -> Package:
    """Write what is published beside the model, into the work folder of the stage push.

    Args:
        run: one that is evaluated.
        repo_id: where it will be.
        linked: by kind, where the run's own data are published.
        reasons: why it has to be private, as sentences.

    Raises:
        RunError: the model was changed after the merge.
        DataError: labels.json holds texts.
    """
    refuse_changed(run)
    recipe, publish = run.recipe.public(), run.work("push")
    checked, chosen = public_references(recipe, run.read(inputs.CHECKED)), run.read(PARAMETERS)
    results = Results.from_json(run.read(SCORES))
    steering = {*STEERING, *(f"calibration {name}" for name in recipe.models)}
    taken = [ref.repo_id for role, ref in inputs.dataset_roles(run.recipe).items() if role in steering and ref.repo_id]
    card = alignment_card(
        recipe,
        repo_id=repo_id,
        endpoint=hub.api().endpoint,
        checked=checked,
        chosen=chosen,
        calibration=run.read(CALIBRATION) if recipe.needs_importance else {},
        candidates=read_candidates(run.directory / LOG),
        results=results,
        datasets=[*(found["repo_id"] for found in linked.values()), *dict.fromkeys(taken)],  # one may give several kinds
        plots=draw(results, publish),
        private_because=list(reasons),
        emissions=run.emissions(),
    )
    locked, scores = lock(run, recipe, checked, chosen, linked), results.to_json()
    (publish / "README.md").write_text(card)
    (publish / "recipe.yaml").write_text(recipe.to_yaml())
    (publish / LOCK).write_text(json.dumps(locked, indent=2) + "\n")
    write_mergekit_config(run, recipe, chosen, publish)  # in place of the model's own, which names this machine's folders
    (publish / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
    (publish / LABELS).write_text(json.dumps(public_labels(items_of(run.read(LABELS)))) + "\n")
    shutil.copyfile(run.directory / LOG, publish / LOG)
    files = {path.name: path for folder in (run.directory / MODEL, publish) for path in sorted(folder.iterdir()) if path.is_file()}
    return Package(files, publish / "README.md", f"run-{fingerprint([locked, scores])[:12]}")


def refuse_changed(run: "Run") -> None:
    """Raise RunError where the model was changed after the merge."""
    if stamp(run.directory / MODEL) != run.read(MERGED_FILES):
        raise RunError(f"{run.directory / MODEL} was changed after the merge. Delete {run.directory / MERGED_FILES} and merge again.")


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
