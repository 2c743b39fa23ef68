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
from hfsafemerge.running.repeating.agreeing import Labels
from hfsafemerge.running.repeating.locked import LOCK, read_lock
from hfsafemerge.running.repeating.locking import rows_of
from hfsafemerge.running.repeating.published import items_of, published_candidates, published_labels, published_scores
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
    device: Mapping[str, Any] | None
    parameters: Mapping[str, Any] | None
    candidates: Sequence[Candidate] | None
    tensors: Mapping[str, str] | None
    """By name the digest."""
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
        """A run as far as it has come."""
        run = Run.open(directory)
        recipe = run.recipe.public()

        def read(file: str) -> Any:
            return run.read(file) if (directory / file).exists() else None

        checked, scores, labels, chosen = read(CHECKED), read(SCORES), read(LABELS), read(PARAMETERS)
        weights = Checkpoint(directory / MODEL) if (directory / MODEL).exists() else None
        data = {kind: {"rows": found["rows"], "digest": found["digest"]} for kind, found in rows_of(directory).items()}
        return cls(
            recipe.model_dump(mode="json"),
            _pinned(public_references(recipe, checked)) if checked else None,
            data or None,
            None,
            None,
            chosen,
            read_candidates(directory / LOG) if (directory / LOG).exists() else None,
            digests(weights) if weights is not None else None,
            weights,
            Results.from_json(scores) if scores else None,
            items_of(labels) if labels else None,
        )

    @classmethod
    def of_repository(cls, repo_id: str, revision: str | None) -> "Side":
        """A published merge; its weights are not downloaded, since the lock has their digests."""
        file, commit = hub.fetch(repo_id, LOCK, revision)
        lock = read_lock(file, repo_id)
        held = lock.to_json()
        try:
            recipe = Recipe.model_validate(lock.recipe)
        except ValidationError as error:
            raise HubError(f"{repo_id} has a {LOCK} whose recipe this version can't read. It needs hfsafemerge {lock.version}.") from error
        return cls(
            recipe.model_dump(mode="json"),
            _pinned(held),
            {kind: {"rows": rows.rows, "digest": rows.digest} for kind, rows in lock.data.items()},
            lock.packages,
            held["device"],
            held["parameters"],
            published_candidates(repo_id, commit),
            lock.tensors,
            None,
            Results.from_json(published_scores(repo_id, commit)),
            published_labels(repo_id, commit),
        )


def _pinned(checked: Mapping[str, Any]) -> dict[str, Any]:
    """Of check.json, or of a lock, what is read and at which commits."""
    keys = ("ref", "commit", "adapter_commit")
    return {
        kind: {role: {key: found[key] for key in keys if key in found} for role, found in checked[kind].items()}
        for kind in ("models", "datasets")
    }
