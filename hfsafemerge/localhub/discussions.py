"""Discussions and pull requests: open, comment, close, merge."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import ReadableRepo, SignedIn, TheHub, WritableRepo, require_change
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import MAIN, Commit, Discussion, Entry, Repo, now
from hfsafemerge.localhub.users import User

router = APIRouter()


class _NewDiscussion(BaseModel):
    title: str
    description: str = ""
    pull_request: Annotated[bool, Field(alias="pullRequest")] = False


class _Comment(BaseModel):
    comment: str


class _NewStatus(BaseModel):
    status: Literal["open", "closed"]
    comment: str = ""


class _Merge(BaseModel):
    comment: str = ""


@router.get("/api/{kind}/{namespace}/{name}/discussions")
async def list_discussions(repo: ReadableRepo, type: str = "all", status: str = "all", author: str | None = None) -> dict[str, Any]:
    """All discussions that fit, newest first, on one page."""
    found = [
        _document(repo, discussion)
        for discussion in reversed(repo.discussions)
        if type in ("all", "pull_request" if discussion.is_pull_request else "discussion")
        and status in ("all", "open" if discussion.status in ("open", "draft") else "closed")
        and author in (None, discussion.author)
    ]
    return {"discussions": found, "count": len(found), "start": 0}


@router.post("/api/{kind}/{namespace}/{name}/discussions")
def create_discussion(repo: ReadableRepo, hub: TheHub, user: SignedIn, new: _NewDiscussion) -> dict[str, Any]:
    """Open a discussion, or a draft of a pull request from main that commits can then go to."""
    _require_writing_token(user)
    with hub.changing(repo):
        status: Literal["draft", "open"] = "draft" if new.pull_request else "open"
        start = repo.head if new.pull_request else None
        return {"num": open_discussion(repo, user, new.title, new.description, status=status, start=start).number}


@router.get("/api/{kind}/{namespace}/{name}/discussions/{number}")
async def discussion_details(repo: ReadableRepo, number: int) -> dict[str, Any]:
    """A discussion with all that happened in it."""
    return _document(repo, _find(repo, number))


@router.post("/api/{kind}/{namespace}/{name}/discussions/{number}/comment")
def comment(repo: ReadableRepo, hub: TheHub, user: SignedIn, number: int, new: _Comment) -> dict[str, Any]:
    """Say something."""
    _require_writing_token(user)
    with hub.changing(repo):
        return {"newMessage": _add_comment(_find(repo, number), user, new.comment)}


@router.post("/api/{kind}/{namespace}/{name}/discussions/{number}/status")
def change_status(repo: ReadableRepo, hub: TheHub, user: SignedIn, number: int, new: _NewStatus) -> dict[str, Any]:
    """Close or reopen, for the author and those who may write."""
    _require_writing_token(user)
    with hub.changing(repo):
        discussion = _find(repo, number)
        if discussion.author != user.name:
            require_change(user, repo)
        if discussion.status == "merged":
            raise HubProblem(400, f"Pull request {number} is merged; that can't be undone. Commit a change instead.")
        discussion.status = new.status
        if new.comment:
            _add_comment(discussion, user, new.comment)
        return {"newStatus": add_event(discussion, user, "status-change", {"status": new.status})}


@router.post("/api/{kind}/{namespace}/{name}/discussions/{number}/merge")
def merge(repo: WritableRepo, hub: TheHub, user: SignedIn, number: int, request: _Merge | None = None) -> dict[str, Any]:
    """Put what a pull request changed on top of main, in one commit."""
    with hub.changing(repo):
        discussion = _find(repo, number)
        if not discussion.is_pull_request or discussion.status in ("merged", "closed"):
            what = f"a {discussion.status} pull request" if discussion.is_pull_request else "no pull request"
            raise HubProblem(400, f"Discussion {number} is {what}, so it can't be merged. Reopen it, or choose another.")
        if conflicts := _conflicts(repo, discussion):
            raise HubProblem(409, f"Main has changed {conflicts[0]} since pull request {number} began. Make a new pull request from main.")
        tree = dict(repo.head.tree)
        for path, (_, entry) in _changes(repo, discussion).items():
            if entry is None:
                tree.pop(path, None)
            else:
                tree[path] = entry
        title = f"{discussion.title} (#{number})"
        merged = repo.commit(MAIN, tree, title, request.comment if request else "", user.name, repo.head.oid)
        discussion.status, discussion.merge_commit = "merged", merged.oid
        return {"newStatus": add_event(discussion, user, "status-change", {"status": "merged"})}


def open_discussion(
    repo: Repo, user: User, title: str, description: str, *, status: Literal["draft", "open"], start: Commit | None
) -> Discussion:  # fmt: skip
    """Add a discussion; a pull request when `start` says where it begins. Call it within `Hub.changing`."""
    discussion = Discussion(len(repo.discussions) + 1, title, user.name, now(), status, start.oid if start else None)
    _add_comment(discussion, user, description)
    repo.discussions.append(discussion)
    if start:
        repo.refs = repo.refs | {f"refs/pr/{discussion.number}": start.oid}
    return discussion


def add_event(discussion: Discussion, user: User, type: str, data: dict[str, Any]) -> dict[str, Any]:
    """Note that something happened; the event as the clients read it."""
    number = len(discussion.events) + 1
    event = {"id": f"{discussion.number:012x}{number:012x}", "type": type, "createdAt": now(), "author": {"name": user.name}, "data": data}
    discussion.events.append(event)
    return event


def _add_comment(discussion: Discussion, user: User, text: str) -> dict[str, Any]:
    return add_event(discussion, user, "comment", {"edited": False, "hidden": False, "latest": {"raw": text, "html": ""}})


def _require_writing_token(user: User) -> None:
    if not (user.writes and user.allows("write-discussions")):
        why = "is read-only" if not user.writes else "lets an app act for you without the scope write-discussions"
        raise HubProblem(403, f"Your token {why}. Use one that may write.")


def _find(repo: Repo, number: int) -> Discussion:
    if not 1 <= number <= len(repo.discussions):
        raise HubProblem(404, f"{repo.id} has no discussion {number}; it has {len(repo.discussions)} in all.")
    return repo.discussions[number - 1]


def _document(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    document = {
        "num": discussion.number, "title": discussion.title, "author": {"name": discussion.author}, "createdAt": discussion.created,
        "status": discussion.status, "isPullRequest": discussion.is_pull_request, "repo": {"name": repo.id, "type": repo.type},
        "events": discussion.events,
    }  # fmt: skip
    if discussion.is_pull_request:
        conflicts = _conflicts(repo, discussion) if discussion.status in ("open", "draft") else []
        document |= {"filesWithConflicts": conflicts, "changes": {"base": MAIN, "mergeCommitId": discussion.merge_commit}, "diff": ""}
    return document


def _changes(repo: Repo, discussion: Discussion) -> dict[str, tuple[Entry | None, Entry | None]]:
    """The files that a pull request changes: what they were where it began, and what they shall be."""
    before = repo.find(discussion.start).tree if discussion.start else {}
    after = repo.commits[repo.refs[f"refs/pr/{discussion.number}"]].tree
    both = {path: (before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys())}
    return {path: (old, new) for path, (old, new) in both.items() if old != new}


def _conflicts(repo: Repo, discussion: Discussion) -> list[str]:
    """What a pull request changes, and main has changed in another way."""
    main = repo.head.tree
    return [path for path, sides in _changes(repo, discussion).items() if main.get(path) not in sides]
