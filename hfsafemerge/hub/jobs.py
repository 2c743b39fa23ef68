"""Jobs on Hugging Face: submitted once and no more, followed to their end, listed and cancelled; those of this tool alone."""

import re
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub import JobInfo, JobStage, get_token
from huggingface_hub.errors import HfHubHTTPError, JobNotFoundError

from hfsafemerge.errors import Cancelled, HubError, RecipeError
from hfsafemerge.hub import client
from hfsafemerge.hub.client import status_of
from hfsafemerge.hub.job_requests import MADE_BY, SECONDS, JobRequest
from hfsafemerge.hub.redacting import without_token
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.registry import unknown_name

SUBMISSION = "submission"  # the label by which a job is found again whose submission got no answer
NAME = re.compile(r"([\w.-]+/)?[\w-]+")
REFUSED = frozenset({400, 401, 402, 403, 404, 413, 422, 429})  # of an answer that says that no job was made
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
        HubError: the user is not signed in, or the Hub refused; where a job may stand all the same, it says so.
        Cancelled: the user pressed Ctrl-C when a job may stand already.
    """
    token = get_token()
    if token is None:
        raise HubError("A job needs a token with write access: run `hf auth login`, or set HF_TOKEN.")
    place = namespace or whose(notify)
    mark = {SUBMISSION: secrets.token_hex(8)}
    unanswered = False  # from the first request on that may have made a job

    def post() -> JobInfo:
        nonlocal unanswered
        with client.hub_errors(f"a job of {place}"):
            api, asked_before = client.api(), unanswered
            if asked_before and (standing := list(api.list_jobs(namespace=place, labels=mark))):
                return standing[0]
            unanswered = True
            try:
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
            except HfHubHTTPError as error:
                status = status_of(error)
                unanswered = asked_before or status is None or status not in REFUSED
                raise

    try:
        return persist(post, notify)
    except (HubError, KeyboardInterrupt) as error:
        if not unanswered:
            raise
        see = f"hfsafemerge jobs ps --all{f' --namespace {namespace}' if namespace else ''}"
        told = f"A job may run all the same, and be paid for: `{see}` shows it; its label is {SUBMISSION}={mark[SUBMISSION]}."
        if isinstance(error, HubError):
            raise HubError(f"{error} {told}") from error.__cause__
        raise Cancelled(told) from None


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

    with client.hub_errors(f"the jobs of {place}"):  # the client itself asks for a page up to six times
        return list(client.api().list_jobs(namespace=place, labels=MADE_BY, status=None if finished else list(RUNNING)))


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
        HubError: it failed or was cancelled, and the message ends with its last lines; or it can't be seen any more, and goes on.
        Cancelled: the user pressed Ctrl-C. The job goes on.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)

    def keep(line: str) -> None:
        last.append(line)
        say(line)

    name = reference(job)
    goes_on = (
        f"The job {name} goes on, and is paid for. See it with `hfsafemerge jobs logs -f {name}`, "
        f"stop it with `hfsafemerge jobs cancel {name}`."
    )
    try:
        waiting = job.status.message
        while job.status.stage == JobStage.SCHEDULING:
            if job.status.message != waiting and (waiting := job.status.message):
                notify(waiting)
            time.sleep(EVERY)
            job = find(name, notify=notify)
        logs(job, keep, follow=True, notify=notify)
        while (job := find(name, notify=notify)).status.stage in RUNNING:
            time.sleep(EVERY)
    except KeyboardInterrupt:
        raise Cancelled(goes_on) from None
    except HubError as error:
        raise HubError(f"{error} {goes_on}") from error.__cause__
    if job.status.stage != JobStage.COMPLETED:
        why = f" ({job.status.message})" if job.status.message else ""
        end = "".join(f"\n  {line}" for line in last) or " none."
        raise HubError(f"The job {name} ended as {job.status.stage}{why}. Its last lines:{without_token(end)}")
    return job
