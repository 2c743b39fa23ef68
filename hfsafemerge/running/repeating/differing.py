"""In what two runs or published merges differ: from the recipe to the scores."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfsafemerge.card import percent
from hfsafemerge.evaluation import Results
from hfsafemerge.running.repeating.agreeing import other_candidate, other_entries, other_settings
from hfsafemerge.running.repeating.rating import RateDifference, rates, unmatched
from hfsafemerge.running.repeating.sides import Side

SETTINGS = ("reference", "margin", "candidates_tried", "benchmarks")  # of scores.json, which follow from no label
NAMED = 8  # tensors that are named; of the rest only the number is told


@dataclass(frozen=True)
class Row:
    """One thing in which two runs differ."""

    part: str
    """recipe, inputs, data, versions, device, parameters, search, weights, files or scores."""
    what: str
    a: str
    b: str
    name: str
    """What differs by its dotted path below the part, such as search.settings.max_evaluations; nothing where that is all of the part."""

    @property
    def path(self) -> str:
        """The part, and what of it differs, with dots between."""
        return f"{self.part}.{self.name}" if self.name else self.part


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
    def same(self) -> bool | None:
        """Whether they differ in nothing; None where nothing that both say something of differs, and there is more."""
        return False if self.rows else None if self.unknown else True

    @property
    def summary(self) -> str:
        """What it comes to where no row tells of a difference, in words."""
        return f"No difference in what was compared; not compared: {', '.join(self.unknown)}" if self.unknown else "No difference"

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
        elif part in ("versions", "device"):  # of stages that one of them has not done, nothing can be said
            found += _settings(part, *({stage: side[stage] for stage in known[0] if stage in known[1]} for side in known))
            unknown += [f"{part} of {stage}" for stage in sorted(known[0].keys() ^ known[1].keys())]
        else:
            found += _settings(part, *known)
    if mine.candidates is None or theirs.candidates is None:
        unknown.append("search")
    elif other := other_candidate(mine.candidates, theirs.candidates):
        found.append(Row("search", other, f"{len(mine.candidates)} candidates", f"{len(theirs.candidates)} candidates", ""))
    if mine.tensors is None or theirs.tensors is None:
        unknown.append("weights")
    else:
        found += _tensors(mine, theirs)
    if mine.files is None or theirs.files is None:
        unknown.append("files")
    else:
        names = sorted(mine.files.keys() | theirs.files.keys())
        digests = [(name, mine.files.get(name), theirs.files.get(name)) for name in names]
        found += [Row("files", name, _short(a), _short(b), name) for name, a, b in digests if a != b]
    compared: list[RateDifference] = []
    if mine.results is None or theirs.results is None:
        unknown.append("scores")
    else:
        compared = rates(mine.results, theirs.results, mine.labels, theirs.labels)
        found += [
            Row("scores", f"{each.what}: {each.said}", percent(asdict(each.a)), percent(asdict(each.b)), _rate(each))
            for each in compared
            if (each.a.value, each.a.n) != (each.b.value, each.b.n) or each.outcome == "differs"
        ]
        found += _unmatched(mine.results, theirs.results)
        found += _settings("scores", *({key: side.results.to_json()[key] for key in SETTINGS} for side in (mine, theirs) if side.results))
    return Difference(str(a), str(b), tuple(found), tuple(compared), tuple(unknown))


def _settings(part: str, a: Any, b: Any) -> Iterator[Row]:
    for path, (x, y) in other_settings(a, b).items():
        apart = f" ({abs(x - y):.3g} apart)" if part == "parameters" and all(type(v) in (int, float) for v in (x, y)) else ""
        yield Row(part, path + apart, _text(x), _text(y), path)


def _tensors(a: Side, b: Side) -> Iterator[Row]:
    """Which tensors differ; by how much, where the weights of both are on this machine."""
    assert a.tensors is not None and b.tensors is not None
    names = sorted(a.tensors.keys() | b.tensors.keys())
    other = [name for name in names if a.tensors.get(name) != b.tensors.get(name)]
    if other:
        yield Row("weights", f"{len(names) - len(other)} of {len(names)} tensors are equal", "", "", "")
    for name in other[:NAMED]:
        how = f": {other_entries(name, a.weights, b.weights)}" if a.weights is not None and b.weights is not None else ""
        yield Row("weights", name + how, _short(a.tensors.get(name)), _short(b.tensors.get(name)), name)
    if len(other) > NAMED:
        yield Row("weights", f"and {len(other) - NAMED} more tensors", "", "", "")


def _unmatched(a: Results, b: Results) -> Iterator[Row]:
    """Rates that one of them has alone."""
    for (model, benchmark, metric, judge), pair in unmatched(a, b).items():
        what = f"{model} on {benchmark}: {metric.replace('_', ' ')} ({judge})"
        mine, theirs = (percent(asdict(score)) if score is not None else "" for score in pair)
        yield Row("scores", what, mine, theirs, f"{model}.{benchmark}.{judge}")


def _rate(each: RateDifference) -> str:
    return f"{each.model}.{each.benchmark}.{each.judge}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _short(digest: str | None) -> str:
    return digest[:12] if digest else ""
