"""The command push."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import DirectoryOpt, RecipeArg, RedoOpt, app, examples, open_run
from hfsafemerge.cli.stages import warn_of_private

if TYPE_CHECKING:
    from hfsafemerge.running.publishing.previewing import Preview

PUSH = (
    "hfsafemerge push runs/my-merge",
    "hfsafemerge push runs/my-merge me/my-merge --no-private --collection 'My merges'",
    "hfsafemerge push runs/my-merge me/my-merge --dry-run",
    "hfsafemerge push runs/my-merge org/model --create-pr --no-private --commit-message 'Merge that keeps its refusals'",
)


@app.command(epilog=examples(*PUSH))
def push(
    recipe: RecipeArg,
    repo_id: Annotated[str | None, Argument(help="Where to publish, as namespace/name; by default what the recipe says.")] = None,
    private: Annotated[bool | None, Option("--private/--no-private", help="Whether the repositories are private.")] = None,
    revision: Annotated[str | None, Option("--revision", help="A branch of the model's repository; created if missing.")] = None,
    create_pr: Annotated[bool, Option("--create-pr", help="Open a pull request; the repository's settings stay.")] = False,
    commit_message: Annotated[str | None, Option("--commit-message", help="The title of the model's commit.")] = None,
    commit_description: Annotated[str | None, Option("--commit-description", help="What stands below it.")] = None,
    tag: Annotated[str | None, Option("--tag", help="A name for the model's commit; by default run- and a digest.")] = None,
    collection: Annotated[str | None, Option("--collection", help="Title or slug of a collection for model, data and Space.")] = None,
    no_collection: Annotated[bool, Option("--no-collection", help="Leave the recipe's collection as it is.")] = False,
    space: Annotated[str | None, Option("--space", help="A Space that shows the model, for the collection.")] = None,
    license: Annotated[str | None, Option("--license", help="The licence, where it does not follow from those of the models.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Commit on top of a repository that this tool did not make, too.")] = False,
    dry_run: Annotated[bool, Option("--dry-run", help="Only show what would be published: files, sizes, visibility and card.")] = False,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
) -> None:
    """Publish the model with its card, and the datasets it was made with. One that was stopped goes on with the same command."""
    if create_pr and revision is not None:
        raise click.UsageError("--create-pr opens a branch of its own; leave --revision out.")
    if no_collection and (collection is not None or space is not None):
        raise click.UsageError("--no-collection goes with neither --collection nor --space.")
    from hfsafemerge._cli_output import out
    from hfsafemerge.running.publishing.aiming import aim
    from hfsafemerge.running.publishing.previewing import preview

    opened = open_run(recipe, directory)
    settings = {
        "repo_id": repo_id,
        "private": private,
        "revision": revision,
        "create_pr": create_pr,
        "commit_message": commit_message,
        "commit_description": commit_description,
        "tag": tag,
        "collection": collection,
        "space": space,
        "license": license,
        "overwrite": overwrite,
    }
    aim(opened, settings, ["collection", "space"] if no_collection else [])
    if dry_run:
        _show(preview(opened))
        return
    opened.do("push", redo=redo)
    pushed = opened.read("pushed.json")
    warn_of_private(opened)
    model = pushed["model"]["pull_request"] or pushed["model"]["url"]
    data = {kind: found["pull_request"] or found["url"] for kind, found in pushed["datasets"].items()}
    out.result("Published", model=model, **data, **({"collection": pushed["collection"]} if pushed["collection"] else {}))
    if pushed["model"]["tag"]:
        out.hint(f"its commit {pushed['model']['commit'][:12]} has the tag {pushed['model']['tag']}")


def _show(found: "Preview") -> None:
    """A preview: JSON, or for people what goes where, the files, and the card."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.checkpoint import in_words

    if out.mode.value == "json":
        out.dict(found.to_json())
        return
    for reason in found.private_because:
        out.warning(f"The model's repository has to be private. {reason}")
    rows = [{"repository": f.repo_id, "file": f.path, "size": in_words(f.size), "kept in": "LFS" if f.lfs else "git"} for f in found.files]
    out.table(rows)
    if out.mode.value == "human":
        click.echo(Path(found.card).read_text())
    seen = "private" if found.private else "public"
    where = "a pull request" if found.create_pr else found.revision or "main"
    out.hint(f"{'a new' if found.new else 'the'} {seen} repository {found.repo_id}, {where}: {found.commit_message}")
    for data in found.datasets:
        out.hint(f"{data.rows} rows of {data.kind} data in {data.repo_id}, {'private' if data.private else 'public'}"
                 f"{', behind a gate' if data.gated else ''}")  # fmt: skip
    out.hint(f"nothing was uploaded; the card is {found.card}")
