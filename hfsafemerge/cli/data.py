"""The commands that make the data and publish them as datasets."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import AllowWriterOpt, DirectoryOpt, RecipeArg, RedoOpt, app, examples, group, open_run
from hfsafemerge.errors import RunError

if TYPE_CHECKING:
    from hfsafemerge.examples import Kind
    from hfsafemerge.hub import Pushed
    from hfsafemerge.running import Run

GENERATE = ("hfsafemerge generate recipe.yaml", "hfsafemerge generate recipe.yaml --dry-run", "hfsafemerge generate recipe.yaml --push")
PUSH = ("hfsafemerge data push runs/my-merge me/my-merge", "hfsafemerge data push rows me/rows --license cc-by-nc-4.0 --no-private")
CreatePrOpt = Annotated[bool, Option("--create-pr", help="Open pull requests in datasets that exist already; their settings stay.")]
data = group("data", "Publish data as datasets.", *PUSH)


@app.command(topic="stage", epilog=examples(*GENERATE))
def generate(
    recipe: RecipeArg,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what it would take: tokens, time and cost.")] = False,
    measure: Annotated[bool, Option("--measure", help="With --dry-run: load the models and time them, too.")] = False,
    max_tokens: Annotated[int | None, Option("--max-tokens", min=1, help="Stop when models have read and written so many.")] = None,
    max_rows: Annotated[int | None, Option("--max-rows", min=1, help="Make no more of each kind, whatever the recipe says.")] = None,
    allow_writer: AllowWriterOpt = False,
    push: Annotated[bool, Option("--push", help="Publish the data where the recipe says, as datasets.")] = False,
    create_pr: CreatePrOpt = False,
) -> None:
    """Make the synthetic safety and domain data, and harmless look-alikes.

    Harmful questions come from ready prompts, or, with --allow-writer, from a model that writes them; what is kept of the answers
    are refusals. Stopped in between, the same command goes on with the next row.
    """
    if create_pr and not push:
        raise click.UsageError("--create-pr says how to publish; give --push too.")
    if measure and not dry_run:
        raise click.UsageError("--measure says what to estimate; give --dry-run too.")
    from hfsafemerge._cli_output import out

    run = open_run(recipe, directory, allow_writer)
    run.max_rows, run.max_tokens = max_rows, max_tokens
    if dry_run:
        _estimate(run, measure)
        return
    if push and run.recipe.push is None:  # better known now than after hours of work
        raise RunError("The recipe does not say where to push. Add `push: {repo_id: namespace/name}` to it.")
    run.do("generate", redo=redo)
    if push:
        _told(_push(run, None, None, None, create_pr, None))
        return
    out.table(
        [
            {"data": kind, "rows": report["kept"], "file": str(run.directory / "data" / f"{kind}.parquet")}
            for kind, report in run.read("generation.json").items()
        ],
        id_key="file",
    )
    out.hint(f"search the merge parameters with `hfsafemerge search {recipe}`")


@data.command("push", epilog=examples(*PUSH))
def push_data(
    folder: Annotated[Path, Argument(help="A run's directory, or a folder with safety.parquet and the like.")],
    repo_id: Annotated[str, Argument(help="Where to publish, as namespace/name; -safety, -domain and -benign are added.")],
    private: Annotated[bool | None, Option("--private/--no-private", help="Whether the datasets are private; they are by default.")] = None,
    create_pr: CreatePrOpt = False,
    license: Annotated[str | None, Option("--license", help="The licence, where it does not follow from those of the sources.")] = None,
    judge_error: Annotated[str | None, Option("--judge-error", help="What is known of how often the judges err, for the cards.")] = None,
) -> None:
    """Publish data as datasets: each kind in a repository of its own, harmful prompts behind a gate.

    The same command goes on where it was stopped, and leaves what is published already as it is.
    """
    from hfsafemerge._cli_output import Progress
    from hfsafemerge.running import Event
    from hfsafemerge.running.publishing.datasets import Target, push_folder

    if (folder / "recipe.yaml").exists():
        _told(_push(open_run(folder, None), repo_id, private, license, create_pr, judge_error))
        return
    progress = Progress()
    target = Target(repo_id, private is not False, license, create_pr, judge_error)
    _told(push_folder(folder, target, lambda message: progress(Event("push", message))))


def _push(
    run: "Run", repo_id: str | None, private: bool | None, license: str | None, create_pr: bool, judge_error: str | None
) -> Mapping["Kind", "Pushed"]:
    """Publish a run's data where the command says, or else the recipe."""
    from hfsafemerge._cli_output import Progress
    from hfsafemerge.running import Event
    from hfsafemerge.running.publishing.aiming import aim
    from hfsafemerge.running.publishing.datasets import Target, push_run

    aim(run, {"repo_id": repo_id, "private": private, "license": license})
    wanted, progress = run.recipe.push, Progress()
    assert wanted is not None
    target = Target(wanted.repo_id, wanted.private, wanted.license, create_pr, judge_error)
    return push_run(run, target, lambda message: progress(Event("push", message)))


def _told(pushed: Mapping["Kind", "Pushed"]) -> None:
    """What was published where."""
    from hfsafemerge._cli_output import out

    if out.mode.value == "json":
        out.dict({str(kind): asdict(found) for kind, found in pushed.items()})
    elif out.is_quiet():
        out.table([{"url": found.pull_request or found.url} for found in pushed.values()])
    else:
        out.result("Published", **{str(kind): found.pull_request or found.url for kind, found in pushed.items()})


def _estimate(run: "Run", measure: bool) -> None:
    """What the data would take."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.running import clock
    from hfsafemerge.running.estimating import estimate

    steps = estimate(run, measure=measure)
    if out.mode.value == "json":
        out.table([asdict(step) for step in steps])
        return
    out.table([{**asdict(step), "seconds": None, "time": None if step.seconds is None else clock(step.seconds)} for step in steps])
    read = sum(step.tokens_read for step in steps)
    about, most = (read + sum(getattr(step, name) for step in steps) for name in ("tokens_written", "most_written"))
    out.hint(f"about {about:,} tokens, at most {most:,}" + ("" if measure else "; --measure says how long they take here"))
