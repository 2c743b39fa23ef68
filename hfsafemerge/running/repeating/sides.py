"""A run that is compared with another: the directory of one, or a published merge. Whatever it does not say stays None."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import HubError, RunError
from hfsafemerge.evaluation import Results
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.directory import Run
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.inputs import CHECKED
from hfsafemerge.running.merging import MODEL
from hfsafemerge.running.publishing.datasets import public_references
from hfsafemerge.running.repeating.locked import LOCK, Lock, read_lock
from hfsafemerge.running.repeating.locking import made_on, rows_of
from hfsafemerge.running.repeating.published import items_of, published_candidates, published_labels, published_results, published_scores
from hfsafemerge.running.repeating.rating import Labels, results_in
from hfsafemerge.running.repeating.rebuilding import Rebuilt
from hfsafemerge.running.repeating.small_files import small_digests
from hfsafemerge.running.searching import LOG, PARAMETERS
from hfsafemerge.searching import Candidate, read_candidates


@dataclass(frozen=True)
class Side:
    """What is known of a run."""

    recipe: Mapping[str, Any]
    """The public one, with all defaults."""
    inputs: Mapping[str, Any] | None
    """By kind and role what is read, and its commit."""
    data: Mapping[str, Any] | None
    """By kind the number of rows and their digest."""
    versions: Mapping[str, Any] | None
    """By stage, of what computed."""
    device: Mapping[str, Any] | None
    """By stage, what computed."""
    parameters: Mapping[str, Any] | None
    candidates: Sequence[Candidate] | None
    tensors: Mapping[str, str] | None
    """By name the digest."""
    files: Mapping[str, str] | None
    """By name the digest of each small file of the model."""
    weights: Checkpoint | None
    """Those that are on this machine."""
    results: Results | None
    labels: Labels | None

    @classmethod
    def of(cls, text: str) -> "Side":
        """The side that a directory, or namespace/name with @revision, stands for.

        Raises:
            RunError: it is neither.
            HubError: it was not published by this tool, or can't be fetched.
        """
        if Path(text).is_dir():
            return cls.of_directory(Path(text))
        found = re.fullmatch(r"([^@/\s]+/[^@/\s]+)(?:@([^@\s]+))?", text)
        if found is None:
            raise RunError(f"{text!r} is no directory of a run, and no published merge such as namespace/name or namespace/name@revision.")
        return cls.of_repository(found[1], found[2])

    @classmethod
    def of_directory(cls, directory: Path) -> "Side":
        """A run, or what `reproduce --directory` keeps, as far as it was done for the recipe that stands there. Nothing is written."""
        if (directory / Rebuilt.RECIPE).exists() and not (directory / Run.RECIPE).exists():
            run: Run = (rebuilt := Rebuilt.opened(directory))
            recipe = _recipe(rebuilt.lock, str(directory))
            checked: Mapping[str, Any] | None = _pinned(rebuilt.lock.to_json())
        else:
            run = Run.open(directory, writes=False)
            recipe = run.recipe.public()
            checked = _pinned(public_references(recipe, run.read(CHECKED))) if run.is_done("check") else None
        searched, measured = run.is_done("search"), run.is_done("evaluate")
        has_data = searched or (not isinstance(run, Rebuilt) and run.is_done("generate"))
        data = {kind: {"rows": found["rows"], "digest": found["digest"]} for kind, found in rows_of(directory).items()} if has_data else {}
        weights = Checkpoint(directory / MODEL) if run.is_done("merge") else None
        return cls(
            recipe.model_dump(mode="json"),
            checked,
            data or None,
            *_machines({stage: found for stage, found in made_on(run).items() if run.is_done(stage)}),
            _chosen(run.read(PARAMETERS)) if searched else None,
            read_candidates(directory / LOG) if searched else None,
            digests(weights) if weights is not None else None,
            small_digests(weights.folder) if weights is not None else None,
            weights,
            results_in(run.read(SCORES)) if measured else None,
            items_of(run.read(LABELS)) if measured else None,
        )

    @classmethod
    def of_repository(cls, repo_id: str, revision: str | None) -> "Side":
        """A published merge; its weights are not downloaded, since the lock has their digests."""
        file, commit = hub.fetch(repo_id, LOCK, revision)
        lock = read_lock(file, repo_id)
        held = lock.to_json()
        return cls(
            _recipe(lock, repo_id).model_dump(mode="json"),
            _pinned(held),
            {kind: {"rows": rows.rows, "digest": rows.digest} for kind, rows in lock.data.items()},
            *_machines(held["made_on"]),
            _chosen(held["parameters"]),
            published_candidates(repo_id, commit),
            lock.tensors,
            lock.files,
            None,
            published_results(published_scores(repo_id, commit), repo_id),
            published_labels(repo_id, commit),
        )


def _recipe(lock: Lock, name: str) -> Recipe:
    try:
        return Recipe.model_validate(lock.recipe)
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise HubError(f"{name} has a {LOCK} whose recipe can't be read: {said}. It needs hfsafemerge {lock.version}.") from error


def _chosen(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What weights are made with; of the search, which is compared by itself, the candidate's number alone."""
    kept = {key: parameters[key] for key in ("method", "groups", "numbers", "options")}
    return kept | {"candidate": parameters["search"].get("number")}


def _machines(made: Mapping[str, Mapping[str, Any]]) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """By stage the versions, and by stage the device; None where no stage says."""
    packages, devices = ({stage: found[part] for stage, found in made.items()} for part in ("packages", "device"))
    return packages or None, devices or None


def _pinned(checked: Mapping[str, Any]) -> dict[str, Any]:
    """Of check.json, or of a lock, what is read and at which commits."""
    keys = ("ref", "commit", "adapter_commit")
    return {
        kind: {role: {key: found[key] for key in keys if key in found} for role, found in checked[kind].items()}
        for kind in ("models", "datasets")
    }
