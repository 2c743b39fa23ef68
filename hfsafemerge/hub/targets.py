"""Whether something can be published, known before the work and before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.collections import SLUG
from hfsafemerge.hub.places import Place, at_branch, find
from hfsafemerge.hub.repositories import account, check_can_write, refuse_taken, require_room
from hfsafemerge.hub.retrying import Notify, persist, say_nothing


@dataclass(frozen=True)
class Outlook:
    """What a push would find, and leave: whether the repository is new, and whether it is private in the end."""

    new: bool
    private: bool


def check_target(places: Sequence[Place], *, tags: Mapping[str, str] | None = None, notify: Notify = say_nothing) -> list[Outlook]:
    """See that all that a push needs is given, without writing anything.

    The user is signed in, may write where nothing is only proposed, and no repository is another's, or open where it is to be
    private, or to be opened though it holds what may not be seen. The push looks again, since all that may change.

    Args:
        places: all that is to be published.
        tags: by repository, the tag that somebody wants its new commit to have.
        notify: is told of faults.

    Returns:
        For each place what would be there, as far as it is known before.

    Raises:
        HubError: the push would be refused; the first reason that was found.
    """
    persist(lambda: check_can_write([place.repo_id for place in places if not place.pull_request]), notify)
    return [persist(partial(_check, place, (tags or {}).get(place.repo_id)), notify) for place in places]


def check_collection(name: str, notify: Notify = say_nothing) -> None:
    """See that a collection that is named by its slug stands and is the user's; one of a title can be made. Raises HubError."""

    def look() -> None:
        check_can_write([name])
        with client.hub_errors(f"the collection {name}"):
            client.api().get_collection(name)

    if SLUG.fullmatch(name):
        persist(look, notify)


def user_name(notify: Notify = say_nothing) -> str:
    """The user whose token it is. Raises HubError, also where the token may only read."""
    return str(persist(account, notify)["name"])


def _check(place: Place, tag: str | None) -> Outlook:
    with client.hub_errors(place.repo_id):
        found = find(place.repo_id, place.repo_type)
        if found is None:
            if place.pull_request:
                raise HubError(f"{place.repo_id} does not exist, or you can't see it, so no pull request can be opened there.")
            return Outlook(new=True, private=place.hidden)
        require_room(place, found)
        if place.pull_request:
            return Outlook(new=False, private=bool(found.private))
        client.api().auth_check(place.repo_id, repo_type=place.repo_type, write=True)
        if tag is not None:
            refuse_taken(place, tag, str((at_branch(place) or found).sha))
        return Outlook(new=False, private=place.hidden)
