"""Where something is published, and what stands there now; nothing here writes."""

from dataclasses import dataclass

from huggingface_hub import DatasetInfo, ModelInfo
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType
from hfsafemerge.hub.retrying import Notify, persist, say_nothing

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
        pull_request: open a pull request there instead; whoever owns it, its settings stay as they are.
        private_because: why it has to be private, as sentences, whatever `private` says.
    """

    repo_id: str
    repo_type: RepoType
    marker: str
    private: bool = True
    gated: bool = False
    revision: str | None = None
    overwrite: bool = False
    pull_request: bool = False
    private_because: tuple[str, ...] = ()

    @property
    def hidden(self) -> bool:
        """Whether it is to be private, because somebody said so or because of what was measured."""
        return self.private or bool(self.private_because)

    @property
    def url(self) -> str:
        """Its page."""
        return f"{client.api().endpoint}/{'datasets/' if self.repo_type == 'dataset' else ''}{self.repo_id}"


def look(repo_id: str, repo_type: RepoType, revision: str | None = None, *, files: bool = False) -> Found:
    """What stands there now; with `files` with the size and the digests of each file. Raises what the client does."""
    ask = client.api().dataset_info if repo_type == "dataset" else client.api().model_info
    return ask(repo_id, revision=revision, files_metadata=files)


def find(repo_id: str, repo_type: RepoType) -> Found | None:
    """What stands there now, or None. Raises what the client does."""
    try:
        return look(repo_id, repo_type)
    except GatedRepoError:  # it exists, and is a RepositoryNotFoundError all the same
        raise
    except RepositoryNotFoundError:
        return None


def is_missing(repo_id: str, repo_type: RepoType, notify: Notify = say_nothing) -> bool:
    """Whether there is no repository of that name, or none that the user can see. Raises HubError."""

    def ask() -> bool:
        with client.hub_errors(repo_id):
            return find(repo_id, repo_type) is None

    return persist(ask, notify)


def at_branch(place: Place) -> Found | None:
    """The branch to publish in, if there is one beside main. Raises what the client does."""
    if place.revision is None:
        return None
    try:
        return look(place.repo_id, place.repo_type, place.revision)
    except RevisionNotFoundError:
        return None


def tags_of(place: Place) -> dict[str, str]:
    """The commits that tags name. Raises what the client does."""
    return {tag.name: tag.target_commit for tag in client.api().list_repo_refs(place.repo_id, repo_type=place.repo_type).tags}
