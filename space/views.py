"""What the page shows, as HTML. Every text that is not ours is escaped here."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from hfsafemerge._card_plot import plot_alignment, points_of
from hfsafemerge.card import percent
from hfsafemerge.checkpoint import in_words
from hfsafemerge.evaluation.naming import rate_name
from hfsafemerge.running import clock
from space.progress import Phase, StageState, State, Status

STAGES: Mapping[str, str] = {
    "lab": "Train the lab's models",
    "check": "Check that the models fit together",
    "generate": "Generate the data",
    "search": "Search the parameters",
    "merge": "Merge the weights",
    "evaluate": "Evaluate on held-out benchmarks",
    "push": "Publish",
}
MARKS: Mapping[State, str] = {"waiting": "○", "running": "◐", "done": "●", "stopped": "◌"}
HEADS: Mapping[Phase, str] = {
    "queued": "Waiting",
    "running": "Running",
    "stopping": "Stopping",
    "done": "Finished",
    "cancelled": "Cancelled",
    "failed": "Failed",
    "lost": "Lost",
}


def note(text: str, kind: Literal["good", "bad", "plain"] = "plain") -> str:
    """A message; nothing for no text."""
    return f'<p class="note {kind}" role="status">{escape(text)}</p>' if text else ""


def link(text: str, url: str) -> str:
    """A good message that ends in an address."""
    shown = f'<a href="{escape(url)}" target="_blank" rel="noopener">{escape(url)}</a>'
    return f'<p class="note good" role="status">{escape(text)} {shown}</p>'


def help_text(text: str) -> str:
    """An explanation below a field."""
    return f'<p class="help">{escape(text)}</p>'


def heading(text: str, says: str) -> str:
    """What a group of fields is for."""
    return f'<h3 class="heading">{escape(text)}</h3><p class="help">{escape(says)}</p>'


def model(name: str) -> str:
    """A model in a list, by its name."""
    return f'<span class="model">{escape(name)}</span>'


def headline(status: Status) -> str:
    """One line on a job that goes on, or that has just ended, for the steps that don't show it."""
    if status.phase in ("queued", "running", "stopping"):
        place = f"number {status.position} in the queue" if status.position else STAGES.get(status.stage, status.stage).lower()
        share = f", {status.done} of {status.total}" if status.total and status.phase == "running" else ""
        return f'<p class="headline"><strong>{HEADS[status.phase]}</strong>: {escape(place)}{share}. The step Run shows more.</p>'
    where = "The step Results shows what came of it." if status.phase == "done" else "The step Run says why."
    return f'<p class="headline {status.phase}"><strong>{HEADS[status.phase]}</strong>: your run. {where}</p>'


def watch(status: Status) -> str:
    """The stages of a job with their states, and what is being done."""
    kind = {"done": "good", "failed": "bad", "lost": "bad"}.get(status.phase, "plain")
    place = f"number {status.position} in the queue" if status.position else ""
    reason = f": {escape(status.error or place)}" if status.error or place else ""
    head = f'<p class="note {kind}" role="status"><strong>{HEADS[status.phase]}</strong>{reason}</p>'
    return f'{head}<ol class="stages">{"".join(_stage(stage, status) for stage in status.stages)}</ol>'


def _stage(stage: StageState, status: Status) -> str:
    label = escape(STAGES.get(stage.name, stage.name))
    seconds = clock(stage.seconds) if stage.seconds >= 1 else ""
    detail = _detail(status) if stage.state in ("running", "stopped") and stage.name == status.stage else ""
    mark = f'<span class="mark" aria-hidden="true">{MARKS[stage.state]}</span>'
    words = f'<span class="state">{stage.state}</span> <span class="seconds">{seconds if stage.state == "done" else ""}</span>'
    return f'<li class="{stage.state}">{mark}<span class="stage">{label}</span> {words}{detail}</li>'


def _detail(status: Status) -> str:
    share = f" {status.done} of {status.total}" if status.total else ""
    left = f", about {clock(status.eta)} left" if status.eta else ""
    bar = f'<progress max="{status.total}" value="{status.done}"></progress>' if status.total else ""
    return f'<div class="detail">{escape(status.message)}{share}{left}{bar}</div>'


