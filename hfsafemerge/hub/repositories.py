"""Repositories to publish in: whose they are, created or taken, behind their gates, with their branches and tags."""

from collections.abc import Sequence
from typing import Any

from huggingface_hub import get_token

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client
from hfsafemerge.hub.opening import EMPTY, refuse_history
from hfsafemerge.hub.places import Found, Place, at_branch, find, look, tags_of


def take(place: Place) -> None:
    """Create a repository, or take the one of that name if it is empty or holds the marker; then its gate, then its branch.

    It is created private, whatever it is to become: nobody shall see it before all is in it. One that stands gets its gate
    before anything is put in it.

    Raises:
        HubError: there is one that this tool did not make, or a public one where a private one is wanted, or a private one that can't
            become public, or the Hub refused.
    """
    api = client.api()
    with client.hub_errors(place.repo_id):
        found = find(place.repo_id, place.repo_type)
        if found is None:
            api.create_repo(place.repo_id, repo_type=place.repo_type, private=True)
        else:
            require_room(place, found)
        if place.gated and (found is None or found.gated != "manual"):
            api.update_repo_settings(place.repo_id, repo_type=place.repo_type, gated="manual")
        if place.revision is not None:
            api.create_branch(place.repo_id, repo_type=place.repo_type, branch=place.revision, exist_ok=True)


def require_room(place: Place, found: Found) -> None:
    """Raise HubError where a repository that stands is not to be taken: it is open, somebody else's, or can't be opened later."""
    refuse_open(place, found, gate=False)
    if place.pull_request:
        return
    refuse_foreign(place, at_branch(place) or found)
    if found.private and not place.hidden:
        refuse_history(place)


def refuse_foreign(place: Place, found: Found) -> None:
    """Raise HubError for a repository, or a branch of it, that holds something and was not made by this tool."""
    held = {file.rfilename for file in found.siblings or ()} - EMPTY
    if held and place.marker not in held and not place.overwrite:
        raise HubError(
            f"{place.repo_id} exists and was not made by hfsafemerge; it is left alone. Choose another repo_id, or say --overwrite "
            "to commit on top of what is there."
        )


def refuse_open(place: Place, found: Found, *, gate: bool = True) -> None:
    """Raise HubError for a repository that more people can read than shall.

    Args:
        place: what it shall be.
        found: what it is.
        gate: whether the gate has to stand already.
    """
    if place.hidden and not found.private:
        _refuse_public(place)
    if place.pull_request and place.gated and not found.private and found.gated != "manual":
        whom = "whoever asks" if found.gated else "everyone"
        raise HubError(f"{place.repo_id} is open to {whom}, and so would be a pull request with harmful prompts. Have it gated first.")
    if gate and not place.pull_request and place.gated and found.gated != "manual":
        raise HubError(f"The gate of {place.repo_id} was opened while it was published, so it stays as it is. Publish it again.")


def make_public(place: Place) -> None:
    """Let others see a repository in which everything stands.

    Raises:
        HubError: its gate was opened meanwhile, or it holds what may not be shown, or the Hub refused.
    """
    with client.hub_errors(place.repo_id):
        found = look(place.repo_id, place.repo_type)
        refuse_open(place, found)
        if found.private:
            refuse_history(place)
            client.api().update_repo_settings(place.repo_id, repo_type=place.repo_type, visibility="public")


def refuse_taken(place: Place, tag: str, head: str) -> None:
    """Raise HubError where a tag names another commit than this one. What the client raises stays."""
    if (named := tags_of(place).get(tag, head)) != head:
        raise HubError(f"The tag {tag} of {place.repo_id} names the commit {named[:12]} already. Choose another tag.")


def add_tag(place: Place, tag: str, commit: str) -> bool:
    """Name a commit. Returns False where the tag names another one already, which it goes on to name. Raises HubError."""
    with client.hub_errors(f"the tag {tag} of {place.repo_id}"):
        api = client.api()
        standing = tags_of(place)
        if tag not in standing:
            api.create_tag(place.repo_id, tag=tag, revision=commit, repo_type=place.repo_type, exist_ok=False)
        return standing.get(tag, commit) == commit


def check_can_write(repo_ids: Sequence[str]) -> None:
    """Raise HubError unless the user is signed in with a token that may write, and belongs to the namespaces."""
    me = account()
    spaces = {me["name"], *(org["name"] for org in me.get("orgs", []))}
    for repo_id in repo_ids:
        if repo_id.split("/")[0] not in spaces:
            raise HubError(f"You are {me['name']} and can't write to {repo_id}; you can to {', '.join(sorted(spaces))}.")


def account() -> dict[str, Any]:
    """What the Hub says of the user. Raises HubError where nobody is signed in, or with a token that may only read."""
    if get_token() is None:
        raise HubError("Pushing needs a token with write access: run `hf auth login`, or set HF_TOKEN.")
    with client.hub_errors("the account"):
        me: dict[str, Any] = client.api().whoami()
    if me.get("auth", {}).get("accessToken", {}).get("role") == "read":  # a token of an app has none
        raise HubError(f"The token of {me['name']} may only read. Make one that may write on {client.api().endpoint}/settings/tokens.")
    return me


def _refuse_public(place: Place) -> None:
    there = "a pull request there would be too, and" if place.pull_request else "and"
    if place.private_because:
        raise HubError(
            f"{place.repo_id} is public, {there} this merge has to be private. {' '.join(place.private_because)} Make the repository "
            "private, choose another repo_id, or change the recipe's thresholds."
        )
    what = "data are" if place.repo_type == "dataset" else "model is"
    raise HubError(
        f"{place.repo_id} is public, {there} the {what} to be private. Make it private, choose another name, or say --no-private."
    )
