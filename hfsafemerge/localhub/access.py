"""Who may do what, and the dependencies that hand a route its caller and its repository."""

from typing import Annotated

from fastapi import Depends, Header, Request

from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Kind, Repo
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.users import TOKENS, Scope, User


def user_of_token(hub: Hub, token: str | None) -> User | None:
    """The user, or None without a token. Raises HubProblem when nobody has that token, or it has expired."""
    if token is None:
        return None
    user = TOKENS.get(token) or hub.grants.find(token)
    if user is None:
        # the clients know this sentence, and do not take the answer for a repository that is missing
        raise HubProblem(401, "Invalid credentials in Authorization header")
    return user


def may_see(user: User | None, repo: Repo) -> bool:
    """Whether the repository exists as far as the user is concerned."""
    return not repo.private or (user is not None and _may_read(user, repo))


def find_repo(hub: Hub, user: User | None, kind: Kind, repo_id: str) -> Repo:
    """The repository. Raises HubProblem when it does not exist, or is private to others, which look the same."""
    repo = hub.get(kind, repo_id)
    if repo is None or not may_see(user, repo):
        status, hint = (401, "If it is private, send a token.") if user is None else (404, "Check the id and its type.")
        raise HubProblem(status, f"There is no {kind.removesuffix('s')} {repo_id!r} that you may see. {hint}", code="RepoNotFound")
    return repo


def require_download(user: User | None, repo: Repo) -> Repo:
    """The repository, when the user may have its files. Raises HubProblem when it is gated to them."""
    if repo.gated and not (user is not None and (_may_read(user, repo) or _was_let_in(user, repo))):
        hint = "Send the token of a user who was granted access." if user is None else f"Its owner can grant access to {user.name}."
        raise HubProblem(401 if user is None else 403, f"Access to {repo.type} {repo.id} is restricted. {hint}", code="GatedRepo")
    return repo


def require_write(user: User | None, namespace: str, *scopes: Scope) -> User:
    """The user, when they may change what is in the namespace, and a token of an app has one of the scopes. Raises HubProblem."""
    user = require_token(user)
    if not user.writes or not user.belongs_to(namespace):
        why = f"{user.name} is no member of {namespace}" if user.writes else "your token is read-only"
        if user.writes and user.app:
            why += ", or did not let the app act for it"
        raise HubProblem(403, f"You can't write to {namespace}: {why}. Use a token that may.")
    if not user.allows(*scopes):
        raise HubProblem(403, f"Your token lets an app act for {user.name} without the scope {' or '.join(scopes)}. Ask for it at sign-in.")
    return user


def require_change(user: User | None, repo: Repo, *scopes: Scope) -> User:
    """The user, when they may change the repository. The scopes are write-repos and manage-repos where none are named.

    An app may always change what it made, if it may contribute. Raises HubProblem.
    """
    wanted = scopes or ("write-repos", "manage-repos")
    return require_write(user, repo.namespace, *wanted, *_scopes_of_its_app(user, repo))


def require_token(user: User | None) -> User:
    """The user. Raises HubProblem when there is none."""
    if user is None:
        raise HubProblem(401, "This needs a token, and none was sent. Log in, or set HF_TOKEN.")
    return user


def _may_read(user: User, repo: Repo) -> bool:
    scopes: tuple[Scope, ...] = ("read-repos", "write-repos", "manage-repos")
    return user.belongs_to(repo.namespace) and user.allows(*scopes, *_scopes_of_its_app(user, repo))


def _was_let_in(user: User, repo: Repo) -> bool:
    return repo.access.get(user.name) == "accepted" and user.allows("gated-repos")


def _scopes_of_its_app(user: User | None, repo: Repo) -> tuple[Scope, ...]:
    return ("contribute-repos",) if user is not None and user.app is not None and user.app == repo.app else ()


def _bearer(authorization: str | None) -> str | None:
    scheme, _, token = (authorization or "").partition(" ")
    return token if scheme.lower() == "bearer" else None


async def _hub(request: Request) -> Hub:
    hub: Hub = request.app.state.hub
    return hub


TheHub = Annotated[Hub, Depends(_hub)]


async def _caller(hub: TheHub, authorization: Annotated[str | None, Header()] = None) -> User | None:
    return user_of_token(hub, _bearer(authorization))


async def _visitor(hub: TheHub, authorization: Annotated[str | None, Header()] = None, token: str | None = None) -> User | None:
    return user_of_token(hub, _bearer(authorization) or token)


Caller = Annotated[User | None, Depends(_caller)]
Visitor = Annotated[User | None, Depends(_visitor)]  # as Caller; a browser sends no header, so `?token=` will do


async def _signed_in(user: Caller) -> User:
    return require_token(user)


async def _readable(kind: Kind, namespace: str, name: str, hub: TheHub, user: Caller) -> Repo:
    return find_repo(hub, user, kind, f"{namespace}/{name}")


ReadableRepo = Annotated[Repo, Depends(_readable)]


async def _writable(repo: ReadableRepo, user: Caller) -> Repo:
    require_change(user, repo)
    return repo


async def _managed(repo: ReadableRepo, user: Caller) -> Repo:
    require_change(user, repo, "manage-repos")
    return repo


async def _downloadable(repo: ReadableRepo, user: Caller) -> Repo:
    return require_download(user, repo)


SignedIn = Annotated[User, Depends(_signed_in)]
WritableRepo = Annotated[Repo, Depends(_writable)]
ManagedRepo = Annotated[Repo, Depends(_managed)]  # to change its settings and who has access
DownloadableRepo = Annotated[Repo, Depends(_downloadable)]
