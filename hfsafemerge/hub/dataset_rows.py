"""The rows of a dataset, at the commit that was checked."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import is_offline_mode

from hfsafemerge.errors import DataError, HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.downloading import Tell, download, tell_nothing
from hfsafemerge.hub.listing import Listing, listing
from hfsafemerge.hub.lookup import Access, require_access
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.recipe import DatasetRef

if TYPE_CHECKING:
    import datasets

SETTINGS = ("README.md", ".huggingface.yaml", "dataset_infos.json")
ROWS = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl", ".txt", ".gz", ".bz2", ".xz", ".zst", ".zip", ".tar")


def rows(ref: DatasetRef, commit: str, access: Access | None = None) -> list[dict[str, Any]]:
    """The rows of a dataset at a commit, or of a local parquet file.

    Args:
        ref: the dataset.
        commit: what the reference stands for.
        access: who may read it, where that is known; None asks the Hub.

    Raises:
        HubError: the dataset can't be reached, or the caller may not read it.
        DataError: it has no such config or split, or no rows.
    """
    if ref.path is not None:
        found = _local_rows(ref.path)
    else:
        require_access(str(ref.repo_id), "dataset", access)
        found = _hub_rows(str(ref.repo_id), ref.config, ref.split, commit)
    if not found:
        raise DataError(f"The dataset {ref} (config {ref.config}, split {ref.split}) has no rows.")
    return found


def pull_dataset(
    ref: DatasetRef,
    commit: str,
    access: Access | None = None,
    notify: Notify = say_nothing,
    tell: Tell = tell_nothing,
) -> None:
    """Download what `rows` reads, each file compared with its digest, so that `rows` needs the Hub no more. Raises as `rows` does."""
    if ref.path is None:
        require_access(str(ref.repo_id), "dataset", access, notify)
        _split(str(ref.repo_id), ref.config, ref.split, commit, notify, tell)


def row_files(files: Listing) -> Listing:
    """The files of a dataset that may hold rows: at most these are read, and as a rule far fewer, those of one configuration."""
    return {name: entry for name, entry in files.items() if name.lower().endswith(ROWS)}


def settings_files(files: Listing) -> Listing:
    """The files of a dataset that say what its configurations are."""
    return {name: files[name] for name in SETTINGS if name in files}


def _local_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"Can't read {path}: {client.first_line(error)}. It must be a parquet file.") from error


@lru_cache(maxsize=32)  # a commit never changes, and runs that compare merges read the same rows again and again
def _hub_rows(repo_id: str, config: str | None, split: str, commit: str) -> list[dict[str, Any]]:
    return [dict(row) for row in _split(repo_id, config, split, commit, say_nothing, tell_nothing)]


def _split(repo_id: str, config: str | None, split: str, commit: str, notify: Notify, tell: Tell) -> "datasets.Dataset":
    """A split, made from verified files."""
    import datasets

    try:
        files: Listing = {} if is_offline_mode() else listing(repo_id, "dataset", commit)
        if told := settings_files(files):
            download(repo_id, "dataset", commit, told, notify)  # datasets takes a Hub that fails here for a repository without data
        builder = persist(lambda: _builder(repo_id, config, commit), notify)
        if files:
            download(repo_id, "dataset", commit, {name: files[name] for name in _names(builder, commit)}, notify, tell)
        with client.hub_errors(repo_id):
            builder.download_and_prepare()
            return builder.as_dataset(split=split)
    except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        cause = client.first_line(error.__cause__ or error)
        raise DataError(
            f"Can't read the dataset {repo_id} (config {config}, split {split}): {cause}. It may be empty or damaged."
        ) from error


def _builder(repo_id: str, config: str | None, commit: str) -> "datasets.DatasetBuilder":
    import datasets

    with client.hub_errors(repo_id):
        builder = datasets.load_dataset_builder(repo_id, config, revision=commit)
    # datasets takes the newest copy it has when the Hub does not answer, and a folder of that name before the Hub
    if builder.hash != commit:
        why = (
            f"the folder ./{repo_id} hides it. Work in another directory."
            if Path(repo_id).is_dir()
            else "HF_HUB_OFFLINE is set, and the cache has another commit. Unset it."
            if is_offline_mode()
            else "the Hub does not answer. Try again."
        )
        silent = not (Path(repo_id).is_dir() or is_offline_mode())
        raise HubError(f"{repo_id} can't be read at the commit {commit[:8]} that was checked: {why}") from (
            ConnectionError("no answer") if silent else None
        )
    return builder


def _names(builder: "datasets.DatasetBuilder", commit: str) -> list[str]:
    """The files of a configuration, by their paths in the repository."""
    found = [str(file) for files in (builder.config.data_files or {}).values() for file in files]
    return sorted({file.split(f"@{commit}/", 1)[1] for file in found if f"@{commit}/" in file})
