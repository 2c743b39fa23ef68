"""Models, judges and benchmarks as short texts name them: what a command or a notebook takes instead of a recipe."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfsafemerge._recipe_yaml import explain
from hfsafemerge.benchmarking import SUITES
from hfsafemerge.errors import RecipeError
from hfsafemerge.recipe import ModelRef

MODEL = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([^@\s]+))?")


def model_ref(model: str | Path | ModelRef) -> ModelRef:
    """A model: a folder, or namespace/name, with @revision where need be. Raises RecipeError for anything else."""
    if isinstance(model, ModelRef):
        return model
    text = str(model)
    if text and Path(text).is_dir():
        asked: dict[str, Any] = {"path": text}
    elif found := MODEL.fullmatch(text):
        asked = {"repo_id": found[1], "revision": found[2]}
    else:
        raise RecipeError(f"{text!r} is no folder, and no repository such as namespace/name or namespace/name@revision.")
    try:
        return ModelRef(**asked)
    except ValidationError as error:
        raise RecipeError(explain(error, ModelRef, repr(text))) from error


def judge_specs(models: Mapping[str, str | Path | ModelRef]) -> dict[str, Any]:
    """What a recipe says under `judges`, for judges by name and what they judge with. Raises RecipeError as `model_ref` does."""
    return {name: {"model": model_ref(model).model_dump(mode="json", exclude_defaults=True)} for name, model in models.items()}


def evaluation_of(
    suite: str | None, benchmarks: Sequence[str] | Mapping[str, Mapping[str, Any]], tasks: Sequence[str], limit: int | None
) -> dict[str, Any]:
    """What a recipe says under `evaluation` to measure on a suite, on benchmarks and on tasks of lm-eval.

    Args:
        suite: quick, standard or paper; None for none.
        benchmarks: registered benchmarks; or benchmarks by name, as a recipe has them under `evaluation.benchmarks`.
        tasks: tasks of lm-eval.
        limit: only the first items of each; None for all.
    """
    cut = {} if limit is None else {"limit": limit}
    given = dict(benchmarks) if isinstance(benchmarks, Mapping) else {name: {} for name in benchmarks}
    asked = list(tasks)
    if suite is not None and suite in SUITES:  # named one by one, so that the limit is theirs too; the recipe refuses an unknown suite
        given, asked = {name: {} for name in SUITES[suite].benchmarks} | given, [*SUITES[suite].tasks, *tasks]
    found: dict[str, Any] = {
        "benchmarks": {name: {**spec, **cut} for name, spec in given.items()},
        "tasks": {name: dict(cut) for name in asked},
    }
    return found | ({"suite": suite} if suite is not None else {})
