"""Any number of models measured side by side, without a merge: a directory with scores.json and plots, in which one can go on."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hfsafemerge._card_plot import category_rows, plot_alignment, plot_categories, plot_refusals, points_of, refusal_rows
from hfsafemerge._recipe_checks import check_evaluation
from hfsafemerge._recipe_merge import MergeSpec
from hfsafemerge._recipe_parts import ComputeSpec, Expert, JudgeSpec, ModelRef, Name
from hfsafemerge._recipe_yaml import explain
from hfsafemerge.errors import RecipeError
from hfsafemerge.judging import JUDGES
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.checking import find
from hfsafemerge.running.directory import Listener, Run
from hfsafemerge.running.evaluating import SCORES, write_results
from hfsafemerge.running.merging import device_of
from hfsafemerge.running.stages import Stage

TAKEN = ("base", MERGED)  # what the models of a merge are called


class Models(Recipe):
    """Models that are measured as they are: nothing is merged, and the first one is what the others are held against."""

    reference: Name
    """What the first model is called."""
    merge: MergeSpec = MergeSpec(method="none")
    """There is none."""

    @property
    def models(self) -> list[str]:
        """The names of the models."""
        return [self.reference, *(expert.label for expert in self.experts)]

    def model(self, name: str) -> ModelRef:
        """A model by name."""
        return self.base if name == self.reference else next(expert for expert in self.experts if expert.label == name)

    def check(self) -> None:
        """Check what the models are called, and what they are measured on.

        Raises:
            RecipeError: a name can't be used, there is nothing to measure, or a judge has no part in it.
            UnknownName: a judge is not registered.
        """
        if twice := [name for name, count in Counter(self.models).items() if count > 1]:
            raise RecipeError(f"{twice[0]} is named twice. Name every model once.")
        if taken := [name for name in TAKEN if name in self.models]:
            raise RecipeError(f"No model here can be called {taken[0]!r}, as those of a merge are. Rename its folder.")
        if not self.evaluation.benchmarks and not self.evaluation.tasks:
            raise RecipeError("There is nothing to measure. Name a suite, such as quick, or benchmarks.")
        asked = sorted({judge for benchmark in self.benchmarks for judge in benchmark.judges})
        for name in self.judges:
            if not JUDGES.get(name).needs_model:
                raise RecipeError(f"The judge {name} is a rule, and judges with no model. Leave its model out.")
            if name not in asked:
                raise RecipeError(f"Nothing here is judged by {name}: the benchmarks ask {', '.join(asked) or 'no judge'}. Leave it out.")
        check_evaluation(self)


class Comparison(Run):
    """The directory of a comparison. Its recipe is no recipe of a merge, and has another name."""

    RECIPE = "models.yaml"

    def do(self, target: str, *, redo: bool = False) -> None:
        """Do a stage as a run does. What was found of a model in a folder stands only for what the folder held at the check.

        Raises:
            RunError: such a model, or a local judge, has changed since.
        """
        if self.is_done("check"):
            for role in inputs.model_roles(self.recipe):
                inputs.require_unchanged(self, role)
        super().do(target, redo=redo)

    def _stages(self) -> dict[str, Stage]:
        precision = ("compute.dtype", "compute.quantization")
        measured = ("evaluation.benchmarks", "evaluation.tasks")
        found = (
            Stage("check", _check, (), ("reference", "base", "experts", "judges", *measured)),
            Stage("evaluate", _evaluate, ("check",), ("seed", "evaluation", *precision)),
        )
        return {stage.name: stage for stage in found}


def evaluate_models(
    models: Sequence[ModelRef],
    directory: Path,
    evaluation: Mapping[str, Any],
    *,
    judges: Mapping[str, Mapping[str, Any]] | None = None,
    compute: ComputeSpec | None = None,
    seed: int = 0,
    listener: Listener = lambda event: None,
    redo: bool = False,
) -> Run:
    """Measure models, and compare each with the first one. What is found is in the directory of the run that comes back.

    Args:
        models: on the Hub, or in folders.
        directory: where scores.json, labels.json and the plots go. The same call goes on there after a kill.
        evaluation: what a recipe says under `evaluation`, such as {"suite": "quick"}.
        judges: what a recipe says under `judges`; judges whose models are open need none.
        compute: the device and its limits.
        seed: of sampled replies.
        listener: is told every event.
        redo: measure again what the directory holds for other settings, instead of refusing.

    Raises:
        RecipeError: what is asked for does not fit together.
        RunError: the directory holds something else, or was made with other settings.
    """
    if not models:
        raise RecipeError("There is no model to measure. Name at least one.")
    names = names_of(models)
    asked = {
        "name": "comparison",
        "seed": seed,
        "reference": names[0],
        "base": dumped(models[0]),
        "experts": [{**dumped(model), "name": name} for model, name in zip(models[1:], names[1:], strict=True)],
        "judges": dict(judges or {}),
        "evaluation": dict(evaluation),
        "compute": dumped(compute or ComputeSpec()),
    }
    try:
        wanted = Models.model_validate(asked)
    except ValidationError as error:
        raise RecipeError(explain(error, Models, "comparison")) from error
    wanted.check()
    run = Comparison(wanted, directory, listener)
    run.do("evaluate", redo=redo)
    return run


def names_of(models: Sequence[ModelRef]) -> list[str]:
    """What to call models: the last part of where they are; with the revision, or as much before it as tells them apart, if need be.

    Raises RecipeError for a model that is only on a server.
    """
    ways = [_ways(model) for model in models]
    deepest = max(map(len, ways), default=0)
    padded = [each + each[-1:] * (deepest - len(each)) for each in ways]
    levels = [Counter(level) for level in zip(*padded, strict=True)]
    free = ([name for name, level in zip(each, levels, strict=True) if level[name] == 1 and name not in TAKEN] for each in padded)
    return [next(iter(found), each[-1]) for found, each in zip(free, padded, strict=True)]


def _ways(model: ModelRef) -> list[str]:
    """The names that a model may be given, the shortest first."""
    if model.only_served:
        raise RecipeError(f"{model} is only on a server, and what is compared runs from its weights. Name its repo_id or path.")
    place = model.adapter or model
    parts = place.repo_id.split("/") if place.repo_id is not None else Path(str(place.path)).resolve().parts
    end = f"-{place.revision}" if place.revision else ""
    return [_slug(parts[-1]), *(_slug("--".join(parts[-depth:]) + end) for depth in range(1, len(parts) + 1))]


def _slug(text: str) -> str:
    """A text as a name may be, by its last 96 letters."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-96:].lstrip("._-") or "model"


def _check(run: Run) -> None:
    device_of(run.recipe.compute.device)
    run.write(inputs.CHECKED, find(run)[1])


def _evaluate(run: Run) -> None:
    first, *others = run.recipe.models
    write_results(run, [first, *others], [(other, first) for other in others], first if others else None)
    scores = run.read(SCORES)["scores"]
    if panels := points_of(scores):
        plot_alignment(panels, [run.directory / "alignment.png", run.directory / "alignment.svg"])
    if refusal_rows(scores):
        plot_refusals(scores, [run.directory / "refusals.png", run.directory / "refusals.svg"])
    if category_rows(scores):
        plot_categories(scores, [run.directory / "categories.png", run.directory / "categories.svg"])


def dumped(part: ModelRef | Expert | JudgeSpec | ComputeSpec) -> dict[str, Any]:
    """A part of a recipe as its YAML would hold it."""
    found: dict[str, Any] = part.model_dump(mode="json", exclude_defaults=True)
    return found
