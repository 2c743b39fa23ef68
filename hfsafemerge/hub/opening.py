"""When a private repository may be opened: once everything that was ever put in it may be seen.

Whoever opens a repository opens its history too, and its branches, tags and pull requests. So each commit says in its message whether
it may be seen, and one commit that does not say so keeps the whole repository private, until its owner opens it by hand.
"""

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.places import Place, look

SHOWABLE = "hfsafemerge: nothing that was measured speaks against making this public."
EMPTY = {".gitattributes"}  # all that is in a repository that was just created


def described(place: Place, description: str | None) -> str | None:
    """What stands below a commit's message: what was asked for, and that others may see it, where they may."""
    return description if place.private_because else "\n\n".join(filter(None, (description, SHOWABLE)))


def refuse_history(place: Place) -> None:
    """Raise HubError for a repository in which a commit does not say that others may see it. What the client raises stays."""
    api, seen = client.api(), set[str]()
    refs = api.list_repo_refs(place.repo_id, repo_type=place.repo_type, include_pull_requests=True)
    for ref in (*refs.branches, *refs.tags, *(refs.pull_requests or ())):
        if ref.target_commit in seen:
            continue
        for commit in api.list_repo_commits(place.repo_id, repo_type=place.repo_type, revision=ref.target_commit):
            if commit.commit_id in seen:
                continue
            seen.add(commit.commit_id)
            if SHOWABLE in commit.message or not _holds_anything(place, commit.commit_id):
                continue
            raise HubError(
                f"{place.repo_id} is private, and is not made public: its commit {commit.commit_id[:12]} ({commit.title!r}) holds what had "
                "to be private or was not put there by hfsafemerge, and its history would be public too. Choose a new repository, or "
                "make it public by hand."
            )


def _holds_anything(place: Place, commit: str) -> bool:
    return bool({file.rfilename for file in look(place.repo_id, place.repo_type, commit).siblings or ()} - EMPTY)
