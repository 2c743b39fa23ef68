"""The Hub: what a model is before its weights are fetched, the fetching, and the only code that writes to the Hub."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    NotASafetensorsRepoError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    SafetensorsParsingError,
)
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version
from pydantic import ValidationError

from hfsafemerge import __version__
from hfsafemerge._hub_files import chat_template, read_json, refuse_auto_map, refuse_code, vocabulary
from hfsafemerge.checkpoint import DTYPES, Checkpoint, ModelSummary, TensorInfo
from hfsafemerge.errors import CheckpointError, DataError, HubError
from hfsafemerge.recipe import DatasetRef, ModelRef, Ref

# All that a merge reads. Code, pickles and everything else stay where they are.
WEIGHTS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "*.model",
)
RETRIES = 4
RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class FoundModel:
    """What is known of a model before its weights are downloaded."""

    ref: ModelRef
    commit: str
    summary: ModelSummary
    license: str | None
    download: int

    @property
    def label(self) -> str:
        """The model and its commit, as provenance names it."""
        return f"{self.ref.repo_id or self.ref.path}@{self.commit}"


@lru_cache
def api() -> HfApi:
    """The client of this process; it reads the endpoint and the token from the environment, as `hf` does."""
    return HfApi(library_name="hfsafemerge", library_version=__version__)


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn what the Hub's clients raise into one sentence that says what to do."""
    login = "" if get_token() else " You are not signed in: run `hf auth login` or set HF_TOKEN."
    try:
        yield
    except GatedRepoError as error:
        raise HubError(
            f"{what} is gated, and you have not been granted access. Ask for it on its page, {api().endpoint}/{what.split('@')[0]}.{login}"
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(f"{what} does not exist at {api().endpoint}, or is private.{login}") from error
    except RevisionNotFoundError as error:
        raise HubError(f"{what}: there is no such branch, tag or commit. Leave the revision out, or name one that exists.") from error
    except LocalEntryNotFoundError as error:
        raise HubError(
            f"Can't reach {api().endpoint} for {what}, and it is not in the cache. Check the connection, or HF_ENDPOINT."
        ) from error
    except (EntryNotFoundError, NotASafetensorsRepoError) as error:
        raise HubError(f"{what}: a file is missing: {_first_line(error)}") from error
    except SafetensorsParsingError as error:
        raise CheckpointError(f"{what}: its weights have a malformed header: {_first_line(error)}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no status"
        raise HubError(f"The Hub refused {what} ({status}): {_first_line(error)}{login if status in (401, 403) else ''}") from error
    except OfflineModeIsEnabled as error:
        raise HubError(f"{what} is needed from the Hub, and HF_HUB_OFFLINE is set. Unset it, or fetch the repository first.") from error
    except (httpx.HTTPError, ConnectionError) as error:
        raise HubError(f"Can't reach {api().endpoint} for {what}: {_first_line(error)}. Check the connection, or HF_ENDPOINT.") from error


def _first_line(error: BaseException) -> str:
    text = next(iter(str(error).strip().splitlines()), type(error).__name__)
    token = get_token()  # which some faults of HTTP clients quote, when it holds what no header may hold
    return text.replace(token, "<token>") if token else text


def resolve(ref: Ref, repo_type: RepoType = "model") -> str:
    """The commit that a reference stands for now; for a local path a digest of its files' names, sizes and times.

    Raises:
        HubError: there is no such thing.
    """
    if ref.path is not None:
        if not ref.path.exists():
            raise HubError(f"{ref.path} does not exist.")
        files = sorted(p for p in (ref.path.rglob("*") if ref.path.is_dir() else [ref.path]) if p.is_file())
        stamps = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return "local-" + hashlib.sha256(json.dumps(stamps).encode()).hexdigest()[:12]
    with hub_errors(str(ref)):
        return str(api().repo_info(str(ref.repo_id), revision=ref.revision, repo_type=repo_type).sha)


def dataset_license(ref: DatasetRef, commit: str) -> str | None:
    """The licence that a dataset's card names. Raises HubError when it can't be reached."""
    if ref.path is not None:
        return None
    with hub_errors(str(ref)):
        return _license(api().dataset_info(str(ref.repo_id), revision=commit).card_data)


def _license(card: Any) -> str | None:
    """The licence of a card; several, which only datasets may have, as one text."""
    found = card.get("license") if card else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found


def find_model(ref: ModelRef) -> FoundModel:
    """All that can be known of a model from its small files and the headers of its weights.

    Raises:
        HubError: it can't be reached or read.
        UnsafeRepository: it holds code.
        CheckpointError: it holds no safetensors weights.
    """
    commit = resolve(ref)
    if ref.path is not None:
        folder, files = ref.path, {str(p.relative_to(ref.path)): p.stat().st_size for p in ref.path.rglob("*") if p.is_file()}
        refuse_code(str(ref), files)
        tensors, license_ = Checkpoint(folder).tensors, None
    else:
        with hub_errors(str(ref)):
            info = api().model_info(str(ref.repo_id), revision=commit, files_metadata=True)
            files = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
            refuse_code(str(ref), files)
            tensors = _remote_tensors(str(ref.repo_id), commit, files)
            folder = Path(snapshot_download(str(ref.repo_id), revision=commit, allow_patterns=list(SMALL_FILES)))
        license_ = _license(info.card_data)
    config = read_json(folder / "config.json", str(ref))
    refuse_auto_map(config, str(ref))
    settings = read_json(folder / "tokenizer_config.json", str(ref)) if (folder / "tokenizer_config.json").exists() else {}
    refuse_auto_map(settings, str(ref))
    summary = ModelSummary(
        str(ref),
        str((config.get("architectures") or ["unknown"])[0]),
        tensors,
        vocabulary(folder, str(ref)),
        chat_template(folder, settings),
    )
    return FoundModel(ref, commit, summary, license_, sum(size for file, size in files.items() if file.endswith(".safetensors")))


def _remote_tensors(repo_id: str, commit: str, files: Mapping[str, int]) -> dict[str, TensorInfo]:
    if not any(file in files for file in ("model.safetensors", "model.safetensors.index.json")):
        others = [file for file in files if file.endswith((".bin", ".pt", ".pth", ".gguf", ".safetensors"))]
        raise CheckpointError(
            f"{repo_id} has no model.safetensors{f', only {others[0]} and the like' if others else ''}. Only safetensors weights are read; "
            "look for a converted copy, or adapters merged into their model."
        )
    tensors = {}
    for file in api().get_safetensors_metadata(repo_id, revision=commit).files_metadata.values():
        for name, info in file.tensors.items():
            if info.dtype not in DTYPES:
                raise CheckpointError(f"{repo_id}: {name} has dtype {info.dtype}, which can't be merged. Use unquantised weights.")
            tensors[name] = TensorInfo(info.dtype, tuple(info.shape))
    return tensors


def pull(ref: ModelRef, commit: str) -> Path:
    """The folder with a model's weights and small files, downloaded where needed. Raises HubError."""
    if ref.path is not None:
        return ref.path
    with hub_errors(f"{ref.repo_id}@{commit[:8]}"):
        return Path(snapshot_download(str(ref.repo_id), revision=commit, allow_patterns=[*WEIGHTS, *SMALL_FILES]))


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
        raise DataError(f"Can't read {path}: {_first_line(error)}. It must be a parquet file.") from error


@lru_cache(maxsize=32)  # a commit never changes, and runs that compare merges read the same rows again and again
def _hub_rows(repo_id: str, config: str | None, split: str, commit: str) -> list[dict[str, Any]]:
    import datasets

    try:
        with hub_errors(repo_id):
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
        cause = _first_line(error.__cause__ or error)
        raise DataError(
            f"Can't read the dataset {repo_id} (config {config}, split {split}): {cause}. It may be empty or damaged."
        ) from error
    return [dict(row) for row in found]


@dataclass(frozen=True)
class Pushed:
    """Where something was published."""

    repo_id: str
    commit: str
    url: str


def create_repo(repo_id: str, repo_type: RepoType, *, private: bool, marker: str, gated: bool = False) -> None:
    """Create a repository, or take the one of that name if it is empty or holds the `marker` file of this tool.

    A gated repository is private until its gate stands, and one that stands already gets its gate before anything is put in it.

    Raises:
        HubError: there is one that this tool did not make, or it can't be created.
    """
    with hub_errors(repo_id):
        held: set[str] = set()
        if api().repo_exists(repo_id, repo_type=repo_type):
            held = set(api().list_repo_files(repo_id, repo_type=repo_type)) - {".gitattributes"}
            if held and marker not in held:
                raise HubError(f"{repo_id} exists and was not made by hfsafemerge; it is left alone. Choose another repo_id.")
        else:
            api().create_repo(repo_id, repo_type=repo_type, private=private or gated)
        if gated and not api().repo_info(repo_id, repo_type=repo_type).gated:
            api().update_repo_settings(repo_id, repo_type=repo_type, gated="manual")
        if gated and not held and not private:
            api().update_repo_settings(repo_id, repo_type=repo_type, visibility="public")


def push_files(
    repo_id: str, repo_type: RepoType, files: Mapping[str, Path], message: str, notify: Callable[[str], None] = lambda message: None
) -> Pushed:
    """Publish files in one commit that either stands whole or not at all; weights of an earlier push are taken away in it.

    The client does not retry a commit; here it is tried again after faults that pass, each time on top of what is there then.

    Raises:
        HubError: the Hub refused, or the faults did not pass.
    """
    for attempt in range(RETRIES + 1):
        try:
            commit = _commit(repo_id, repo_type, files, message)
        except HubError as error:
            if attempt == RETRIES or not _passes(error.__cause__):
                raise
            notify(f"{error} Trying again ({attempt + 1} of {RETRIES}).")
            time.sleep(2**attempt / 2)
        else:
            return Pushed(repo_id, commit, f"{api().endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}")
    raise AssertionError("the loop returns or raises")


def _commit(repo_id: str, repo_type: RepoType, files: Mapping[str, Path], message: str) -> str:
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    try:
        with hub_errors(repo_id):
            head = str(api().repo_info(repo_id, repo_type=repo_type).sha)
            stale = sorted(set(api().list_repo_files(repo_id, repo_type=repo_type, revision=head)) - files.keys())
            operations += [CommitOperationDelete(name) for name in stale if any(fnmatch(name, pattern) for pattern in WEIGHTS)]
            operations += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in sorted(files.items())]
            return str(api().create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=head).oid)
    except (ValueError, RuntimeError) as error:  # of the card's metadata, or around what the upload of a file raised
        raise HubError(f"Can't publish {repo_id}: {' '.join(str(error).split())}") from error


