"""All that a run reads from the Hub, fetched ahead; or single repositories."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from pydantic import ValidationError

from hfsafemerge import hub
from hfsafemerge.errors import HubError
from hfsafemerge.hub.dataset_rows import settings_files
from hfsafemerge.hub.downloading import download
from hfsafemerge.hub.fetching import ADAPTER_SETTINGS, adapter_files, small_files, weight_files
from hfsafemerge.hub.listing import Listing, is_cached
from hfsafemerge.recipe import DatasetRef, ModelRef, Ref
from hfsafemerge.running.inputs import CHECKED, dataset_roles, model_roles

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

REPOSITORY = re.compile(r"(?P<repo_id>[\w.-]+/[\w.-]+)(@(?P<revision>\S+))?")


@dataclass(frozen=True)
class Wanted:
    """One repository at a commit, and what of it is fetched: `exact`, or at most, where only reading the data tells."""

    name: str
    repo_type: hub.RepoType
    commit: str
    files: Listing
    fetch: Callable[[hub.Notify, hub.Tell], object]
    exact: bool = True

    def table(self) -> list[dict[str, Any]]:
        """Its files with their bytes, and whether they are in the cache."""
        return [
            {
                "repository": self.name,
                "commit": self.commit[:12],
                "file": file,
                "bytes": entry.size,
                "cached": is_cached(self.name, self.repo_type, self.commit, file, entry),
            }
            for file, entry in sorted(self.files.items())
        ]

    @property
    def missing(self) -> int:
        """Bytes that are not in the cache."""
        return hub.bytes_to_fetch(self.name, self.repo_type, self.commit, self.files)

    @property
    def folder(self) -> Path:
        """Where its files are once they are fetched."""
        return hub.storage(self.name, self.repo_type) / "snapshots" / self.commit


def wanted_by_run(run: "Run") -> list[Wanted]:
    """What a run that was checked reads from the Hub, at the commits of the check, each repository once. Raises as `hub.pull` does."""
    checked = run.read(CHECKED)
    found: dict[tuple[Any, ...], Wanted] = {}
    for role, ref in model_roles(run.recipe).items():
        entry = checked["models"][role]
        if entry["architecture"] != "served":
            for wanted in _of_model(ref, entry):
                found[(wanted.name, wanted.commit, *wanted.files)] = wanted
    for role, data in dataset_roles(run.recipe).items():
        entry = checked["datasets"][role]
        if data.path is None:
            found[str(data.repo_id), entry["commit"], data.config, data.split] = _of_dataset(data, entry["commit"], entry.get("access"))
    return list(found.values())


def wanted_repository(text: str, revision: str | None, repo_type: hub.RepoType, notify: hub.Notify = hub.say_nothing) -> Wanted:
    """One repository, named as namespace/name or namespace/name@revision: a model, an adapter, or a dataset.

    Of a dataset all files that may hold rows are wanted, and those that say which of them are which.

    Args:
        text: its name; the revision in it, if there is one, goes before the other.
        revision: a branch, tag or commit.
        repo_type: what it is.
        notify: is told of faults that pass.

    Raises:
        HubError: the name is malformed, or it can't be reached or may not be read.
        UnsafeRepository, CheckpointError: as `hub.find_model` does.
    """
    named = REPOSITORY.fullmatch(text)
    if named is None:
        raise HubError(f"{text!r} is no recipe that exists, and no repository. Write namespace/name or namespace/name@revision.")
    try:
        ref = ModelRef(repo_id=named["repo_id"], revision=named["revision"] or revision)
    except ValidationError as error:
        raise HubError(f"{text!r} is no repository id. Write it as namespace/name.") from error
    repo_id = str(ref.repo_id)
    told = hub.look_up(ref, repo_type, notify)
    if repo_type == "dataset":
        listed = hub.listing(repo_id, "dataset", told.commit)
        files = {**hub.row_files(listed), **settings_files(listed)}
        return Wanted(
            repo_id, "dataset", told.commit, files, lambda notify, tell: download(repo_id, "dataset", told.commit, files, notify, tell)
        )
    pinned = ref.model_copy(update={"revision": told.commit})
    if ADAPTER_SETTINGS in told.files and "config.json" not in told.files:
        return _of_adapter(pinned, told.commit, told.access)
    found = hub.find_model(pinned, notify)
    return next(iter(_of_model(pinned, {"commit": found.commit, "access": found.access})))


def _of_model(ref: ModelRef, entry: dict[str, Any]) -> Iterator[Wanted]:
    if ref.path is None:
        repo_id, commit, access = str(ref.repo_id), entry["commit"], entry.get("access")
        hub.require_access(repo_id, "model", access)
        files = hub.listing(repo_id, "model", commit)
        small = small_files(files)
        folder = download(repo_id, "model", commit, small)  # the check has fetched them; the index says which shards there are
        wanted = {**small, **weight_files(files, folder, repo_id)}
        yield Wanted(repo_id, "model", commit, wanted, lambda notify, tell: hub.pull(ref, commit, access, notify, tell))
    if ref.adapter is not None and ref.adapter.path is None:
        yield _of_adapter(ref.adapter, entry["adapter_commit"], entry.get("adapter_access"))


def _of_adapter(ref: Ref, commit: str, access: hub.Access | None) -> Wanted:
    repo_id = str(ref.repo_id)
    hub.require_access(repo_id, "model", access)
    files = adapter_files(hub.listing(repo_id, "model", commit), repo_id)
    return Wanted(repo_id, "model", commit, files, lambda notify, tell: hub.pull_adapter(ref, commit, access, notify, tell))


def _of_dataset(ref: DatasetRef, commit: str, access: hub.Access | None) -> Wanted:
    repo_id = str(ref.repo_id)
    hub.require_access(repo_id, "dataset", access)
    files = hub.row_files(hub.listing(repo_id, "dataset", commit))
    return Wanted(repo_id, "dataset", commit, files, lambda notify, tell: hub.pull_dataset(ref, commit, access, notify, tell), exact=False)


def cache_folder() -> Path:
    """Where the Hub's clients keep what they fetch."""
    return Path(constants.HF_HUB_CACHE)
