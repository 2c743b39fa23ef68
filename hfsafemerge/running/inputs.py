"""What a run reads from elsewhere: the models and datasets of its recipe by role, pinned to the commits found at check."""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch

from hfsafemerge import hub
from hfsafemerge.benchmarking import examples_of
from hfsafemerge.errors import RunError
from hfsafemerge.examples import Example, normalised, require_rows
from hfsafemerge.judging import JUDGES, Judge, self_test
from hfsafemerge.language_model import EndpointModel, LanguageModel, Server, TextClassifier, TransformersModel
from hfsafemerge.language_model.processes import group, in_group
from hfsafemerge.recipe import MERGED, DatasetRef, ModelRef, Recipe, Ref, fingerprint
from hfsafemerge.running.sources import Source, applied

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

CHECKED = "check.json"
Loaded = TypeVar("Loaded", TransformersModel, TextClassifier)


def model_roles(recipe: Recipe) -> dict[str, ModelRef]:
    """Every model of a recipe by the part it plays; the base and the experts come first, under their names."""
    roles = {name: recipe.model(name) for name in recipe.models}
    if recipe.data.safety is not None and recipe.data.safety.writer is not None:
        roles["question writer"] = recipe.data.safety.writer
    if recipe.data.benign is not None and recipe.data.benign.writer is not None:
        roles["benign question writer"] = recipe.data.benign.writer
    if recipe.data.duplicates.encoder is not None:
        roles["encoder"] = recipe.data.duplicates.encoder
    return roles | {f"judge {name}": spec.model for name, spec in recipe.judges.items() if spec.model is not None}


def dataset_roles(recipe: Recipe) -> dict[str, DatasetRef]:
    """Every dataset of a recipe by the part it plays."""
    roles: dict[str, DatasetRef] = {}
    for kind in ("safety", "domain", "benign"):
        spec = getattr(recipe.data, kind)
        for role in ("examples", "questions"):
            if (ref := getattr(spec, role, None)) is not None:
                roles[f"{kind} {role}"] = ref
    if recipe.data.domain is not None:
        roles |= {f"in-context {topic}": ref for topic, ref in recipe.data.domain.in_context.items()}
    roles |= {f"calibration {name}": ref for name, ref in recipe.calibration.data.items()}
    return roles | {f"benchmark {name}": spec.dataset for name, spec in recipe.evaluation.benchmarks.items()}


def licenses(recipe: Recipe, checked: Mapping[str, Any]) -> dict[str, str | None]:
    """The licences by reference, as check.json has them, that the merged model falls under."""
    return {checked["models"][role]["ref"]: checked["models"][role]["license"] for role in recipe.models}


def commit(run: "Run", kind: Literal["models", "datasets"], role: str) -> str:
    """The commit that the check found for a model or dataset."""
    return str(run.read(CHECKED)[kind][role]["commit"])


def label(run: "Run", role: str) -> str:
    """What `language_model` gives, as provenance names it: a model, its commit, and the host that runs it if it is on a server.

    Of a local folder it has only the name, since provenance is published.
    """
    endpoint = model_roles(run.recipe)[role].endpoint if role != MERGED else None
    found = weights_label(run, role)
    return found if endpoint is None or model_roles(run.recipe)[role].only_served else f"{found} via {endpoint.host}"


def weights_label(run: "Run", role: str) -> str:
    """A model and its commit, wherever it runs."""
    if role == MERGED:
        return run.recipe.name
    ref = model_roles(run.recipe)[role]
    return str(ref) if ref.only_served else f"{ref.short}@{commit(run, 'models', role)[:12]}"


def source(run: "Run", role: str) -> Source:
    """Where the weights of a model are, downloaded where needed."""
    require_unchanged(run, role)
    ref, checked = model_roles(run.recipe)[role], run.read(CHECKED)["models"][role]
    return Source.pulled(
        ref,
        checked["commit"],
        checked["adapter_commit"],
        access=checked.get("access"),
        adapter_access=checked.get("adapter_access"),
        notify=run.emit,
        tell=progress(run, str(ref)),
    )


