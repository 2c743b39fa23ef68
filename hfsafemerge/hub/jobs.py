"""Jobs on Hugging Face: submitted once and no more, followed to their end, listed and cancelled; those of this tool alone."""

import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub import JobInfo, JobStage, get_token
from huggingface_hub.errors import JobNotFoundError, RepositoryNotFoundError

from hfsafemerge.errors import Cancelled, HubError, RecipeError
from hfsafemerge.hub import client
from hfsafemerge.hub.job_requests import MADE_BY, SECONDS, JobRequest, without_token
from hfsafemerge.hub.repositories import check_can_write
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.registry import unknown_name

SUBMISSION = "submission"  # the label by which a job is found again whose submission got no answer
NAME = re.compile(r"([\w.-]+/)?[\w-]+")
RUNNING = (JobStage.SCHEDULING, JobStage.RUNNING)
LAST_LINES = 10
EVERY = 2.0  # seconds between looks at a job that waits for its machine


@dataclass(frozen=True)
class Price:
    """What the Hub says of a flavor: `per_unit` US dollars a `unit`, and at most so many for the whole job, where the unit is known."""

    hardware: str
    per_unit: float
    unit: str
    at_most: float | None


def price(request: JobRequest, notify: Notify = say_nothing) -> Price:
    """What the job may cost, from the Hub's own list.

    Raises:
        RecipeError: there is no such flavor.
        HubError: the Hub does not tell its prices.
    """

    def look() -> Price:
        with client.hub_errors("the list of hardware for jobs"):
            known = {hardware.name: hardware for hardware in client.api().list_jobs_hardware()}
        if request.flavor not in known:
            raise RecipeError(unknown_name("flavor", request.flavor, known))
        found = known[request.flavor]
        unit = SECONDS.get(found.unit_label[:1]) if found.unit_label in ("second", "minute", "hour", "day") else None
        at_most = found.unit_cost_usd * request.timeout / unit if unit else None
        gpu = f"{found.accelerator.quantity} {found.accelerator.model}" if found.accelerator else None
        about = ", ".join(filter(None, [found.cpu, found.ram, gpu]))
        return Price(about, found.unit_cost_usd, found.unit_label, at_most)

    return persist(look, notify)


def submit(request: JobRequest, namespace: str | None = None, notify: Notify = say_nothing) -> JobInfo:
    """Submit a job with the user's token as its secret. Where an answer was lost, the job that stands is taken, and no second one made.

    Raises:
        HubError: the user is not signed in, or the Hub refused.
    """
    token = get_token()
    if token is None:
        raise HubError("A job needs a token with write access: run `hf auth login`, or set HF_TOKEN.")
    place = namespace or whose(notify)
    mark = {SUBMISSION: secrets.token_hex(8)}
    attempts = 0

    def post() -> JobInfo:
        nonlocal attempts
        attempts += 1
        with client.hub_errors(f"a job of {place}"):
            api = client.api()
            if attempts > 1 and (standing := list(api.list_jobs(namespace=place, labels=mark))):
                return standing[0]
            return api.run_job(
                image=request.image,
                command=request.command,
                env=dict(request.environment),
                secrets={"HF_TOKEN": token},
                flavor=request.flavor,
                timeout=request.timeout,
                name=request.name,
                labels=request.labels | mark,
                namespace=place,
            )

    return persist(post, notify)


def whose(notify: Notify = say_nothing) -> str:
    """The user whose token it is. Raises HubError."""

    def ask() -> str:
        with client.hub_errors("the account"):
            return str(client.api().whoami()["name"])

    return persist(ask, notify)


def reference(job: JobInfo) -> str:
    """The job as commands name it."""
    return f"{job.owner.name}/{job.id}"


def find(name: str, namespace: str | None = None, notify: Notify = say_nothing) -> JobInfo:
    """A job of this tool, by its id or by namespace/id. Raises HubError for none, and for one that this tool did not start."""
    if NAME.fullmatch(name) is None:
        raise HubError(f"{name!r} is no job. Name it by its id, or as namespace/id.")
    owner, _, job_id = name.rpartition("/")
    place = owner or namespace or whose(notify)

    def inspect() -> JobInfo:
        with client.hub_errors(f"the job {name}"):
            try:
                return client.api().inspect_job(job_id=job_id, namespace=place)
            except JobNotFoundError as error:
                raise HubError(f"There is no job {job_id} of {place}. `hfsafemerge jobs ps --all` lists them.") from error

    job = persist(inspect, notify)
    if not MADE_BY.items() <= (job.labels or {}).items():
        raise HubError(f"The job {place}/{job_id} was not started by hfsafemerge, and is left alone. Use `hf jobs` for it.")
    return job


