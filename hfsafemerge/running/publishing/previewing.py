"""What a push would do, without doing it: nothing is uploaded, and nothing that writes is asked of the Hub."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import hub
from hfsafemerge.dataset_card import ROWS
from hfsafemerge.errors import RunError
from hfsafemerge.evaluation import Results
from hfsafemerge.running.evaluating import SCORES
from hfsafemerge.running.publishing.aiming import branch, check_push, data_target, title, wanted
from hfsafemerge.running.publishing.datasets import facts_of
from hfsafemerge.running.publishing.packing import pack
from hfsafemerge.running.publishing.pushing import private_because

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


@dataclass(frozen=True)
class FilePreview:
    """A file that would be published; `size` in bytes."""

    repo_id: str
    path: str
    size: int
    lfs: bool


@dataclass(frozen=True)
class DataPreview:
    """A dataset that would be published, with its card and its rows."""

    kind: str
    repo_id: str
    private: bool
    gated: bool
    rows: int
    tag: str


@dataclass(frozen=True)
class Preview:
    """What a push would do: the files of all repositories, who could read them, and the card, which is written here."""

    repo_id: str
    new: bool
    private: bool
    private_because: list[str]
    revision: str | None
    create_pr: bool
    commit_message: str
    tag: str | None
    collection: str | None
    datasets: list[DataPreview]
    files: list[FilePreview]
    card: str

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def preview(run: "Run") -> Preview:
    """See what a push would do. The card and the other small files are written into the work folder of the stage push.

    Raises:
        RunError: the run is not evaluated, its recipe does not say where to push, or the model was changed after the merge.
        RecipeError, DataError: as for a push.
        HubError: the push would be refused, or the Hub can't be asked.
    """
    spec, once = wanted(run), run.once
    if not run.is_done("evaluate"):
        raise RunError(
            f"{run.directory} is not evaluated yet, so its card can't be shown. Run `hfsafemerge evaluate {run.directory}` first."
        )
    reasons = private_because(run.recipe, Results.from_json(run.read(SCORES)))
    aim = check_push(run.recipe, once, reasons, run.emit)
    facts = facts_of(run, data_target(spec, once), aim.data) if aim.data else []
    linked = {str(each.kind): {"repo_id": each.repo_id, "commit": "0" * 40} for each in facts}  # there is none before it is published
    package = pack(run, spec.repo_id, linked, reasons)
    files = [_file(each.repo_id, ROWS, each.rows) for each in facts]
    files += [_file(spec.repo_id, name, path) for name, path in sorted(package.files.items())]
    return Preview(
        repo_id=spec.repo_id,
        new=aim.outlook[spec.repo_id].new,
        private=aim.outlook[spec.repo_id].private,
        private_because=reasons,
        revision=branch(spec, once),
        create_pr=once.create_pr,
        commit_message=title(run),
        tag=None if once.create_pr else once.tag or ("run-..." if facts else package.tag),  # it follows from the datasets' commits
        collection=spec.collection,
        datasets=[
            DataPreview(e.kind, e.repo_id, aim.outlook[e.repo_id].private, aim.data[e.kind].gated, len(e.examples), e.tag) for e in facts
        ],
        files=files,
        card=str(package.card),
    )


def _file(repo_id: str, name: str, path: Path) -> FilePreview:
    return FilePreview(repo_id, name, path.stat().st_size, hub.goes_to_lfs(name, path))
