"""Candidates: what was asked and what came of it, one line each in a log that a killed search goes on from."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hfsafemerge.errors import SearchError
from hfsafemerge.searching.genes import Query
from hfsafemerge.searching.objectives import Terms, TermScore


@dataclass(frozen=True)
class Candidate:
    """One answered query: what was measured, and the fitness that it makes."""

    number: int
    query: Query
    terms: Terms
    fitness: float
    slope: tuple[float, ...]
    """The derivative of the fitness with respect to each gene, where the query asked for it."""
    admitted: bool
    """Whether it keeps the objective's constraints."""
    seconds: float
    memory: str = ""
    """Where the experts were kept."""

    @property
    def genome(self) -> list[float]:
        """The genome that was asked about."""
        return self.query.genome

    @property
    def whole(self) -> bool:
        """Whether it was measured on all the data that strategies see."""
        return self.query.share == 1.0 and self.query.split == "search"

    def to_json(self) -> str:
        """One line of search.jsonl."""
        found: dict[str, Any] = {"number": self.number, **asdict(self.query)}
        found |= {"terms": {name: term.to_json() for name, term in self.terms.items()}, "fitness": self.fitness, "admitted": self.admitted}
        return json.dumps(found | {"slope": list(self.slope), "seconds": round(self.seconds, 4), "memory": self.memory})

    @classmethod
    def from_json(cls, line: str) -> "Candidate":
        """The candidate of one line. Raises ValueError, KeyError or TypeError for a line of another kind."""
        row = json.loads(line)
        query = Query(**{field.name: row.pop(field.name) for field in fields(Query)})
        terms = {name: TermScore.from_json(term) for name, term in row.pop("terms").items()}
        return cls(query=query, terms=terms, slope=tuple(row.pop("slope")), **row)


class SearchLog:
    """The file search.jsonl: what earlier attempts measured is answered from it, what is measured now is added to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def opened(self) -> Iterator["SearchLog"]:
        """Read what is there, and keep the file open for more."""
        self._known = self._read()
        with self.path.open("a") as self._file:
            yield self

    def known(self, number: int, query: Query) -> Candidate | None:
        """The answer to a query that was asked before.

        Raises:
            SearchError: another query stands there.
        """
        if number > len(self._known):
            return None
        found = self._known[number - 1]
        if found.query != query:
            raise SearchError(
                f"{self.path} holds another search: its candidate {number} is not the one asked for. Delete it to search anew."
            )
        return found

    def add(self, candidate: Candidate) -> None:
        """Write a candidate down, so that it outlives whatever happens."""
        self._file.write(candidate.to_json() + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> list[Candidate]:
        """The candidates of an earlier attempt. A last line that a kill cut short is taken off the file."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self.path.write_bytes(whole)
        return read_candidates(self.path)


def read_candidates(path: Path) -> list[Candidate]:
    """The candidates of a log. Raises SearchError when it is damaged."""
    try:
        return [Candidate.from_json(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SearchError(f"{path} is no log of a search, or damaged: {error}. Delete it to search anew.") from error
