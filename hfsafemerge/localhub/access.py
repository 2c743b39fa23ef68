"""Who may do what: the users and their tokens, and the dependencies that hand a route its caller and its repository.

The users are fixed, and their tokens are no secrets: `hf_alice` (alice, who is in the organisation acme), `hf_bob` (bob)
and `hf_alice_ro` (alice, read-only). Nobody else exists.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Request

from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Kind, Repo
from hfsafemerge.localhub.store import Hub


@dataclass(frozen=True)
class User:
    """A user as one token shows them: `writes` tells whether the token may change anything."""

    name: str
    organizations: tuple[str, ...] = ()
    writes: bool = True

    def belongs_to(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or that of an organisation of theirs."""
        return namespace == self.name or namespace in self.organizations

    def may_write(self, namespace: str) -> bool:
        """Whether this token may change the repositories of a namespace."""
        return self.writes and self.belongs_to(namespace)


TOKENS = {
    "hf_alice": User("alice", ("acme",)),
    "hf_bob": User("bob"),
    "hf_alice_ro": User("alice", ("acme",), writes=False),
}
USER_NAMES = sorted({user.name for user in TOKENS.values()})


def user_of_token(token: str | None) -> User | None:
    """The user, or None without a token. Raises HubProblem when nobody has that token."""
    if token is None:
        return None
    if token not in TOKENS:
        # the clients know this sentence, and do not take the answer for a repository that is missing
        raise HubProblem(401, "Invalid credentials in Authorization header")
    return TOKENS[token]


def may_see(user: User | None, repo: Repo) -> bool:
    """Whether the repository exists as far as the user is concerned."""
    return not repo.private or (user is not None and user.belongs_to(repo.namespace))


def find_repo(hub: Hub, user: User | None, kind: Kind, repo_id: str) -> Repo:
    """The repository. Raises HubProblem when it does not exist, or is private to others, which look the same."""
    repo = hub.get(kind, repo_id)
    if repo is None or not may_see(user, repo):
        status, hint = (401, "If it is private, send a token.") if user is None else (404, "Check the id and its type.")
        raise HubProblem(status, f"There is no {kind.removesuffix('s')} {repo_id!r} that you may see. {hint}", code="RepoNotFound")
    return repo


def require_download(user: User | None, repo: Repo) -> Repo:
    """The repository, when the user may have its files. Raises HubProblem when it is gated to them."""
    if repo.gated and not (user is not None and (user.belongs_to(repo.namespace) or repo.access.get(user.name) == "accepted")):
        hint = "Send the token of a user who was granted access." if user is None else f"Its owner can grant access to {user.name}."
        raise HubProblem(401 if user is None else 403, f"Access to {repo.type} {repo.id} is restricted. {hint}", code="GatedRepo")
    return repo


def require_write(user: User | None, namespace: str) -> User:
    """The user, when they may change the repositories of the namespace. Raises HubProblem."""
    user = require_token(user)
    if not user.may_write(namespace):
        why = f"{user.name} is no member of {namespace}" if user.writes else "your token is read-only"
        raise HubProblem(403, f"You can't write to {namespace}: {why}. Use a token that may.")
    return user


def require_token(user: User | None) -> User:
    """The user. Raises HubProblem when there is none."""
    if user is None:
        raise HubProblem(401, "This needs a token, and none was sent. Log in, or set HF_TOKEN.")
    return user


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token if scheme.lower() == "bearer" else None


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


async def _caller(authorization: Annotated[str | None, Header()] = None) -> User | None:
    return user_of_token(_bearer(authorization))


async def _visitor(authorization: Annotated[str | None, Header()] = None, token: str | None = None) -> User | None:
    return user_of_token(_bearer(authorization) or token)


TheHub = Annotated[Hub, Depends(_hub)]
Caller = Annotated[User | None, Depends(_caller)]
Visitor = Annotated[User | None, Depends(_visitor)]  # as Caller; a browser sends no header, so `?token=` will do


async def _signed_in(user: Caller) -> User:
    return require_token(user)


async def _readable(kind: Kind, namespace: str, name: str, hub: TheHub, user: Caller) -> Repo:
    return find_repo(hub, user, kind, f"{namespace}/{name}")


ReadableRepo = Annotated[Repo, Depends(_readable)]


async def _writable(repo: ReadableRepo, user: Caller) -> Repo:
    require_write(user, repo.namespace)
    return repo


async def _downloadable(repo: ReadableRepo, user: Caller) -> Repo:
    return require_download(user, repo)


SignedIn = Annotated[User, Depends(_signed_in)]
WritableRepo = Annotated[Repo, Depends(_writable)]
DownloadableRepo = Annotated[Repo, Depends(_downloadable)]
