"""The stage generate: harmful questions with refusals, the experts' own questions with answers, and harmless questions with help."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from hfsafemerge.errors import DataError
from hfsafemerge.examples import Example, Kind, Provenance, save_examples
from hfsafemerge.generation import Goal, QuestionPlan, Written, answered, choose_refusals, draw_fresh, in_numbers
from hfsafemerge.recipe import Expert
from hfsafemerge.running import inputs
from hfsafemerge.running.steps import WRITER, Answers, Steps, vetting

if TYPE_CHECKING:
    from hfsafemerge.generation import Duplicates
    from hfsafemerge.running.directory import Run

REPORT = "generation.json"
GOALS: dict[Kind, Goal] = {"safety": "refusal", "domain": "answer", "benign": "help"}
SAFETY_QUESTIONS = "safety-questions"
Made = tuple[list[Example], dict[str, Any]]


def generate(run: "Run") -> None:
    """Make the data that the recipe asks for: of harmful questions, of the experts' own, and of harmless ones."""
    (run.directory / "data").mkdir(exist_ok=True)
    steps = Steps(run)
    makers: dict[Kind, Callable[[Steps], Made]] = {"safety": _safety, "domain": _domain, "benign": _benign}
    report = {}
    for kind, make in makers.items():
        if (spec := getattr(run.recipe.data, kind)) is not None:
            examples, found = make(steps) if spec.examples is None else _ready(steps, kind)
            save_examples(run.directory / "data" / f"{kind}.parquet", examples)
            report[kind] = {**found, "kept": len(examples), "tokens": steps.tokens(kind)}
    run.write(REPORT, report)


def _safety(steps: Steps) -> Made:
    """Harmful questions, each with one of the refusals that the models of the pool give it."""
    written = _questions(steps, "safety", WRITER, steps.duplicates({}), "harmful questions")
    answers = {}
    for name in steps.run.recipe.models:
        with steps.model(name) as model:
            plan = steps.answer_plan("refusal", name)
            answers[name] = steps.answer(f"safety-refusals-{name}", model, plan, written.questions, f"refusals of {name}")
    kept, counts = {found.plan: found.kept for found in answers.values()}, {found.plan: found.counts for found in answers.values()}
    examples = choose_refusals(written.questions, kept, steps.run.recipe.seed, counts=counts)
    refused = {found.plan.responder: sum(kept is not None for kept in found.kept) for found in answers.values()}
    replies = {found.plan.responder: dict(found.counts) for found in answers.values()}
    return examples, {"questions": dict(written.counts), "refused": refused, "replies": replies}


def _domain(steps: Steps) -> Made:
    """Questions that each expert asks itself, K / (N - 1) of them, with its own answers, which a guard looks at if there is one."""
    run, spec = steps.run, steps.data.domain
    assert spec is not None
    vetted = bool(vetting(run.recipe, "answer"))
    if not vetted:
        run.emit("nobody judges the domain data: no guard among data.judges has a model under judges")
    experts, count = run.recipe.experts, run.row_count
    shown = {topic: [row.prompt for row in inputs.examples(run, f"in-context {topic}", "domain")] for topic in spec.in_context}
    duplicates = steps.duplicates({"like an example": [prompt for prompts in shown.values() for prompt in prompts]})
    examples: list[Example] = []
    report: dict[str, Any] = {}
    for number, expert in enumerate(experts):
        share = count // len(experts) + (number < count % len(experts))
        if share:
            written, answers = _ask_itself(steps, expert, share, shown.get(expert.topic, []), duplicates)
            kept = _answered(written.questions, answers)
            report[expert.label] = {"questions": dict(written.counts), "answers": dict(answers.counts), "answered": len(kept)}
            examples += kept
    if not examples:
        said = "; ".join(f"{label}: {in_numbers(found['answers'])}" for label, found in report.items())
        raise DataError(
            f"No expert's answer to its own questions can be kept ({said}). Raise data.max_new_tokens where they were cut off; else look "
            "at the experts' chat template and topics."
        )
    return examples, {"experts": report, "vetted": vetted}


