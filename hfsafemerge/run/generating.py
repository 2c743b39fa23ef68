"""The stage generate: harmful questions with refusals, the experts' own questions with answers, and harmless questions with help."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hfsafemerge.errors import DataError
from hfsafemerge.examples import Example, Provenance, load_examples, normalised, save_examples
from hfsafemerge.generation import (
    answer_benign,
    answer_questions,
    are_refusals,
    choose_refusals,
    refuse_questions,
    write_questions,
    written_before,
)
from hfsafemerge.judging import JUDGES, Exchange
from hfsafemerge.recipe import Expert
from hfsafemerge.run import inputs

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

REPORT = "generation.json"
SAFETY_LOG = "safety-questions.jsonl"


def generate(run: "Run") -> None:
    """Make the data that the recipe asks for: of harmful questions, of the experts' own, and of harmless ones."""
    (run.directory / "data").mkdir(exist_ok=True)
    benchmarks = run.recipe.evaluation.benchmarks
    forbidden = [example.prompt for name in benchmarks for example in inputs.benchmark_examples(run, name)]
    report: dict[str, Any] = {}
    if run.recipe.data.safety is not None:
        report["safety"] = _generate_safety(run, forbidden)
    if run.recipe.data.domain is not None:
        report["domain"] = _generate_domain(run, forbidden)
    if run.recipe.data.benign is not None:
        report["benign"] = _generate_benign(run, forbidden)
    run.write(REPORT, report)


def _generate_safety(run: "Run", forbidden: list[str]) -> dict[str, Any]:
    data, spec = run.recipe.data, run.recipe.data.safety
    assert spec is not None
    if spec.examples is not None:
        return _take_ready(run, "safety", forbidden)
    if spec.questions is not None:
        source = Provenance(generator=inputs.dataset_label(run, "safety questions"))
        found = [replace(example, provenance=source) for example in inputs.examples(run, "safety questions", "safety")]
        questions, counts = _fresh(found, forbidden, data.count, run.recipe.seed)
    else:
        generator = run.recipe.generator("safety")
        with inputs.language_model(run, "question writer") as writer:
            written = write_questions(
                writer,
                generator,
                topics=spec.topics or generator.topics,
                count=data.count,
                seed=run.recipe.seed,
                log=run.work("generate") / SAFETY_LOG,
                forbidden=forbidden,
                progress=lambda done, total: run.emit("harmful questions", done, total),
            )
        questions, counts = written.questions, dict(written.counts)
    refusals = {}
    for done, name in enumerate(run.recipe.models, 1):
        file = run.work("generate") / f"refusals-{name}.json"
        if not file.exists():
            with inputs.language_model(run, name) as model, inputs.judges(run, data.judges) as judges:
                kept = refuse_questions(model, questions, judges, data.max_new_tokens)
            run.write(str(file.relative_to(run.directory)), kept)
        refusals[inputs.label(run, name)] = json.loads(file.read_text())
        run.emit(f"refusals of {name}", done, len(run.recipe.models))
    examples = choose_refusals(questions, refusals, inputs.judge_labels(run, data.judges), run.recipe.seed)
    save_examples(run.directory / "data" / "safety.parquet", examples)
    refused = {name: sum(reply is not None for reply in replies) for name, replies in refusals.items()}
    return {"questions": counts, "refused": refused, "kept": len(examples)}


def _generate_domain(run: "Run", forbidden: list[str]) -> dict[str, Any]:
    data, spec = run.recipe.data, run.recipe.data.domain
    assert spec is not None
    if spec.examples is not None:
        return _take_ready(run, "domain", forbidden)
    experts = run.recipe.experts
    examples: list[Example] = []
    report = {}
    for number, expert in enumerate(experts):
        share = data.count // len(experts) + (number < data.count % len(experts))  # K / (N - 1) questions each
        if share == 0:
            continue
        file = run.work("generate") / f"domain-{expert.label}.json"
        if not file.exists():
            counts = _ask_expert(run, expert, share, forbidden)
            run.write(str(file.relative_to(run.directory)), counts)
        report[expert.label] = json.loads(file.read_text())
        if report[expert.label]["answered"]:
            examples += load_examples(file.with_suffix(".parquet"))
    if not examples:
        raise DataError("No expert answered any of its own questions. Raise data.max_new_tokens, or look at the experts' chat template.")
    save_examples(run.directory / "data" / "domain.parquet", examples)
    return {"experts": report, "kept": len(examples)}


