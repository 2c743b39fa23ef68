"""What the stage generate is about to take, before any model is loaded: rows, tokens, money, and time if asked."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hfsafemerge.examples import Kind, normalised
from hfsafemerge.generation import Goal, Kept, QuestionPlan, read_rows
from hfsafemerge.judging import HARMLESS, JUDGES
from hfsafemerge.language_model import user
from hfsafemerge.running import inputs
from hfsafemerge.running.generating import GOALS
from hfsafemerge.running.steps import WRITER, vetting

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

CHARACTERS = 4  # of English text in a token, about
TURN = 16  # tokens that a chat template puts around what is said, about
RULES = 700  # tokens of the rules that a guard reads with every exchange, about; those of Llama Guard
QUESTION, VERDICT = 40, 5  # tokens that are written, about
ANSWER: dict[Goal, int] = {"refusal": 100, "help": 300, "answer": 300}
JUDGE = "judge "  # before a judge's name is the role of its model
SAMPLE = 8  # rows of the batch that is timed


@dataclass(frozen=True)
class Step:
    """What one model does in one step. Rows that are on the disk are not counted, nor those that will have to be replaced.

    `tokens_written` is a guess, `most_written` what it would be if every reply were as long as it may be. `seconds` is None
    where nothing was measured, `cost` where no price is known; it is in the currency of the endpoint's prices, per guess.
    """

    step: str
    model: str
    rows: int
    tokens_read: int
    tokens_written: int
    most_written: int
    seconds: float | None = None
    cost: float | None = None


@dataclass(frozen=True)
class _Ask:
    """What a model by its role is asked: how often, and the tokens of one row."""

    step: str
    role: str
    rows: int
    read: int
    written: int
    most: int


def estimate(run: "Run", *, measure: bool = False) -> list[Step]:
    """The steps that are still to be done. Downloads no weights unless asked to measure; ready prompts are counted, though.

    Args:
        run: the run; its models are checked first, which reads headers only.
        measure: load each model, and time it on one small batch of harmless requests. What a larger batch gains is not known.

    Raises:
        HfSafeMergeError: what the check finds.
    """
    run.do("check")
    if run.is_done("generate"):
        return []
    asked = [ask for kind in GOALS if getattr(run.recipe.data, kind) is not None for ask in _of(run, kind) if ask.rows > 0]
    paces = {role: _pace(run, role) for role in dict.fromkeys(ask.role for ask in asked)} if measure else {}
    roles = inputs.model_roles(run.recipe)
    steps = []
    for ask in asked:
        read, written, endpoint = ask.rows * ask.read, ask.rows * ask.written, roles[ask.role].endpoint
        cost = None
        if endpoint is not None and endpoint.price_read is not None and endpoint.price_written is not None:
            cost = (read * endpoint.price_read + written * endpoint.price_written) / 1e6
        seconds = written * paces[ask.role] if measure else None
        steps.append(Step(ask.step, inputs.label(run, ask.role), ask.rows, read, written, ask.rows * ask.most, seconds, cost))
    return steps


def _of(run: "Run", kind: Kind) -> Iterator[_Ask]:
    """What is asked for one kind of data."""
    spec, goal, answerers = getattr(run.recipe.data, kind), GOALS[kind], {"safety": run.recipe.models, "benign": ["base"]}
    if spec.examples is not None:
        if kind != "domain":
            found = inputs.examples(run, f"{kind} examples", kind)
            exchange = _mean([_tokens(row.prompt + row.answer) for row in found])
            yield from _judged(run, f"{kind}-ready", goal, _different(run, [row.prompt for row in found]), exchange)
    elif kind == "domain":
        experts = run.recipe.experts
        for number, expert in enumerate(experts):
            share = run.row_count // len(experts) + (number < run.row_count % len(experts))
            yield _questions(run, f"domain-questions-{expert.label}", kind, expert.label, [expert.topic], share)
            yield from _answers(run, f"domain-answers-{expert.label}", goal, expert.label, share, QUESTION)
    else:
        rows, tokens = run.row_count, QUESTION
        if spec.questions is not None:
            prompts = [row.prompt for row in inputs.examples(run, f"{kind} questions", kind)]
            rows, tokens = _different(run, prompts), _mean([_tokens(prompt) for prompt in prompts])
        else:
            writer = WRITER if kind == "safety" else "benign question writer"
            yield _questions(run, f"{kind}-questions", kind, writer, spec.topics or run.recipe.generator(kind).topics, rows)
        for name in answerers[kind]:
            step = f"{kind}-refusals-{name}" if kind == "safety" else f"{kind}-answers"
            yield from _answers(run, step, goal, name, rows, tokens)


def _questions(run: "Run", step: str, kind: Kind, role: str, topics: Sequence[str], count: int) -> _Ask:
    """The writing of questions, each shown as many examples as there are to be: of the usual length, since none is read here."""
    generator = run.recipe.generator(kind)
    pool = ("x" * CHARACTERS * QUESTION,) * generator.in_context
    plan = QuestionPlan(generator, inputs.label(run, role), tuple(topics), run.recipe.seed, pool)
    said = ["".join(turn["content"] for turn in plan.conversation(plan.row(index))) for index in range(SAMPLE)]
    done = sum(isinstance(row, Kept) for row in read_rows(run.work("generate") / step))
    most = generator.max_new_tokens
    return _Ask(step, role, count - done, TURN + _mean([_tokens(text) for text in said]), min(QUESTION, most), most)


def _answers(run: "Run", step: str, goal: Goal, role: str, rows: int, prompt: int) -> Iterator[_Ask]:
    """The answers of a model to prompts of so many tokens, and the verdicts on them."""
    done, most = len(list(read_rows(run.work("generate") / step))), run.recipe.data.max_new_tokens
    written = min(ANSWER[goal], most)
    yield _Ask(step, role, rows - done, TURN + prompt, written, most)
    yield from _judged(run, step, goal, rows, prompt + written)


def _judged(run: "Run", step: str, goal: Goal, rows: int, exchange: int) -> Iterator[_Ask]:
    """The verdicts on exchanges of so many tokens, by the judges that have a model."""
    done = len(list(read_rows(run.work("generate") / step)))
    for name in vetting(run.recipe, goal):
        if JUDGES.get(name).needs_model:
            yield _Ask(step, JUDGE + name, rows - done, RULES + TURN + exchange, VERDICT, VERDICT)


def _different(run: "Run", prompts: Sequence[str]) -> int:
    """How many of ready prompts are taken, at most."""
    return min(run.row_count, len({normalised(prompt) for prompt in prompts}))


def _pace(run: "Run", role: str) -> float:
    """Seconds for each token written, in one small batch."""
    if role.startswith(JUDGE):
        name = role.removeprefix(JUDGE)
        with inputs.judges(run, [name]) as judges:
            exchanges = HARMLESS * (SAMPLE // len(HARMLESS))
            judges[name](exchanges[:1])
            began = time.monotonic()
            judges[name](exchanges)
            return (time.monotonic() - began) / (len(exchanges) * VERDICT)
    with inputs.language_model(run, role) as model:
        asked = [user(HARMLESS[number % len(HARMLESS)].prompt) for number in range(SAMPLE)]
        model.generate(asked[:1], max_new_tokens=1)  # the first call of all is slower
        began = time.monotonic()
        replies = model.generate(asked, max_new_tokens=32)
        seconds = time.monotonic() - began
        return seconds / max(1, sum(reply.written or _tokens(reply.text) for reply in replies))


def _tokens(text: str) -> int:
    return -(-len(text) // CHARACTERS)


def _mean(numbers: Sequence[int]) -> int:
    return round(sum(numbers) / len(numbers))
