"""The only code that writes to the Hub: repositories behind their gates, and commits that stand whole or not at all."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, get_token
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # as in client

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType
from hfsafemerge.hub.fetching import WEIGHTS

RETRIES = 4


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
    with client.hub_errors(repo_id):
        held: set[str] = set()
        if client.api().repo_exists(repo_id, repo_type=repo_type):
            held = set(client.api().list_repo_files(repo_id, repo_type=repo_type)) - {".gitattributes"}
            if held and marker not in held:
                raise HubError(f"{repo_id} exists and was not made by hfsafemerge; it is left alone. Choose another repo_id.")
        else:
            client.api().create_repo(repo_id, repo_type=repo_type, private=private or gated)
        if gated and not client.api().repo_info(repo_id, repo_type=repo_type).gated:
            client.api().update_repo_settings(repo_id, repo_type=repo_type, gated="manual")
        if gated and not held and not private:
            client.api().update_repo_settings(repo_id, repo_type=repo_type, visibility="public")


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
            return Pushed(repo_id, commit, f"{client.api().endpoint}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}")
    raise AssertionError("the loop returns or raises")


def _commit(repo_id: str, repo_type: RepoType, files: Mapping[str, Path], message: str) -> str:
    operations: list[CommitOperationAdd | CommitOperationDelete] = []
    try:
        with client.hub_errors(repo_id):
            head = str(client.api().repo_info(repo_id, repo_type=repo_type).sha)
            stale = sorted(set(client.api().list_repo_files(repo_id, repo_type=repo_type, revision=head)) - files.keys())
            operations += [CommitOperationDelete(name) for name in stale if any(fnmatch(name, pattern) for pattern in WEIGHTS)]
            operations += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in sorted(files.items())]
            return str(client.api().create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, parent_commit=head).oid)
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


def check_can_write(repo_ids: Sequence[str]) -> None:
    """Raise HubError unless the user is signed in and belongs to the namespaces."""
    if get_token() is None:
        raise HubError("Pushing needs a token with write access: run `hf auth login`, or set HF_TOKEN.")
    with client.hub_errors("the account"):
        me = client.api().whoami()
    spaces = {me["name"], *(org["name"] for org in me.get("orgs", []))}
    for repo_id in repo_ids:
        if repo_id.split("/")[0] not in spaces:
            raise HubError(f"You are {me['name']} and can't write to {repo_id}; you can to {', '.join(sorted(spaces))}.")
