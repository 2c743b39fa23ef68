"""The commands that rebuild what was published, and say in what two runs or models differ."""

from pathlib import Path
from typing import Annotated

from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.root import app, examples, quiet_libraries

DirectoryOpt = Annotated[
    Path | None,
    Option("--directory", "-d", help="Keep what is rebuilt there, and go on there after a stop. By default a temporary folder."),
]


@app.command(
    epilog=examples(
        "hfsafemerge reproduce me/my-merge",
        "hfsafemerge reproduce me/my-merge --revision v1",
        "hfsafemerge reproduce me/my-merge --search --evaluate --directory again",
    )
)
def reproduce(
    repo_id: Annotated[str, Argument(help="The published merge.")],
    revision: Annotated[str | None, Option("--revision", help="A branch, tag or commit of it.")] = None,
    search: Annotated[bool, Option("--search", help="Repeat the search too; gated data need access.")] = False,
    evaluate: Annotated[bool, Option("--evaluate", help="Measure again too, and test whether the scores agree.")] = False,
    directory: DirectoryOpt = None,
) -> None:
    """Rebuild a published merge from its lock and the Hub alone, and compare every tensor."""
    from hfsafemerge._cli_output import Progress, out
    from hfsafemerge.running.repeating.reproducing import rebuild

    quiet_libraries()
    done = rebuild(repo_id, revision, Progress(), search=search, evaluate=evaluate, directory=directory)
    if out.mode.value == "json":
        out.dict(done.to_json())
    elif out.is_quiet():
        out.table([{"merge": f"{done.repo_id}@{done.commit}"}])
    else:
        out.set_no_truncate(True)  # a number without its interval is none
        out.table(
            [{"what": f.what, "published": f.published, "here": f.here, "outcome": f.outcome, "detail": f.detail} for f in done.findings]
        )
    for each in done.environment:
        out.hint(f"computed elsewhere: {each}")
    done.require()
    if out.mode.value in ("human", "agent"):
        out.result(done.summary, repo_id=done.repo_id, commit=done.commit, tensors=done.tensors)


@app.command(
    epilog=examples(
        "hfsafemerge diff runs/one runs/other",
        "hfsafemerge diff runs/one me/my-merge",
        "hfsafemerge diff me/my-merge@v1 me/my-merge --json",
    )
)
def diff(
    a: Annotated[str, Argument(help="The directory of a run, or a published merge, with @REVISION.")],
    b: Annotated[str, Argument(help="The other one.")],
) -> None:
    """Show in what two runs or published merges differ: recipe, inputs, data, search, weights, scores."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.running.repeating.differing import compare_runs

    quiet_libraries()
    found = compare_runs(a, b)
    if out.mode.value == "json":
        out.dict(found.to_json())
        return
    if out.is_quiet():
        out.table([{"path": path} for path in dict.fromkeys(row.path for row in found.rows)])
        return
    out.set_no_truncate(True)
    if found.rows:
        out.table([{"part": row.part, "what": row.what, "a": row.a, "b": row.b} for row in found.rows], id_key="what")
    else:
        out.result(found.summary, a=a, b=b, not_compared=", ".join(found.unknown) or None)
        return
    for part in found.unknown:
        out.hint(f"not compared: {part}")
