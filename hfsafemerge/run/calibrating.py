"""The stage calibrate: how important each entry is to the base and to each expert, for a merge method that asks for it."""

import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfsafemerge import __version__
from hfsafemerge.calibration import write_importance
from hfsafemerge.checkpoint import Checkpoint, digests, is_tied
from hfsafemerge.errors import DataError, IncompatibleExperts
from hfsafemerge.examples import Example, load_examples, normalised
from hfsafemerge.language_model import Question
from hfsafemerge.merging import Importance
from hfsafemerge.recipe import Expert, fingerprint
from hfsafemerge.run import inputs

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

CALIBRATION, FOLDER = "calibration.json", "calibration"


@dataclass(frozen=True)
class _Part:
    """One model that is scored on one expert's examples; its folder is named by all that its scores follow from."""

    role: str
    expert: str
    folder: str
    questions: list[Question]


def calibrate(run: "Run") -> None:
    """Write the scores of the base on each expert's examples and of each expert on its own, and calibration.json that names them.

    What was scored before from the same models, examples and settings is kept.

    Raises:
        IncompatibleExperts: some of the models tie their output head to the embeddings, and others don't.
        DataError: an expert has no examples.
    """
    _check_heads(run)
    folder = run.directory / FOLDER
    folder.mkdir(exist_ok=True)
    forbidden = {normalised(e.prompt) for name in run.recipe.evaluation.benchmarks for e in inputs.benchmark_examples(run, name)}
    parts, notes = [], {}
    for expert in run.recipe.experts:
        examples, source = _examples(run, expert, forbidden)
        questions = [Question(example.prompt, example.answer) for example in examples]
        notes[expert.label] = {"samples": len(questions), "data": source}
        parts += [_Part(role, expert.label, _folder_name(run, role, expert.label, questions), questions) for role in ("base", expert.label)]
    for stale in {path.name for path in folder.iterdir()} - {part.folder for part in parts}:
        shutil.rmtree(folder / stale)
    found: dict[str, dict[str, Any]] = {name: dict(note) for name, note in notes.items()}
    for part in parts:
        if not (folder / part.folder).exists():
            _score(run, part, folder / part.folder)
        which = "base" if part.role == "base" else "expert"
        found[part.expert][which] = {"folder": part.folder, "digest": fingerprint(digests(Checkpoint(folder / part.folder)))}
    run.write(CALIBRATION, found)


def importance(run: "Run") -> Importance | None:
    """The scores that the stage has written; nothing for a method that does not ask for them. Raises RunError, CheckpointError."""
    if not run.recipe.needs_importance:
        return None
    known, folder = run.read(CALIBRATION), run.directory / FOLDER
    return {
        name: (Checkpoint(folder / known[name]["base"]["folder"]), Checkpoint(folder / known[name]["expert"]["folder"]))
        for name in run.recipe.models[1:]
    }


def _score(run: "Run", part: _Part, folder: Path) -> None:
    recipe, spec = run.recipe, run.recipe.calibration
    told = f"importance in {part.role}" + ("" if part.role == part.expert else f" for {part.expert}")
    # a base that no one has talked to yet has no chat template, and both are to see the same text
    with inputs.language_model(run, part.role, template_of="base" if recipe.merge.chat_template == "base" else part.expert) as model:
        write_importance(
            model,
            model.tokenized(part.questions, raw=spec.format == "raw"),
            inputs.source(run, part.role).weights().tensors,
            folder,
            dtype=spec.dtype,
            progress=lambda done, total: run.emit(told, done, total),
        )


def _examples(run: "Run", expert: Expert, forbidden: set[str]) -> tuple[list[Example], str]:
    """Up to `calibration.samples` different examples of an expert, drawn by seed, and where they are from."""
    spec, name = run.recipe.calibration, expert.label
    if name in spec.data:
        role = f"calibration {name}"
        found, source = inputs.examples(run, role, "domain"), inputs.dataset_label(run, role)
    elif name == spec.safety:
        found, source = load_examples(run.directory / "data" / "safety.parquet"), "the safety data"
    else:
        every = load_examples(run.directory / "data" / "domain.parquet")
        found, source = [example for example in every if example.topic == expert.topic], f"the data of {expert.topic or 'no topic'}"
    fresh = {normalised(e.prompt): e for e in reversed(found) if e.answer and normalised(e.prompt) not in forbidden}
    if not fresh:
        raise DataError(
            f"There is nothing to calibrate {name} with: of {len(found)} examples of {source} none has an answer and stands in no "
            f"benchmark. Give it rows with answers under calibration.data.{name}."
        )
    examples = list(reversed(fresh.values()))
    chosen = sorted(random.Random(run.recipe.seed).sample(range(len(examples)), min(spec.samples, len(examples))))
    if len(chosen) < spec.samples:
        run.emit(f"{source}: {len(chosen)} examples for {name}, fewer than the {spec.samples} that calibration.samples asks for")
    return [examples[i] for i in chosen], source


def _folder_name(run: "Run", role: str, expert: str, questions: list[Question]) -> str:
    recipe, spec = run.recipe, run.recipe.calibration
    checked = run.read(inputs.CHECKED)["models"]
    commits = [[checked[name]["ref"], checked[name]["commit"], checked[name]["adapter_commit"]] for name in (role, expert)]
    settings = [spec.dtype, spec.format, recipe.merge.chat_template, recipe.compute.dtype]
    return fingerprint([__version__, commits, settings, questions])


def _check_heads(run: "Run") -> None:
    tied = {}
    for name in run.recipe.models:
        weights, config = inputs.source(run, name).opened()
        tied[name] = is_tied(weights, config, name)
    if len(set(tied.values())) > 1:
        told = ", ".join(f"{name} {'ties' if found else 'does not tie'}" for name, found in tied.items())
        raise IncompatibleExperts(
            f"Entries are compared between models, so all of them must tie their output head to the embeddings, or none: {told}."
        )
