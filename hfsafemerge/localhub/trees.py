"""The files of a commit: listed by folder, or looked up by path."""

import hashlib
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from hfsafemerge.localhub.access import ReadableRepo, TheHub
from hfsafemerge.localhub.information import lfs_pointer
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Commit, Entry, Repo
from hfsafemerge.localhub.store import Hub

router = APIRouter()

PAGE = 1000
EXPANDED_PAGE = 50


@router.get("/api/{kind}/{namespace}/{name}/tree/{rest:path}")
def list_tree(
    repo: ReadableRepo,
    hub: TheHub,
    request: Request,
    recursive: bool = False,
    expand: bool = False,
    cursor: int = 0,
    limit: int | None = None,
) -> JSONResponse:
    """One page of a folder, or with `recursive` of all below it. The Link header leads to the next page."""
    revision, folder = split_revision(request, after=5)
    folder = folder.strip("/")
    commit = repo.find(revision)
    prefix = f"{folder}/" if folder else ""
    paths = [path for path in sorted([*commit.tree, *_folders(commit)]) if path.startswith(prefix)]
    if folder and not paths:
        raise no_entry(repo, commit, folder)
    if not recursive:
        paths = [path for path in paths if "/" not in path.removeprefix(prefix)]
    end = cursor + (limit or (EXPANDED_PAGE if expand else PAGE))
    headers = {}
    if end < len(paths):
        query = urlencode(dict(request.query_params) | {"cursor": str(end)})
        headers["Link"] = f'<{str(request.base_url).rstrip("/")}{raw_path(request)}?{query}>; rel="next"'
    return JSONResponse(list(_nodes(hub, repo, commit, paths[cursor:end], expand=expand)), headers=headers)


@router.post("/api/{kind}/{namespace}/{name}/paths-info/{revision:path}")
async def paths_info(repo: ReadableRepo, hub: TheHub, request: Request, revision: str) -> list[dict[str, Any]]:
    """Those of the asked-for files and folders that exist. The clients send a form."""
    form = parse_qs((await request.body()).decode())
    commit = repo.find(revision)
    known = {*commit.tree, *_folders(commit)}
    paths = [path for path in (path.strip("/") for path in form.get("paths", [])) if path in known]
    return list(_nodes(hub, repo, commit, paths, expand=form.get("expand") == ["true"]))


def split_revision(request: Request, *, after: int) -> tuple[str, str]:
    """The revision, which follows so many segments of a request's path, and the path within the repository behind it.

    A revision with slashes comes with %2F in their place, which is gone from the decoded path; but some clients send
    refs/pr/1 as it is.
    """
    revision, _, path = raw_path(request).split("/", after + 1)[-1].partition("/")
    if revision == "refs":
        space, number, path = [*path.split("/", 2), "", ""][:3]
        revision = f"refs/{space}/{number}"
    return unquote(revision), unquote(path)


def raw_path(request: Request) -> str:
    """The path of a request as it was sent, percent signs and all."""
    path: bytes = request.scope["raw_path"]
    return path.decode("ascii")


def no_entry(repo: Repo, commit: Commit, path: str) -> HubProblem:
    """The answer to a path that does not exist. It names the commit, so that the client may remember the absence."""
    message = f"{repo.id} has no {path!r} at {commit.oid}. List its files."
    return HubProblem(404, message, code="EntryNotFound", headers={"X-Repo-Commit": commit.oid})


def _folders(commit: Commit) -> dict[str, str]:
    """All folders with ids that depend on what is below."""
    contents: dict[str, list[str]] = {}
    for path, entry in sorted(commit.tree.items()):
        for folder in parents(path):
            contents.setdefault(folder, []).append(f"{path}\0{entry.oid}\n")
    return {folder: hashlib.sha1("".join(lines).encode(), usedforsecurity=False).hexdigest() for folder, lines in contents.items()}


def parents(path: str) -> Iterator[str]:
    """The folders that a path is in, the top one first."""
    parts = path.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _nodes(hub: Hub, repo: Repo, commit: Commit, paths: Collection[str], *, expand: bool) -> Iterator[dict[str, Any]]:
    folders = _folders(commit)
    last = _last_commits(repo, commit, paths) if expand else {}
    for path in paths:
        entry = commit.tree.get(path)
        node = _file(hub, path, entry) if entry else {"type": "directory", "oid": folders[path], "size": 0, "path": path}
        if path in last:
            node["lastCommit"] = {"id": last[path].oid, "title": last[path].title, "date": last[path].date}
        yield node


def _file(hub: Hub, path: str, entry: Entry) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.lfs:
        node["lfs"] = {"oid": entry.sha256} | lfs_pointer(entry)
        if xet_hash := hub.xet and hub.xet.hash_of(entry.sha256):
            node["xetHash"] = xet_hash
    return node


def _last_commits(repo: Repo, commit: Commit, paths: Collection[str]) -> dict[str, Commit]:
    """For each path the newest commit that changed it, or something below it."""
    last: dict[str, Commit] = {}
    for step in repo.history(commit):
        before = repo.commits[step.parent].tree if step.parent else {}
        changed = {path for path in step.tree.keys() | before.keys() if step.tree.get(path) != before.get(path)}
        changed |= {folder for path in changed for folder in parents(path)}
        last = {path: step for path in paths if path in changed} | last
    return last
