"""Jobs: what was asked for, what they wrote, how they ended. They are recorded and end at once, unless somebody runs them.

They are kept in memory, and gone when the server stops.
"""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, model_validator

from hfsafemerge.localhub.access import SignedIn, require_write
from hfsafemerge.localhub.hardware import FLAVORS, described
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import now, stable_id
from hfsafemerge.localhub.users import User

router = APIRouter()

Stage = Literal["SCHEDULING", "RUNNING", "COMPLETED", "ERROR", "CANCELED"]
GOING_ON = ("SCHEDULING", "RUNNING")
EVERY = 0.02  # seconds between looks for new lines


class JobSpec(BaseModel):
    """A job as the clients ask for it."""

    command: Annotated[list[str], Field(min_length=1)]
    arguments: list[str] = []
    environment: dict[str, str] = {}
    secrets: dict[str, str] = {}
    flavor: str
    timeout: Annotated[int | None, Field(alias="timeoutSeconds", gt=0)] = None
    labels: dict[str, str] = {}
    image: Annotated[str | None, Field(alias="dockerImage")] = None
    space: Annotated[str | None, Field(alias="spaceId")] = None

    @model_validator(mode="after")
    def _can_be_run(self) -> "JobSpec":
        if (self.image is None) == (self.space is None):
            raise ValueError("name either a dockerImage or a spaceId")
        if self.flavor not in FLAVORS:
            raise ValueError(f"flavor is {self.flavor!r}, not one of {', '.join(FLAVORS)}")
        return self


@dataclass
class Job:
    """A job. `lines` only grows, and a stage that is no longer SCHEDULING or RUNNING stays."""

    namespace: str
    initiator: str
    spec: JobSpec
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: str = field(default_factory=now)
    stage: Stage = "SCHEDULING"
    message: str | None = None
    lines: list[tuple[str, str]] = field(default_factory=list)

    def write(self, line: str) -> None:
        """Add a line to its logs."""
        self.lines.append((line, now()))

    def end(self, stage: Stage, message: str | None = None) -> None:
        """Be over, unless it is already."""
        if self.stage in GOING_ON:
            self.message, self.stage = message, stage

    def describe(self) -> dict[str, Any]:
        """What the clients are told: never a secret."""
        owner = {"id": stable_id(self.namespace), "name": self.namespace, "type": "user"}
        return {
            "id": self.id, "createdAt": self.created, "owner": owner, "dockerImage": self.spec.image, "spaceId": self.spec.space,
            "initiator": {"id": stable_id(self.initiator), "name": self.initiator, "type": "user"}, "labels": self.spec.labels,
            "command": self.spec.command, "arguments": self.spec.arguments, "environment": self.spec.environment,
            "flavor": self.spec.flavor, "status": {"stage": self.stage, "message": self.message},
        }  # fmt: skip


@dataclass
class Jobs:
    """All jobs of a server. `run` does one in a thread of its own: it writes its lines and ends it."""

    run: Callable[[Job], None] | None = None
    all: dict[str, Job] = field(default_factory=dict)

    def add(self, job: Job) -> None:
        """Take a job, and begin it."""
        self.all[job.id] = job
        if self.run is None:
            job.write("The local Hub has recorded this job, and runs none.")
            job.end("COMPLETED")
        else:
            threading.Thread(target=self.run, args=(job,), daemon=True).start()


router.add_api_route("/api/jobs/hardware", lambda: described(FLAVORS))


@router.post("/api/jobs/{namespace}")
async def create(namespace: str, spec: JobSpec, request: Request, user: SignedIn) -> dict[str, Any]:
    """Take a job."""
    job = Job(namespace, require_write(user, namespace, "jobs").name, spec)
    _jobs(request).add(job)
    return job.describe()


@router.get("/api/jobs/{namespace}")
async def list_jobs(
    namespace: str, request: Request, user: SignedIn, stage: Annotated[list[str] | None, Query()] = None,
    label: Annotated[list[str] | None, Query()] = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The jobs of a namespace that are at one of the stages and have all of the labels, the newest first."""
    _require_reader(user, namespace)
    found = [job for job in reversed(_jobs(request).all.values()) if job.namespace == namespace]
    wanted = [text.partition("=")[::2] for text in label or []]
    return [
        job.describe()
        for job in found
        if (stage is None or job.stage in stage) and all(job.spec.labels.get(key) == value for key, value in wanted)
    ]


@router.get("/api/jobs/{namespace}/{job_id}")
async def inspect(namespace: str, job_id: str, request: Request, user: SignedIn) -> dict[str, Any]:
    """A job."""
    return _find(request, user, namespace, job_id).describe()


@router.post("/api/jobs/{namespace}/{job_id}/cancel")
async def cancel(namespace: str, job_id: str, request: Request, user: SignedIn) -> dict[str, Any]:
    """Stop a job. Who runs it sees its stage."""
    require_write(user, namespace, "jobs")
    job = _find(request, user, namespace, job_id)
    job.end("CANCELED")
    return job.describe()


@router.get("/api/jobs/{namespace}/{job_id}/logs")
async def logs(namespace: str, job_id: str, request: Request, user: SignedIn, tail: int | None = None) -> StreamingResponse:
    """What a job has written, as events, and what it goes on to write until it ends."""
    job = _find(request, user, namespace, job_id)
    start = max(0, len(job.lines) - tail) if tail is not None else 0
    return StreamingResponse(_events(job, start), media_type="text/event-stream")


async def _events(job: Job, told: int) -> AsyncIterator[str]:
    while True:
        over = job.stage not in GOING_ON  # looked at first: what it wrote before is then told below
        while told < len(job.lines):
            line, time = job.lines[told]
            yield f"data: {json.dumps({'data': line, 'timestamp': time})}\n\n"
            told += 1
        if over:
            return
        await asyncio.sleep(EVERY)


def _jobs(request: Request) -> Jobs:
    jobs: Jobs = request.app.state.jobs
    return jobs


def _find(request: Request, user: User, namespace: str, job_id: str) -> Job:
    _require_reader(user, namespace)
    job = _jobs(request).all.get(job_id)
    if job is None or job.namespace != namespace:
        raise HubProblem(404, f"There is no job {job_id!r} of {namespace}.")
    return job


def _require_reader(user: User, namespace: str) -> None:
    if not user.belongs_to(namespace):
        raise HubProblem(403, f"{user.name} is no member of {namespace}, whose jobs these are.")
    if not user.allows("jobs"):
        raise HubProblem(403, f"Your token lets an app act for {user.name} without the scope jobs. Ask for it at sign-in.")
