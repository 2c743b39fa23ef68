"""The commands that show what there is: a recipe to start from, and the parts that one can name."""

from pathlib import Path
from typing import Annotated, Any

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.completion import Names
from hfsafemerge.cli.root import app, examples, quiet_libraries
from hfsafemerge.errors import RecipeError

SHIPPED = Path(__file__).parent.parent / "recipes"


def methods() -> tuple[str, ...]:
    """The merge methods."""
    from hfsafemerge.merging import MERGE_METHODS

    return tuple(MERGE_METHODS.names())


def strategies() -> tuple[str, ...]:
    """The search strategies."""
    from hfsafemerge.searching import SEARCH_STRATEGIES

    return tuple(SEARCH_STRATEGIES.names())


@app.command(
    epilog=examples(
        "hfsafemerge init",
        "hfsafemerge init my-merge.yaml",
        "hfsafemerge init lab.yaml --lab",
        "hfsafemerge init lab.yaml --lab --pool three --strategy gradient --method task_arithmetic",
    )
)
def init(
    path: Annotated[Path, Argument(help="The file to write.")] = Path("recipe.yaml"),
    lab: Annotated[
        bool, Option("--lab", help="A recipe for the lab's own small models, which are trained first (2 minutes on two cores).")
    ] = False,
    pool: Annotated[str | None, Option("--pool", help="With --lab: pair, one expert, or three, with two.")] = None,
    method: Annotated[str | None, Option("--method", help="With --lab: the merge method.", click_type=Names(methods))] = None,
    strategy: Annotated[str | None, Option("--strategy", help="With --lab: the search strategy.", click_type=Names(strategies))] = None,
    evaluations: Annotated[int | None, Option("--evaluations", min=1, help="With --lab: candidates of the search.")] = None,
) -> None:
    """Write a recipe to start from: commented, with what it costs. It never writes over a file."""
    from hfsafemerge._cli_output import Progress, out

    if path.exists():
        raise RecipeError(f"{path} exists; it is left as it is. Name another file.")
    given: dict[str, Any] = {"pool": pool, "method": method, "strategy": strategy, "evaluations": evaluations}
    if not lab and (wrong := [name for name, value in given.items() if value is not None]):
        raise click.UsageError(f"--{wrong[0]} is for --lab; write it into the recipe.")
    if lab:
        from hfsafemerge.lab.choices import LabChoices
        from hfsafemerge.lab.models import lab_folder
        from hfsafemerge.lab.publishing import write_world
        from hfsafemerge.running import Event

        choices = LabChoices(**{name: value for name, value in given.items() if value is not None})
        choices.check()
        quiet_libraries()
        progress = Progress()
        folder = lab_folder(progress=lambda model, done, total: progress(Event("lab", f"training {model}", done, total)))
        write_world(folder)
        path.write_text(choices.recipe(folder).to_yaml())
    else:
        path.write_text((SHIPPED / "evomm.yaml").read_text())
    out.result("Recipe written", path=str(path))
    out.hint(f"check it with `hfsafemerge check {path}`, run it with `hfsafemerge run {path}`")


def kinds() -> tuple[str, ...]:
    """The kinds of parts."""
    return ("methods", "strategies", "judges", "generators", "benchmarks", "suites", "recipes")


@app.command("list", topic="help", epilog=examples("hfsafemerge list", "hfsafemerge list methods --json", "hfsafemerge list benchmarks -q"))
def list_(
    kind: Annotated[
        str | None,
        Argument(help="methods, strategies, judges, generators, benchmarks, suites or recipes; all by default.", click_type=Names(kinds)),
    ] = None,
) -> None:
    """Show the parts that a recipe can name."""
    from hfsafemerge._cli_output import out
    from hfsafemerge.benchmarking import BENCHMARKS, SUITES
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
        "benchmarks": [{"name": b.name, "summary": b.summary, "source": b.paper} for b in BENCHMARKS],
        "suites": [{"name": name, "summary": suite.summary, "source": ""} for name, suite in SUITES.items()],
        "recipes": [
            {"name": f.stem, "summary": f.read_text().splitlines()[0].lstrip("# "), "source": str(f)}
            for f in sorted(SHIPPED.glob("*.yaml"))
        ],
    }
    if kind is not None and kind not in parts:
        raise RecipeError(unknown_name("kind of part", kind, parts))
    out.table([{"kind": k, **part} for k, found in parts.items() if kind in (None, k) for part in found], id_key="name")
    out.hint("`hfsafemerge init recipe.yaml` writes a recipe that names some of them")
