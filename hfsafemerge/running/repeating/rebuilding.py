"""The directory in which a published merge is made again: what its lock says and no more, stage by stage, so that a kill costs little."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, TensorInfo, atomic_folder
from hfsafemerge.dataset_card import ROWS
from hfsafemerge.errors import DataError, HubError, NotReproduced, RunError
from hfsafemerge.examples import Kind, load_examples, save_examples
from hfsafemerge.lm_eval_tasks import require_tasks
from hfsafemerge.recipe import ModelRef, Recipe, fingerprint
from hfsafemerge.running import inputs
from hfsafemerge.running.calibrating import calibrate, importance
from hfsafemerge.running.directory import Listener, Run, write_json
from hfsafemerge.running.evaluating import evaluate
from hfsafemerge.running.events import silent
from hfsafemerge.running.merging import MODEL, write_merge
from hfsafemerge.running.repeating.digesting import digest_of, of_rows
from hfsafemerge.running.repeating.locked import COMMIT, LOCK, Lock, read_lock
from hfsafemerge.running.repeating.repeatable import recipe_of, roles_of
from hfsafemerge.running.searching import choose, search
from hfsafemerge.running.stages import Stage


class Rebuilt(Run):
    """The run of a lock. Its recipe holds no more than what is repeated, and it reads from the Hub alone."""

    RECIPE = "rebuilt.yaml"

    def __init__(
        self, lock: Lock, recipe: Recipe, directory: Path, listener: Listener = silent, *, of: str = "", writes: bool = True
    ) -> None:
        """Open the directory for the lock, or make it.

        Args:
            lock: says all that is done.
            recipe: what of the lock's is repeated.
            directory: where.
            listener: is told every event.
            of: the published model, as namespace/name@commit; needed where anything is made.
            writes: whether opening may write.

        Raises:
            RunError: it holds something else.
        """
        self.lock, self.repo_id, self.commit, self._digest = lock, *of.partition("@")[::2], digest_of(lock.to_json())
        if (directory / Run.RECIPE).exists():
            raise RunError(f"{directory} holds a run of your own. Choose another with --directory.")
        super().__init__(recipe, directory, listener, writes=writes)
        known = directory / LOCK
        if known.exists() and digest_of(self.read(LOCK)) != self._digest:
            raise RunError(f"{directory} holds another model or revision that was rebuilt. Choose another with --directory.")
        if writes:
            write_json(known, lock.to_json())

    @classmethod
    def opened(cls, directory: Path) -> "Rebuilt":
        """What was kept in a directory, to be read. Raises HubError, RunError."""
        lock = read_lock(directory / LOCK, str(directory))
        return cls(lock, Recipe.load(directory / cls.RECIPE), directory, writes=False)

    def published(self) -> Checkpoint:
        """The published weights, downloaded where needed. Raises as `hub.pull` does."""
        return Checkpoint(hub.pull(ModelRef(repo_id=self.repo_id), self.commit))

    def fingerprint(self, name: str) -> str:
        """What the result of a stage follows from: the lock."""
        return fingerprint([super().fingerprint(name), self._digest])

    def _stages(self) -> dict[str, Stage]:
        calibrated = self.recipe.needs_importance
        ready = "calibrate" if calibrated else "check"

        def work(of: Callable[["Rebuilt"], None]) -> Callable[[Run], None]:
            return lambda run: of(self)

        found = (
            Stage("check", work(_check), (), ()),
            *([Stage("calibrate", work(_calibrate), ("check",), ())] if calibrated else []),
            Stage("merge", work(_merge), (ready,), ()),
            Stage("search", work(_search), (ready,), ()),
            Stage("evaluate", work(_evaluate), ("merge",), ()),
        )
        return {stage.name: stage for stage in found}


def _check(run: Rebuilt) -> None:
    held = run.lock.to_json()
    run.write(inputs.CHECKED, {"models": held["models"], "datasets": held["datasets"]})


def _calibrate(run: Rebuilt) -> None:
    notes = run.lock.calibration or {}
    sources = [note["source"] for note in notes.values()]
    _fetch(run, [kind for kind in ("safety", "domain") if {"kind": kind} in sources])
    calibrate(run, {name: list(note["ids"]) for name, note in notes.items()})


def _merge(run: Rebuilt) -> None:
    sources = {name: inputs.source(run, name) for name in run.recipe.models}
    with atomic_folder(run.directory / MODEL) as part:
        chosen = run.lock.parameters.model_dump()
        write_merge(run.recipe, chosen, sources, part, partial(run.emit, "tensors merged"), importance(run), partial(_accept, run))


def _accept(run: Rebuilt, made: Mapping[str, TensorInfo]) -> None:
    """Raise NotReproduced for other tensors than the published ones: who wrote the lock could fill this machine's disk with them."""
    there = run.published().tensors
    if other := sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name)):
        how = " and ".join(
            f"{info.dtype} {list(info.shape)} {where}" if (info := found.get(other[0])) else f"none {where}"
            for where, found in (("there", there), ("here", made))
        )
        raise NotReproduced(
            f"{run.repo_id}: its lock would make {len(made)} tensors, and {len(there)} are published; {len(other)} of them are not the "
            f"same, such as {other[0]!r}: {how}. Nothing was written."
        )
    if unlike := sorted(made.keys() ^ run.lock.tensors.keys()):
        raise NotReproduced(f"{run.repo_id}: its lock has no digests for what it makes, or some of others, such as {unlike[0]!r}.")


