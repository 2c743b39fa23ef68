"""The command push."""

from typing import Annotated

from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import DirectoryOpt, RecipeArg, RedoOpt, app, examples, open_run
from hfsafemerge.cli.stages import warn_of_private


@app.command(epilog=examples("hfsafemerge push runs/my-merge", "hfsafemerge push runs/my-merge me/my-merge --no-private"))
def push(
    recipe: RecipeArg,
    repo_id: Annotated[str | None, Argument(help="Where to publish, as namespace/name; by default what the recipe says.")] = None,
    private: Annotated[bool | None, Option("--private/--no-private", help="Whether the repositories are created private.")] = None,
    license: Annotated[str | None, Option("--license", help="The licence, where it does not follow from those of the models.")] = None,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
) -> None:
    """Publish the model with its card, and the datasets it was made with."""
    from hfsafemerge._cli_output import out

    opened = open_run(recipe, directory)
    opened.publish_to(repo_id, private, license)
    opened.do("push", redo=redo)
    pushed = opened.read("pushed.json")
    warn_of_private(opened)
    out.result("Published", model=pushed["model"]["url"], **{kind: found["url"] for kind, found in pushed["datasets"].items()})