def progress(run: "Run", what: str) -> hub.Tell:
    """What tells a run's listener how far a download is."""

    def tell(done: int, total: int, left: float | None) -> None:
        run.emit(f"MB of {what}", math.ceil(done / 1e6), math.ceil(total / 1e6), left=left)

    return tell


def folder(run: "Run", role: str) -> Path:
    """The local folder of a model, downloaded where needed; "merged" is the run's own. An adapter is applied to its model there."""
    if role == MERGED:
        return run.directory / "model"
    found = source(run, role)
    if found.adapter is None:
        return found.folder
    checked = run.read(CHECKED)["models"][role]
    return applied(found, run.directory / "adapted" / fingerprint([checked["ref"], checked["commit"], checked["adapter_commit"]]))


def require_unchanged(run: "Run", role: str) -> None:
    """Raise RunError where a folder no longer holds the model, or its adapter, that was found there at the check."""
    ref, checked = model_roles(run.recipe)[role], run.read(CHECKED)["models"][role]
    for part, found in ((ref, checked["commit"]), (ref.adapter, checked["adapter_commit"])):
        if part is not None:
            _refuse_changed(part, found)


def _refuse_changed(ref: Ref, checked: str) -> None:
    if ref.path is not None and hub.resolve(ref) != checked:
        raise RunError(f"{ref.path} has changed since the run was checked. Choose another directory with --directory for a new run.")


@contextmanager
def language_model(run: "Run", role: str) -> Iterator[LanguageModel]:
    """A model that replies, for the block: on its server where the recipe names one, else loaded, in every process of a group.

    Raises:
        EndpointError: the server does not do its part.
        CheckpointError: the model can't be loaded.
    """
    ref = model_roles(run.recipe)[role]
    if ref.endpoint is None:
        here = group().shared_model(folder(run, role), **_loading(run, role)) if in_group() else loaded_model(run, role)
        with here as model:
            yield model
        return
    spec = ref.endpoint
    server = Server(
        spec.url,
        key=spec.key,
        parallel=spec.parallel,
        timeout=spec.timeout,
        retries=spec.retries,
        requests_per_minute=spec.requests_per_minute,
        tell=run.emit,
    )
    served = EndpointModel(server, str(ref.served_as), name=label(run, role), continues=spec.continues)
    served.check()
    yield served


@contextmanager
def loaded_model(run: "Run", role: str, *, device: str | None = None, template_of: str | None = None) -> Iterator[TransformersModel]:
    """A model that is loaded for the block and freed after it: what is merged, searched, calibrated or compared runs here.

    Args:
        run: the run.
        role: which of its models.
        device: another device than the recipe's.
        template_of: which other model's chat template to use; by default what merge.chat_template says.
    """
    with _freed(TransformersModel.load(folder(run, role), **_loading(run, role, device, template_of))) as model:
        yield model


@contextmanager
def _freed(model: Loaded) -> Iterator[Loaded]:
    """A loaded model for the block."""
    try:
        yield model
    finally:
        del model.model  # whoever still holds the wrapper, the weights go
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _loading(run: "Run", role: str, device: str | None = None, template_of: str | None = None) -> dict[str, Any]:
    """How a model is loaded, beside its folder."""
    compute = run.recipe.compute
    in_pool = role in (*run.recipe.models, MERGED)
    if template_of is None and in_pool and run.recipe.merge.chat_template == "base":
        template_of = "base"
    return {
        "name": weights_label(run, role),
        "device": device or compute.device,
        "dtype": compute.dtype,
        "batch_tokens": compute.batch_tokens,
        "quantization": "none" if in_pool else compute.quantization,
        "template_from": folder(run, template_of) if template_of is not None else None,
    }


