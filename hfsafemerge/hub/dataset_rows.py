"""The rows of a dataset, at the commit that was checked."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from hfsafemerge.errors import DataError, HubError
from hfsafemerge.hub import client
from hfsafemerge.recipe import DatasetRef


def rows(ref: DatasetRef, commit: str) -> list[dict[str, Any]]:
    """The rows of a dataset at a commit, or of a local parquet file.

    Raises:
        HubError: the dataset can't be reached.
        DataError: it has no such config or split, or no rows.
    """
    found = _local_rows(ref.path) if ref.path is not None else _hub_rows(str(ref.repo_id), ref.config, ref.split, commit)
    if not found:
        raise DataError(f"The dataset {ref} (config {ref.config}, split {ref.split}) has no rows.")
    return found


def _local_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_table(path).to_pylist())
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(f"Can't read {path}: {client.first_line(error)}. It must be a parquet file.") from error


@lru_cache(maxsize=32)  # a commit never changes, and runs that compare merges read the same rows again and again
def _hub_rows(repo_id: str, config: str | None, split: str, commit: str) -> list[dict[str, Any]]:
    import datasets

    try:
        with client.hub_errors(repo_id):
            builder = datasets.load_dataset_builder(repo_id, config, revision=commit)
            # datasets takes the newest copy it has when the Hub does not answer, and a folder of that name before the Hub
            if builder.hash != commit:
                raise HubError(
                    f"{repo_id} can't be read at the commit {commit[:8]} that was checked: the Hub does not answer, or the folder "
                    f"./{repo_id} hides it. Try again, or work in another directory."
                )
            builder.download_and_prepare()
            found = builder.as_dataset(split=split)
    except (ValueError, RuntimeError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        cause = client.first_line(error.__cause__ or error)
        raise DataError(
            f"Can't read the dataset {repo_id} (config {config}, split {split}): {cause}. It may be empty or damaged."
        ) from error
    return [dict(row) for row in found]
