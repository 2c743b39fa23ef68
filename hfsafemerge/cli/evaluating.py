"""The command that measures: a merge with the models it is made of, or any models side by side."""

from pathlib import Path
from typing import Annotated

import click
from huggingface_hub.cli._framework import Argument, Option

from hfsafemerge.cli.completion import Names, benchmarks, devices, judges, suites
from hfsafemerge.cli.root import DirectoryOpt, RedoOpt, app, do, examples, quiet_libraries
from hfsafemerge.cli.stages import show_scores
from hfsafemerge.errors import RecipeError


@app.command(
    epilog=examples(
        "hfsafemerge evaluate recipe.yaml",
        "hfsafemerge evaluate runs/my-merge --json",
        "hfsafemerge evaluate me/my-merge meta-llama/Llama-3.1-8B-Instruct --suite quick",
        "hfsafemerge evaluate ./mine org/theirs@v1 --benchmark harmbench --task gsm8k --judge qwen3guard=Qwen/Qwen3Guard-Gen-4B",
    )
)
def evaluate(
    what: Annotated[list[str], Argument(help="A recipe, or the directory of a run; or models, the first of which is the reference.")],
    suite: Annotated[str | None, Option("--suite", help="Measure models on quick, standard or paper.", click_type=Names(suites))] = None,
    benchmark: Annotated[
        list[str] | None, Option("--benchmark", help="A registered benchmark; may be given several times.", click_type=Names(benchmarks))
    ] = None,
    task: Annotated[list[str] | None, Option("--task", help="A task of lm-eval; may be given several times.")] = None,
    judge: Annotated[list[str] | None, Option("--judge", help="JUDGE=MODEL: what a judge judges with.", click_type=Names(judges))] = None,
    limit: Annotated[int | None, Option("--limit", min=1, help="Only the first items of each benchmark: no number to publish.")] = None,
    device: Annotated[str | None, Option("--device", help="Where models run: auto, cpu, cuda, ...", click_type=Names(devices))] = None,
    directory: DirectoryOpt = None,
    redo: RedoOpt = False,
) -> None:
    """Measure a merge and the models it is made of, or any models side by side.

    Models without a recipe need --suite, --benchmark or --task, which say what they are measured on. Every rate comes with its
    95 % interval. No reply is kept or shown: only what the judges said of it.
    """
    from hfsafemerge._cli_output import out

    chosen = suite or benchmark or task
    if not chosen:
        if len(what) > 1 or not (Path(what[0]).suffix in (".yaml", ".yml") or (Path(what[0]) / "recipe.yaml").exists()):
            raise RecipeError("Say what to measure models on: --suite quick, --benchmark NAME or --task NAME. A recipe says it itself.")
        if given_for_models := [name for name, value in (("--judge", judge), ("--limit", limit), ("--device", device)) if value]:
            raise click.UsageError(f"{given_for_models[0]} is for models without a recipe; write it into the recipe.")
        measured = do("evaluate", Path(what[0]), directory, redo)
        show_scores(measured)
        out.hint(f"publish the merge with `hfsafemerge push {measured.directory} NAMESPACE/NAME`")
        return
    from hfsafemerge._cli_output import Progress
    from hfsafemerge._recipe_parts import ComputeSpec
    from hfsafemerge.running.comparing import evaluate_models
    from hfsafemerge.running.naming import evaluation_of, judge_specs, model_ref

    quiet_libraries()
    models = [model_ref(text) for text in what]
    run = evaluate_models(
        models,
        directory or Path("runs") / "comparison",
        evaluation_of(suite, benchmark or [], task or [], limit),
        judges=judge_specs(_judges(judge or [])),
        compute=ComputeSpec(device=device or "auto"),
        listener=Progress(),
        redo=redo,
    )
    show_scores(run)
    for name, ref in run.read("scores.json")["models"].items():
        if ref:  # a branch may have moved on since the comparison was begun
            out.hint(f"{name} is {ref}")


def _judges(texts: list[str]) -> dict[str, str]:
    """What each judge judges with."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, model = text.partition("=")
        if not model:
            raise RecipeError(f"--judge {text} names no model. Write it as JUDGE=MODEL.")
        if name in found:
            raise RecipeError(f"--judge names {name} twice. Choose one model for it.")
        found[name] = model
    return found
