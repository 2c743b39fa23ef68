"""What came of doing a published merge again, finding by finding, as it is printed, shown in a notebook, and written as JSON."""

from dataclasses import asdict, dataclass
from typing import Any

from hfsafemerge.errors import NotReproduced
from hfsafemerge.running.notebook.showing import Table, plain_table
from hfsafemerge.running.repeating.rating import Outcome


@dataclass(frozen=True)
class Finding:
    """One thing that was done again: what was published, what came out here, and how the two compare."""

    what: str
    published: str
    here: str
    outcome: Outcome
    """identical; not told apart, of a rate that chance may have moved this far; or differs."""
    detail: str = ""

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against it."""
        return self.outcome != "differs"


@dataclass(frozen=True, repr=False)
class Reproduction:
    """What came of doing a published merge again."""

    repo_id: str
    commit: str
    tensors: int
    findings: tuple[Finding, ...] = ()
    differences: tuple[str, ...] = ()
    """A sentence or two about everything that does not agree; none where all does."""
    environment: tuple[str, ...] = ()
    """In which versions, and in what of the device, the places differ; that is no difference of the results."""

    @property
    def agrees(self) -> bool:
        """Whether nothing speaks against what was published."""
        return bool(self.findings) and not self.differences and all(each.agrees for each in self.findings)

    @property
    def summary(self) -> str:
        """What it comes to, in words."""
        if not self.agrees:
            return "What was published does not come out again"
        open_ones = sum(each.outcome == "not told apart" for each in self.findings)
        return "Every tensor is equal" + (f", and {open_ones} rates are not told apart from the published ones" if open_ones else "")

    def require(self) -> "Reproduction":
        """Itself. Raises NotReproduced, whose `result` this is, where something does not agree."""
        if not self.agrees:
            raise NotReproduced(f"{self.repo_id}: {' '.join(self.differences) or self.summary}", self)
        return self

    def to_json(self) -> dict[str, Any]:
        """As `hfsafemerge reproduce --json` prints it."""
        found = asdict(self)
        for written, each in zip(found["findings"], self.findings, strict=True):
            written["agrees"] = each.agrees
        return {"agrees": self.agrees, **found}

    def table(self) -> Table:
        """The findings as rows."""
        notes = [*self.differences, *(f"Computed elsewhere: {each}." for each in self.environment), f"{self.summary}."]
        return plain_table(f"{self.repo_id}@{self.commit}", [asdict(each) for each in self.findings], notes)

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()
