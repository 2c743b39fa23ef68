"""The changes of a commit, which the clients send as one JSON document a line."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Base64Bytes, BaseModel, Field, TypeAdapter, ValidationError

from hfsafemerge.localhub.problems import HubProblem, malformed
from hfsafemerge.localhub.records import Commit, Entry, Repo
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.trees import parents

LARGEST_REGULAR_FILE = 10 * 2**20


def _plain_path(path: str) -> str:
    parts = path.removesuffix("/").split("/")
    if "\\" in path or not path.isprintable() or any(part.strip() in ("", ".", "..", ".git") for part in parts):
        raise ValueError(f"{path!r} is no path within a repository")
    return path.removesuffix("/")


RepoPath = Annotated[str, AfterValidator(_plain_path)]


class Summary(BaseModel):
    """The header of a commit: its title, its message, and the commit it expects to follow."""

    summary: str
    description: str = ""
    parent_commit: Annotated[str | None, Field(alias="parentCommit")] = None


class _Path(BaseModel):
    path: RepoPath


class _RegularFile(_Path):
    content: Base64Bytes
    encoding: Literal["base64"]


class _LargeFile(_Path):
    oid: str
    algo: Literal["sha256"]


class _Header(BaseModel):
    key: Literal["header"]
    value: Summary


class _AddRegular(BaseModel):
    key: Literal["file"]
    value: _RegularFile


class _AddLarge(BaseModel):
    key: Literal["lfsFile"]
    value: _LargeFile


class _Delete(BaseModel):
    key: Literal["deletedFile", "deletedFolder"]
    value: _Path


_Operation = _Header | _AddRegular | _AddLarge | _Delete
_LINE: TypeAdapter[_Operation] = TypeAdapter(Annotated[_Operation, Field(discriminator="key")])

Change = tuple[str, Entry | None]  # a path and what to put there; None deletes it, and with it all below when it ends with a slash


def read_changes(hub: Hub, body: Path) -> tuple[Summary, list[Change]]:
    """The header and the changes of a commit. New content is kept as a blob on the way.

    Raises:
        HubProblem: a line is malformed, a file too large, or a file in LFS was never uploaded.
    """
    header: Summary | None = None
    changes: list[Change] = []
    large_files: dict[int, _LargeFile] = {}
    with body.open("rb") as lines:
        for text in filter(bytes.strip, lines):
            try:
                line = _LINE.validate_json(text)
            except ValidationError as error:
                raise malformed(error.errors(include_context=False)) from error
            match line:
                case _Header():
                    header = line.value
                case _AddRegular(value=file):
                    if len(file.content) > LARGEST_REGULAR_FILE:
                        raise HubProblem(400, f"{file.path} has {len(file.content)} bytes. Files over {LARGEST_REGULAR_FILE} go to LFS.")
                    changes.append((file.path, Entry.regular(file.content, hub.blobs.add(file.content))))
                case _AddLarge(value=large):
                    large_files[len(changes)] = large
                    changes.append((large.path, None))
                case _Delete(key=key, value=gone):
                    changes.append((gone.path + ("/" if key == "deletedFolder" else ""), None))
    if header is None:
        raise HubProblem(400, "The commit has no header line. Send its summary first.")
    if hub.xet:
        hub.xet.copy_to(hub.blobs, [large.oid for large in large_files.values()])
    for number, large in large_files.items():
        if large.oid not in hub.blobs:
            raise HubProblem(400, f"{large.path} points to the LFS file {large.oid}, which never arrived. Upload it.")
        changes[number] = (large.path, Entry.large(hub.blobs.path(large.oid).stat().st_size, large.oid))
    return header, changes


def apply_changes(repo: Repo, start: Commit, changes: Iterable[Change]) -> dict[str, Entry]:
    """The tree after the changes. Raises HubProblem when there is nothing to delete, or a file would be a folder too."""
    tree = dict(start.tree)
    for path, entry in changes:
        if entry is not None:
            tree[path] = entry
            continue
        doomed = [known for known in tree if known == path or (path.endswith("/") and known.startswith(path))]
        if not doomed:
            # the clients know how this begins, and add a hint
            raise HubProblem(404, f"A file with this name doesn't exist: {path!r} in {repo.id} at {start.oid}.", code="EntryNotFound")
        for known in doomed:
            del tree[known]
    if clash := {folder for path in tree for folder in parents(path)} & tree.keys():
        raise HubProblem(400, f"{min(clash)} would be a file and a folder at once. Delete one of them in the same commit.")
    return tree