def _ask_itself(steps: Steps, expert: Expert, count: int, shown: Sequence[str], duplicates: "Duplicates") -> tuple[Written, Answers]:
    run, label = steps.run, expert.label
    plan = QuestionPlan(run.recipe.generator("domain"), inputs.label(run, label), (expert.topic,), run.recipe.seed, tuple(shown))
    with steps.model(label) as model:
        written = steps.write(f"domain-questions-{label}", model, plan, count, duplicates, f"questions about {expert.topic or label}")
        found = steps.answer(
            f"domain-answers-{label}", model, steps.answer_plan("answer", label), written.questions, f"answers of {label} to itself"
        )
    return written, found


def _benign(steps: Steps) -> Made:
    """Harmless requests with the base's own answers, where the judges find these harmless and helpful."""
    duplicates = steps.duplicates({"in the safety data": _harmful_prompts(steps)})
    written = _questions(steps, "benign", "benign question writer", duplicates, "benign questions")
    with steps.model("base") as model:
        found = steps.answer("benign-answers", model, steps.answer_plan("help", "base"), written.questions, "benign answers")
    examples = _answered(written.questions, found)
    if not examples:
        asked = f"{found.plan.responder}'s answers to {len(written.questions)} benign questions"
        raise DataError(f"None of {asked} can be kept ({in_numbers(found.counts)}). Take other prompts.")
    return examples, {"questions": dict(written.counts), "answers": dict(found.counts)}


def _questions(steps: Steps, kind: Literal["safety", "benign"], role: str, duplicates: "Duplicates", message: str) -> Written:
    """Questions of a dataset, or of a model that plays the role."""
    run, spec = steps.run, getattr(steps.data, kind)
    if spec.questions is not None:
        source = Provenance(generator=inputs.dataset_label(run, f"{kind} questions"))
        found = [replace(row, answer="", provenance=source) for row in inputs.examples(run, f"{kind} questions", kind)]
        return draw_fresh(found, steps.run.row_count, duplicates=duplicates, seed=run.recipe.seed)
    generator = run.recipe.generator(kind)
    plan = QuestionPlan(generator, inputs.label(run, role), tuple(spec.topics or generator.topics), run.recipe.seed)
    with steps.model(role) as model:
        return steps.write(f"{kind}-questions", model, plan, steps.run.row_count, duplicates, message)


def _harmful_prompts(steps: Steps) -> list[str]:
    """Every prompt that the run knows as harmful, whether or not a model refused it."""
    spec = steps.data.safety
    if spec is None:
        return []
    if spec.writer is not None:
        return [row.text for row in steps.kept(SAFETY_QUESTIONS)]
    role = "safety examples" if spec.examples is not None else "safety questions"
    return [example.prompt for example in inputs.examples(steps.run, role, "safety")]


def _ready(steps: Steps, kind: Kind) -> Made:
    """Ready examples. Whatever their dataset says of itself, the judges look at answers to harmful and to benign requests."""
    run, role = steps.run, f"{kind} examples"
    known = {"in the safety data": _harmful_prompts(steps)} if kind == "benign" else {}
    written = draw_fresh(inputs.examples(run, role, kind), steps.run.row_count, duplicates=steps.duplicates(known), seed=run.recipe.seed)
    if empty := sum(not example.answer for example in written.questions):
        whole = len(written.questions)
        raise DataError(f"{empty} of {whole} ready {kind} examples have no answer. Name its column under columns: {{answer: ...}}.")
    source, goal = inputs.dataset_label(run, role), GOALS[kind]
    examples = [
        replace(e, provenance=replace(e.provenance, generator=e.provenance.generator or source, response_type=goal))
        for e in written.questions
    ]
    if kind == "domain":  # whose answers are the dataset's own, as a benchmark's are
        return examples, {"questions": dict(written.counts), "vetted": False}
    found = steps.vet(f"{kind}-ready", steps.plan_of(goal, source), examples, f"ready {kind} examples vetted")
    kept = _answered(examples, found)
    if not kept:
        by = f"is answered by {'a refusal' if kind == 'safety' else 'harmless help'} ({in_numbers(found.counts)})"
        raise DataError(f"None of the {len(examples)} ready {kind} examples {by}. Take another dataset or column.")
    return kept, {"questions": dict(written.counts), "answers": dict(found.counts)}


def _answered(questions: Sequence[Example], found: Answers) -> list[Example]:
    return [answered(q, kept, found.plan) for q, kept in zip(questions, found.kept, strict=True) if kept is not None]
