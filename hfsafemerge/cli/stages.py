"""The commands that do one stage, or all, and publish and rebuild what came of them."""

from typing import TYPE_CHECKING, Annotated

from huggingface_hub.cli._framework import Option

from hfsafemerge.cli.completion import Names, devices, dtypes
from hfsafemerge.cli.root import AllowWriterOpt, DirectoryOpt, RecipeArg, RedoOpt, app, do, examples, open_run
from hfsafemerge.errors import RecipeError

if TYPE_CHECKING:
    from hfsafemerge.running import Run


@app.command(epilog=examples("hfsafemerge check recipe.yaml", "hfsafemerge check recipe.yaml --json"))
def check(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """See whether the models fit together, before any weights are downloaded.

    It resolves every model and dataset to a commit, reads the headers of the weights, and says what is wrong before it costs, and
    what a run will download and write.
    """
    from hfsafemerge._cli_output import out
    from hfsafemerge.checkpoint import in_words
    from hfsafemerge.running.events import clock
    from hfsafemerge.running.publishing.aiming import check_push
    from hfsafemerge.running.room import BYTES_PER_SECOND, Needs

    opened = do("check", recipe, directory, redo)
    found = opened.read("check.json")
    needed = Needs.from_json(found["needs"])
    rows = [
        {
            "model": role,
            "ref": m["ref"],
            "commit": m["commit"][:12],
            "license": m["license"],
            "architecture": m["architecture"],
            "dtypes": m["dtypes"],
            "size": in_words(m["bytes"]),
        }
        for role, m in found["models"].items()
    ]
    if out.mode.value == "json":
        out.dict({"models": rows, "needs": found["needs"]})
    else:
        out.table(rows, id_key="ref")
    if out.mode.value in ("human", "agent"):
        out.result(
            "They fit together",
            download=in_words(needed.weights_to_fetch),
            time=f"{clock(needed.seconds)} at {BYTES_PER_SECOND / 1e6:.0f} MB/s, which is assumed",
            cached=in_words(needed.weights_cached),
            datasets=f"at most {in_words(needed.datasets_at_most)}",
            disk=f"{in_words(needed.result)} to write, {in_words(needed.free_for_run)} free",
        )
    if opened.recipe.push:
        check_push(opened.recipe, notify=out.log)
    out.hint(f"do all stages with `hfsafemerge run {recipe}`")


@app.command(topic="stage", epilog=examples("hfsafemerge calibrate recipe.yaml"))
def calibrate(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Find out which entries of the models matter to each expert.

    Methods such as led ask for it, and the commands that need it do it themselves.
    """
    from hfsafemerge._cli_output import out

    run = open_run(recipe, directory)
    if not run.recipe.needs_importance:
        raise RecipeError(f"{run.recipe.merge.method} asks for no importance scores, so there is nothing to calibrate.")
    run.do("calibrate", redo=redo)
    found = run.read("calibration.json")
    out.table([{"expert": name, "samples": note["samples"], "data": note["data"]} for name, note in found.items()])
    out.hint(f"search the merge parameters with `hfsafemerge search {recipe}`")


@app.command(topic="stage", epilog=examples("hfsafemerge search recipe.yaml", "hfsafemerge search runs/my-merge --json"))
def search(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Choose the merge parameters from the data.

    Prints the front: the candidates that no other one betters in safety and skill at once. A search that was stopped goes on
    after its last candidate.
    """
    from hfsafemerge._cli_output import out

    run = do("search", recipe, directory, redo)
    if run.recipe.strategy.needs_data:
        front = run.read("front.json")
        rows = [{"candidate": point["number"], "fitness": point["fitness"], **point["terms"]} for point in front]
        out.table([{name: round(value, 4) for name, value in row.items()} for row in rows])
        out.hint(f"merge with `hfsafemerge merge {recipe}`, or with another candidate of the front by `--pick NUMBER`")
    else:
        if out.is_quiet():
            out.table([{"file": str(run.directory / "parameters.json")}])
        else:
            out.dict(run.read("parameters.json"))
        out.hint(f"merge with `hfsafemerge merge {recipe}`")


@app.command(
    topic="stage",
    epilog=examples(
        "hfsafemerge merge recipe.yaml",
        "hfsafemerge merge recipe.yaml --pick 12",
        "hfsafemerge merge mergekit.yml --device cuda --max-memory 20GB",
    ),
)
def merge(
    recipe: RecipeArg,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
    device: Annotated[str | None, Option("--device", help="Where to compute: auto, cpu, cuda, ...", click_type=Names(devices))] = None,
    max_memory: Annotated[str | None, Option("--max-memory", help="What the tensors in work may take together, such as 8GB.")] = None,
    out_dtype: Annotated[
        str | None, Option("--out-dtype", help="float32, bfloat16 or float16; by default the base's.", click_type=Names(dtypes))
    ] = None,
    max_shard_size: Annotated[str | None, Option("--max-shard-size", help="The size of one file of weights, such as 5GB.")] = None,
    pick: Annotated[int | None, Option("--pick", min=1, help="Merge with this candidate of the search, not the recommended one.")] = None,
) -> None:
    """Write the merged model. Reads mergekit's YAML too.

    Data and search come first, where the recipe asks for them and they are not there yet.
    """
    from hfsafemerge._cli_output import out
    from hfsafemerge.checkpoint import size_in_bytes

    run = open_run(recipe, directory)
    run.recipe = run.recipe.changed(
        {
            "compute.device": device,
            "compute.max_memory": size_in_bytes("--max-memory", max_memory),
            "merge.out_dtype": out_dtype,
            "search.pick": pick,
            "merge.max_shard_size": size_in_bytes("--max-shard-size", max_shard_size),
        }
    )
    run.do("merge", redo=redo)
    out.result("Merged", model=str(run.directory / "model"))
    out.hint(f"measure it with `hfsafemerge evaluate {recipe}`")


@app.command(epilog=examples("hfsafemerge run recipe.yaml", "hfsafemerge run recipe.yaml --directory /data/my-merge"))
def run(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False, allow_writer: AllowWriterOpt = False) -> None:
    """Do all stages that are left; publish too if the recipe says where.

    check, generate, search, merge, evaluate, and push. After Ctrl-C or a killed process the same command goes on; a recipe that
    has changed is refused, unless --redo does again what the change touches.
    """
    from hfsafemerge._cli_output import out
    from hfsafemerge.running.publishing.aiming import check_push

    opened = open_run(recipe, directory, allow_writer)
    if opened.recipe.push:
        check_push(opened.recipe, notify=out.log)  # hours before it would be refused
    opened.do("push" if opened.recipe.push else "evaluate", redo=redo)
    show_scores(opened)
    if opened.recipe.push:
        warn_of_private(opened)
        model = opened.read("pushed.json")["model"]
        out.hint(f"published at {model['url']}; anyone can rebuild it with `hfsafemerge reproduce {opened.recipe.push.repo_id}`")
    else:
        out.hint(f"publish it with `hfsafemerge push {opened.directory} NAMESPACE/NAME`")


def warn_of_private(run: "Run") -> None:
    """Why what was pushed is private, where the measurements said so."""
    from hfsafemerge._cli_output import out

    for reason in run.read("pushed.json")["private_because"]:
        out.warning(f"The model's repository is private. {reason}")


def show_scores(run: "Run") -> None:
    """The rates of all models with their intervals."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.card import percent
    from hfsafemerge.evaluation.naming import rate_name
    from hfsafemerge.recipe import MERGED

    written = run.read("scores.json")
    found = written["scores"]
    if out.mode.value == "json":
        out.dict(written)
        return
    if out.is_quiet():
        places = {MERGED: str(run.directory / "model")}
        out.table([{"model": written["models"].get(name) or places.get(name, name)} for name in found])
        return
    out.set_no_truncate(True)  # a number without its interval is none
    out.table(
        [{"model": model, **{f"{s['benchmark']} {rate_name(s, scores)}": percent(s) for s in scores}} for model, scores in found.items()]
    )
