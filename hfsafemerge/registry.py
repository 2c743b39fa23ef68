"""Named parts: a registry finds its shelf of one-file plug-ins by itself, and answers a misspelt name with the nearest one."""

import difflib
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from hfsafemerge.errors import UnknownName

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known: the nearest known one, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no {kind} named {name!r}.{hint} Known: {', '.join(names) or 'none'}."


class Registry(Generic[T]):
    """Parts of one kind by name. The modules of the `shelf` package register theirs when the first is looked up."""

    def __init__(self, kind: str, shelf: str) -> None:
        self.kind = kind
        self._shelf = shelf
        self._parts: dict[str, T] = {}
        self._discovered = False

    def add(self, name: str, part: T) -> None:
        """Register a part. Raises ValueError when the name is taken by another one."""
        if name in self._parts:
            raise ValueError(f"Two parts register as {self.kind} {name!r}.")
        self._parts[name] = part

    def get(self, name: str) -> T:
        """The part of that name. Raises UnknownName with the nearest known one."""
        self._discover()
        if name not in self._parts:
            raise UnknownName(unknown_name(self.kind, name, self._parts))
        return self._parts[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._parts)

    def __iter__(self) -> Iterator[T]:
        return (self._parts[name] for name in self.names())

    def _discover(self) -> None:
        if self._discovered:
            return
        package = importlib.import_module(self._shelf)
        for module in pkgutil.iter_modules(package.__path__, self._shelf + "."):
            importlib.import_module(module.name)
        self._discovered = True  # only now: a plug-in that failed to import fails again, not silently
