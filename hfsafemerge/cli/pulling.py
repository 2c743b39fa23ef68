"""The command pull."""

import math
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import DirectoryOpt, app, examples, open_run, quiet_client, quiet_libraries

if TYPE_CHECKING:
    from hfsafemerge._cli_output import Progress
    from hfsafemerge.running.pulling import Wanted


@app.command(
    epilog=examples(
        "hfsafemerge pull recipe.yaml",
        "hfsafemerge pull recipe.yaml --dry-run",
        "hfsafemerge pull me/my-model@v1 me/another",
        "hfsafemerge pull me/my-data --type dataset",
    )
)
def pull(
    sources: Annotated[list[str], Argument(help="Recipes, directories of runs, or repositories as namespace/name[@revision].")],
    revision: Annotated[str | None, Option("--revision", help="The branch, tag or commit of repositories that name none.")] = None,
    repo_type: Annotated[Literal["model", "dataset"], Option("--type", "--repo-type", help="What repositories are.")] = "model",
    dry_run: Annotated[bool, Option("--dry-run", help="Show the files and what would be downloaded; fetch no weights.")] = False,
    directory: DirectoryOpt = None,
) -> None:
    """Download what merges read into the cache, each file verified. What is there already is not fetched again.

    A run can go on offline after its recipe was pulled; datasets that were pulled by their names are not prepared for that.
    """
    from hfsafemerge._cli_output import Progress, out
    from hfsafemerge.checkpoint import in_words
    from hfsafemerge.running.events import clock
    from hfsafemerge.running.pulling import cache_folder
    from hfsafemerge.running.room import BYTES_PER_SECOND

    progress = Progress()
    wanted = _wanted(sources, revision, repo_type, directory, progress)
    missing = sum(found.missing for found in wanted)
    if dry_run and out.mode.value == "json":
        out.dict({"files": [row for found in wanted for row in found.table()], "to_download": missing, "free": _free()})
        return
    if dry_run:
        at_most = "" if all(found.exact for found in wanted) else "at most "
        out.table([row for found in wanted for row in found.table()], id_key="file")
        out.result(
            "Nothing was downloaded",
            to_download=f"{at_most}{in_words(missing)}",
            free=f"{in_words(_free())} in {cache_folder()}",
            time=f"{at_most}{clock(missing / BYTES_PER_SECOND)} at {BYTES_PER_SECOND / 1e6:.0f} MB/s, which is assumed",
        )
        return
    if not all(found.exact for found in wanted):
        quiet_libraries()
    quiet_client()
    try:
        for found in wanted:
            _fetch(found, progress)
    except KeyboardInterrupt as stop:
        stop.add_note("The same command goes on from here.")
        raise
    progress.close()
    out.table([{"repository": found.name, "commit": found.commit, "path": str(found.folder)} for found in wanted], id_key="path")


def _free() -> int:
    from hfsafemerge.running.pulling import cache_folder
    from hfsafemerge.running.room import existing

    return shutil.disk_usage(existing(cache_folder())).free


def _wanted(
    sources: list[str], revision: str | None, repo_type: Literal["model", "dataset"], directory: Path | None, progress: "Progress"
) -> list["Wanted"]:
    from hfsafemerge.running import Event
    from hfsafemerge.running.pulling import REPOSITORY, wanted_by_run, wanted_repository

    recipes = [source for source in sources if Path(source).exists() or not REPOSITORY.fullmatch(source)]
    if directory is not None and len(recipes) != 1:
        raise click.UsageError("--directory says where the run of one recipe is; name one recipe with it.")
    if len(recipes) == len(sources):
        told = click.get_current_context().get_parameter_source
        for name, option in (("revision", "--revision"), ("repo_type", "--type")):
            if told(name) == click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{option} is for repositories, and a recipe says of each what it reads; leave it out.")
    found = []
    for source in sources:
        if source in recipes:
            run = open_run(Path(source), directory)
            run.do("check")
            found += wanted_by_run(run)
        else:
            found.append(wanted_repository(source, revision, repo_type, lambda message: progress(Event("pull", message))))
    return found


def _fetch(wanted: "Wanted", progress: "Progress") -> None:
    from hfsafemerge.running import Event

    began = time.monotonic()

    def tell(done: int, total: int, left: float | None) -> None:
        megabytes, of = math.ceil(done / 1e6), math.ceil(total / 1e6)
        progress(Event("pull", f"MB of {wanted.name}", megabytes, of, time.monotonic() - began, left))

    wanted.fetch(lambda message: progress(Event("pull", message)), tell)
    progress(Event("pull", f"{wanted.name}@{wanted.commit[:12]} is in the cache, verified"))
