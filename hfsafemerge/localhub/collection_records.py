"""Collections, each kept as one JSON file."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from hfsafemerge.localhub.records import now, stable_id

ItemType = Literal["model", "dataset", "space"]


@dataclass
class Item:
    """A repository in a collection. `oid` names the item itself, not the repository."""

    oid: str
    id: str
    type: ItemType
    note: str = ""


@dataclass
class Collection:
    """Repositories in an order. Change it only within `Collections.changing`."""

    oid: str
    owner: str
    title: str
    description: str = ""
    private: bool = False
    theme: str = "blue"
    position: int = 0
    updated: str = field(default_factory=now)
    items: list[Item] = field(default_factory=list)

    @property
    def slug(self) -> str:
        """The owner, the title in small letters, and the id, which alone tells collections apart."""
        title = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        return f"{self.owner}/{title}-{self.oid}"


class Collections:
    """All collections of a hub, in a folder."""

    def __init__(self, folder: Path) -> None:
        """Read what the folder holds. It is made when there is something to keep."""
        self._folder = folder
        self._lock = threading.RLock()
        self._all: dict[str, Collection] = {}
        for file in sorted(folder.glob("*.json")):
            state = json.loads(file.read_bytes())
            self._all[state["oid"]] = Collection(**state | {"items": [Item(**item) for item in state["items"]]})

    def all(self) -> list[Collection]:
        """All of them, by owner and position."""
        with self._lock:
            return sorted(self._all.values(), key=lambda collection: (collection.owner, collection.position, collection.title))

    def find(self, owner: str, name: str) -> Collection | None:
        """The collection of a slug, which may show a former title."""
        with self._lock:
            found = self._all.get(name.rsplit("-", 1)[-1])
        return found if found and found.owner == owner else None

    def add(self, owner: str, title: str, description: str, *, private: bool) -> tuple[Collection, bool]:
        """The owner's collection of that title, and whether it is new."""
        with self._lock:
            for collection in self._all.values():
                if (collection.owner, collection.title) == (owner, title):
                    return collection, False
            position = sum(collection.owner == owner for collection in self._all.values())
            collection = Collection(stable_id(f"{owner}/{title}"), owner, title, description, private, position=position)
            while collection.oid in self._all:  # that one was renamed since
                collection.oid = stable_id(collection.oid)
            with self.changing(collection):
                self._all[collection.oid] = collection
            return collection, True

    def remove(self, collection: Collection) -> None:
        """Forget a collection."""
        with self._lock:
            del self._all[collection.oid]
            (self._folder / f"{collection.oid}.json").unlink()

    @contextmanager
    def changing(self, collection: Collection) -> Iterator[None]:
        """Hold all collections while the block changes one; what it changed is on disk when it ends well."""
        with self._lock:
            yield
            collection.updated = now()
            self._folder.mkdir(parents=True, exist_ok=True)
            part = self._folder / f"{collection.oid}.part"
            part.write_text(json.dumps(asdict(collection)), encoding="utf-8")
            part.replace(part.with_suffix(".json"))
