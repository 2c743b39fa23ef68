"""The command line. Results go to stdout, everything else to stderr; heavy imports happen inside the commands."""

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

# The declaration layer of the `hf` command, as huggingface_hub.typer_factory uses it.
from huggingface_hub import typer_factory
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge import __version__
from hfsafemerge.errors import HfSafeMergeError, RecipeError

if TYPE_CHECKING:
    from hfsafemerge.run import Run

SHIPPED = Path(__file__).parent / "recipes"
EPILOG = "Start with `hfsafemerge demo`, which runs everything offline, or with `hfsafemerge init`.\n"
app = typer_factory(help="Merge expert language models without losing safety alignment.", epilog=EPILOG)


def _given(value: Any) -> Any:
    """The value of a required argument: since click 8.3 a default of None, which `hf` gives to each, counts as one."""
    if value is None:
        raise click.UsageError("An argument is missing.")
    return value


RecipeArg = Annotated[Path, Argument(help="A recipe (YAML), or the directory of a run.", callback=_given)]
DirectoryOpt = Annotated[Path | None, Option("--directory", "-d", help="Where the run keeps its files; runs/NAME by default.")]
RedoOpt = Annotated[bool, Option("--redo", help="Do stages again whose part of the recipe has changed.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        click.echo(__version__)
        raise click.exceptions.Exit


@app.group_callback()
def _root(
    version: Annotated[bool, Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)] = False,
) -> None:
    pass


def _examples(*commands: str) -> str:
    return "Examples\n" + "\n".join(f"  $ {command}" for command in commands) + "\n"


def _open(recipe: Path, directory: Path | None) -> "Run":
    from hfsafemerge._cli_output import Progress
    from hfsafemerge.run import Run, load_recipe

    gc.freeze()
    if recipe.is_dir():
        run = Run.open(recipe, Progress())
    else:
        loaded = load_recipe(recipe)
        run = Run(loaded, directory or Path("runs") / loaded.name, Progress())
    if run.recipe.loads_models:  # a plain merge imports neither library, and starts faster
        _quiet_libraries()
    if run.recipe.compute.threads is not None:
        import torch

        torch.set_num_threads(run.recipe.compute.threads)
    return run


def _quiet_libraries() -> None:
    """Progress is told by our own events; the bars of the libraries would write over them."""
    import datasets
    import transformers

    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def _do(stage: str, recipe: Path, directory: Path | None, redo: bool) -> "Run":
    run = _open(recipe, directory)
    run.do(stage, redo=redo)
    return run


def _scores(run: "Run") -> None:
    from hfsafemerge._cli_output import out
    from hfsafemerge.card import percent

    found = run.read("scores.json")["scores"]
    if out.mode.value == "json":
        out.dict(run.read("scores.json"))
        return
    out.set_no_truncate(True)  # a number without its interval is none
    out.table([{"model": model, **{f"{s['benchmark']} {s['metric']}": percent(s) for s in scores}} for model, scores in found.items()])


@app.command(epilog=_examples("hfsafemerge init", "hfsafemerge init my-merge.yaml", "hfsafemerge init lab.yaml --lab"))
def init(
    path: Annotated[Path, Argument(help="The file to write.")] = Path("recipe.yaml"),
    lab: Annotated[
        bool, Option("--lab", help="A recipe for the lab's own small models, which are trained first (2 minutes on two cores).")
    ] = False,
) -> None:
    """Write a recipe to start from."""
    from hfsafemerge._cli_output import Progress, out

    if path.exists():
        raise RecipeError(f"{path} exists; it is left as it is. Name another file.")
    if lab:
        from hfsafemerge.lab.models import lab_folder
        from hfsafemerge.lab.publishing import write_world
        from hfsafemerge.lab.recipes import POOLS, InFolder, lab_recipe
        from hfsafemerge.run import Event

        _quiet_libraries()
        progress = Progress()
        folder = lab_folder(progress=lambda model, done, total: progress(Event("lab", f"training {model}", done, total)))
        write_world(folder)
        path.write_text(lab_recipe("lab-pair", POOLS["pair"], InFolder(folder)).to_yaml())
    else:
        path.write_text((SHIPPED / "evomm.yaml").read_text())
    out.result("Recipe written", path=str(path))
    out.hint(f"check it with `hfsafemerge check {path}`, run it with `hfsafemerge run {path}`")


@app.command(epilog=_examples("hfsafemerge check recipe.yaml"))
def check(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """See whether the models fit together, before any weights are downloaded."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.checkpoint import in_words

    models = _do("check", recipe, directory, redo).read("check.json")["models"]
    out.table(
        [
            {
                "model": role,
                "ref": m["ref"],
                "commit": m["commit"][:12],
                "license": m["license"],
                "architecture": m["architecture"],
                "dtypes": m["dtypes"],
                "size": in_words(m["bytes"]),
            }
            for role, m in models.items()
        ]
    )


@app.command(epilog=_examples("hfsafemerge generate recipe.yaml"))
def generate(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Make the synthetic safety and domain data."""
    from hfsafemerge._cli_output import out

    run = _do("generate", recipe, directory, redo)
    out.table(
        [
            {"data": kind, "rows": report["kept"], "file": str(run.directory / "data" / f"{kind}.parquet")}
            for kind, report in run.read("generation.json").items()
        ]
    )


@app.command(epilog=_examples("hfsafemerge search recipe.yaml"))
def search(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Choose the merge parameters from the data. One that was stopped goes on from its last candidate."""
    from hfsafemerge._cli_output import out

    run = _do("search", recipe, directory, redo)
    if run.recipe.strategy.needs_data:
        front = run.read("front.json")
        rows = [{"candidate": point["number"], "fitness": point["fitness"], **point["terms"]} for point in front]
        out.table([{name: round(value, 4) for name, value in row.items()} for row in rows])
        out.hint(f"the front of {len(front)} candidates; merge with another one by `hfsafemerge merge {recipe} --pick NUMBER`")
    else:
        out.dict(run.read("parameters.json"))


@app.command(epilog=_examples("hfsafemerge merge recipe.yaml", "hfsafemerge merge mergekit.yml --device cuda --max-memory 20GB"))
def merge(
    recipe: RecipeArg,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
    device: Annotated[str | None, Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1, ...")] = None,
    max_memory: Annotated[str | None, Option("--max-memory", help="What the tensors in work may take together, such as 8GB.")] = None,
    out_dtype: Annotated[str | None, Option("--out-dtype", help="float32, bfloat16 or float16; by default the base's.")] = None,
    max_shard_size: Annotated[str | None, Option("--max-shard-size", help="The size of one file of weights, such as 5GB.")] = None,
    pick: Annotated[int | None, Option("--pick", min=1, help="Merge with this candidate of the search, not the recommended one.")] = None,
) -> None:
    """Write the merged model. Reads mergekit's YAML too."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.checkpoint import size_in_bytes

    run = _open(recipe, directory)
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


@app.command(epilog=_examples("hfsafemerge evaluate recipe.yaml", "hfsafemerge evaluate runs/my-merge --json"))
def evaluate(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Measure the merge and the models it is made of on the held-out benchmarks."""
    _scores(_do("evaluate", recipe, directory, redo))


@app.command(epilog=_examples("hfsafemerge run recipe.yaml", "hfsafemerge run recipe.yaml --directory /data/my-merge"))
def run(recipe: RecipeArg, directory: DirectoryOpt = None, redo: RedoOpt = False) -> None:
    """Do all stages that are left; publish too if the recipe says where."""
    from hfsafemerge._cli_output import out

    opened = _open(recipe, directory)
    opened.do("push" if opened.recipe.push else "evaluate", redo=redo)
    _scores(opened)
    if opened.recipe.push:
        out.hint(f"published at {opened.read('pushed.json')['model']['url']}")
    else:
        out.hint(f"publish it with `hfsafemerge push {opened.directory} NAMESPACE/NAME`")


@app.command(epilog=_examples("hfsafemerge push runs/my-merge", "hfsafemerge push runs/my-merge me/my-merge --no-private"))
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

    opened = _open(recipe, directory)
    opened.publish_to(repo_id, private, license)
    opened.do("push", redo=redo)
    pushed = opened.read("pushed.json")
    out.result("Published", model=pushed["model"]["url"], **{kind: found["url"] for kind, found in pushed["datasets"].items()})


@app.command(epilog=_examples("hfsafemerge reproduce me/my-merge", "hfsafemerge reproduce me/my-merge --revision v1"))
def reproduce(
    repo_id: Annotated[str, Argument(help="The published merge.", callback=_given)],
    revision: Annotated[str | None, Option("--revision", help="A branch, tag or commit of it.")] = None,
) -> None:
    """Rebuild a published merge from its lock, and compare every tensor."""
    from hfsafemerge._cli_output import Progress, out
    from hfsafemerge.run import Event
    from hfsafemerge.run import reproduce as rebuild

    _quiet_libraries()
    progress = Progress()
    done = rebuild(repo_id, revision, lambda n, total: progress(Event("reproduce", "tensors merged", n, total)))
    progress.close()
    out.result("Every tensor is equal", repo_id=done.repo_id, commit=done.commit, tensors=done.tensors)


@app.command("list", epilog=_examples("hfsafemerge list", "hfsafemerge list methods --json"))
def list_(kind: Annotated[str | None, Argument(help="methods, strategies, judges, generators or recipes; all by default.")] = None) -> None:
    """Show the parts that a recipe can name."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.generation import GENERATORS
    from hfsafemerge.judging import JUDGES
    from hfsafemerge.merging import MERGE_METHODS
    from hfsafemerge.registry import unknown_name
    from hfsafemerge.searching import SEARCH_STRATEGIES

    parts: dict[str, list[dict[str, Any]]] = {
        "methods": [{"name": m.name, "summary": m.summary, "source": m.paper} for m in MERGE_METHODS],
        "strategies": [{"name": s.name, "summary": s.summary, "source": s.paper} for s in SEARCH_STRATEGIES],
        "judges": [{"name": j.name, "summary": j.summary, "source": j.paper} for j in JUDGES],
        "generators": [{"name": g.name, "summary": f"Questions of kind {g.kind}.", "source": g.paper} for g in GENERATORS],
        "recipes": [
            {"name": f.stem, "summary": f.read_text().splitlines()[0].lstrip("# "), "source": str(f)}
            for f in sorted(SHIPPED.glob("*.yaml"))
        ],
    }
    if kind is not None and kind not in parts:
        raise RecipeError(unknown_name("kind of part", kind, parts))
    out.table([{"kind": k, **part} for k, found in parts.items() if kind in (None, k) for part in found], id_key="name")


@app.command(epilog=_examples("hfsafemerge demo", "hfsafemerge demo --full --format json", "hfsafemerge demo --serve"))
def demo(
    directory: Annotated[Path, Option("--directory", "-d", help="Where the demo keeps its files.")] = Path("hfsafemerge-demo"),
    full: Annotated[bool, Option("--full", help="Every merge method, not TIES alone.")] = False,
    seed: Annotated[int, Option("--seed", min=0, help="The seed of the lab, of the data and of the searches.")] = 0,
    serve: Annotated[bool, Option("--serve", help="Keep the local Hub running afterwards, to look at what was published.")] = False,
    endpoint: Annotated[str | None, Option("--endpoint", hidden=True, help="The local Hub, when it runs already.")] = None,
) -> None:
    """Run the whole flow offline, with small models of an invented world and a local Hub."""
    from hfsafemerge._cli_output import Progress, out

    if endpoint is None:
        sys.exit(_demo_with_hub(directory, serve))
    from hfsafemerge.lab.demo import Demo, table

    _quiet_libraries()
    progress = Progress()
    result = Demo(directory, "alice", seed, full, progress).run()
    progress.close()
    if out.mode.value == "json":
        out.dict(result)
    else:
        out.text(table(result["rows"]))
        out.result(
            "Done",
            pushed=result["pushed"],
            reproduced=result["reproduced"],
            table=str(directory / "table.md"),
            plot=str(directory / "alignment.png"),
        )


def _demo_with_hub(directory: Path, serve: bool) -> int:
    """Start the local Hub and do the demo in a child, since the Hub's clients read their settings when they are imported."""
    from hfsafemerge.localhub import serve as serve_hub

    directory.mkdir(parents=True, exist_ok=True)
    with serve_hub(directory / "hub") as hub:
        environment = os.environ | hub.environment | {"HF_HOME": str((directory / "hf").resolve())}
        child = subprocess.Popen([sys.executable, "-m", "hfsafemerge", *sys.argv[1:], "--endpoint", hub.url], env=environment)
        try:
            code = child.wait()
            if serve and code == 0:
                sys.stderr.write(f"The local Hub is at {hub.url}. Press Ctrl-C to stop it.\n")
                hub.process.wait()
        except KeyboardInterrupt:  # the child got it too, and says what to say
            code = child.wait()
    return code


def main() -> int:
    """Run the command line. What a user can put right is one line on stderr; anything else shows its traceback."""
    from huggingface_hub.cli._output import out

    gc.set_threshold(50_000, 20, 100)  # what imports make stays; to look through it again and again takes a fifth of the start
    try:
        code: int | None = app(standalone_mode=False)
    except HfSafeMergeError as error:
        out.error(str(error))
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        place = f" ({error.filename})" if error.filename else ""
        hint = "Make room, then run the same command again." if full else "Check the path and who may write there."
        out.error(f"{error.strerror or error}{place}. {hint}")
        return 1
    except (click.Abort, KeyboardInterrupt):
        out.error("Stopped. The same command goes on from here.")
        return 130
    return code or 0