def _search(run: Rebuilt) -> None:
    if run.recipe.strategy.needs_data:
        _fetch(run, run.recipe.search.use)
    search(run)
    choose(run)


def _evaluate(run: Rebuilt) -> None:
    if run.recipe.tasks:
        require_tasks([task.name for task in run.recipe.tasks])
    evaluate(run)


def _fetch(run: Rebuilt, kinds: Sequence[Kind]) -> None:
    """The rows that steered the merge: the run's own where they are published, others by their ids out of their datasets.

    Raises:
        HubError: they can't be fetched, or the lock does not say which they are.
        DataError: they are no longer those that the lock knows.
    """
    (run.directory / "data").mkdir(exist_ok=True)
    for kind in kinds:
        file = run.directory / "data" / f"{kind}.parquet"
        locked, place = run.lock.data.get(kind), run.lock.published.get(kind)
        if locked is None:
            raise HubError(f"The {LOCK} says nothing of the {kind} data, so they can't be had again.")
        try:
            if place is not None:
                rows, _ = hub.fetch(place.repo_id, ROWS, place.commit, "dataset")
                examples = load_examples(rows)
            else:
                known = {example.id: example for example in inputs.examples(run, f"{kind} examples", kind)}
                examples = [known[each] for each in locked.ids or () if each in known]
        except HubError as error:
            raise HubError(f"The {kind} data that steered the merge are needed: {error}") from error
        if of_rows(examples) != locked.digest:
            where = f"{place.repo_id}@{place.commit[:8]}" if place is not None else inputs.dataset_label(run, f"{kind} examples")
            raise DataError(
                f"The {kind} data in {where} are not those of the lock: {len(examples)} rows, and {locked.rows} there, or other texts. "
                "The merge can't be repeated from them."
            )
        save_examples(file, examples)


def open_rebuilt(lock: Lock, repo_id: str, commit: str, directory: Path, listener: Listener, *, search: bool, evaluate: bool) -> Rebuilt:
    """The run that makes a published merge again, once its lock was found to read from the Hub alone.

    Raises:
        NotReproduced: it was made from local folders, or measured by a server.
        HubError: the lock does not hold what is needed, or not at a commit.
        RunError: the directory holds something else.
    """
    try:
        recipe = recipe_of(lock, search=search, evaluate=evaluate)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        fault = error.errors()[0] if isinstance(error, ValidationError) else None
        said = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" if fault else str(error).splitlines()[0]
        raise HubError(f"{repo_id} has a {LOCK} that can't be read: {said}. It needs another version of hfsafemerge.") from error
    _refuse_others(lock, recipe, repo_id, evaluate=evaluate)
    return Rebuilt(lock, recipe, directory, listener, of=f"{repo_id}@{commit}")


def _refuse_others(lock: Lock, recipe: Recipe, repo_id: str, *, evaluate: bool) -> None:
    """Raise what speaks against reading what the lock names. Nothing has been read or asked for then."""
    models, datasets = roles_of(recipe, evaluate=evaluate)
    refs: Mapping[str, Any] = models | datasets
    if local := [role for role, ref in refs.items() if any(r and r.path for r in (ref, getattr(ref, "adapter", None)))]:
        raise NotReproduced(f"{repo_id} was made from local folders ({', '.join(local)}), so it can't be rebuilt from the Hub.")
    if served := [f"{role} on {ref.endpoint.host}" for role, ref in models.items() if ref.endpoint is not None]:
        raise NotReproduced(f"{repo_id} names servers ({', '.join(served)}), and none that a lock names is called.")
    for role, ref in refs.items():
        held = lock.models.get(role) if role in models else lock.datasets.get(role)
        needed = [] if held is None else [held.commit, *([held.adapter_commit] if getattr(ref, "adapter", None) else [])]  # type: ignore[union-attr]
        if held is None or not all(re.fullmatch(COMMIT, str(commit)) for commit in needed):
            raise HubError(f"{repo_id} has a {LOCK} that names no commit of {role} ({ref}), so it can't be had again as it was.")
