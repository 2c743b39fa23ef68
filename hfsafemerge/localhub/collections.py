"""Routes of collections: make, list, fill and delete them.

Repositories that a visitor may not see, or that were deleted, do not show among the items.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import Caller, SignedIn, TheHub, find_repo, may_see, require_write
from hfsafemerge.localhub.collection_records import Collection, Item, ItemType
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import KINDS, stable_id
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.users import User

router = APIRouter()

ITEMS_IN_A_LIST = 4  # of each collection; the Hub shows no more of them in a list
Title = Annotated[str, Field(min_length=1, max_length=60)]
Description = Annotated[str, Field(max_length=150)]
Note = Annotated[str, Field(max_length=500)]
Theme = Literal["orange", "blue", "green", "purple", "pink", "indigo"]


class _NewCollection(BaseModel):
    title: Title
    namespace: str
    description: Description = ""
    private: bool = False


class _Metadata(BaseModel):
    title: Title | None = None
    description: Description | None = None
    private: bool | None = None
    theme: Theme | None = None
    position: Annotated[int | None, Field(ge=0)] = None


class _ItemName(BaseModel):
    id: str
    type: ItemType


class _NewItem(BaseModel):
    item: _ItemName
    note: Note = ""


class _ItemChange(BaseModel):
    note: Note | None = None
    position: Annotated[int | None, Field(ge=0)] = None


async def _visible(namespace: str, name: str, hub: TheHub, user: Caller) -> Collection:
    collection = hub.collections.find(namespace, name)
    if collection is None or not shows(user, collection):
        raise HubProblem(404, f"There is no collection {namespace}/{name} that you may see. List those of {namespace}.")
    return collection


Visible = Annotated[Collection, Depends(_visible)]


async def _own(collection: Visible, user: Caller) -> Collection:
    require_write(user, collection.owner, "write-collections")
    return collection


Own = Annotated[Collection, Depends(_own)]


@router.get("/api/collections")
def list_collections(
    hub: TheHub, user: Caller, owner: str | None = None, item: str | None = None, limit: int | None = None
) -> list[dict[str, Any]]:
    """The collections of an owner, or with an item such as models/acme/x, by owner and position."""
    found = []
    for collection in hub.collections.all():
        if owner in (None, collection.owner) and shows(user, collection):
            document = _document(hub, user, collection)
            if item is None or item in [f"{KINDS[each['type']]}/{each['id']}" for each in document["items"]]:
                del document["position"]  # the client counts
                found.append(document | {"items": document["items"][:ITEMS_IN_A_LIST]})
    return found[:limit]


@router.post("/api/collections")
def create_collection(new: _NewCollection, hub: TheHub, user: SignedIn) -> JSONResponse:
    """Make a collection. An owner has one of a title; a second one is refused with the slug of the first."""
    require_write(user, new.namespace, "write-collections")
    collection, is_new = hub.collections.add(new.namespace, new.title, new.description, private=new.private)
    if not is_new:
        return JSONResponse({"error": f"{new.namespace} has a collection {new.title!r} already.", "slug": collection.slug}, 409)
    return JSONResponse(_document(hub, user, collection))


@router.get("/api/collections/{namespace}/{name}")
def get_collection(collection: Visible, hub: TheHub, user: Caller) -> dict[str, Any]:
    """A collection with all its items."""
    return _document(hub, user, collection)


@router.patch("/api/collections/{namespace}/{name}")
def change_collection(collection: Own, changes: _Metadata, hub: TheHub, user: SignedIn) -> dict[str, Any]:
    """Change a title, a description, a theme, who sees it, or where it stands."""
    with hub.collections.changing(collection):
        for name, value in changes.model_dump(exclude_none=True).items():
            setattr(collection, name, value)
    return {"success": True, "data": _document(hub, user, collection)}


@router.delete("/api/collections/{namespace}/{name}")
def delete_collection(collection: Own, hub: TheHub) -> dict[str, bool]:
    """Delete a collection. The repositories stay."""
    hub.collections.remove(collection)
    return {"success": True}


@router.post("/api/collections/{namespace}/{name}/items")
def add_item(collection: Own, new: _NewItem, hub: TheHub, user: SignedIn) -> dict[str, Any]:
    """Put a repository at the end."""
    repo = find_repo(hub, user, KINDS[new.item.type], new.item.id)
    with hub.collections.changing(collection):
        if any((item.type, item.id) == (new.item.type, repo.id) for item in collection.items):
            raise HubProblem(409, f"{new.item.type} {repo.id} is in {collection.slug} already. Pass exists_ok=True if that will do.")
        collection.items = [*collection.items, Item(stable_id(f"{collection.oid}/{repo.kind}/{repo.id}"), repo.id, new.item.type, new.note)]
    return _document(hub, user, collection)


@router.patch("/api/collections/{namespace}/{name}/items/{oid}")
def change_item(collection: Own, oid: str, change: _ItemChange, hub: TheHub) -> dict[str, bool]:
    """Change the note of an item, or move it to a place."""
    with hub.collections.changing(collection):
        item = _find_item(collection, oid)
        if change.note is not None:
            item.note = change.note
        if change.position is not None:
            others = [other for other in collection.items if other is not item]
            collection.items = [*others[: change.position], item, *others[change.position :]]
    return {"success": True}


@router.delete("/api/collections/{namespace}/{name}/items/{oid}")
def delete_item(collection: Own, oid: str, hub: TheHub) -> dict[str, bool]:
    """Take an item out. The repository stays."""
    with hub.collections.changing(collection):
        gone = _find_item(collection, oid)
        collection.items = [item for item in collection.items if item is not gone]
    return {"success": True}


def shows(user: User | None, collection: Collection) -> bool:
    """Whether the collection exists as far as the user is concerned."""
    return not collection.private or (user is not None and user.belongs_to(collection.owner))


def visible_items(hub: Hub, user: User | None, collection: Collection) -> list[Item]:
    """The items whose repositories exist as far as the user is concerned."""
    found = ((item, hub.get(KINDS[item.type], item.id)) for item in collection.items)
    return [item for item, repo in found if repo is not None and may_see(user, repo)]


def _find_item(collection: Collection, oid: str) -> Item:
    for item in collection.items:
        if item.oid == oid:
            return item
    raise HubProblem(404, f"{collection.slug} has no item {oid!r}. Get the collection; each item has an item_object_id.")


def _document(hub: Hub, user: User | None, collection: Collection) -> dict[str, Any]:
    items = [
        {"_id": item.oid, "id": item.id, "type": item.type, "position": position}
        | ({"note": {"text": item.note, "html": ""}} if item.note else {})
        for position, item in enumerate(visible_items(hub, user, collection))
    ]
    return {
        "slug": collection.slug, "title": collection.title, "description": collection.description, "owner": collection.owner,
        "lastUpdated": collection.updated, "position": collection.position, "private": collection.private, "theme": collection.theme,
        "upvotes": 0, "items": items,
    }  # fmt: skip
