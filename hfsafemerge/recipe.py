"""The recipe: everything the user asks for, read from YAML, checked as a whole before anything is downloaded."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import Field, ValidationError, model_validator

from hfsafemerge._markdown import fenced
from hfsafemerge._recipe_checks import MERGED, check_recipe
from hfsafemerge._recipe_data import CalibrationSpec, DataSpec
from hfsafemerge._recipe_evaluation import BenchmarkSpec, EvaluationSpec
from hfsafemerge._recipe_judges import with_judge_models
from hfsafemerge._recipe_merge import MergeSpec
from hfsafemerge._recipe_parts import (
    ComputeSpec,
    DatasetRef,
    Expert,
    JudgeSpec,
    ModelRef,
    Name,
    Part,
    PushSpec,
    Ref,
    SearchSpec,
)
from hfsafemerge._recipe_yaml import explain, read_yaml
from hfsafemerge.errors import RecipeError
from hfsafemerge.evaluation import Benchmark
from hfsafemerge.examples import Kind
from hfsafemerge.generation import GENERATORS, QuestionGenerator
from hfsafemerge.lm_eval_tasks import JUDGE as TASK_JUDGE
from hfsafemerge.lm_eval_tasks import Task
from hfsafemerge.merging import (
    MERGE_METHODS,
    Groups,
    LayerGroups,
    MergeMethod,
    MergeParameters,
    Slice,
    Slices,
    TensorGroups,
    resolve_parameters,
)
from hfsafemerge.searching import SEARCH_STRATEGIES, Objective, StrategyKind

__all__ = ["MERGED", "BenchmarkSpec", "DatasetRef", "Expert", "ModelRef", "PushSpec", "Recipe", "Ref", "SearchSpec", "fingerprint"]


class Recipe(Part):
    """Everything the user asks for."""

    name: Name
    """The name of the merge, and of its run directory."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The seed of all that is random."""
    base: ModelRef
    """The general, aligned model from which task vectors are taken."""
    experts: tuple[Expert, ...] = ()
    """The experts, fine-tuned from the same model as the base."""
    judges: dict[str, JudgeSpec] = Field(default={})
    """The models that judges judge with."""
    data: DataSpec = DataSpec()
    """The synthetic data."""
    calibration: CalibrationSpec = CalibrationSpec()
    """What importance scores are computed from, for a merge method that asks for them."""
    merge: MergeSpec
    """The merge method."""
    search: SearchSpec = SearchSpec()
    """The search for its parameters."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """The benchmarks."""
    push: PushSpec | None = None
    """Where to publish."""
    compute: ComputeSpec = ComputeSpec()
    """The device and its limits."""

    @model_validator(mode="before")
    @classmethod
    def _judges_with_models(cls, given: Any) -> Any:
        return with_judge_models(given) if isinstance(given, dict) else given

    @property
    def models(self) -> list[str]:
        """The names of the base and the experts, in the order in which parameters list them."""
        return ["base", *(expert.label for expert in self.experts)]

    def model(self, name: str) -> ModelRef:
        """The base or an expert by name. An expert that is no more than an adapter is one of the base."""
        if name == "base":
            return self.base
        expert = next(expert for expert in self.experts if expert.label == name)
        if expert.repo_id is None and expert.path is None:
            return self.base.model_copy(update={"adapter": expert.adapter, "endpoint": expert.endpoint})
        return expert

    @property
    def method(self) -> MergeMethod:
        """The merge method."""
        return MERGE_METHODS.get(self.merge.method)

    @property
    def needs_importance(self) -> bool:
        """Whether the method asks how important each entry is to the models, so that they are calibrated first."""
        return "importance" in self.method.kernel.all_inputs

    @property
    def strategy(self) -> StrategyKind:
        """The search strategy."""
        return SEARCH_STRATEGIES.get(self.search.strategy)

    @property
    def objective(self) -> Objective:
        """What the search maximises. One with constraints lacks what the aligned model scores, which a run adds."""
        spec = self.search
        rule = self.strategy.rule or spec.objective
        return Objective(rule, spec.alpha, spec.beta, spec.weights, spec.epsilon)

    @property
    def benchmarks(self) -> list[Benchmark]:
        """The benchmarks as the evaluation knows them."""
        return [
            Benchmark(name, b.kind, b.judges, how.max_new_tokens, how.temperature, b.draws, self.seed, how.system)
            for name, b in self.evaluation.benchmarks.items()
            for how in [b.decoding]
        ]

    @property
    def tasks(self) -> list[Task]:
        """The tasks of lm-eval."""
        return [
            Task(
                name,
                "domain",
                (TASK_JUDGE,),
                counts=task.metric,
                filter=task.filter,
                fewshot=task.fewshot,
                chat_template=task.chat_template,
                limit=task.limit,
            )
            for name, task in self.evaluation.tasks.items()
        ]

    def generator(self, kind: Kind) -> QuestionGenerator:
        """The question generator of a kind, with the recipe's own settings where it has some."""
        spec = getattr(self.data, kind)
        generator = GENERATORS.get((spec.generator if spec else None) or f"{kind}_questions")
        if spec is None:
            return generator
        own = {"prompt": spec.prompt, "prefill": spec.prefill, "temperature": spec.temperature, "max_new_tokens": spec.question_tokens}
        return replace(generator, **{name: value for name, value in own.items() if value is not None})

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything in the recipe does."""
        return fingerprint(self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """Read a recipe from a YAML file. Raises RecipeError naming every fault found."""
        return cls.parse(read_text(Path(path)), str(path))

    @classmethod
    def parse(cls, text: str, source: str = "recipe") -> "Recipe":
        """Read a recipe from YAML text. Raises RecipeError naming every fault found."""
        found = read_yaml(text, source)
        if not isinstance(found, dict):
            raise RecipeError(f"{source} must be a mapping with the keys {', '.join(cls.model_fields)}.")
        try:
            recipe = cls.model_validate(found)
        except ValidationError as error:
            raise RecipeError(explain(error, cls, source)) from error
        recipe.check()
        return recipe

    def to_yaml(self) -> str:
        """The recipe as YAML that `parse` reads back equal; defaults are left out."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)

    def _repr_markdown_(self) -> str:
        return fenced(self.to_yaml(), "yaml")

    def changed(self, values: Mapping[str, Any]) -> "Recipe":
        """The recipe with other values at dotted places; None changes nothing. Raises RecipeError for what can't stand there."""
        found = self.model_dump(mode="json", exclude_defaults=True)
        for place, value in values.items():
            if value is not None:
                part, key = place.split(".")
                found.setdefault(part, {})[key] = value
        return Recipe.parse(yaml.safe_dump(found))

    @property
    def loads_models(self) -> bool:
        """Whether anything but weights is wanted of the models: data, a search, an evaluation."""
        data = self.data.safety or self.data.domain or self.data.benign
        measured = self.evaluation.benchmarks or self.evaluation.tasks
        return bool(self.strategy.needs_data or data or measured or self.needs_importance)

    def public(self) -> "Recipe":
        """The recipe as it is published: of this machine's folders only the names, and no servers.

        A model that has weights loses its endpoint: whoever reads the recipe loads it. Of one that is only served there remain the
        name and the host, without port and path, which its provenance names too.
        """
        return Recipe.model_validate(_published(self.model_dump(mode="json", exclude_defaults=True)))

    def groups(self, tensors: Iterable[str]) -> Groups:
        """How parameters are spread over a merge whose base has these tensors; chunks are for a run to find."""
        if self.merge.slices:
            return Slices([Slice(spec.layers) for spec in self.merge.slices])
        if self.merge.per_tensor:
            names = list(tensors)
            return TensorGroups(names, [1] * len(names))
        return LayerGroups.of(tensors, self.merge.layers_per_group)

    def parameters(self, groups: int) -> MergeParameters:
        """The numbers and options of the merge as the recipe gives them, the rest by default. Raises RecipeError."""
        given = self.merge.parameters
        if not self.merge.slices:
            return resolve_parameters(self.method, given, self.models, groups)
        each = [resolve_parameters(self.method, {**given, **spec.parameters}, self.models, 1) for spec in self.merge.slices]
        if any(found.options != each[0].options for found in each):
            raise RecipeError(f"The slices give different options of {self.method.name}; only numbers may differ.")
        return MergeParameters({name: [found.numbers[name][0] for found in each] for name in each[0].numbers}, each[0].options)

    def check(self) -> None:
        """Check all that can be checked without a download.

        Raises:
            RecipeError: parts that do not fit together.
            UnknownName: a method, strategy, generator or judge that is not registered.
        """
        check_recipe(self)


def read_text(path: Path) -> str:
    """The text of a recipe's file. Raises RecipeError when it can't be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Can't read the recipe {path}: {error}.") from error


def _published(value: Any) -> Any:
    """The value with every `path` in it cut to its last part, and no more of every `endpoint` than must be there."""
    if isinstance(value, list):
        return [_published(found) for found in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _last_part(found) if key == "path" else _published(found) for key, found in value.items()}
    server = kept.get("endpoint")
    if isinstance(server, dict) and "url" in server:  # a model may be called "endpoint", and have numbers
        del kept["endpoint"]
        if not kept.keys() & {"repo_id", "path", "adapter"}:  # an adapter alone is one of the base
            kept["endpoint"] = {"url": _host_of(server["url"]), "model": server["model"]}
    return kept


def _last_part(found: Any) -> Any:
    return Path(found).name if found and isinstance(found, str) else found  # a model may be called "path", and have a number


def _host_of(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{f'[{parts.hostname}]' if ':' in str(parts.hostname) else parts.hostname}"


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
