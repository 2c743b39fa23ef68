"""The recipe: everything the user asks for, read from YAML, checked as a whole before anything is downloaded."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from hfsafemerge._recipe_parts import (
    BenchmarkSpec,
    CalibrationSpec,
    ComputeSpec,
    DatasetRef,
    DataSpec,
    EvaluationSpec,
    Expert,
    JudgeSpec,
    MergeSpec,
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
from hfsafemerge.generation import GENERATORS, QuestionGenerator
from hfsafemerge.judging import JUDGES
from hfsafemerge.live_merge import genes_of
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
from hfsafemerge.registry import unknown_name
from hfsafemerge.searching import SEARCH_STRATEGIES, Objective, StrategyKind

__all__ = ["BenchmarkSpec", "DatasetRef", "Expert", "ModelRef", "PushSpec", "Recipe", "Ref", "SearchSpec", "fingerprint"]

MERGED = "merged"  # the name of what a recipe makes, beside those of its models


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
            return self.base.model_copy(update={"adapter": expert.adapter})
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
        return [Benchmark(name, b.kind, b.judges, b.max_new_tokens) for name, b in self.evaluation.benchmarks.items()]

    def generator(self, kind: Literal["safety", "domain"]) -> QuestionGenerator:
        """The question generator of a kind, with the recipe's own prompt if it has one."""
        spec = self.data.safety if kind == "safety" else self.data.domain
        default = "safety_questions" if kind == "safety" else "domain_questions"
        generator = GENERATORS.get((spec.generator if spec else None) or default)
        if spec is None:
            return generator
        prompt = generator.prompt if spec.prompt is None else spec.prompt
        return replace(generator, prompt=prompt, prefill=generator.prefill if spec.prefill is None else spec.prefill)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when anything in the recipe does."""
        return fingerprint(self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> "Recipe":
        """Read a recipe from a YAML file. Raises RecipeError naming every fault found."""
        return cls.parse(read_text(path), str(path))

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
        return bool(self.strategy.needs_data or data or self.evaluation.benchmarks or self.needs_importance)

    def public(self) -> "Recipe":
        """The recipe as it is published: of this machine's folders only the names."""
        return Recipe.model_validate(_without_parents(self.model_dump(mode="json", exclude_defaults=True)))

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
        self.method.check_expert_count(len(self.experts))
        names = [*self.models, MERGED]
        if len(set(names)) < len(names):
            raise RecipeError(
                f"Two models go by one name: {', '.join(names)}. Give the experts different names (and not 'base' or '{MERGED}')."
            )
        self._check_merge()
        self.strategy.check(self.merge.method, self.search.settings)
        self.parameters(_groups_given(self.merge.parameters))
        if self.strategy.needs_data:
            self._check_search()
        if self.needs_importance:
            self._check_calibration()
        self._check_data()
        for name in {*self.judges, *self.data.judges, *(j for b in self.evaluation.benchmarks.values() for j in b.judges)}:
            JUDGES.get(name)
        for benchmark in self.benchmarks:
            for judge in benchmark.judges:
                benchmark.metric(judge)
                self._check_judge(judge, f"evaluation.benchmarks.{benchmark.name}")
        self._check_no_benchmark_steers()

    def _check_merge(self) -> None:
        known = ["same", "base", "union", *(expert.label for expert in self.experts)]
        if self.merge.tokenizer not in known:
            raise RecipeError(f"merge.tokenizer: {unknown_name('tokenizer', self.merge.tokenizer, known)}")
        if self.merge.tokenizer not in ("same", "base", "union") and self.merge.chat_template == "base":
            raise RecipeError(
                f"merge.chat_template: base does not go with the tokenizer of {self.merge.tokenizer}, which brings its own. "
                "Choose same, or write the template out."
            )
        if self.merge.tokenizer == "same" and (self.merge.tokens or self.merge.pad_to_multiple_of):
            raise RecipeError("merge.tokens and merge.pad_to_multiple_of change the embeddings; say with merge.tokenizer whose they are.")
        for token, spec in self.merge.tokens.items():
            if spec.model not in (None, "zero", *self.models):
                raise RecipeError(f"merge.tokens.{token}: {unknown_name('model', str(spec.model), ['zero', *self.models])}")
        ways = {"slices": self.merge.slices, "layers_per_group": self.merge.layers_per_group, "per_tensor": self.merge.per_tensor}
        if len(given := [f"merge.{name}" for name, value in ways.items() if value]) > 1:
            raise RecipeError(f"{' and '.join(given)} both say which tensors share their parameters; leave all but one out.")
        if self.merge.chunks is not None:
            if not self.merge.per_tensor:
                raise RecipeError("merge.chunks cut single tensors; set merge.per_tensor to true too.")
            if self.method.over != "entries" or self.method.kernel.before:
                raise RecipeError(f"{self.merge.method} looks at whole tensors, which can't be cut into chunks; leave merge.chunks out.")
            if _groups_given(self.merge.parameters) > 1:
                raise RecipeError("merge.parameters lists numbers by group, and how many chunks there are is only found by merge.chunks.")
        for number, found in enumerate(self.merge.slices):
            where = f"merge.slices.{number}"
            if unknown := [name for name in found.layers if name not in self.models]:
                raise RecipeError(f"{where}: {unknown_name('model', unknown[0], self.models)}")
            lengths = {name: end - begin for name, (begin, end) in found.layers.items()}
            if min(lengths.values()) < 1 or len(set(lengths.values())) > 1:
                raise RecipeError(f"{where} takes {lengths} layers; each model must give as many, and at least one.")
            wanted = 1 if self.merge.method == "passthrough" else len(self.models)
            if len(found.layers) != wanted:
                raise RecipeError(f"{where} names {len(found.layers)} models; {self.merge.method} makes a slice of {wanted} here.")

    def _check_search(self) -> None:
        for kind in self.search.use:
            if getattr(self.data, kind) is None:
                raise RecipeError(f"search.use names {kind} data, and data.{kind} does not say where they come from.")
        if self.merge.slices or self.merge.tokenizer != "same":
            raise RecipeError(
                "A search sets the weights of the base in memory, so merge.slices and another merge.tokenizer can't be searched."
            )
        if unknown := sorted(self.search.weights.keys() - {expert.topic for expert in self.experts}):
            raise RecipeError(f"search.weights: {unknown_name('topic', unknown[0], [expert.topic for expert in self.experts])}")
        if self.search.weights and "domain" not in self.search.use:
            raise RecipeError("search.weights are those of domains, and search.use does not name domain.")
        if self.search.deltas == "int8" and (self.strategy.needs_slopes or self.search.memory == "disk"):
            why = "differentiates through the exact merge" if self.strategy.needs_slopes else "reads exact ones from the disk"
            raise RecipeError(f"search.deltas: int8 rounds task vectors in memory, and this search {why}; leave it out.")
        self._check_rule()
        genes = genes_of(self.method, self.models, 1, self.merge.parameters)
        self.strategy.make(genes, self.seed, **self.search.settings)  # raises what it would raise after hours of work

    def _check_calibration(self) -> None:
        """Every expert needs examples of its own; and scores are of the models' own tensors, in this run's directory."""
        spec, experts, method = self.calibration, self.models[1:], self.merge.method
        for where, name in [("safety", spec.safety)] * (spec.safety is not None) + [("data", name) for name in spec.data]:
            if name not in experts:
                raise RecipeError(f"calibration.{where}: {unknown_name('expert', str(name), experts)}")
        if spec.safety in spec.data:
            raise RecipeError(f"calibration.safety names {spec.safety}, and calibration.data has rows for it; leave one of them out.")
        for name in experts:
            aligned = name == spec.safety
            if name not in spec.data and (self.data.safety if aligned else self.data.domain) is None:
                also = (
                    "data.safety" if aligned else f"data.domain; or, if it is the aligned model, calibration.safety: {name} and data.safety"
                )
                raise RecipeError(
                    f"{method} finds out on examples what matters to {name}, and there are none. Add `calibration: {{data: {{{name}: "
                    f"{{repo_id: ..., columns: {{prompt: ..., answer: ...}}}}}}}}`, or {also}."
                )
        if self.merge.slices or self.merge.tokenizer != "same":
            raise RecipeError(f"{method} compares models entry by entry, so it takes no merge.slices and no other merge.tokenizer.")
        if self.strategy.needs_data and self.search.executor == "ray":
            raise RecipeError(f"{method} reads importance scores from the run's directory; set search.executor to local.")
        if self.push is not None:
            raise RecipeError(
                f"A merge by {method} can't be published yet: others could not rebuild it, since its lock does not hold what it was "
                "calibrated with. Leave push out."
            )

    def _check_rule(self) -> None:
        """A strategy with an objective of its own takes no other one."""
        if self.strategy.rule is None:
            return
        if self.search.objective != "weighted" or (self.search.weights and self.strategy.rule == "pooled"):
            unused = "search.weights" if self.search.objective == "weighted" else f"search.objective: {self.search.objective}"
            raise RecipeError(f"{self.search.strategy} has an objective of its own, which does not know {unused}; leave it out.")
        topics = [expert.topic for expert in self.experts]
        if self.strategy.measure == "imitation" and "domain" in self.search.use and (len(set(topics)) < len(topics) or not all(topics)):
            raise RecipeError(f"{self.search.strategy} imitates each expert on its own prompts, so every expert needs a topic of its own.")

    def _check_data(self) -> None:
        for kind in ("safety", "domain"):
            generator = self.generator(kind)
            if generator.kind != kind:
                raise RecipeError(f"data.{kind}.generator is {generator.name}, which writes {generator.kind} questions.")
        if self.data.safety is not None or self.data.benign is not None:
            for judge in self.data.judges:
                self._check_judge(judge, "data.judges")
            if not any(JUDGES.get(judge).says == ("safe", "unsafe") for judge in self.data.judges):
                raise RecipeError(f"data.judges are {', '.join(self.data.judges)}; a guard has to be among them, such as llama_guard.")
        domain = self.data.domain
        if domain is not None and domain.examples is None:
            for expert in self.experts:
                if expert.topic not in domain.in_context:
                    listed = ", ".join(sorted(domain.in_context)) or "none"
                    raise RecipeError(f"data.domain.in_context has no rows for {expert.label}'s topic {expert.topic!r}; it has {listed}.")

    def _check_judge(self, name: str, where: str) -> None:
        spec = self.judges.get(name, JudgeSpec())
        if JUDGES.get(name).needs_model and spec.model is None:
            raise RecipeError(f"{where} asks the judge {name}, which needs a model. Add `judges: {{{name}: {{model: {{repo_id: ...}}}}}}`.")

    def _check_no_benchmark_steers(self) -> None:
        benchmarks = {_place(b.dataset): name for name, b in self.evaluation.benchmarks.items()}
        specs = [spec for spec in (self.data.safety, self.data.domain) if spec is not None]
        refs = [spec.examples for spec in specs if spec.examples is not None]
        refs += [self.data.safety.questions] if self.data.safety and self.data.safety.questions else []
        refs += [self.data.benign.questions] if self.data.benign else []
        refs += list(self.data.domain.in_context.values()) if self.data.domain else []
        refs += list(self.calibration.data.values())
        for ref in refs:
            if _place(ref) in benchmarks:
                raise RecipeError(
                    f"The benchmark {benchmarks[_place(ref)]} is also used to make the merge ({ref}, split {ref.split}). "
                    "A number that was optimised measures nothing; take another split or dataset for the data."
                )


def read_text(path: Path) -> str:
    """The text of a recipe's file. Raises RecipeError when it can't be read."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"Can't read the recipe {path}: {error}.") from error


def _without_parents(value: Any) -> Any:
    """The value with every `path` in it cut to its last part."""
    if isinstance(value, dict):
        return {key: _last_part(found) if key == "path" else _without_parents(found) for key, found in value.items()}
    return [_without_parents(found) for found in value] if isinstance(value, list) else value


def _last_part(found: Any) -> Any:
    return Path(found).name if found and isinstance(found, str) else found  # a model may be called "path", and have a number


def fingerprint(value: Any) -> str:
    """16 hexadecimal digits of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _place(ref: DatasetRef) -> tuple[str, str | None, str]:
    return (str(ref.repo_id or ref.path), ref.config, ref.split)


def _groups_given(parameters: Mapping[str, Any]) -> int:
    """How many layer groups the recipe's own numbers speak of; the real number is known only from the model."""
    lists = [v for v in parameters.values() if isinstance(v, list) and v and isinstance(v[0], list)]
    return len(lists[0]) if lists else 1
