"""Pages for a person with a browser: all repositories, and one with its card and files.

A browser sends no token, so private repositories show only with `?token=` in the address; the links on the page keep it.
Nothing on a page runs or loads anything from elsewhere.
"""

from html import escape
from typing import get_args
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from markdown_it import MarkdownIt

from hfsafemerge.localhub.access import TheHub, find_repo, may_see, user_of_token
from hfsafemerge.localhub.cards import split_card
from hfsafemerge.localhub.collections import shows, visible_items
from hfsafemerge.localhub.information import read_text
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import KINDS, Commit, Kind, Repo
from hfsafemerge.localhub.store import Hub

router = APIRouter()

STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; overflow-wrap: break-word; }
header, footer { color: GrayText; font-size: 0.875rem; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid GrayText; padding: 0.25rem 0.75rem; text-align: left; }
td.size { text-align: right; }
pre { overflow-x: auto; }
img { max-width: 100%; }
.flag { border: 1px solid; border-radius: 0.25rem; font-size: 0.875rem; padding: 0 0.4rem; }
"""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'",
    "Referrer-Policy": "no-referrer",  # the address may hold a token
}
NOTICE = "A local Hub for trying, demos and testing. Its tokens are public: keep nothing here that matters."
MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@router.get("/")
def all_repos(hub: TheHub, token: str | None = None) -> HTMLResponse:
    """The repositories that the visitor may see."""
    try:
        user = user_of_token(hub, token)
    except HubProblem as problem:
        return page("No such token", f"<p>{escape(problem.message)}</p>", status=problem.status)
    parts = []
    for kind in get_args(Kind):
        repos = [repo for repo in hub.all(kind) if may_see(user, repo)]
        items = "".join(f'<li><a href="{_link(repo.path, token)}">{escape(repo.id)}</a> {_flags(repo)}</li>' for repo in repos)
        parts.append(f"<h2>{kind.title()}</h2><ul>{items}</ul>" if items else f"<h2>{kind.title()}</h2><p>None yet.</p>")
    return page("All repositories", "".join(parts), token)


@router.get("/datasets/{namespace}/{name}")
@router.get("/datasets/{namespace}/{name}/tree/{revision:path}")
@router.get("/datasets/{namespace}/{name}/commit/{revision:path}")
def dataset_page(namespace: str, name: str, hub: TheHub, revision: str = "main", token: str | None = None) -> HTMLResponse:
    """The card and files of a dataset."""
    return _repo_page(hub, "datasets", f"{namespace}/{name}", revision.strip("/"), token)


@router.get("/spaces/{namespace}/{name}")
@router.get("/spaces/{namespace}/{name}/tree/{revision:path}")
@router.get("/spaces/{namespace}/{name}/commit/{revision:path}")
def space_page(namespace: str, name: str, hub: TheHub, revision: str = "main", token: str | None = None) -> HTMLResponse:
    """The card and files of a Space. It does not run here."""
    return _repo_page(hub, "spaces", f"{namespace}/{name}", revision.strip("/"), token)


@router.get("/{namespace}/{name}")
@router.get("/{namespace}/{name}/tree/{revision:path}")
@router.get("/{namespace}/{name}/commit/{revision:path}")
def model_page(namespace: str, name: str, hub: TheHub, revision: str = "main", token: str | None = None) -> HTMLResponse:
    """The card and files of a model."""
    return _repo_page(hub, "models", f"{namespace}/{name}", revision.strip("/"), token)


@router.get("/collections/{namespace}/{name}")
def collection_page(namespace: str, name: str, hub: TheHub, token: str | None = None) -> HTMLResponse:
    """The repositories of a collection."""
    user, collection = user_of_token(hub, token), hub.collections.find(namespace, name)
    if collection is None or not shows(user, collection):
        return page("Not found", "<p>There is no such collection that you may see.</p>", status=404)
    items = "".join(
        f'<li><a href="{_link(repo.path, token)}">{escape(repo.id)}</a> ({item.type}) {escape(item.note)}</li>'
        for item in visible_items(hub, user, collection)
        if (repo := hub.get(KINDS[item.type], item.id))
    )
    return page(collection.title, f"<p>{escape(collection.description)}</p><ul>{items}</ul>", token)


def _repo_page(hub: Hub, kind: Kind, repo_id: str, revision: str, token: str | None) -> HTMLResponse:
    try:
        repo = find_repo(hub, user_of_token(hub, token), kind, repo_id)
        commit = repo.find(revision)
    except HubProblem:  # the same answer to all, so that nobody learns which repositories exist
        what = f"There is no {kind.removesuffix('s')} {escape(repr(repo_id))} with a revision {escape(repr(revision))} that you may see."
        return page("Not found", f"<p>{what} If it is private, add ?token= and a valid token to the address.</p>", status=404)
    files = f"{repo.path}/resolve/{quote(revision, safe='')}/"
    about = f"<p>Commit <code>{commit.oid[:8]}</code> of {escape(commit.date)}: {escape(commit.title)} {_flags(repo)}</p>"
    if repo.gated:
        about += "<p>The files of this repository go only to users who were granted access.</p>"
    return page(repo.id, about + _card(read_text(hub, commit, "README.md"), files, token) + _files(commit, files, token), token)


def _card(text: str, files: str, token: str | None) -> str:
    card = split_card(text)
    metadata = f"<details><summary>Metadata</summary><pre>{escape(card.front_matter)}</pre></details>" if card.front_matter else ""
    tokens = MARKDOWN.parse(card.body)
    for inline in (child for block in tokens for child in block.children or ()):
        attribute = {"image": "src", "link_open": "href"}.get(inline.type)
        if attribute:
            inline.attrSet(attribute, _address(str(inline.attrGet(attribute)), files, token))
    return f"<main>{metadata}{MARKDOWN.renderer.render(tokens, MARKDOWN.options, {})}</main>"


def _address(target: str, files: str, token: str | None) -> str:
    """Where a link of a card leads: one that is relative, to the file in the repository."""
    try:
        parts = urlsplit(target)
    except ValueError:  # such as a bracket that is never closed
        return target
    if parts.scheme or parts.netloc or not parts.path or parts.path.startswith("/"):
        return target
    query = "&".join(filter(None, (parts.query, urlencode({"token": token}) if token else "")))
    return urlunsplit(("", "", files + parts.path.removeprefix("./"), query, parts.fragment))


def _files(commit: Commit, files: str, token: str | None) -> str:
    rows = "".join(
        f'<tr><td><a href="{_link(files + quote(path), token)}">{escape(path)}</a></td>'
        f'<td class="size">{_size(entry.size)}</td><td>{"LFS" if entry.lfs else ""}</td></tr>'
        for path, entry in sorted(commit.tree.items())
    )
    return f"<h2>Files</h2><table><tr><th>File</th><th>Size</th><th>Kept in</th></tr>{rows}</table>"


def _flags(repo: Repo) -> str:
    flags = [flag for flag, is_set in (("private", repo.private), (f"gated: {repo.gated}", repo.gated)) if is_set]
    return " ".join(f'<span class="flag">{flag}</span>' for flag in flags)


def _size(size: int) -> str:
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= bytes_:
            return f"{size / bytes_:.1f} {unit}"
    return f"{size} B"


def _link(path: str, token: str | None) -> str:
    return escape(f"{path}?{urlencode({'token': token})}" if token else path)


def page(title: str, body: str, token: str | None = None, *, status: int = 200) -> HTMLResponse:
    """A page of this site; `body` is HTML, `title` text."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style>'
    top = f'<header><a href="{_link("/", token)}">Local Hub</a></header><h1>{escape(title)}</h1>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{top}{body}<footer><hr>{NOTICE}</footer></body></html>'
    return HTMLResponse(page, status, HEADERS)
