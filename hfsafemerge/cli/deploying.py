"""The command that puts this tool's Space on the Hub."""

import os
from collections.abc import Iterable
from typing import Annotated

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import examples, group

DEPLOY = (
    "hfsafemerge space deploy me/my-merges --hardware a100-large --sleep-time 900",
    "hfsafemerge space deploy --hardware zero-a10g --no-private --dry-run",
)
space = group("space", "Put this tool's Space on the Hub.", *DEPLOY)


@space.command("deploy", epilog=examples(*DEPLOY))
def space_deploy(
    repo_id: Annotated[str | None, Argument(help="The Space, as namespace/name; by default yours, named hfsafemerge.")] = None,
    hardware: Annotated[str | None, Option("--hardware", help="What it runs on, such as a100-large or zero-a10g.")] = None,
    private: Annotated[bool | None, Option("--private/--no-private", help="Whether it is private; a new one is by default.")] = None,
    sleep_time: Annotated[
        int | None, Option("--sleep-time", min=-1, help="Seconds without visitors after which it sleeps, and costs nothing; -1 for never.")
    ] = None,
    variable: Annotated[list[str] | None, Option("--variable", help="KEY=VALUE, for all to read; may be given several times.")] = None,
    secret: Annotated[list[str] | None, Option("--secret", help="KEY, whose value is taken from your environment.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Commit on top of a Space that hfsafemerge did not make, too.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be uploaded and set.")] = False,
) -> None:
    """Put this tool's Space on the Hub, or bring one up to date; only what has changed is uploaded."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.hub import jobs as on_hub
    from hfsafemerge.hub.space_files import front_matter, space_files
    from hfsafemerge.hub.spaces import Deployment, deploy

    files = space_files()
    about = front_matter(files)
    wanted = Deployment(
        repo_id or f"{on_hub.whose(out.log)}/hfsafemerge", private, hardware, sleep_time, _variables(variable), _from_environment(secret),
        overwrite,
    )  # fmt: skip
    if shared := wanted.variables.keys() & wanted.secrets.keys():
        raise click.UsageError(f"{min(shared)} is both a variable and a secret; leave one out.")
    if dry_run:
        out.table([{"file": name, "bytes": path.stat().st_size} for name, path in files.items()])
        settings = {
            "hardware": hardware,
            "private": private,
            "sleep time": sleep_time,
            **wanted.variables,
            **dict.fromkeys(wanted.secrets, "***"),
        }
        out.hint(f"{wanted.url} would get these {len(files)} files, and " + ", ".join(f"{key}: {value}" for key, value in settings.items()))
        return
    done = deploy(wanted, files, out.log)
    out.result("Deployed" if done.changed else "Nothing new to upload", url=done.url, commit=done.commit, hardware=done.hardware)
    if hardware is not None and sleep_time is None and done.hardware not in ("cpu-basic", "zero-a10g"):
        out.hint("it is paid for while it is awake, and never sleeps by itself; --sleep-time 900 changes that")
    if about.get("hf_oauth"):
        scopes = ", ".join(about.get("hf_oauth_scopes", []))
        out.hint(f"visitors sign in with their own accounts (hf_oauth: {scopes or 'their names alone'}); it needs no token of yours")


def pairs(option: str, given: Iterable[str] | None) -> dict[str, str]:
    """KEY=VALUE texts as a dictionary."""
    found = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"{option} {text!r} is not KEY=VALUE.")
        found[key] = value
    return found


def _variables(given: Iterable[str] | None) -> dict[str, str]:
    from hfsafemerge.hub.job_requests import holds_token

    found = pairs("--variable", given)
    if shown := next((key for key, value in found.items() if holds_token(value)), None):
        raise click.UsageError(f"--variable {shown} holds your token, and all can read it. Give it as --secret {shown}.")
    return found


def _from_environment(keys: Iterable[str] | None) -> dict[str, str]:
    """The values of secrets, which never stand on a command line."""
    for key in keys or ():
        if "=" in key:
            raise click.UsageError(f"--secret {key.partition('=')[0]} takes the name alone; its value is read from your environment.")
        if not os.environ.get(key):
            raise click.UsageError(f"--secret {key}: there is no {key} in your environment. Set it there first.")
    return {key: os.environ[key] for key in keys or ()}
