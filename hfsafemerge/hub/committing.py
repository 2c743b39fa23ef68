"""Files in one commit that stands whole or not at all: the large ones go up first, and what went up once does not again.

`HfApi.upload_folder` does not do it: it commits as it goes, with "(part 2)" and so on behind the message, so that a revision in
between holds half a model. Large files are addressed by their content, so they can go up before there is a commit; a push that was
killed goes on with those that the Hub does not know. Then comes one commit with the parent that was looked at. The client does not
try a commit again; here each try looks at what is there then, and a commit whose answer was lost is found instead of made twice.
"""

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoSibling

from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.opening import described
from hfsafemerge.hub.places import Found, Place, look
from hfsafemerge.hub.repositories import refuse_foreign, refuse_open
from hfsafemerge.hub.retrying import Notify, persist, say_nothing

LARGE = 10 * 2**20  # bytes, from which on the Hub takes a file only by LFS or Xet
STORED = (".safetensors", ".parquet", ".arrow", ".bin", ".pt", ".model", ".gz", ".zip")  # of those that a new repository keeps there
OF_MODELS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")  # the weights, as every library names them
Progress = Callable[[str, int, int, float | None], None]


def no_progress(message: str, done: int, total: int, left: float | None) -> None:
    """What is told of progress where nobody listens."""


def upload_large(
    place: Place,
    files: Mapping[str, Path],
    *,
    create_pr: bool = False,
    notify: Notify = say_nothing,
    progress: Progress = no_progress,
) -> dict[str, CommitOperationAdd]:
    """Send up the large files that don't stand in the repository yet, one after the other; they are seen once they are committed.

    Args:
        place: where they are to be committed.
        files: local files by their paths in the repository.
        create_pr: it will be in a pull request, for which one need not be allowed to write.
        notify: is told of faults.
        progress: is told a message, how many files are up, of how many, and the seconds left.

    Returns:
        All large files, for `commit_files`.

    Raises:
        HubError: the Hub refused, or the faults did not pass.
    """
    large = {name: CommitOperationAdd(name, path) for name, path in files.items() if _is_large(path)}
    if not large:
        return large
    standing = persist(lambda: _look(place, place.revision), notify)
    missing = [operation for operation in large.values() if not _stands(standing, operation)]
    if missing and (card := files.get("README.md")):
        persist(lambda: _check_card(place, card.read_text()), notify)  # the commit would, and hours later
    total, done, began = sum(operation.upload_info.size for operation in missing), 0, time.monotonic()
    for number, operation in enumerate(missing):
        left = (time.monotonic() - began) / done * (total - done) if done else None
        progress(f"uploading {operation.path_in_repo}; {in_words(done)} of {in_words(total)} are up", number, len(missing), left)
        persist(partial(_preupload, place, operation, create_pr), notify)
        done += operation.upload_info.size
    if missing:
        progress(f"{in_words(total)} of large files are up", len(missing), len(missing), 0.0)
    return large


