"""This tool's Space, deployed: its files in one commit, its hardware, variables and secrets. Again, and nothing new is done."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, SpaceCard
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import RepoSibling

from hfsafemerge import __version__
from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.repositories import check_can_write
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.hub.space_files import front_matter

MARKER = "hfsafemerge-space.json"  # names the files that we put there: by it a Space is known as ours, and a file that is no more
FROM_THE_HUB = {".gitattributes", "README.md"}  # what a new Space holds
FREE = "cpu-basic"
MESSAGE = f"hfsafemerge {__version__}"


@dataclass(frozen=True)
class Deployment:
    """What is to be deployed where.

    Attributes:
        repo_id: the Space.
        private: whether it is private; by default it stays as it is, and a new one is private.
        hardware: what it runs on; by default it stays as it is, and a new one runs on cpu-basic.
        sleep_time: seconds without visitors after which it sleeps; -1 for never. Only hardware that is paid for has a choice.
        variables: what the app finds in its environment, for all to read.
        secrets: what it finds there besides.
        overwrite: commit on top of a Space that this tool did not make, too.
    """

    repo_id: str
    private: bool | None = None
    hardware: str | None = None
    sleep_time: int | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    overwrite: bool = False

    @property
    def url(self) -> str:
        """Its page."""
        return f"{client.api().endpoint}/spaces/{self.repo_id}"


@dataclass(frozen=True)
class Deployed:
    """A Space as it stands: its newest commit, whether that is new, and what it runs on."""

    url: str
    commit: str
    changed: bool
    hardware: str


def deploy(wanted: Deployment, files: Mapping[str, Path], notify: Notify = say_nothing) -> Deployed:
    """Make a Space what is wanted. Each step is tried again after faults that pass, and the same call goes on where one stopped.

    The Hub's own check of the front matter comes first, variables and secrets stand before the app that reads them, and a new
    Space becomes public last, if it is to.

    Raises:
        HubError: there is a Space that this tool did not make, or something in it was refused, or the faults did not pass.
    """
    if re.fullmatch(REPO_ID, wanted.repo_id) is None:
        raise HubError(f"{wanted.repo_id!r} is no name of a Space. Write it as namespace/name.")
    if wanted.sleep_time is not None and wanted.hardware in (None, FREE):
        raise HubError("Only hardware that is paid for sleeps when it is told. Name it with --hardware, or leave --sleep-time out.")
    front_matter(files)
    persist(lambda: _validate(files["README.md"]), notify)
    persist(lambda: check_can_write([wanted.repo_id]), notify)
    persist(lambda: _take(wanted), notify)
    persist(lambda: _set_values(wanted), notify)
    before = persist(lambda: _head(wanted), notify)
    commit = persist(lambda: _commit(wanted, files), notify)
    hardware = persist(lambda: _set_hardware(wanted), notify)
    if wanted.private is False:
        persist(lambda: _show(wanted), notify)
    return Deployed(wanted.url, commit, commit != before, hardware)


def _validate(readme: Path) -> None:
    try:
        with client.hub_errors("the front matter of README.md"):
            SpaceCard(readme.read_text(encoding="utf-8")).validate(repo_type="space")
    except ValueError as error:
        raise HubError(f"The Hub does not take the front matter of {readme}: {' '.join(str(error).split())}") from error


def _take(wanted: Deployment) -> None:
    """Create the Space, private, or take the one of that name."""
    with client.hub_errors(wanted.repo_id):
        try:
            found = client.api().space_info(wanted.repo_id)
        except RepositoryNotFoundError:
            client.api().create_repo(  # with its hardware, since without that it may be refused to free accounts
                wanted.repo_id,
                repo_type="space",
                space_sdk="gradio",
                private=True,
                space_hardware=wanted.hardware,  # type: ignore[arg-type] # a new flavor is no member of the enumeration yet
                space_sleep_time=wanted.sleep_time,
            )
            return
        held = {file.rfilename for file in found.siblings or ()} - FROM_THE_HUB
        if held and MARKER not in held and not wanted.overwrite:
            raise HubError(
                f"The Space {wanted.repo_id} exists and was not made by hfsafemerge; it is left alone. Choose another name, or say "
                "--overwrite to commit on top of what is there."
            )
        if wanted.private and not found.private:
            client.api().update_repo_settings(wanted.repo_id, repo_type="space", visibility="private")


def _set_values(wanted: Deployment) -> None:
    """Set variables that are not as they should be, and all secrets, which nobody can compare."""
    api = client.api()
    with client.hub_errors(f"a variable or secret of {wanted.repo_id}"):
        standing = api.get_space_variables(wanted.repo_id) if wanted.variables else {}
        for key, value in wanted.variables.items():
            if key not in standing or standing[key].value != value:
                api.add_space_variable(wanted.repo_id, key, value)
        for key, value in wanted.secrets.items():
            api.add_space_secret(wanted.repo_id, key, value)


def _head(wanted: Deployment) -> str:
    with client.hub_errors(wanted.repo_id):
        return str(client.api().space_info(wanted.repo_id).sha)


def _commit(wanted: Deployment, files: Mapping[str, Path]) -> str:
    """Put the files there in one commit, which takes away those of an earlier one that are no more. None where all stands."""
    api = client.api()
    manifest = json.dumps({"made_by": "hfsafemerge", "version": __version__, "files": sorted(files)}, indent=1).encode()
    contents = {name: path.read_bytes() for name, path in sorted(files.items())} | {MARKER: manifest}
    try:
        with client.hub_errors(wanted.repo_id):
            found = api.space_info(wanted.repo_id, files_metadata=True)
            held = {file.rfilename: file for file in found.siblings or ()}
            ours: set[str] = set()
            if MARKER in held:
                ours = _listed_in(Path(api.hf_hub_download(wanted.repo_id, MARKER, repo_type="space", revision=found.sha)))
            gone = [CommitOperationDelete(name) for name in sorted((ours & held.keys()) - files.keys())]
            new = [CommitOperationAdd(name, content) for name, content in contents.items() if not _stands(held.get(name), content)]
            if not gone and not new:
                return str(found.sha)
            made = api.create_commit(
                wanted.repo_id, [*gone, *new], commit_message=MESSAGE, repo_type="space", parent_commit=found.sha
            )  # fmt: skip
            missing = contents.keys() - set(api.list_repo_files(wanted.repo_id, repo_type="space", revision=made.oid))
    except (ValueError, RuntimeError) as error:
        raise HubError(f"Can't deploy {wanted.repo_id}: {' '.join(client.first_line(error).split())}") from error
    if missing:
        raise HubError(f"The Hub left {sorted(missing)[0]} out of {wanted.repo_id}. A .gitignore there may name it: take it out of that.")
    return str(made.oid)


def _stands(there: RepoSibling | None, content: bytes) -> bool:
    """Whether a file of these bytes is there."""
    if there is None:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == hashlib.sha256(content).hexdigest())
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()  # as git names it


def _listed_in(manifest: Path) -> set[str]:
    """The files that an earlier deployment put there; none where somebody has changed the list."""
    try:
        found = json.loads(manifest.read_text())["files"]
    except (ValueError, KeyError, TypeError):
        return set()
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def _set_hardware(wanted: Deployment) -> str:
    api = client.api()
    with client.hub_errors(f"the hardware of {wanted.repo_id}"):
        runtime = api.get_space_runtime(wanted.repo_id)
        if wanted.hardware is not None and wanted.hardware != (runtime.requested_hardware or runtime.hardware):
            runtime = api.request_space_hardware(wanted.repo_id, wanted.hardware, sleep_time=wanted.sleep_time)  # type: ignore[arg-type] # as above
        elif wanted.sleep_time is not None and wanted.sleep_time != (runtime.sleep_time or -1):
            runtime = api.set_space_sleep_time(wanted.repo_id, wanted.sleep_time)
    return str(runtime.requested_hardware or runtime.hardware or FREE)


def _show(wanted: Deployment) -> None:
    with client.hub_errors(wanted.repo_id):
        if client.api().space_info(wanted.repo_id).private:
            client.api().update_repo_settings(wanted.repo_id, repo_type="space", visibility="public")