def _passes(cause: BaseException | None) -> bool:
    """Whether a fault may be gone when the same thing is tried again."""
    if isinstance(cause, RuntimeError):
        cause = cause.__cause__
    if isinstance(cause, HfHubHTTPError) and cause.response is not None:
        status: int = cause.response.status_code
        return status in (408, 409, 412, 429) or status >= 500
    return isinstance(cause, httpx.HTTPError)


def fetch(repo_id: str, file: str, revision: str | None = None) -> tuple[Path, str]:
    """One file of a model repository, and the commit it is of. Raises HubError."""
    try:
        ref = ModelRef(repo_id=repo_id, revision=revision)
    except ValidationError as error:
        raise HubError(f"{repo_id!r} is no repository id. Write it as namespace/name.") from error
    commit = resolve(ref)
    with hub_errors(f"{repo_id}@{revision or 'main'}"):
        return Path(hf_hub_download(repo_id, file, revision=commit)), commit


def check_can_write(repo_ids: Sequence[str]) -> None:
    """Raise HubError unless the user is signed in and belongs to the namespaces."""
    if get_token() is None:
        raise HubError("Pushing needs a token with write access: run `hf auth login`, or set HF_TOKEN.")
    with hub_errors("the account"):
        me = api().whoami()
    spaces = {me["name"], *(org["name"] for org in me.get("orgs", []))}
    for repo_id in repo_ids:
        if repo_id.split("/")[0] not in spaces:
            raise HubError(f"You are {me['name']} and can't write to {repo_id}; you can to {', '.join(sorted(spaces))}.")