@contextmanager
def judges(run: "Run", names: Sequence[str]) -> Iterator[Mapping[str, Judge]]:
    """Judges by name, tested on their formats; those that judge with a model have it for the block, judges of one model the same.

    Raises:
        JudgeError: a judge does not keep to its format.
        EndpointError: a server does not do its part.
        CheckpointError: a model can't be loaded, or is of another kind than the judge needs.
    """
    with ExitStack() as stack:
        bound: dict[str, Judge] = {}
        models: dict[object, LanguageModel | TextClassifier] = {}
        for name in names:
            kind, role = JUDGES.get(name), f"judge {name}"
            if not kind.needs_model:
                bound[name] = kind.bind(None)
                continue
            which = (kind.needs, model_roles(run.recipe)[role], commit(run, "models", role))
            if which not in models:
                enter = stack.enter_context
                models[which] = enter(_classifier(run, role)) if kind.needs == "classifier" else enter(language_model(run, role))
            bound[name] = kind.bind(models[which])
            self_test(f"{name} ({label(run, role)})", bound[name])
        yield bound


@contextmanager
def _classifier(run: "Run", role: str) -> Iterator[TextClassifier]:
    """A model with a classification head, which one process runs, also of a group."""
    loading = _loading(run, role)
    settings = {name: loading[name] for name in ("name", "device", "dtype", "batch_tokens")}
    with _freed(TextClassifier.load(folder(run, role), **settings)) as model:
        yield model


def dataset_label(run: "Run", role: str) -> str:
    """A dataset and its commit, as provenance names it."""
    ref = dataset_roles(run.recipe)[role]
    return f"{ref.short}@{commit(run, 'datasets', role)[:12]}"


def judge_labels(run: "Run", names: Sequence[str]) -> list[str]:
    """The judges as provenance names them: with the model and commit of those that have one."""
    return [f"{name} ({label(run, f'judge {name}')})" if JUDGES.get(name).needs_model else name for name in names]


def judge_models(run: "Run") -> dict[str, str]:
    """By judge, the model and commit that it judges with; rules are not among them."""
    return {name: label(run, f"judge {name}") for name, spec in run.recipe.judges.items() if spec.model is not None}


def rows(run: "Run", role: str) -> list[dict[str, Any]]:
    """The rows of a dataset."""
    ref = dataset_roles(run.recipe)[role]
    checked = run.read(CHECKED)["datasets"][role]
    _refuse_changed(ref, checked["commit"])
    return hub.rows(ref, checked["commit"], checked.get("access"))


def examples(run: "Run", role: str, kind: Literal["safety", "benign", "domain"], registered: str | None = None) -> list[Example]:
    """The rows of a dataset as examples, by the reader of a registered benchmark where it is one.

    Raises:
        DataError: there are none, or a column is missing.
    """
    ref = dataset_roles(run.recipe)[role]
    columns = dict(ref.columns)
    found = examples_of(rows(run, role), kind=kind, columns=columns, where=ref.where, source=str(ref), registered=registered)
    return require_rows(found, str(ref))


def benchmark_examples(run: "Run", name: str) -> list[Example]:
    """The examples of a benchmark, each prompt once: a model gives it one reply, so rows that repeat it are no further evidence."""
    spec = run.recipe.evaluation.benchmarks[name]
    found = {normalised(example.prompt): example for example in reversed(examples(run, f"benchmark {name}", spec.kind, spec.registered))}
    return list(reversed(found.values()))[: spec.limit]


def benchmark_prompts(run: "Run") -> list[str]:
    """What the benchmarks ask, none of which may steer a merge: every prompt, beyond their limits too, and what it wraps or encodes."""
    specs = run.recipe.evaluation.benchmarks.items()
    found = [e for name, spec in specs for e in examples(run, f"benchmark {name}", spec.kind, spec.registered)]
    return list(dict.fromkeys(text for example in found for text in (example.prompt, example.request) if text))
