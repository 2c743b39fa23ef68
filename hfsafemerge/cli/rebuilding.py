"""The commands that rebuild what was published, and say in what two runs or models differ."""

from typing import Annotated

from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import app, examples, given, quiet_libraries


@app.command(epilog=examples("hfsafemerge reproduce me/my-merge", "hfsafemerge reproduce me/my-merge --revision v1"))
def reproduce(
    repo_id: Annotated[str, Argument(help="The published merge.", callback=given)],
    revision: Annotated[str | None, Option("--revision", help="A branch, tag or commit of it.")] = None,
) -> None:
    """Rebuild a published merge from its lock, and compare every tensor."""
    from hfsafemerge._cli_output import Progress, out
    from hfsafemerge.running import reproduce as rebuild

    quiet_libraries()
    progress = Progress()
    done = rebuild(repo_id, revision, progress)
    progress.close()
    out.result("Every tensor is equal", repo_id=done.repo_id, commit=done.commit, tensors=done.tensors)
