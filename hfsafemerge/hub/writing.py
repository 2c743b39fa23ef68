"""Publishing, in such an order that nobody sees what they should not, and that the same call goes on wherever one was stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hfsafemerge.hub import client
from hfsafemerge.hub.committing import Progress, commit_files, no_progress, stands, upload_large
from hfsafemerge.hub.places import Place, at_branch, look, tags_of
from hfsafemerge.hub.repositories import add_tag, make_public, refuse_open, refuse_taken, take
from hfsafemerge.hub.retrying import Notify, persist, say_nothing


@dataclass(frozen=True)
class Pushed:
    """Where something was published. There is no tag where the one that was wanted names another commit already."""

    repo_id: str
    commit: str
    url: str
    tag: str | None = None
    pull_request: str | None = None


def publish(
    place: Place,
    files: Mapping[str, Path],
    message: str,
    *,
    description: str | None = None,
    tag: str | None = None,
    new_tag: bool = False,
    notify: Notify = say_nothing,
    progress: Progress = no_progress,
) -> Pushed:
    """Publish files in one commit, as the newest of a branch.

    The repository is created private, gets its gate, then the large files go up, then all files stand in one commit, then it gets
    its tag, and only then does the repository become public, if it is to. Each step is tried again after faults that pass, and
    finds what was carried out though its answer was lost. One that is public already gets its gate, which lets in nobody by itself,
    before anything is put in.

    Args:
        place: where, and who may read it.
        files: local files by their paths in the repository.
        message: of the commit.
        description: what stands below the message.
        tag: a name for the commit; one that stands already stays where it is.
        new_tag: refuse, before anything goes up, a tag that names another commit than the one that would be made.
        notify: is told of faults.
        progress: is told of large files: a message, how many are up, of how many, and the seconds left.

    Raises:
        HubError: there is a repository that this tool did not make, or a public one where a private one is wanted, or one that holds
            what may not be public where that is wanted, or the tag is taken, or the Hub refused, or the faults did not pass.
    """
    persist(lambda: take(place), notify)
    if tag is not None and new_tag:
        persist(lambda: _require_free(place, tag, files), notify)
    large = upload_large(place, files, notify=notify, progress=progress)
    commit, _ = persist(lambda: commit_files(place, files, large, message, description=description), notify)
    pushed = Pushed(place.repo_id, commit, place.url)
    if tag is not None:
        if persist(lambda: add_tag(place, tag, commit), notify):
            pushed = replace(pushed, tag=tag)
        else:
            notify(f"The tag {tag} of {place.repo_id} names an earlier commit, and goes on to.")
    if not place.hidden:
        persist(lambda: make_public(place), notify)
    return pushed


def propose(
    place: Place,
    files: Mapping[str, Path],
    message: str,
    *,
    description: str | None = None,
    notify: Notify = say_nothing,
    progress: Progress = no_progress,
) -> Pushed:
    """Open a pull request with the files in a repository of anybody's, whose settings stay as they are.

    One of the same message that is open already is brought up to date instead. Nothing is opened for files that stand there.

    Args:
        place: where. Whoever may read it may read the pull request, so one that is to be private is refused in a public repository,
            and one that is gated where no gate stands.
        files: local files by their paths in the repository.
        message: the title of the pull request.
        description: what it says.
        notify: is told of faults.
        progress: as for `publish`.

    Raises:
        HubError: there is no such repository, or it is open to more than it may be, or the Hub refused, or the faults did not pass.
    """
    place = replace(place, pull_request=True)
    persist(lambda: _refuse_open(place), notify)
    large = upload_large(place, files, create_pr=True, notify=notify, progress=progress)

    def attempt() -> Pushed:
        _refuse_open(place)
        with client.hub_errors(place.repo_id):
            mine = client.api().get_repo_discussions(
                place.repo_id,
                author=client.api().whoami()["name"],
                discussion_type="pull_request",
                discussion_status="open",
                repo_type=place.repo_type,
            )
            standing = next((request for request in mine if request.title == message), None)
        reference = standing.git_reference if standing else None
        commit, opened = commit_files(
            place, files, large, message, description=description, pull_request=reference, create_pr=standing is None
        )
        return Pushed(place.repo_id, commit, place.url, pull_request=standing.url if standing else opened)

    return persist(attempt, notify)


def _refuse_open(place: Place) -> None:
    with client.hub_errors(place.repo_id):
        refuse_open(place, look(place.repo_id, place.repo_type))


def _require_free(place: Place, tag: str, files: Mapping[str, Path]) -> None:
    """Raise HubError where a tag names a commit that is not the newest, or is the newest and does not hold these files."""
    with client.hub_errors(place.repo_id):
        if tag in tags_of(place):
            head = str((at_branch(place) or look(place.repo_id, place.repo_type)).sha)
            refuse_taken(place, tag, head if stands(place, files) else "")
