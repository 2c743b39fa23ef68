"""Repositories found by name, owner and tags; what a list tells of each is less than its own page does."""

from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query

from hfsafemerge.localhub.access import Caller, TheHub, may_see
from hfsafemerge.localhub.collections import shows
from hfsafemerge.localhub.information import describe, only
from hfsafemerge.localhub.records import KINDS, Kind
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.users import User

router = APIRouter()

# what a list tells of each kind, unless it is asked for more
LISTED = {
    "models": ["likes", "downloads", "trendingScore", "private", "createdAt", "tags", "modelId", "pipeline_tag", "library_name"],
    "datasets": [
        "likes",
        "downloads",
        "trendingScore",
        "private",
        "createdAt",
        "tags",
        "author",
        "gated",
        "disabled",
        "lastModified",
        "sha",
    ],
    "spaces": ["likes", "trendingScore", "private", "createdAt", "tags", "sdk"],
}
FULL = ["author", "gated", "lastModified", "sha", "siblings", "disabled"]
QUICK = 8  # of each kind
Sort = Literal["downloads", "likes", "trendingScore", "createdAt", "lastModified"]


@router.get("/api/quicksearch")
def quick_search(
    hub: TheHub, user: Caller, q: str = "", limit: int = QUICK, kinds: Annotated[list[str] | None, Query(alias="type")] = None
) -> dict[str, Any]:
    """What goes by a name, of every kind or of those that are asked for."""
    answer: dict[str, Any] = {}
    for kind in get_args(Kind):
        asked = not kinds or any(KINDS.get(name, name) == kind for name in kinds)
        found = [repo for repo in hub.all(kind) if may_see(user, repo) and q.lower() in repo.id.lower()] if asked else []
        answer |= {kind: [{"id": repo.id, "private": repo.private} for repo in found[:limit]], f"{kind}Count": len(found)}
    collections = [each for each in hub.collections.all() if shows(user, each) and q.lower() in each.title.lower()]
    if not kinds or "collection" in kinds:
        answer |= {
            "collections": [{"id": each.slug, "title": each.title} for each in collections[:limit]],
            "collectionsCount": len(collections),
        }
    return answer


@router.get("/api/{kind}")
def list_repos(
    kind: Kind, hub: TheHub, user: Caller, search: str = "", author: str | None = None, pipeline_tag: str | None = None,
    tags: Annotated[list[str] | None, Query(alias="filter")] = None, gated: bool | None = None, limit: int | None = None,
    sort: Sort | None = None, full: bool = False, config: bool = False, card: Annotated[bool, Query(alias="cardData")] = False,
    expand: Annotated[list[str] | None, Query()] = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The repositories that the caller may see, by id, or the most or newest of something first. All conditions must hold."""
    found = []
    for information in _visible(hub, user, kind):
        if not all(word in information["id"].lower() for word in search.lower().split()):
            continue
        if author not in (None, information["author"]) or gated not in (None, bool(information["gated"])):
            continue
        if set(tags or ()) <= set(information["tags"]) and pipeline_tag in (None, information.get("pipeline_tag")):
            found.append(information)
    if sort:
        found.sort(key=lambda information: str(information[sort]), reverse=True)
    names = expand or [*LISTED[kind], *(FULL if full else ()), *(["config"] if config else ()), *(["cardData"] if card or full else ())]
    return [only(information, names) for information in found[:limit]]


def _visible(hub: Hub, user: User | None, kind: Kind) -> list[dict[str, Any]]:
    return [describe(hub, repo, repo.head) for repo in hub.all(kind) if may_see(user, repo)]