def listed(namespace: str | None = None, *, finished: bool = False, notify: Notify = say_nothing) -> list[JobInfo]:
    """The jobs of this tool in a namespace: those that wait or run, or all. Raises HubError."""
    place = namespace or whose(notify)

    def look() -> list[JobInfo]:
        with client.hub_errors(f"the jobs of {place}"):
            return list(client.api().list_jobs(namespace=place, labels=MADE_BY, status=None if finished else list(RUNNING)))

    return persist(look, notify)


def cancel(job: JobInfo, notify: Notify = say_nothing) -> None:
    """Stop a job; one that has ended stays as it is. Raises HubError."""

    def stop() -> None:
        with client.hub_errors(f"the job {reference(job)}"):
            client.api().cancel_job(job_id=job.id, namespace=job.owner.name)

    if job.status.stage in RUNNING:
        persist(stop, notify)


def logs(job: JobInfo, say: Callable[[str], None], *, follow: bool, notify: Notify = say_nothing) -> None:
    """Hand on each line that a job has written, once, without the user's token; with `follow` until it ends. Raises HubError."""
    told = 0

    def read(live: bool) -> None:
        nonlocal told
        with client.hub_errors(f"the logs of the job {reference(job)}"):
            lines = client.api().fetch_job_logs(job_id=job.id, namespace=job.owner.name, follow=live)
            for number, line in enumerate(lines):
                if number >= told:  # after a fault they begin anew
                    told += 1
                    say(without_token(line.rstrip("\n")))

    live = follow or job.status.stage not in RUNNING  # the logs of a job that has ended end by themselves, and only so come whole
    persist(lambda: read(live), notify)
    if live:  # once more: a connection that is cut when the job has ended looks to the client like the end of its logs
        persist(lambda: read(live), notify)


def follow(job: JobInfo, say: Callable[[str], None], notify: Notify = say_nothing) -> JobInfo:
    """Wait for a job, handing on its lines, until it has done what it was asked.

    Raises:
        HubError: it failed or was cancelled; the message ends with its last lines.
        Cancelled: the user pressed Ctrl-C. The job goes on.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)

    def keep(line: str) -> None:
        last.append(line)
        say(line)

    try:
        waiting = job.status.message
        while job.status.stage == JobStage.SCHEDULING:
            if job.status.message != waiting and (waiting := job.status.message):
                notify(waiting)
            time.sleep(EVERY)
            job = find(reference(job), notify=notify)
        logs(job, keep, follow=True, notify=notify)
        while (job := find(reference(job), notify=notify)).status.stage in RUNNING:
            time.sleep(EVERY)
    except KeyboardInterrupt:
        name = reference(job)
        raise Cancelled(
            f"The job {name} goes on, and is paid for. See it with `hfsafemerge jobs logs -f {name}`, "
            f"stop it with `hfsafemerge jobs cancel {name}`."
        ) from None
    if job.status.stage != JobStage.COMPLETED:
        why = f" ({job.status.message})" if job.status.message else ""
        end = "".join(f"\n  {line}" for line in last) or " none."
        raise HubError(f"The job {reference(job)} ended as {job.status.stage}{why}. Its last lines:{without_token(end)}")
    return job


def check_target(repo_id: str, marker: str, notify: Notify = say_nothing) -> None:
    """Raise HubError where the user can't publish what a job will have made: better known before it is paid for than after.

    Args:
        repo_id: where the job is to publish.
        marker: the file by which this tool knows a repository as its own.
        notify: is told of faults.
    """

    def look() -> None:
        check_can_write([repo_id])
        with client.hub_errors(repo_id):
            try:
                found = client.api().model_info(repo_id)
            except RepositoryNotFoundError:
                return
            held = {file.rfilename for file in found.siblings or ()} - {".gitattributes"}
        if held and marker not in held:
            raise HubError(f"{repo_id} exists and was not made by hfsafemerge; a job could not publish there. Choose another place.")

    persist(look, notify)