def table(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One row for each model, one column for each rate, as `hfsafemerge evaluate` prints them."""
    columns = next(iter(scores.values()), [])
    if not columns:
        return note("The recipe names no benchmarks, so nothing was measured.")
    heads = "".join(f'<th scope="col">{escape(c["benchmark"])}<br><span>{escape(_rate(c, columns))}</span></th>' for c in columns)
    rows = "".join(_row(model, found) for model, found in scores.items())
    counts = sorted({c["n"] for c in columns})
    n = f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"
    caption = f"Rates in percent with their 95% intervals; {n} for each."
    return (
        f'<div class="scroll"><table><caption>{caption}</caption>'
        f'<thead><tr><th scope="col">model</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _rate(score: Mapping[str, Any], beside: Sequence[Mapping[str, Any]]) -> str:
    """A rate's name and its better direction."""
    return f"{rate_name(score, beside)} {'↑' if score['better'] == 'higher' else '↓'}"


def _row(model: str, scores: Sequence[Mapping[str, Any]]) -> str:
    cells = "".join(f"<td>{escape(percent(score))}</td>" for score in scores)
    return f'<tr class="{"merged" if model == "merged" else "other"}"><th scope="row">{escape(model)}</th>{cells}</tr>'


def plot(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The plot of alignment against domain skill as a picture; nothing where one of them was not measured."""
    panels = points_of(scores)
    if not panels:
        return ""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "alignment.svg"
        plot_alignment(panels, [file])
        picture = base64.b64encode(file.read_bytes()).decode()
    said = "; ".join(
        f"{title}: " + ", ".join(f"{p.label} {100 * p.skill['value']:.0f} and {100 * p.alignment['value']:.0f}" for p in points)
        for title, points in panels.items()
    )
    alternative = escape(f"Accuracy and alignment in percent. {said}.")
    return f'<div class="scroll"><img class="plot" alt="{alternative}" src="data:image/svg+xml;base64,{picture}"></div>'


def side_by_side(said: Mapping[str, str]) -> str:
    """What models replied, one beside the other."""
    each = "".join(f"<section><h4>{escape(model)}</h4><p>{escape(reply) or '(nothing)'}</p></section>" for model, reply in said.items())
    return f'<div class="replies" role="status">{each}</div>'


def preview(found: Mapping[str, Any]) -> str:
    """What publishing would do: the repository, who could see it and why, the files with their sizes, and the datasets."""
    who = "private" if found["private"] else "public"
    head = note(f"{'A new' if found['new'] else 'The'} {who} repository {found['repo_id']}, in one commit.", "good")
    reasons = "".join(note(f"It has to be private. {reason}", "bad") for reason in found["private_because"])
    rows = "".join(
        f'<tr><th scope="row">{escape(f["repo_id"])}</th><td>{escape(f["path"])}</td><td>{in_words(f["size"])}</td></tr>'
        for f in found["files"]
    )
    data = "".join(
        f"<li>{each['rows']} rows of {escape(str(each['kind']))} data in {escape(each['repo_id'])}, "
        f"{'private' if each['private'] else 'public'}{', behind a gate' if each['gated'] else ''}</li>"
        for each in found["datasets"]
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("repository", "file", "size"))
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return f"{head}{reasons}<details><summary>{len(found['files'])} files</summary>{table}</details>" + (f"<ul>{data}</ul>" if data else "")


def samples(found: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """A few harmless prompts and their answers, by kind of data."""
    if not found:
        return note("This run made no data that could be shown.")
    parts = []
    for kind, rows in found.items():
        cells = "".join(f"<tr><td>{escape(prompt[:400])}</td><td>{escape(answer[:400])}</td></tr>" for prompt, answer in rows)
        head = '<tr><th scope="col">prompt</th><th scope="col">answer</th></tr>'
        parts.append(f'<h4>{escape(kind)}</h4><div class="scroll text"><table><thead>{head}</thead><tbody>{cells}</tbody></table></div>')
    return "".join(parts)


def estimate(steps: Sequence[Mapping[str, Any]]) -> str:
    """What would be made, a row a step."""
    if not steps:
        return note("The recipe makes no data.")
    names = [name for name, value in steps[0].items() if isinstance(value, (str, int)) and not isinstance(value, bool)]
    heads = "".join(f'<th scope="col">{escape(name.replace("_", " "))}</th>' for name in names)
    cells = [[step[name] for name in names] for step in steps]
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(f'{c:,}' if isinstance(c, int) else str(c))}</td>" for c in row) + "</tr>" for row in cells
    )
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
