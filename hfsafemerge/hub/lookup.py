"""What the Hub says of a repository before any of its files is read: its commit, its licence, who may read it, what its scan found."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import constants, get_token, is_offline_mode

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType
from hfsafemerge.hub.listing import storage
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.recipe import Ref

Access = Literal["local", "public", "private", "gated"]


@dataclass(frozen=True)
class Facts:
    """What one request tells of a repository."""

    commit: str
    license: str | None
    access: Access
    files: tuple[str, ...]
    issues: dict[str, str]
    """Files that the Hub's scan warns of, and its word for each (unsafe, suspicious, ...). Datasets are not asked about."""


def look_up(ref: Ref, repo_type: RepoType = "model", notify: Notify = say_nothing) -> Facts:
    """The commit that a reference stands for now and all else that is told with it: one request, a second one where not all may read.

    Raises:
        HubError: there is no such thing on the Hub, or the caller may not read it.
    """
    repo_id, patience = str(ref.repo_id), constants.HF_HUB_DOWNLOAD_TIMEOUT  # without one, the client waits for ever

    def ask() -> Any:
        with client.hub_errors(str(ref), offline="The commit that it stands for is known to nobody here"):
            if repo_type == "model":
                return client.api().model_info(repo_id, revision=ref.revision, securityStatus=True, timeout=patience)
            return client.api().dataset_info(repo_id, revision=ref.revision, timeout=patience)

    info = persist(ask, notify)
    access: Access = "private" if info.private else "gated" if info.gated else "public"
    require_access(repo_id, repo_type, access, notify)
    found = (getattr(info, "security_repo_status", None) or {}).get("filesWithIssues") or []
    issues = {str(issue["path"]): str(issue.get("level", "unsafe")) for issue in found}
    files = tuple(sibling.rfilename for sibling in info.siblings or [])
    return Facts(str(info.sha), _license(info.card_data), access, files, issues)


def require_access(repo_id: str, repo_type: RepoType, access: Access | None, notify: Notify = say_nothing) -> None:
    """Raise HubError unless the caller may read a repository.

    A file of a known commit comes out of the cache without any question, whoever fetched it, so what is not open to all is
    asked about before anything is read: once by a process for each user. Public repositories cost no request; one of which
    nothing is known (`access` None) is asked about as if it were gated.

    Offline nobody can be asked. What this user keeps in a cache of their own they have anyway, so there it is taken; what belongs to
    another user of the machine is refused, be it files of the Hub or tables that were made of them.
    """
    if access in ("public", "local"):
        return
    if is_offline_mode():
        _require_own(repo_id, repo_type)
    else:
        persist(lambda: _granted(repo_id, repo_type, client.api().endpoint, client.api().token or get_token()), notify)


@lru_cache  # raising is not remembered
def _granted(repo_id: str, repo_type: RepoType, endpoint: str, token: str | bool | None) -> None:
    with client.hub_errors(repo_id):
        client.api().auth_check(repo_id, repo_type=repo_type)


def _require_own(repo_id: str, repo_type: RepoType) -> None:
    """Raise HubError unless what is here of a repository belongs to this user; where a system has no owners, that is not asked."""
    folders = [folder for folder in _kept_in(repo_id, repo_type) if folder.exists()]
    if not folders:
        raise HubError(
            f"{repo_id} is not in the cache, and HF_HUB_OFFLINE is set. Unset it, and fetch what a run reads with "
            "`hfsafemerge pull RECIPE` first."
        )
    if hasattr(os, "getuid") and (others := [folder for folder in folders if folder.stat().st_uid != os.getuid()]):
        raise HubError(
            f"{repo_id} is not open to all, and HF_HUB_OFFLINE is set, so the Hub can't be asked whether you may read what another user "
            f"keeps in {others[0]}. Unset HF_HUB_OFFLINE, or set HF_HOME to a folder of your own."
        )


def _kept_in(repo_id: str, repo_type: RepoType) -> list[Path]:
    """Where files of a repository are on this machine; of a dataset also the tables that `datasets` has made of them."""
    found = [storage(repo_id, repo_type)]
    if repo_type == "dataset":
        import datasets

        namespace, name = repo_id.split("/")
        found.append(Path(datasets.config.HF_DATASETS_CACHE, f"{namespace}___{datasets.naming.camelcase_to_snakecase(name)}"))
    return found


def _license(card: Any) -> str | None:
    """The licence of a card; several, which only datasets may have, as one text."""
    found = card.get("license") if card else None
    return ", ".join(map(str, found)) if isinstance(found, list) else found
