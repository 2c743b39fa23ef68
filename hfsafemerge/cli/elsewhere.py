"""The commands that do a whole run on machines of Hugging Face."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.deploying import pairs
from hfsafemerge.cli.root import AllowWriterOpt, RecipeArg, examples, group

if TYPE_CHECKING:
    from huggingface_hub import JobInfo

    from hfsafemerge.hub.job_requests import JobRequest
    from hfsafemerge.recipe import Recipe

RUN = (
    "hfsafemerge jobs run recipe.yaml --flavor a100-large --timeout 6h",
    "hfsafemerge jobs run recipe.yaml --flavor l4x1 --push-to me/my-merge --dry-run",
    "hfsafemerge jobs run recipe.yaml --flavor l4x1 --package git+https://github.com/me/hfsafemerge@main --detach",
)
FINAL = ("COMPLETED", "CANCELED", "ERROR", "DELETED")

jobs = group("jobs", "Do whole runs on machines of Hugging Face.", *RUN)

JobArg = Annotated[str, Argument(help="The job's id, or namespace/id.")]
NamespaceOpt = Annotated[str | None, Option("--namespace", help="Whose jobs they are, and who pays; by default you.")]


@jobs.command("run", epilog=examples(*RUN))
def jobs_run(
    recipe: RecipeArg,
    flavor: Annotated[str, Option("--flavor", help="The hardware, such as a100-large; `hf jobs hardware` lists all.")],
    timeout: Annotated[str, Option("--timeout", help="The longest it may run: seconds, or a number with s, m, h or d.")] = "4h",
    push_to: Annotated[str | None, Option("--push-to", help="Where to publish, as namespace/name, if not where the recipe says.")] = None,
    image: Annotated[str | None, Option("--image", help="Another Docker image that has bash, base64 and uv.")] = None,
    package: Annotated[
        str | None,
        Option("--package", help="What to install, if not this release: a requirement, git+https://..., a wheel's address."),
    ] = None,
    label: Annotated[list[str] | None, Option("--label", "-l", help="KEY=VALUE, a label of the job; may be given several times.")] = None,
    namespace: NamespaceOpt = None,
    allow_writer: AllowWriterOpt = False,
    detach: Annotated[bool, Option("--detach", "-d", help="Only submit it, and don't wait.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be submitted.")] = False,
) -> None:
    """Do all of a recipe in a job of Hugging Face, which publishes the result.

    The job gets your token as a secret, and is paid for by the minute. What it has made before it is stopped is lost, unless it
    was published: raise --timeout rather than guess.
    """
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub
    from hfsafemerge.hub.job_requests import IMAGE, job_request
    from hfsafemerge.running.publishing.aiming import check_push

    loaded = _recipe(recipe, push_to)
    wanted = job_request(
        loaded, flavor, timeout, image=image or IMAGE, package=package, labels=pairs("--label", label),
        allow_writer=allow_writer,
    )  # fmt: skip
    _tell_price(wanted)
    if dry_run:
        plain = {name: getattr(wanted, name) for name in ("name", "repo_id", "image", "command", "flavor", "timeout", "labels")}
        out.dict(plain | {"environment": list(wanted.environment), "secrets": ["HF_TOKEN"], "namespace": namespace})
        return
    check_push(loaded, notify=out.log)
    job = on_hub.submit(wanted, namespace, out.log)
    out.result("Submitted", id=on_hub.reference(job), url=job.url)
    if detach:
        out.hint(f"`hfsafemerge jobs logs -f {on_hub.reference(job)}` follows it")
        return
    on_hub.follow(job, out.log, out.log)
    out.hint(f"published at {job.endpoint}/{wanted.repo_id}")


@jobs.command(
    "logs", epilog=examples("hfsafemerge jobs logs 687fb701029421ae5549d998", "hfsafemerge jobs logs -f me/687fb701029421ae5549d998")
)
def jobs_logs(
    job_id: JobArg,
    follow: Annotated[bool, Option("--follow", "-f", help="Go on until the job ends; a failed one is a failure here, too.")] = False,
    namespace: NamespaceOpt = None,
) -> None:
    """Show what a job has written."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub

    job = on_hub.find(job_id, namespace, out.log)
    if follow:
        on_hub.follow(job, click.echo, out.log)
    else:
        on_hub.logs(job, click.echo, follow=False, notify=out.log)


@jobs.command("inspect", epilog=examples("hfsafemerge jobs inspect 687fb701029421ae5549d998"))
def jobs_inspect(job_id: JobArg, namespace: NamespaceOpt = None) -> None:
    """Show how a job is doing."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub

    out.dict(_row(on_hub.find(job_id, namespace, out.log)), id_key="id")


@jobs.command("ps", epilog=examples("hfsafemerge jobs ps", "hfsafemerge jobs ps --all --json"))
def jobs_ps(
    everything: Annotated[bool, Option("--all", "-a", help="Also those that have ended.")] = False,
    namespace: NamespaceOpt = None,
) -> None:
    """List the jobs that hfsafemerge has started."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub

    out.table([_row(job) for job in on_hub.listed(namespace, finished=everything, notify=out.log)], id_key="id")


@jobs.command("cancel", epilog=examples("hfsafemerge jobs cancel 687fb701029421ae5549d998"))
def jobs_cancel(job_id: JobArg, namespace: NamespaceOpt = None) -> None:
    """Stop a job. What it has not published is lost."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub

    job = on_hub.find(job_id, namespace, out.log)
    on_hub.cancel(job, out.log)
    stage = str(getattr(job.status.stage, "value", job.status.stage))
    out.result("It had ended already" if stage in FINAL else "Cancelled", id=on_hub.reference(job))


def _recipe(path: Path, push_to: str | None) -> "Recipe":
    """The recipe of a file or of a run's directory, with another place to push to."""
    from hfsafemerge.running.loading import load_recipe

    return load_recipe(path / "recipe.yaml" if path.is_dir() else path).changed({"push.repo_id": push_to})


def _tell_price(wanted: "JobRequest") -> None:
    """What the Hub says that the job may cost."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.errors import HubError
    from hfsafemerge.hub.jobs import price

    try:
        found = price(wanted, out.log)
    except HubError as error:
        out.warning(f"What the job costs is not known. {error}")
        return
    most = f", so at most ${found.at_most:.2f} in {wanted.timeout / 3600:g} h" if found.at_most is not None else ""
    out.hint(f"{wanted.flavor} ({found.hardware}) costs ${found.per_unit:.4g} a {found.unit}{most}")


def _row(job: "JobInfo") -> dict[str, Any]:
    """A job for a table: neither its environment nor its secrets."""
    from hfsafemerge.hub.jobs import reference

    return {
        "id": reference(job),
        "recipe": (job.labels or {}).get("recipe"),
        "stage": str(getattr(job.status.stage, "value", job.status.stage)),
        "message": job.status.message,
        "flavor": str(getattr(job.flavor, "value", job.flavor)),
        "created": job.created_at and job.created_at.isoformat(),
        "url": job.url,
    }
