"""What a push would publish, and what it has published, as a notebook shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge.checkpoint import in_words
from hfsafemerge.running.notebook.showing import Markdown, Table
from hfsafemerge.running.publishing.aiming import aim
from hfsafemerge.running.publishing.previewing import Preview, preview
from hfsafemerge.running.publishing.pushing import PUSHED

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


@dataclass(frozen=True)
class Published:
    """Where a run was published."""

    url: str
    """The model, or the pull request in its repository."""
    repo_id: str
    commit: str
    tag: str | None
    datasets: Mapping[str, str]
    """By kind, the address of the data, or of the pull request."""
    collection: str | None
    private_because: tuple[str, ...]
    """Why the model's repository is private whatever was asked for; nothing where it is as asked."""

    def _repr_html_(self) -> str:
        places = {"model": self.url, **self.datasets} | ({"collection": self.collection} if self.collection else {})
        rows = "".join(f"<tr><td>{escape(name)}</td><td>{_link(place)}</td></tr>" for name, place in places.items())
        return f"<table>{rows}</table>" + "".join(f"<p>Private: {escape(reason)}</p>" for reason in self.private_because)


@dataclass(frozen=True, repr=False, kw_only=True)
class Plan(Table):
    """The files that a push would publish, a row for each."""

    card: Markdown
    """The model card as it would be published."""
    preview: Preview
    """All that is known of it."""


def published(run: "Run") -> Published:
    """Where a run was pushed to. Raises RunError before that."""
    found = run.read(PUSHED)
    model = found["model"]
    return Published(
        url=model["pull_request"] or model["url"],
        repo_id=model["repo_id"],
        commit=model["commit"],
        tag=model["tag"],
        datasets={kind: each["pull_request"] or each["url"] for kind, each in found["datasets"].items()},
        collection=found["collection"],
        private_because=tuple(found["private_because"]),
    )


def planned(run: "Run", settings: Mapping[str, Any]) -> Plan:
    """What a push with these settings would publish; the run's own settings stay as they are. Raises as a push does."""
    before = run.recipe, run.once
    try:
        aim(run, settings)
        found = preview(run)
    finally:
        run.recipe, run.once = before
    rows = tuple({"repository": file.repo_id, "file": file.path, "bytes": file.size, "lfs": file.lfs} for file in found.files)
    where = "a pull request" if found.create_pr else found.revision or "main"
    notes = [f"{'A new' if found.new else 'The'} {'private' if found.private else 'public'} repository {found.repo_id}, {where}."]
    notes += [f"Private: {reason}" for reason in found.private_because]
    notes += [
        f"{data.rows} rows of {data.kind} data, {'private' if data.private else 'public'}{', behind a gate' if data.gated else ''}."
        for data in found.datasets
    ]
    return Plan(
        title=f"What a push of {run.recipe.name} would publish",
        rows=rows,
        head=("repository", "file", "size", "kept in"),
        cells=tuple((file.repo_id, file.path, in_words(file.size), "LFS" if file.lfs else "git") for file in found.files),
        notes=tuple(notes),
        card=Markdown(Path(found.card).read_text()),
        preview=found,
    )


def _link(url: str) -> str:
    return f'<a href="{escape(url)}">{escape(url)}</a>'
