"""The stage calibrate: how important each entry is to the base and to each expert, for a merge method that asks for it."""

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hfsafemerge import __version__
from hfsafemerge.calibration import write_importance
from hfsafemerge.checkpoint import Checkpoint, digests, is_tied
from hfsafemerge.errors import DataError, IncompatibleExperts
from hfsafemerge.examples import Example, load_examples, normalised
from hfsafemerge.language_model import Question
from hfsafemerge.merging import Importance
from hfsafemerge.recipe import Expert, fingerprint
from hfsafemerge.running import inputs

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

CALIBRATION, FOLDER = "calibration.json", "calibration"
SCORED = ("base", "expert")  # whose scores there are for each expert


@dataclass(frozen=True)
class _Part:
    """One model that is scored on one expert's examples; its folder is named by all that its scores follow from."""

    role: str
    expert: str
    folder: str
    questions: list[Question]


class _Data(NamedTuple):
    """The examples that there are for an expert, what to call them, and where they are from.

    `source` is {"role": ...} for a dataset of the recipe, which check.json pins, or {"kind": ...} for the run's own data.
    """

    examples: list[Example]
    label: str
    source: dict[str, str]


def calibrate(run: "Run", only: Mapping[str, Sequence[str]] | None = None) -> None:
    """Write the scores of the base on each expert's examples and of each expert on its own, and calibration.json that names them.

    What was scored before from the same models, examples and settings is kept.

    Args:
        run: the run, whose data are there.
        only: for each expert the ids of its examples in their order, as another run's calibration.json has them; no benchmark is read
            then. By default examples are drawn, none of a benchmark's items among them.

    Raises:
        IncompatibleExperts: some of the models tie their output head to the embeddings, and others don't.
        DataError: an expert has no examples, or not all of those asked for.
    """
    _check_heads(run)
    folder = run.directory / FOLDER
    folder.mkdir(exist_ok=True)
    forbidden = {normalised(prompt) for prompt in inputs.benchmark_prompts(run)} if only is None else set()
    parts, notes = [], {}
    for expert in run.recipe.experts:
        data = _data(run, expert)
        examples = _drawn(run, expert.label, data, forbidden) if only is None else _picked(expert.label, data, only[expert.label])
        questions = [Question(example.prompt, example.answer) for example in examples]
        ids = [example.id for example in examples]
        notes[expert.label] = {"samples": len(questions), "data": data.label, "source": data.source, "ids": ids}
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
    known, folder = run.read(CALIBRATION), run.directory / FOLDER  # a worker elsewhere has absolute paths in its calibration.json
    return {
        name: (Checkpoint(folder / known[name]["base"]["folder"]), Checkpoint(folder / known[name]["expert"]["folder"]))
        for name in run.recipe.models[1:]
    }


def _score(run: "Run", part: _Part, folder: Path) -> None:
    recipe, spec = run.recipe, run.recipe.calibration
    told = f"importance in {part.role}" + ("" if part.role == part.expert else f" for {part.expert}")
    # a base that no one has talked to yet has no chat template, and both are to see the same text
    with inputs.loaded_model(run, part.role, template_of="base" if recipe.merge.chat_template == "base" else part.expert) as model:
        write_importance(
            model,
            model.tokenized(part.questions, raw=spec.format == "raw"),
            inputs.source(run, part.role).weights().tensors,
            folder,
            dtype=spec.dtype,
            progress=lambda done, total: run.emit(told, done, total),
        )


def _data(run: "Run", expert: Expert) -> _Data:
    spec, name = run.recipe.calibration, expert.label
    if name in spec.data:
        role = f"calibration {name}"
        return _Data(inputs.examples(run, role, "domain"), inputs.dataset_label(run, role), {"role": role})
    if name == spec.safety:
        return _Data(load_examples(run.directory / "data" / "safety.parquet"), "the safety data", {"kind": "safety"})
    every = load_examples(run.directory / "data" / "domain.parquet")
    mine = [example for example in every if example.topic == expert.topic]
    return _Data(mine, f"the data of {expert.topic or 'no topic'}", {"kind": "domain"})


def _drawn(run: "Run", name: str, data: _Data, forbidden: set[str]) -> list[Example]:
    """Up to `calibration.samples` different examples of an expert, drawn by seed, in the order of the data."""
    wanted = run.recipe.calibration.samples
    fresh = {normalised(e.prompt): e for e in reversed(data.examples) if e.answer and normalised(e.prompt) not in forbidden}
    if not fresh:
        raise DataError(
            f"There is nothing to calibrate {name} with: of {len(data.examples)} examples of {data.label} none has an answer and stands "
            f"in no benchmark. Give it rows with answers under calibration.data.{name}."
        )
    examples = list(reversed(fresh.values()))
    chosen = sorted(random.Random(run.recipe.seed).sample(range(len(examples)), min(wanted, len(examples))))
    if len(chosen) < wanted:
        run.emit(f"{data.label}: {len(chosen)} examples for {name}, fewer than the {wanted} that calibration.samples asks for")
    return [examples[i] for i in chosen]


def _picked(name: str, data: _Data, ids: Sequence[str]) -> list[Example]:
    """The examples of these ids, in their order."""
    known = {example.id: example for example in data.examples}
    if missing := [each for each in ids if each not in known]:
        raise DataError(
            f"{len(missing)} of the {len(ids)} examples that {name} was calibrated with are not in {data.label}, such as {missing[0]}: "
            "its rows are no longer those, so the same scores can't be computed again."
        )
    return [known[each] for each in ids]


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
