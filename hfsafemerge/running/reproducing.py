"""Rebuild a published merge from its lock alone, and compare every tensor."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.dataset_card import ROWS
from hfsafemerge.errors import HubError, NotReproduced
from hfsafemerge.recipe import ModelRef, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.calibrating import CALIBRATION, SCORED, calibrate, importance
from hfsafemerge.running.directory import Event, Listener, Run
from hfsafemerge.running.locking import LOCK, versions
from hfsafemerge.running.merging import write_merge

CHANGES_BITS = ("dtype", "threads")  # of what a recipe says under compute; here is another machine, which has its own devices


@dataclass(frozen=True)
class Reproduction:
    """A published model that was rebuilt bit for bit."""

    repo_id: str
    commit: str
    tensors: int


def reproduce(repo_id: str, revision: str | None = None, listener: Listener = lambda event: None) -> Reproduction:
    """Rebuild a published model from its lock, and compare every tensor with the published one.

    Args:
        repo_id: the published model.
        revision: a branch, tag or commit of it.
        listener: told how far it is.

    Raises:
        HubError: the model or something it was made of can't be fetched.
        DataError: what it was calibrated with is not there any more.
        NotReproduced: a tensor differs; says which, and which versions do.
    """
    file, commit = hub.fetch(repo_id, LOCK, revision)
    lock = _Lock.read(file, repo_id)
    recipe, refs = lock.recipe, inputs.model_roles(lock.recipe)
    if local := [role for role in recipe.models if any(ref and ref.path for ref in (refs[role], refs[role].adapter))]:
        raise NotReproduced(f"{repo_id} was made from local folders ({', '.join(local)}), so it can't be rebuilt from the Hub.")
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as folder:
        run = _run_of(lock, Path(folder) / "run", listener)
        sources = {role: inputs.source(run, role) for role in recipe.models}
        published = Checkpoint(hub.pull(ModelRef(repo_id=repo_id), commit))
        if recipe.needs_importance:
            with _threads(recipe.compute.threads):
                calibrate(run, lock.examples)
        target = Path(folder) / "model"
        target.mkdir()
        write_merge(recipe, lock.parameters, sources, target, partial(run.emit, "tensors merged"), importance(run))
        rebuilt, rescored = digests(Checkpoint(target)), _rescored(run, lock)
    there = digests(published)
    differing = sorted(name for name in there.keys() | rebuilt.keys() if there.get(name) != rebuilt.get(name))
    if differing:
        raise NotReproduced(f"{repo_id}: {len(differing)} of {len(there)} tensors differ, such as {differing[0]}. {_why(lock, rescored)}")
    return Reproduction(repo_id, commit, len(rebuilt))


@dataclass(frozen=True)
class _Lock:
    """What a lock holds that rebuilding takes."""

    recipe: Recipe
    checked: Mapping[str, Any]
    parameters: Mapping[str, Any]
    packages: Mapping[str, str]
    examples: Mapping[str, list[str]]
    """The ids of those that each expert was calibrated with."""
    scores: Mapping[tuple[str, str], str]
    """The digests of the importance scores, by expert and whose they are."""
    published: Mapping[str, tuple[str, str]]
    """The dataset and its commit, by kind, of the run's own data that it was calibrated with."""

    @classmethod
    def read(cls, file: Path, repo_id: str) -> "_Lock":
        """The lock of a published model. Raises HubError."""
        try:
            held = json.loads(file.read_text())
            compute = {key: value for key, value in held["recipe"].get("compute", {}).items() if key in CHANGES_BITS}
            recipe = Recipe.model_validate({**held["recipe"], "compute": compute})
            notes = {name: held["calibration"][name] for name in recipe.models[1:]} if recipe.needs_importance else {}
            sources = [note["source"] for note in notes.values()]
            models = [held["models"][role] for role in recipe.models]
            pinned = [*models, *(held["datasets"][source["role"]] for source in sources if "role" in source)]
            if any(each["commit"] is None for each in pinned) or any("adapter_commit" not in each for each in models):
                raise ValueError("a model or dataset has no commit")
            made: tuple[Literal["safety", "domain"], ...] = ("safety", "domain")
            kinds = [kind for kind in made if {"kind": kind} in sources]  # they name files here, so none is taken from a lock
            return cls(
                recipe,
                {"models": held["models"], "datasets": held["datasets"]},
                dict(held["parameters"]),
                dict(held["packages"]),
                {name: list(note["ids"]) for name, note in notes.items()},
                {(name, which): note[which]["digest"] for name, note in notes.items() for which in SCORED},
                {kind: (str(held["published"][kind]["repo_id"]), str(held["published"][kind]["commit"])) for kind in kinds},
            )
        except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise HubError(
                f"{repo_id} has a {LOCK} that can't be read: {str(error).splitlines()[0]}. It needs another version of hfsafemerge."
            ) from error


def _run_of(lock: _Lock, directory: Path, listener: Listener) -> Run:
    """A run of the locked recipe that stands where the published one stood before it calibrated: checked, its data there."""
    began = time.monotonic()

    def tell(event: Event) -> None:
        listener(replace(event, stage="reproduce", seconds=time.monotonic() - began))

    run = Run(lock.recipe, directory, tell)
    run.write(inputs.CHECKED, lock.checked)
    (directory / "data").mkdir()
    for kind, (repo_id, commit) in lock.published.items():
        rows, _ = hub.fetch(repo_id, ROWS, commit, "dataset")
        shutil.copyfile(rows, directory / "data" / f"{kind}.parquet")
    return run


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """On a CPU, sums of gradients depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _rescored(run: Run, lock: _Lock) -> list[str]:
    """The models whose importance scores came out otherwise than those that the lock knows."""
    here = run.read(CALIBRATION) if run.recipe.needs_importance else {}
    other = [(name, which) for (name, which), there in lock.scores.items() if here[name][which]["digest"] != there]
    return [f"base for {name}" if which == "base" else name for name, which in other]


def _why(lock: _Lock, rescored: list[str]) -> str:
    """What may have made tensors differ."""
    there = lock.packages
    changed = [f"{name} {there.get(name)} there, {here} here" for name, here in versions().items() if there.get(name) != here]
    if changed:
        why = f"Versions differ: {'; '.join(changed)}."
    elif rescored:
        why = "The versions are the same."
    else:
        why = "The versions are the same, so the weights were changed after the merge, or the processor rounds otherwise."
    if rescored:
        scores = f"The importance scores of {', '.join(rescored)} came out otherwise too"
        why = f"{scores}: another device, processor, number of threads or torch rounds gradients otherwise. {why}"
    return why
