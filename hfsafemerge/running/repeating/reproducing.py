"""Rebuild a published merge from its lock, and say whether weights, search and scores come out again; if not, why."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import HubError
from hfsafemerge.running.calibrating import CALIBRATION, SCORED
from hfsafemerge.running.events import Event, Listener, attention, silent
from hfsafemerge.running.merging import MODEL
from hfsafemerge.running.notebook.progress import Progress
from hfsafemerge.running.notebook.surroundings import threads, without_bars
from hfsafemerge.running.repeating.agreeing import other_candidate, other_entries, other_settings
from hfsafemerge.running.repeating.digesting import of_trajectory
from hfsafemerge.running.repeating.findings import Finding, Reproduction
from hfsafemerge.running.repeating.locked import LOCK, Made, read_lock
from hfsafemerge.running.repeating.locking import made_on
from hfsafemerge.running.repeating.published import published_candidates
from hfsafemerge.running.repeating.rating import Outcome
from hfsafemerge.running.repeating.rebuilding import Rebuilt, open_rebuilt
from hfsafemerge.running.repeating.repeatable import repeated
from hfsafemerge.running.repeating.rescoring import rescored
from hfsafemerge.running.repeating.small_files import other_file, small_digests, unmade
from hfsafemerge.running.searching import LOG, PARAMETERS
from hfsafemerge.searching import read_candidates

NAMED = 8  # differing tensors that are described; of the rest only the number is told


def reproduce(
    repo_id: str,
    revision: str | None = None,
    listener: Listener | None = None,
    *,
    search: bool = False,
    evaluate: bool = False,
    directory: str | Path | None = None,
) -> Reproduction:
    """Rebuild a published model from its lock and the Hub alone, compare it with the published one, and require that it is the same.

    Args:
        repo_id: the published model.
        revision: a branch, tag or commit of it.
        listener: is told every event, instead of showing progress; `hsm.silent` for nothing at all.
        search: repeat the search too, from the published data, and compare every candidate.
        evaluate: measure again too, and test whether the rates agree.
        directory: where the rebuilt run is kept; the same call goes on there after a stop. By default a temporary folder.

    Raises:
        NotReproduced: something does not agree, and `result` of the error has all findings; or it was made from local folders.
        HubError: the model or something it was made of can't be fetched, or its lock is not one.
        DataError: the data that it was made with are not there any more.
        RunError: the directory holds something else.
    """
    told = Progress() if listener is None else listener
    return rebuild(repo_id, revision, told, search=search, evaluate=evaluate, directory=directory).require()


def rebuild(
    repo_id: str,
    revision: str | None = None,
    listener: Listener = silent,
    *,
    search: bool = False,
    evaluate: bool = False,
    directory: str | Path | None = None,
) -> Reproduction:
    """Do what `reproduce` does, and tell what came of it, whether or not it agrees.

    Raises:
        NotReproduced: it was made from local folders, measured by a server, or its lock would make other tensors.
        HubError, DataError, RunError: as `reproduce` does.
    """
    file, commit = hub.fetch(repo_id, LOCK, revision)
    lock = read_lock(file, repo_id)
    with _folder(directory) as folder, attention(listener):
        run = open_rebuilt(lock, repo_id, commit, folder, _telling(listener), search=search, evaluate=evaluate)
        with threads(run.recipe.compute.threads), without_bars() if run.recipe.loads_models else nullcontext():
            for stage in ("merge", *(["search"] if search else []), *(["evaluate"] if evaluate else [])):
                run.do(stage)
        stages = repeated(lock, search=search, evaluate=evaluate)
        findings, differences = _weights(run, _environment(run, [s for s in stages if s in ("calibrate", "merge")]))
        if search:
            _add(findings, differences, _searched(run, repo_id, commit), _environment(run, ["search"]))
        if evaluate:
            _add(findings, differences, rescored(run, repo_id, commit), _environment(run, ["evaluate"]))
        environment = _environment(run, stages)
    return Reproduction(repo_id, commit, len(lock.tensors), tuple(findings), tuple(differences), tuple(environment))


def _add(findings: list[Finding], differences: list[str], found: Sequence[Finding], environment: Sequence[str]) -> None:
    """Findings of a level, and for those that do not agree a sentence each, with what may have made them differ."""
    findings += found
    if others := [each for each in found if not each.agrees]:
        told = [f"{each.what}: {each.detail or f'{each.published} there, {each.here} here'}." for each in others]
        differences += [*told, *([] if differences else [_versions(environment, ".")])]


def _weights(run: Rebuilt, environment: Sequence[str]) -> tuple[list[Finding], list[str]]:
    """What came of the level weights: tensors, and the small files beside them."""
    published, rebuilt = run.published(), Checkpoint(run.directory / MODEL)
    tensors, told = _tensors(run, published, rebuilt, environment)
    files = _files(run, published)
    wrong = [f"{each.what}: {each.detail}." for each in files if not each.agrees]
    return [tensors, *files], [*told, *wrong, *([_versions(environment, ".")] if wrong and not told else [])]


def _tensors(run: Rebuilt, published: Checkpoint, rebuilt: Checkpoint, environment: Sequence[str]) -> tuple[Finding, list[str]]:
    there, here, locked = digests(published), digests(rebuilt), run.lock.tensors
    names = sorted(there.keys() | here.keys() | locked.keys())
    differing = [name for name in names if there.get(name) != here.get(name)]
    equal = Finding("weights", f"{len(there)} tensors", f"{len(here) - len(differing)} are equal bit for bit", "identical")
    if not differing:
        if wrong := [name for name in names if locked.get(name) != here.get(name)]:
            said = f"The lock gives other hashes of {len(wrong)} tensors, such as {wrong[0]}, than the published ones have."
            return replace(equal, outcome="differs", detail=said), [f"{said} It was changed after the push."]
        return equal, []
    described = {name: other_entries(name, published, rebuilt) for name in differing[:NAMED]}
    told = "; ".join(f"{name}: {how}" for name, how in described.items())
    why = _why(run, changed=all(here.get(name) == locked.get(name) for name in differing), environment=environment)
    summary = f"{len(differing)} of {len(there)} tensors differ, such as {differing[0]}. {why} {told}."
    return replace(equal, outcome="differs", detail=told), [summary]


def _files(run: Rebuilt, published: Checkpoint) -> list[Finding]:
    """Configuration, tokenizer and chat template; and files that loaders would read, and the merge did not make."""
    there, here, locked = small_digests(published.folder), small_digests(run.directory / MODEL), run.lock.files
    names = sorted(there.keys() | here.keys() | locked.keys())
    said = f"{len(there)} small files"
    if differing := [name for name in names if there.get(name) != here.get(name)]:
        told = "; ".join(other_file(name, published.folder, run.directory / MODEL) for name in differing)
        why = "changed after the push" if all(here.get(name) == locked.get(name) for name in differing) else "not what the lock makes here"
        found = [Finding("files", said, f"{len(here)}", "differs", f"{told}; {why}")]
    elif wrong := [name for name in names if locked.get(name) != here.get(name)]:
        found = [Finding("files", said, f"{len(here)}", "differs", f"the lock gives other hashes of {', '.join(wrong)}")]
    else:
        found = [Finding("files", said, "all are the same", "identical")]
    weights = set(published.files.values())
    if odd := unmade(hub.listing(run.repo_id, "model", run.commit), weights, here):
        detail = f"loaders of models look for {', '.join(odd[:NAMED])}, which the merge did not make"
        found.append(Finding("other files", f"{len(odd)} files", "", "differs", detail))
    return found


def _searched(run: Rebuilt, repo_id: str, commit: str) -> list[Finding]:
    here, locked = read_candidates(run.directory / LOG), run.lock.search
    again, chosen = of_trajectory(here), run.read(PARAMETERS)
    said = f"{locked.candidates} candidates"
    if run.recipe.strategy.needs_data:
        try:
            there = published_candidates(repo_id, commit)
        except HubError as error:
            return [Finding("search", said, f"{len(here)} candidates", "differs", str(error))]
        detail = other_candidate(there, here)
        if of_trajectory(there) != locked.digest:
            told = f"the published {LOG} is not the one of the lock: it was changed after the push"
            detail = f"{told}; what was searched here {'is' if again == locked.digest else 'is not either'}; {detail}"
        same: Outcome = "identical" if not detail and again == locked.digest else "differs"
        found = [Finding("search", said, f"{len(here)} candidates", same, detail or "the same way")]
    else:
        found = [Finding("search", "nothing was searched", "the parameters follow from the recipe", "identical")]
    mine = {key: chosen[key] for key in ("numbers", "options", "groups")}
    theirs = {key: getattr(run.lock.parameters, key) for key in mine}
    other = other_settings(theirs, mine)
    numbers = [abs(a - b) for a, b in other.values() if isinstance(a, int | float) and isinstance(b, int | float)]
    by = f", by at most {max(numbers):.3g}" if numbers else ""
    first = next(iter(other), "")
    detail = f"{len(other)} values differ{by}, such as {first}: {other[first][0]} there, {other[first][1]} here" if other else ""
    numbered = (run.lock.parameters.search.get("number"), chosen["search"]["number"])
    outcome: Outcome = "differs" if other else "identical"
    return [*found, Finding("parameters", f"candidate {numbered[0]}", f"candidate {numbered[1]}", outcome, detail)]


def _telling(listener: Listener) -> Listener:
    """The listener, who sees one piece of work and not its stages."""
    began = time.monotonic()

    def tell(event: Event) -> None:
        if event.message not in ("started", "done"):
            listener(replace(event, stage="reproduce", seconds=time.monotonic() - began))

    return tell


@contextmanager
def _folder(directory: str | Path | None) -> Iterator[Path]:
    if directory is not None:
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as folder:
        try:
            yield Path(folder) / "run"
        except KeyboardInterrupt as stop:
            stop.__notes__ = ["What was rebuilt is not kept. Name a directory to go on there after a stop."]
            raise


def _environment(run: Rebuilt, stages: Sequence[Made]) -> list[str]:
    """On what these stages were done here, where that is not on what they were done there; the stages are named where not all are so."""
    here, found = made_on(run), dict[str, list[str]]()
    for stage in stages:
        there = run.lock.made_on[stage].model_dump()
        pairs = [(name, there[part].get(name), value) for part in ("packages", "device") for name, value in here[stage][part].items()]
        for name, a, b in pairs:
            if a != b:
                found.setdefault(f"{name} {a} there, {b} here", []).append(stage)
    return [said if len(of) == len(stages) else f"{said} ({', '.join(of)})" for said, of in found.items()]


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
