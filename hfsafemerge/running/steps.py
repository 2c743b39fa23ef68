"""The steps of the stage generate: where their rows are, what they may still cost, who is asked, and who is told."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from hfsafemerge.errors import RecipeError
from hfsafemerge.examples import Example
from hfsafemerge.generation import (
    AnswerPlan,
    Budget,
    Duplicates,
    Goal,
    Kept,
    Progress,
    QuestionPlan,
    Shards,
    Standing,
    Written,
    answer_questions,
    read_rows,
    tokens_in,
    write_questions,
)
from hfsafemerge.judging import JUDGES, Judge
from hfsafemerge.language_model import LanguageModel, Reply, user
from hfsafemerge.running import inputs

if TYPE_CHECKING:
    from hfsafemerge.recipe import Recipe
    from hfsafemerge.running.directory import Run

WRITER = "question writer"  # the role of the model that writes harmful questions


def vetting(recipe: "Recipe", goal: Goal) -> list[str]:
    """The judges of the answers of a goal: all, or for a domain's answers the guards that have what they judge with."""
    if goal != "answer":
        return list(recipe.data.judges)
    guards = [JUDGES.get(name) for name in recipe.data.judges if JUDGES.get(name).says == ("safe", "unsafe")]
    models = {name for name, spec in recipe.judges.items() if spec.model is not None}
    return [guard.name for guard in guards if guard.name in models or not guard.needs_model]


class Answers(NamedTuple):
    """What a step of answers gave: one for each question or None, by which plan, and how many for which reason."""

    plan: AnswerPlan
    kept: list[Kept | None]
    counts: Mapping[str, int]


class Steps:
    """What the steps of one stage share. Each has a folder of its own below the stage's; what stands there is not done again."""

    def __init__(self, run: "Run") -> None:
        """Count what earlier attempts have spent, and read the benchmarks, whose items must not come up."""
        self.run = run
        self.data = run.recipe.data
        self.budget = Budget(run.token_limit, sum(tokens_in(run.work("generate")).values()))
        self._benchmarks = inputs.benchmark_prompts(run)

    def duplicates(self, known: Mapping[str, Sequence[str]]) -> Duplicates:
        """What tells new questions from those that are known, by the reason to give, and from the benchmarks' items."""
        spec, encoder = self.data.duplicates, None
        if spec.encoder is not None:
            from hfsafemerge.generation.sentence_encoder import sentence_encoder  # takes seconds, and few ask for it

            encoder = sentence_encoder(inputs.folder(self.run, "encoder"), self.run.recipe.compute.device)
        return Duplicates(spec.similarity, {**known, "in a benchmark": self._benchmarks}, encoder, spec.encoder_similarity)

    @contextmanager
    def model(self, role: str) -> Iterator[Callable[[], LanguageModel]]:
        """A model that is loaded when it is first asked for, and freed after the block. Raises RecipeError for a writer not allowed."""
        with ExitStack() as stack:

            def load() -> LanguageModel:
                if role == WRITER and not self.run.allow_writer:
                    raise RecipeError(
                        "data.safety.writer lets a model write harmful questions. Use ready prompts (data.safety.questions), or allow it: "
                        "hfsafemerge generate RECIPE --allow-writer."
                    )
                return stack.enter_context(inputs.language_model(self.run, role))

            yield cache(load)

    @contextmanager
    def judges(self, goal: Goal) -> Iterator[Callable[[], Mapping[str, Judge]]]:
        """The judges for a goal, their models loaded when they are first asked for."""
        with ExitStack() as stack:
            yield cache(lambda: stack.enter_context(inputs.judges(self.run, vetting(self.run.recipe, goal))))

    def write(
        self, step: str, model: Callable[[], LanguageModel], plan: QuestionPlan, count: int, duplicates: Duplicates, message: str
    ) -> Written:
        """Questions by a model."""
        shards = self._shards(step, plan.description)
        return write_questions(
            model,
            plan,
            count,
            shards=shards,
            duplicates=duplicates,
            max_rejected=self.data.max_rejected,
            progress=self._told(message),
        )

    def answer(
        self, step: str, model: Callable[[], LanguageModel], plan: AnswerPlan, questions: Sequence[Example], message: str
    ) -> Answers:
        """Greedy answers of a model, vetted where the plan names judges."""

        def respond(asked: Sequence[Example]) -> list[Reply]:
            return model().generate([user(question.prompt) for question in asked], max_new_tokens=plan.max_new_tokens)

        return self._answers(step, respond, plan, questions, message)

    def vet(self, step: str, plan: AnswerPlan, examples: Sequence[Example], message: str) -> Answers:
        """The answers that a dataset has given, vetted."""
        return self._answers(step, lambda asked: [Reply(example.answer, True) for example in asked], plan, examples, message)

    def answer_plan(self, goal: Goal, role: str) -> AnswerPlan:
        """How a model's answers are vetted for a goal: refusal, help or answer."""
        return self.plan_of(goal, inputs.label(self.run, role), self.data.max_new_tokens)

    def plan_of(self, goal: Goal, responder: str, max_new_tokens: int = 0) -> AnswerPlan:
        """How the answers of somebody are vetted for a goal: refusal, help or answer."""
        judges = inputs.judge_labels(self.run, vetting(self.run.recipe, goal))
        return AnswerPlan(goal, responder, tuple(judges), max_new_tokens)

    def tokens(self, kind: str) -> dict[str, int]:
        """The tokens of all steps of a kind of data."""
        return tokens_in(self.run.work("generate"), kind)

    def kept(self, step: str) -> list[Kept]:
        """What was kept of all rows of a step, as far as it was done."""
        return [row for row in read_rows(self.run.work("generate") / step) if isinstance(row, Kept)]

    def _answers(
        self,
        step: str,
        respond: Callable[[Sequence[Example]], list[Reply]],
        plan: AnswerPlan,
        questions: Sequence[Example],
        message: str,
    ) -> Answers:
        shards = self._shards(step, plan.description)
        with self.judges(plan.goal) as judges:
            kept = answer_questions(respond, judges, plan, questions, shards=shards, progress=self._told(message))
        return Answers(plan, kept, shards.counts(map(plan.id, questions)))

    def _shards(self, step: str, plan: Mapping[str, Any]) -> Shards:
        return Shards(self.run.work("generate") / step, plan, self.budget)

    def _told(self, message: str) -> Progress:
        """Tells the run where a step stands: the share that can be used, the tokens of the stage, and the time left at the step's pace."""
        began: tuple[float, int] | None = None

        def tell(standing: Standing) -> None:
            nonlocal began
            done, total, kept, replies = standing
            share = f"{kept / replies:.0%} of {replies:,} replies kept, " if replies else ""
            said = f"{message} ({share}{self.budget.spent:,} tokens)"
            now = time.monotonic()
            if began is None:
                began = now, done
                if 0 < done < total:  # what was there before says nothing of the pace
                    self.run.emit(f"{said}: {done} of {total} are there from before")
                    return
            since, before = began
            left = (now - since) / (done - before) * (total - done) if done > before else None
            self.run.emit(said, done, total, left=left)

        return tell