def _generate_benign(run: "Run", forbidden: list[str]) -> dict[str, Any]:
    """Harmless requests with the base's own answers, where the judges find these harmless and helpful.

    Answers are in memory alone until they are vetted, so a run that is killed here answers all of them again.
    """
    data = run.recipe.data
    source = Provenance(generator=inputs.dataset_label(run, "benign questions"))
    found = [replace(example, provenance=source) for example in inputs.examples(run, "benign questions", "benign")]
    questions, counts = _fresh(found, forbidden, data.count, run.recipe.seed, harmful=_harmful_prompts(run))
    names = list(data.judges)
    if not any(JUDGES.get(name).says == ("refused", "complied") for name in names):
        names.append("refusal_phrases")  # a guard calls a refusal safe, which it is
    with inputs.language_model(run, "base") as model, inputs.judges(run, names) as judges:
        answered = answer_benign(
            model,
            questions,
            judges,
            data.max_new_tokens,
            judged_by=inputs.judge_labels(run, names),
            progress=lambda done, total: run.emit("benign questions answered", done, total),
        )
    save_examples(run.directory / "data" / "benign.parquet", answered.questions)
    run.emit("benign answers kept", len(answered.questions), len(questions))
    return {"questions": counts, "answers": dict(answered.counts), "kept": len(answered.questions)}


def _harmful_prompts(run: "Run") -> list[str]:
    """Every prompt that the run knows as harmful, whether or not a model refused it."""
    spec = run.recipe.data.safety
    if spec is None:
        return []
    if spec.writer is not None:
        return [text for text in written_before(run.work("generate") / SAFETY_LOG) if text is not None]
    role = "safety examples" if spec.examples is not None else "safety questions"
    return [example.prompt for example in inputs.examples(run, role, "safety")]


def _ask_expert(run: "Run", expert: Expert, count: int, forbidden: list[str]) -> dict[str, Any]:
    """Let an expert question itself, and save what it says."""
    work = run.work("generate")
    with inputs.language_model(run, expert.label) as model:
        written = write_questions(
            model,
            run.recipe.generator("domain"),
            topics=[expert.topic],
            count=count,
            seed=run.recipe.seed,
            log=work / f"domain-{expert.label}.jsonl",
            in_context=[example.prompt for example in inputs.examples(run, f"in-context {expert.topic}", "domain")],
            forbidden=forbidden,
            progress=lambda done, total: run.emit(f"questions about {expert.topic}", done, total),
        )
        answered = answer_questions(model, written.questions, run.recipe.data.max_new_tokens)
    save_examples(work / f"domain-{expert.label}.parquet", answered)
    return {"questions": dict(written.counts), "answered": len(answered)}


def _take_ready(run: "Run", kind: Literal["safety", "domain"], forbidden: list[str]) -> dict[str, Any]:
    examples, counts = _fresh(inputs.examples(run, f"{kind} examples", kind), forbidden, run.recipe.data.count, run.recipe.seed)
    if empty := sum(not example.answer for example in examples):
        raise DataError(f"{empty} of {len(examples)} ready {kind} examples have no answer. Name its column under columns: {{answer: ...}}.")
    if kind == "safety":
        examples = _refusals_among(run, examples)
        counts["not a refusal"] = counts["kept"] - len(examples)
    save_examples(run.directory / "data" / f"{kind}.parquet", examples)
    return {"questions": counts, "kept": len(examples)}


def _refusals_among(run: "Run", examples: list[Example]) -> list[Example]:
    """The examples whose answers the judges take for refusals, whatever their dataset says of them."""
    names = run.recipe.data.judges
    with inputs.judges(run, names) as judges:
        refused = are_refusals([Exchange(example.prompt, example.answer) for example in examples], judges)
    if not any(refused):
        raise DataError(f"None of the {len(examples)} ready safety examples is answered by a refusal. Take another dataset or column.")
    by, source = ", ".join(inputs.judge_labels(run, names)), inputs.dataset_label(run, "safety examples")
    return [
        replace(e, provenance=replace(e.provenance, generator=e.provenance.generator or source, judges=by, verdicts="refusal"))
        for e, keep in zip(examples, refused, strict=True)
        if keep
    ]


def _fresh(
    examples: list[Example], forbidden: list[str], count: int, seed: int, *, harmful: Sequence[str] = ()
) -> tuple[list[Example], dict[str, int]]:
    """`count` different examples that stand in no benchmark and are not among the harmful prompts, drawn by seed when there are more.

    They stay in their own order.
    """
    turned_down = dict.fromkeys(map(normalised, harmful), "in the safety data")
    turned_down |= dict.fromkeys(map(normalised, forbidden), "in a benchmark")
    counts: Counter[str] = Counter()
    fresh = []
    for example in examples:
        reason = turned_down.setdefault(normalised(example.prompt), "kept")
        counts[reason] += 1
        if reason == "kept":
            turned_down[normalised(example.prompt)] = "repeated"
            fresh.append(example)
    if not fresh:
        where = "in a benchmark or in the safety data" if harmful else "in a benchmark"
        raise DataError(f"All {len(examples)} prompts also stand {where}. Take other data, or another split.")
    chosen = sorted(random.Random(seed).sample(range(len(fresh)), min(count, len(fresh))))
    return [fresh[i] for i in chosen], dict(counts) | {"kept": len(chosen)}