def commit_files(
    place: Place,
    files: Mapping[str, Path],
    large: Mapping[str, CommitOperationAdd],
    message: str,
    *,
    description: str | None = None,
    pull_request: str | None = None,
    create_pr: bool = False,
) -> tuple[str, str | None]:
    """Try once to put files in a repository in one commit, in which weights of an earlier push are taken away.

    Where all stands already there is no commit. Call it again after a fault that may pass; what was carried out is found then.

    Args:
        place: where; whose it is, and that no more people can read it than shall, is looked at right before the commit.
        files: local files by their paths in the repository.
        large: those of them that are up, as `upload_large` gave them.
        message: of the commit.
        description: what stands below the message.
        pull_request: the reference of an open pull request to add to, instead of a branch.
        create_pr: open a pull request.

    Returns:
        The commit in which the files stand, and the address of the pull request that was opened.

    Raises:
        HubError: there is something that this tool did not make, or the Hub refused, or left files out.
    """
    revision = pull_request or place.revision
    head = _look(place, revision)
    if not place.pull_request:
        refuse_foreign(place, head)
    # small files go in anew, as the client keeps in each what stood there when it was first tried
    wanted = [large.get(name) or CommitOperationAdd(name, path) for name, path in sorted(files.items())]
    added = [operation for operation in wanted if not _stands(head, operation)]
    stale = _stale(place, head, files)
    if not added and not stale:
        return str(head.sha), None
    with _hub_errors(place.repo_id):
        made = client.api().create_commit(
            place.repo_id,
            [*(CommitOperationDelete(name) for name in stale), *added],
            commit_message=message,
            commit_description=described(place, description),
            repo_type=place.repo_type,
            revision=revision,
            create_pr=create_pr,
            parent_commit=head.sha,
        )
    after = _look(place, made.oid)
    if missing := [operation.path_in_repo for operation in wanted if not _stands(after, operation)]:
        raise HubError(
            f"The Hub left {', '.join(missing)} out of {place.repo_id}. Perhaps a .gitignore there names them: change it, and push again."
        )
    return str(made.oid), made.pr_url


def stands(place: Place, files: Mapping[str, Path]) -> bool:
    """Whether a commit of these files would change nothing. Reads them; raises HubError."""
    head = _look(place, place.revision)
    return not _stale(place, head, files) and all(_stands(head, CommitOperationAdd(name, path)) for name, path in files.items())


def goes_to_lfs(name: str, path: Path) -> bool:
    """Whether a new repository would keep a file in LFS or Xet rather than in git; the Hub itself decides when it is pushed."""
    with path.open("rb") as file:
        return name.endswith(STORED) or path.stat().st_size >= LARGE or b"\0" in file.read(512)


def _is_large(path: Path) -> bool:
    return path.suffix == ".safetensors" or path.stat().st_size >= LARGE


def _look(place: Place, revision: str | None) -> Found:
    with client.hub_errors(place.repo_id):
        found = look(place.repo_id, place.repo_type, revision, files=True)
    refuse_open(place, found)
    return found


def _stale(place: Place, head: Found, files: Mapping[str, Path]) -> list[str]:
    """The weights that those of a push take the place of: of a model, at the top, by the names that only weights have."""
    if place.repo_type != "model" or not any(OF_MODELS.fullmatch(name) for name in files):
        return []
    return [name for name in sorted(_standing(head).keys() - files.keys()) if OF_MODELS.fullmatch(name)]


def _standing(found: Found) -> dict[str, RepoSibling]:
    return {file.rfilename: file for file in found.siblings or ()}


def _stands(found: Found, operation: CommitOperationAdd) -> bool:
    """Whether a file stands there with the same bytes. It is read for that only where one of its size does."""
    there = _standing(found).get(operation.path_in_repo)
    if there is None or there.size != operation.upload_info.size:
        return False
    if there.lfs is not None:
        return bool(there.lfs.sha256 == operation.upload_info.sha256.hex())
    with operation.as_file() as file:
        content = file.read()
    return there.blob_id == hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()  # as git names it


def _check_card(place: Place, text: str) -> None:
    with _hub_errors(place.repo_id):  # as `create_commit` does it; `ModelCard.validate` sends no token, and knows one Hub only
        client.api()._validate_yaml(text, repo_type=place.repo_type)


def _preupload(place: Place, operation: CommitOperationAdd, create_pr: bool) -> None:
    with _hub_errors(place.repo_id):
        client.api().preupload_lfs_files(
            place.repo_id, [operation], repo_type=place.repo_type, revision=place.revision, create_pr=create_pr, free_memory=False
        )


@contextmanager
def _hub_errors(repo_id: str) -> Iterator[None]:
    """As in client, and in words what the clients raise of a card's metadata, around the upload of a file, and of Xet."""
    try:
        with client.hub_errors(repo_id):
            yield
    except (ValueError, RuntimeError, OSError) as error:
        raise HubError(f"Can't publish {repo_id}: {' '.join(client.first_line(error).split())}") from error
