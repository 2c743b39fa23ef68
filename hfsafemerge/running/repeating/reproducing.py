"""Rebuild a published merge from its lock, and say whether weights, search and scores come out again; if not, why."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from hfsafemerge import hub
from hfsafemerge.card import percent
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import NotReproduced, SearchError
from hfsafemerge.evaluation import Results
from hfsafemerge.recipe import ModelRef
from hfsafemerge.running.calibrating import CALIBRATION, SCORED
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.events import Event, Listener, attention, silent
from hfsafemerge.running.merging import MODEL, device_of
from hfsafemerge.running.repeating.agreeing import other_candidate, other_entries, other_settings, rates
from hfsafemerge.running.repeating.digesting import digest_of, of_items, of_trajectory
from hfsafemerge.running.repeating.locked import LOCK, read_lock
from hfsafemerge.running.repeating.locking import device, versions
from hfsafemerge.running.repeating.published import items_of, published_candidates, published_labels, published_scores
from hfsafemerge.running.repeating.rebuilding import Rebuilt, open_rebuilt
from hfsafemerge.running.searching import LOG, PARAMETERS
from hfsafemerge.searching import read_candidates

NAMED = 8  # differing tensors that are described; of the rest only the number is told


@dataclass(frozen=True)
class Finding:
    """One thing that was done again: what was published, what came out here, and whether they agree."""

    what: str
    published: str
    here: str
    agrees: bool
    detail: str = ""


@dataclass(frozen=True)
class Reproduction:
    """What came of doing a published merge again."""

    repo_id: str
    commit: str
    tensors: int
    findings: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    """A sentence or two about everything that does not agree; none where all does."""
    environment: tuple[str, ...] = ()
    """In which versions, and in what of the device, the places differ; that is no difference of the results."""

    @property
    def agrees(self) -> bool:
        """Whether everything that was done again agrees."""
        return not self.differences

    def require(self) -> "Reproduction":
        """Itself. Raises NotReproduced where something does not agree."""
        if self.differences:
            raise NotReproduced(f"{self.repo_id}: {' '.join(self.differences)}")
        return self

    def to_json(self) -> dict[str, Any]:
        """As `hfsafemerge reproduce --json` prints it."""
        return {"agrees": self.agrees, **asdict(self)}


def reproduce(
    repo_id: str,
    revision: str | None = None,
    listener: Listener = silent,
    *,
    search: bool = False,
    evaluate: bool = False,
    directory: Path | None = None,
) -> Reproduction:
    """Do a published merge again as `rebuild` does. Raises NotReproduced where something does not agree, and what `rebuild` raises."""
    return rebuild(repo_id, revision, listener, search=search, evaluate=evaluate, directory=directory).require()


def rebuild(
    repo_id: str,
    revision: str | None = None,
    listener: Listener = silent,
    *,
    search: bool = False,
    evaluate: bool = False,
    directory: Path | None = None,
) -> Reproduction:
    """Rebuild a published model from its lock and the Hub alone, and compare every tensor with the published one.

    Args:
        repo_id: the published model.
        revision: a branch, tag or commit of it.
        listener: told how far it is.
        search: repeat the search too, from the published data, and compare every candidate.
        evaluate: measure again too, and test whether the rates agree.
        directory: where the rebuilt run is kept; the same call goes on there after a kill. By default a temporary folder.

    Raises:
        HubError: the model or something it was made of can't be fetched, or its lock is not one.
        DataError: the data that it was made with are not there any more.
        NotReproduced: it was made from local folders, or measured by a server.
        RunError: the directory holds something else.
    """
    file, commit = hub.fetch(repo_id, LOCK, revision)
    lock = read_lock(file, repo_id)
    with _folder(directory) as folder, attention(listener):
        run = open_rebuilt(lock, repo_id, folder, _telling(listener), search=search, evaluate=evaluate)
        with _threads(run.recipe.compute.threads):
            for stage in ("merge", *(["search"] if search else []), *(["evaluate"] if evaluate else [])):
                run.do(stage)
            environment = _environment(run)
        findings, differences = _weights(run, repo_id, commit, environment)
        if search:
            _add(findings, differences, _searched(run, repo_id, commit), environment)
        if evaluate:
            _add(findings, differences, _measured(run, repo_id, commit), environment)
    return Reproduction(repo_id, commit, len(lock.tensors), tuple(findings), tuple(differences), tuple(environment))


def _add(findings: list[Finding], differences: list[str], found: Sequence[Finding], environment: Sequence[str]) -> None:
    """Findings of a level, and for those that do not agree a sentence each, with what may have made them differ."""
    findings += found
    if others := [each for each in found if not each.agrees]:
        told = [f"{each.what}: {each.detail or f'{each.published} there, {each.here} here'}." for each in others]
        differences += [*told, *([] if differences else [_versions(environment, ".")])]


def _weights(run: Rebuilt, repo_id: str, commit: str, environment: Sequence[str]) -> tuple[list[Finding], list[str]]:
    published, rebuilt = Checkpoint(hub.pull(ModelRef(repo_id=repo_id), commit)), Checkpoint(run.directory / MODEL)
    there, here, locked = digests(published), digests(rebuilt), run.lock.tensors
    names = sorted(there.keys() | here.keys() | locked.keys())
    differing = [name for name in names if there.get(name) != here.get(name)]
    equal = Finding("weights", f"{len(there)} tensors", f"{len(here) - len(differing)} are equal bit for bit", not differing)
    if not differing:
        if wrong := [name for name in names if locked.get(name) != here.get(name)]:
            said = f"The lock gives other hashes of {len(wrong)} tensors, such as {wrong[0]}, than the published ones have."
            return [replace(equal, agrees=False, detail=said)], [f"{said} It was changed after the push."]
        return [equal], []
    described = {name: other_entries(name, published, rebuilt) for name in differing[:NAMED]}
    told = "; ".join(f"{name}: {how}" for name, how in described.items())
    why = _why(run, changed=all(here.get(name) == locked.get(name) for name in differing), environment=environment)
    summary = f"{len(differing)} of {len(there)} tensors differ, such as {differing[0]}. {why} {told}."
    return [replace(equal, detail=told)], [summary]


def _searched(run: Rebuilt, repo_id: str, commit: str) -> list[Finding]:
    here, locked = read_candidates(run.directory / LOG), run.lock.search
    again, chosen = of_trajectory(here), run.read(PARAMETERS)
    said = f"{locked.candidates} candidates"
    if run.recipe.strategy.needs_data:
        try:
            there = published_candidates(repo_id, commit)
        except SearchError as error:
            return [Finding("search", said, f"{len(here)} candidates", False, f"the published {LOG} is damaged: {error}")]
        detail = other_candidate(there, here)
        if of_trajectory(there) != locked.digest:
            told = f"the published {LOG} is not the one of the lock: it was changed after the push"
            detail = f"{told}; what was searched here {'is' if again == locked.digest else 'is not either'}; {detail}"
        found = [Finding("search", said, f"{len(here)} candidates", not detail and again == locked.digest, detail or "the same way")]
    else:
        found = [Finding("search", "nothing was searched", "the parameters follow from the recipe", True)]
    mine = {key: chosen[key] for key in ("numbers", "options", "groups")}
    theirs = {key: getattr(run.lock.parameters, key) for key in mine}
    other = other_settings(theirs, mine)
    numbers = [abs(a - b) for a, b in other.values() if isinstance(a, int | float) and isinstance(b, int | float)]
    by = f", by at most {max(numbers):.3g}" if numbers else ""
    first = next(iter(other), "")
    detail = f"{len(other)} values differ{by}, such as {first}: {other[first][0]} there, {other[first][1]} here" if other else ""
    numbered = (run.lock.parameters.search.get("number"), chosen["search"]["number"])
    return [*found, Finding("parameters", f"candidate {numbered[0]}", f"candidate {numbered[1]}", not other, detail)]


def _measured(run: Rebuilt, repo_id: str, commit: str) -> list[Finding]:
    there, here, labels = published_scores(repo_id, commit), Results.from_json(run.read(SCORES)), run.read(LABELS)
    found = []
    if digest_of(there) != run.lock.scores.digest:
        found = [Finding(SCORES, "changed", "", False, f"the published {SCORES} is not the one of the lock: it was changed after the push")]
    same, locked = of_items(labels), run.lock.scores.items
    for each in rates(Results.from_json(there), here, published_labels(repo_id, commit), items_of(labels)):
        again = same[each.model].get(each.benchmark) == locked.get(each.model, {}).get(each.benchmark)
        detail = each.said + (", all labels and replies alike" if again else ", some labels or replies differ")
        found.append(Finding(each.what, percent(asdict(each.a)), percent(asdict(each.b)), each.agrees, detail))
    return found


def _telling(listener: Listener) -> Listener:
    """The listener, who sees one piece of work and not its stages."""
    began = time.monotonic()

    def tell(event: Event) -> None:
        if event.message not in ("started", "done"):
            listener(replace(event, stage="reproduce", seconds=time.monotonic() - began))

    return tell


@contextmanager
def _folder(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as folder:
        yield Path(folder) / "run"


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """On a CPU, sums of floats depend on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _environment(run: Rebuilt) -> list[str]:
    """What computes here, where it is not what computed there."""
    lock, compute = run.lock, run.recipe.compute
    here = device(compute.dtype, lock.models["base"].dtypes, device_of(compute.device))
    pairs = [(name, lock.packages.get(name), found) for name, found in versions().items()]
    pairs += [(name, there, here[name]) for name, there in lock.device.model_dump().items()]
    return [f"{name} {a} there, {b} here" for name, a, b in pairs if a != b]


def _versions(environment: Sequence[str], end: str) -> str:
    return f"Versions differ: {'; '.join(environment)}." if environment else f"The versions are the same{end}"


def _why(run: Rebuilt, *, changed: bool, environment: Sequence[str]) -> str:
    """What may have made tensors differ."""
    if changed:
        return _versions(environment, ", so") + " the weights were changed after the push: what was rebuilt is what the lock says."
    here = run.read(CALIBRATION) if run.recipe.needs_importance else {}
    notes = (run.lock.calibration or {}).items() if here else ()
    other = [(name, which) for name, note in notes for which in SCORED if here[name][which]["digest"] != note[which]["digest"]]
    rescored = [f"base for {name}" if which == "base" else name for name, which in other]
    if rescored:
        scores = f"The importance scores of {', '.join(rescored)} came out otherwise too"
        rounds = "another device, processor, number of threads or torch rounds gradients otherwise"
        return f"{scores}: {rounds}. {_versions(environment, '.')}"
    return _versions(environment, ", so the parameters of the lock were changed, or the processor rounds otherwise.")
