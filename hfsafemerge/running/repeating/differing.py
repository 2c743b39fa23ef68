"""In what two runs or published merges differ: from the recipe to the scores."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfsafemerge.card import percent
from hfsafemerge.running.repeating.agreeing import RateDifference, other_candidate, other_entries, other_settings, rates
from hfsafemerge.running.repeating.sides import Side

NAMED = 8  # tensors that are named; of the rest only the number is told


@dataclass(frozen=True)
class Row:
    """One thing in which two runs differ."""

    part: str
    """recipe, inputs, data, versions, device, parameters, search, weights or scores."""
    what: str
    a: str
    b: str


@dataclass(frozen=True)
class Difference:
    """All in which two runs differ, and every rate that both have."""

    a: str
    b: str
    rows: tuple[Row, ...]
    rates: tuple[RateDifference, ...]
    unknown: tuple[str, ...]
    """The parts that one of them says nothing of."""

    @property
    def same(self) -> bool:
        """Whether they differ in nothing that both say something of."""
        return not self.rows

    def to_json(self) -> dict[str, Any]:
        """As `hfsafemerge diff --json` prints it."""
        found = asdict(self)
        for rate, each in zip(found["rates"], self.rates, strict=True):
            rate |= {side: {key: getattr(getattr(each, side), key) for key in ("value", "n", "ci95")} for side in ("a", "b")}
        return {"same": self.same, **found}


def compare_runs(a: str | Path, b: str | Path) -> Difference:
    """Compare two runs, each the directory of one or a published merge such as namespace/name@revision.

    Raises:
        RunError: one of them is neither.
        HubError: one was not published by this tool, or can't be fetched.
    """
    mine, theirs = Side.of(str(a)), Side.of(str(b))
    found: list[Row] = [*_settings("recipe", mine.recipe, theirs.recipe)]
    unknown = []
    for part in ("inputs", "data", "versions", "device", "parameters"):
        known = getattr(mine, part), getattr(theirs, part)
        if None in known:
            unknown.append(part)
        else:
            found += _settings(part, *known)
    if mine.candidates is None or theirs.candidates is None:
        unknown.append("search")
    elif other := other_candidate(mine.candidates, theirs.candidates):
        found.append(Row("search", other, f"{len(mine.candidates)} candidates", f"{len(theirs.candidates)} candidates"))
    if mine.tensors is None or theirs.tensors is None:
        unknown.append("weights")
    else:
        found += _tensors(mine, theirs)
    compared: list[RateDifference] = []
    if mine.results is None or theirs.results is None:
        unknown.append("scores")
    else:
        compared = rates(mine.results, theirs.results, mine.labels, theirs.labels)
        found += [
            Row("scores", f"{each.what}: {each.said}", percent(asdict(each.a)), percent(asdict(each.b)))
            for each in compared
            if (each.a.value, each.a.n) != (each.b.value, each.b.n)
        ]
        found += _unmatched(mine, theirs)
    return Difference(str(a), str(b), tuple(found), tuple(compared), tuple(unknown))


def _settings(part: str, a: Any, b: Any) -> Iterator[Row]:
    for path, (x, y) in other_settings(a, b).items():
        apart = f" ({abs(x - y):.3g} apart)" if part == "parameters" and all(type(v) in (int, float) for v in (x, y)) else ""
        yield Row(part, path + apart, _text(x), _text(y))


def _tensors(a: Side, b: Side) -> Iterator[Row]:
    """Which tensors differ; by how much, where the weights of both are on this machine."""
    assert a.tensors is not None and b.tensors is not None
    names = sorted(a.tensors.keys() | b.tensors.keys())
    other = [name for name in names if a.tensors.get(name) != b.tensors.get(name)]
    if other:
        yield Row("weights", f"{len(names) - len(other)} of {len(names)} tensors are equal", "", "")
    for name in other[:NAMED]:
        how = f": {other_entries(name, a.weights, b.weights)}" if a.weights is not None and b.weights is not None else ""
        yield Row("weights", name + how, _short(a.tensors.get(name)), _short(b.tensors.get(name)))
    if len(other) > NAMED:
        yield Row("weights", f"and {len(other) - NAMED} more tensors", "", "")


def _unmatched(a: Side, b: Side) -> Iterator[Row]:
    """Rates that one of them has alone."""
    assert a.results is not None and b.results is not None
    sides = [
        {(model, s.benchmark, s.judge): percent(asdict(s)) for model, scores in side.scores.items() for s in scores}
        for side in (a.results, b.results)
    ]
    for key in dict.fromkeys([*sides[0], *sides[1]]):
        if (key in sides[0]) != (key in sides[1]):
            model, benchmark, judge = key
            yield Row("scores", f"{model} on {benchmark} ({judge})", sides[0].get(key, ""), sides[1].get(key, ""))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else ""
