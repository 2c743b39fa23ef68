"""Repositories to publish in: created or taken, behind their gates, with their branches and tags."""

from collections.abc import Sequence
from dataclasses import dataclass

from huggingface_hub import DatasetInfo, ModelInfo, get_token
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType

Found = ModelInfo | DatasetInfo


@dataclass(frozen=True)
class Place:
    """Where something is published.

    Attributes:
        repo_id: the repository.
        repo_type: model or dataset.
        marker: the file by which this tool knows a repository as its own.
        private: leave it private; one that is public already is refused then, as it is.
        gated: let only those read it whom its owner lets in.
        revision: a branch, which is started at main where it is missing; by default main.
        overwrite: commit on top of what somebody else has made, too.
    """

    repo_id: str
    repo_type: RepoType
    marker: str
    private: bool = True
    gated: bool = False
    revision: str | None = None
    overwrite: bool = False

    @property
    def url(self) -> str:
        """Its page."""
        return f"{client.api().endpoint}/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo_id}"


def look(repo_id: str, repo_type: RepoType, revision: str | None = None, *, files: bool = False) -> Found:
    """What stands there now; with `files` with the size and the digests of each file. Raises what the client does."""
    ask = client.api().dataset_info if repo_type == "dataset" else client.api().model_info
    return ask(repo_id, revision=revision, files_metadata=files)


def is_missing(repo_id: str, repo_type: RepoType) -> bool:
    """Whether there is no repository of that name, or none that the user can see. Raises HubError."""
    with client.hub_errors(repo_id):
        return _find(repo_id, repo_type) is None


def take(place: Place) -> None:
    """Create a repository, or take the one of that name if it is empty or holds the marker; then its gate, then its branch.

    It is created private, whatever it is to become: nobody shall see it before all is in it. One that stands gets its gate
    before anything is put in it.

    Raises:
        HubError: there is one that this tool did not make, or a public one where a private one is wanted, or the Hub refused.
    """
    api = client.api()
    with client.hub_errors(place.repo_id):
        found = _find(place.repo_id, place.repo_type)
        if found is None:
            api.create_repo(place.repo_id, repo_type=place.repo_type, private=True)
        else:
            refuse_open(place, found, gate=False)
            held = {file.rfilename for file in (_at_branch(place) or found).siblings or ()} - {".gitattributes"}
            if held and place.marker not in held and not place.overwrite:
                raise HubError(
                    f"{place.repo_id} exists and was not made by hfsafemerge; it is left alone. Choose another repo_id, or say --overwrite "
                    "to commit on top of what is there."
                )
        if place.gated and (found is None or found.gated != "manual"):
            api.update_repo_settings(place.repo_id, repo_type=place.repo_type, gated="manual")
        if place.revision is not None:
            api.create_branch(place.repo_id, repo_type=place.repo_type, branch=place.revision, exist_ok=True)


def refuse_open(place: Place, found: Found, *, gate: bool = True) -> None:
    """Raise HubError for a repository that more people can read than shall.

    Args:
        place: what it shall be.
        found: what it is.
        gate: whether the gate has to stand already.
    """
    if place.private and not found.private:
        what = "data" if place.repo_type == "dataset" else "model"
        verb = "are" if what == "data" else "is"
        raise HubError(
            f"{place.repo_id} is public, and the {what} {verb} to be private. Make it private, choose another name, or say --no-private."
        )
    if gate and place.gated and found.gated != "manual":
        raise HubError(f"The gate of {place.repo_id} was opened while it was published, so it stays as it is. Publish it again.")


def make_public(place: Place) -> None:
    """Let others see a repository in which everything stands. Raises HubError where its gate was opened meanwhile."""
    with client.hub_errors(place.repo_id):
        found = look(place.repo_id, place.repo_type)
        refuse_open(place, found)
        if found.private:
            client.api().update_repo_settings(place.repo_id, repo_type=place.repo_type, visibility="public")


def add_tag(place: Place, tag: str, commit: str) -> bool:
    """Name a commit. Returns False where the tag names another one already, which it goes on to name. Raises HubError."""
    with client.hub_errors(f"the tag {tag} of {place.repo_id}"):
        api = client.api()
        standing = {found.name: found.target_commit for found in api.list_repo_refs(place.repo_id, repo_type=place.repo_type).tags}
        if tag not in standing:
            api.create_tag(place.repo_id, tag=tag, revision=commit, repo_type=place.repo_type, exist_ok=False)
        return standing.get(tag, commit) == commit


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


def _find(repo_id: str, repo_type: RepoType) -> Found | None:
    try:
        return look(repo_id, repo_type)
    except GatedRepoError:  # it exists, and is a RepositoryNotFoundError all the same
        raise
    except RepositoryNotFoundError:
        return None


def _at_branch(place: Place) -> Found | None:
    """The branch to publish in, if there is one beside main."""
    if place.revision is None:
        return None
    try:
        return look(place.repo_id, place.repo_type, place.revision)
    except RevisionNotFoundError:
        return None
