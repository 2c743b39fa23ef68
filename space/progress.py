"""How far a job is: read from the files that it writes, whether or not its process lives."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hfsafemerge.running import Event, stages
from space.environment import for_visitors, without_secrets
from space.job import Job, error_line
from space.queueing import QUEUE

LAB = "lab"
Phase = Literal["queued", "running", "stopping", "done", "cancelled", "failed", "lost"]
State = Literal["waiting", "running", "done", "stopped"]


@dataclass(frozen=True)
class StageState:
    """One stage of a run, and the seconds it has taken so far."""

    name: str
    state: State
    seconds: float


@dataclass(frozen=True)
class Status:
    """Where a job is.

    `eta` is in seconds, of the stage that is being worked on; `error` says why a job failed; `position` is its place in the queue,
    from 1 on. A job that waited when the app was started again is lost, since its token was in the app's memory.
    """

    job: str
    phase: Phase
    stages: list[StageState]
    stage: str
    message: str
    done: int
    total: int
    eta: float | None
    error: str
    log: str
    position: int | None = None


def status(job: Job) -> Status:
    """Where the job is now."""
    alive = job.is_alive()  # first: whatever is read after the process has ended is final
    log = for_visitors(without_secrets(tail(job.log, 12_000)), job.directory)
    event = last_event(job.run / "events.jsonl")
    if event is None:
        lines = log.splitlines()
        event = Event(LAB if job.facts["lab"] else "check", lines[-1] if lines else "waiting" if not job.begun else "starting")
    position = QUEUE.position(job.id)
    phase = _phase(job, alive, position)
    return Status(
        job=job.id,
        phase=phase,
        stages=_stages(job, alive),
        stage=event.stage,
        message=event.message,
        done=event.done,
        total=event.total,
        eta=event.eta if phase == "running" else None,
        error=_error(phase, log),
        log=log,
        position=position,
    )


def _phase(job: Job, alive: bool, position: int | None) -> Phase:
    if alive:
        return "stopping" if job.cancelled else "running"
    if job.exit_code == 0:
        return "done"
    if position is not None:
        return "queued"
    if job.cancelled:
        return "cancelled"
    return "failed" if job.begun else "lost"


def _error(phase: Phase, log: str) -> str:
    if phase == "lost":
        return "The app was started again while this run waited. Start it anew."
    return (error_line(log) or "The process was ended from outside, or by a fault; the log says more.") if phase == "failed" else ""


def _stages(job: Job, alive: bool) -> list[StageState]:
    """The stages in the order of work: the lab's own first, and push only where the run has come to it."""
    manifest = job.run / "run.json"
    known: dict[str, Any] = json.loads(manifest.read_text())["stages"] if manifest.exists() else {}
    at_work: State = "running" if alive else "stopped" if job.begun else "waiting"
    found = []
    if job.facts["lab"]:
        found.append(StageState(LAB, "done" if job.recipe.exists() else at_work, 0.0))
    for name in stages():
        entry = known.get(name)
        if entry is not None:
            found.append(StageState(name, "done" if entry["finished"] else at_work, entry["seconds"]))
        elif name != "push":
            found.append(StageState(name, "waiting", 0.0))
    return found


def last_event(file: Path) -> Event | None:
    """The last event that stands whole in events.jsonl."""
    lines = tail(file, 4_000).splitlines(keepends=True)
    whole = next((line for line in reversed(lines) if line.endswith("}\n")), None)
    if whole is None:
        return None
    fields = json.loads(whole)
    fields.pop("time")
    return Event(**fields)


def tail(file: Path, size: int) -> str:
    """The last lines of a file that fit in so many bytes; nothing when there is no file."""
    if not file.exists():
        return ""
    with file.open("rb") as opened:
        end = opened.seek(0, 2)
        opened.seek(max(0, end - size))
        text = opened.read().decode(errors="replace")
    return text if end <= size else text.partition("\n")[2]
