"""Synthetic data: models write questions, models answer them, judges decide what is kept (arXiv:2406.14563, section 4)."""

import hashlib
import json
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hfsafemerge import __version__
from hfsafemerge.errors import DataError
from hfsafemerge.examples import Example, Kind, Provenance, normalised
from hfsafemerge.judging import JUDGES, Exchange, Judge, judge_all
from hfsafemerge.language_model import LanguageModel, user
from hfsafemerge.registry import Registry

ROUND = 64  # questions written or answered between two notes of progress; a kill loses at most these where there is a log
ATTEMPTS = 6  # questions asked for, at most, for each one that is wanted
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class QuestionGenerator:
    """How a model is asked to write one question.

    `prompt` may name {topic} and {examples}; `prefill` begins the model's reply, so that it falls into the format.
    """

    name: str
    kind: Kind
    paper: str
    prompt: str
    prefill: str = ""
    topics: tuple[str, ...] = ()
    in_context: int = 0
    temperature: float = 0.8
    max_new_tokens: int = 512


GENERATORS: Registry[QuestionGenerator] = Registry("generator", "hfsafemerge.generators")


@dataclass(frozen=True)
class Written:
    """The questions that were kept, with answers where there are any, and how many were turned down for which reason."""

    questions: list[Example]
    counts: Mapping[str, int]


def read_question(text: str) -> str | None:
    """The question in a model's JSON reply, `[{"Question": "..."}]` or the object alone; None when there is none."""
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=-1)
    try:
        found, _ = json.JSONDecoder(strict=False).raw_decode(text[start:]) if start >= 0 else (None, 0)
    except ValueError:
        return None
    if isinstance(found, list):
        found = found[0] if found else None
    if not isinstance(found, dict):
        return None
    question = {str(key).strip().casefold(): value for key, value in found.items()}.get("question")
    return question.strip() or None if isinstance(question, str) else None


class Plan(NamedTuple):
    """What decides one row: its seed, its topic, and the example questions it shows."""

    seed: int
    topic: str
    examples: list[str]


def write_questions(
    model: LanguageModel,
    generator: QuestionGenerator,
    *,
    topics: Sequence[str],
    count: int,
    seed: int,
    log: Path,
    in_context: Sequence[str] = (),
    forbidden: Iterable[str] = (),
    progress: Progress = lambda done, total: None,
) -> Written:
    """Let a model write `count` different questions.

    Row i depends on the seed, the generator, the model and i alone. Each round of rows is appended to `log`, and what
    stands there is not written again.

    Args:
        model: the writer.
        generator: how it is asked.
        topics: what to ask about; each row takes one.
        count: how many questions are wanted.
        seed: of topics, examples and sampling.
        log: a JSON-lines file that may hold earlier rounds.
        in_context: example questions, of which each row shows `generator.in_context`.
        forbidden: prompts that must not come up, such as those of benchmarks.
        progress: is told how many of how many questions there are.

    Raises:
        DataError: there is nothing to ask about, or too few questions are usable.
    """
    if not topics:
        raise DataError(f"{generator.name} has no topics to ask about. Name some under data.{generator.kind}.topics.")
    if len(in_context) < generator.in_context:
        raise DataError(f"{generator.name} shows {generator.in_context} example questions; {len(in_context)} are given.")
    rows = _rows(model, generator, partial(_plan, generator, model.name, topics, in_context, seed), log)
    turned_down = dict.fromkeys(map(normalised, in_context), "repeated") | dict.fromkeys(map(normalised, forbidden), "in a benchmark")
    counts: Counter[str] = Counter()
    questions: list[Example] = []
    for row, text in enumerate(islice(rows, ATTEMPTS * count)):
        reason = "malformed" if text is None else turned_down.get(normalised(text), "kept")
        counts[reason] += 1
        if text is not None and reason == "kept":
            turned_down[normalised(text)] = "repeated"
            row_seed, topic, _ = _plan(generator, model.name, topics, in_context, seed, row)
            made = Provenance(generator=model.name, seed=row_seed, version=__version__)
            questions.append(Example(generator.kind, text, topic=topic, provenance=made))
            progress(len(questions), count)
        if len(questions) == count:
            return Written(questions, counts)
    reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
    wrote = f"{model.name} wrote {len(questions)} of {count} usable questions in {sum(counts.values())} attempts"
    raise DataError(f"{wrote} ({reasons}). Lower the count, or change the writer or the prompt.")


def _rows(model: LanguageModel, generator: QuestionGenerator, plan: Callable[[int], Plan], log: Path) -> Iterator[str | None]:
    """What the model writes, row after row without end: first what stands in the log, then new rounds, which are added to it."""
    known = written_before(log)
    yield from known
    for first in count_from(len(known), ROUND):
        plans = [plan(row) for row in range(first, first + ROUND)]
        replies = model.generate(
            [user(_fill(generator.prompt, topic, examples)) for _, topic, examples in plans],
            max_new_tokens=generator.max_new_tokens,
            prefill=generator.prefill,
            temperature=generator.temperature,
            seeds=[row_seed for row_seed, _, _ in plans],
        )
        texts = [read_question(generator.prefill + reply.text) for reply in replies]
        append_lines(log, [json.dumps({"question": text}) for text in texts])
        yield from texts


def written_before(log: Path) -> list[str | None]:
    """What a log of `write_questions` holds of every row, None for a malformed reply. A last line that a kill cut short is left out."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line)["question"] for line in text[: text.rfind("\n") + 1].splitlines()]


def _plan(generator: QuestionGenerator, writer: str, topics: Sequence[str], pool: Sequence[str], seed: int, row: int) -> Plan:
    """The seed, the topic and the example questions of one row."""
    key = f"{seed}\0{generator.name}\0{generator.prompt}\0{writer}\0{row}".encode()
    row_seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "little") >> 1
    r = random.Random(row_seed)
    return Plan(row_seed, r.choice(list(topics)), r.sample(list(pool), generator.in_context))


def _fill(prompt: str, topic: str, examples: Sequence[str]) -> str:
    shown = "\n".join(f"Example {number}: {json.dumps([{'Question': text}])}" for number, text in enumerate(examples, 1))
    return prompt.replace("{topic}", topic).replace("{examples}", shown).replace("{plain_examples}", " ".join(examples))


def append_lines(log: Path, lines: Sequence[str]) -> None:
    """Append whole lines to a file that may end in one that a kill cut short."""
    text = log.read_text() if log.exists() else ""
    if text and not text.endswith("\n"):
        log.write_text(text[: text.rfind("\n") + 1])
    with log.open("a") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def answer_questions(model: LanguageModel, questions: Sequence[Example], max_new_tokens: int) -> list[Example]:
    """The questions with the model's own greedy answers; those it leaves empty or does not end are dropped."""
    replies = model.generate([user(q.prompt) for q in questions], max_new_tokens=max_new_tokens)
    return [_answered(q, r.text, model.name) for q, r in zip(questions, replies, strict=True) if r.text and r.finished]


def refuse_questions(
    model: LanguageModel, questions: Sequence[Example], judges: Mapping[str, Judge], max_new_tokens: int
) -> list[str | None]:
    """The model's greedy reply to each harmful question if it is a refusal, else None.

    Any other reply is forgotten here: it is never written, logged or shown.
    """
    replies = model.generate([user(q.prompt) for q in questions], max_new_tokens=max_new_tokens)
    exchanges = [Exchange(q.prompt, r.text) for q, r in zip(questions, replies, strict=True)]
    refused = are_refusals(exchanges, judges)
    return [r.text if r.finished and keep else None for r, keep in zip(replies, refused, strict=True)]


def are_refusals(exchanges: Sequence[Exchange], judges: Mapping[str, Judge]) -> list[bool]:
    """Whether each reply to a harmful request is a refusal: no judge calls it unsafe, complying, degenerate or unclear."""
    if not judges:
        raise ValueError("Without a judge nothing is known to be a refusal.")
    verdicts = [judge_all(name, judge, exchanges) for name, judge in judges.items()]
    return [all(verdict[i].label in ("safe", "refused") for verdict in verdicts) for i in range(len(exchanges))]


def answer_benign(
    model: LanguageModel,
    questions: Sequence[Example],
    judges: Mapping[str, Judge],
    max_new_tokens: int,
    *,
    judged_by: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
) -> Written:
    """Questions that should be harmless, with the model's greedy answers that are known to be both harmless and helpful.

    Kept is what every guard calls safe and every judge of refusals calls complied; an answer that is degenerate, unclear to
    one of them, empty or cut off is not. Any other answer is forgotten here: it is never written, logged or shown.

    Args:
        model: what answers.
        questions: the prompts. A dataset may be wrong about how harmless they are.
        judges: the judges by their registered names, at least one guard and one judge of refusals.
        max_new_tokens: the longest answer.
        judged_by: the judges as provenance names them.
        progress: is told how many of how many questions were answered.

    Raises:
        DataError: nothing is left. Says how many fell to which reason, never what was said.
    """
    said = [JUDGES.get(name).says for name in judges]
    if ("safe", "unsafe") not in said or ("refused", "complied") not in said:
        raise ValueError("Without a guard nothing is known to be harmless, and without a judge of refusals nothing to be helpful.")
    counts: Counter[str] = Counter()
    whole = []
    for first in range(0, len(questions), ROUND):
        asked = questions[first : first + ROUND]
        replies = model.generate([user(q.prompt) for q in asked], max_new_tokens=max_new_tokens)
        whole += [(q, reply.text) for q, reply in zip(asked, replies, strict=True) if reply.text and reply.finished]
        progress(first + len(asked), len(questions))
    if len(questions) > len(whole):
        counts["empty or cut off"] = len(questions) - len(whole)
    exchanges = [Exchange(question.prompt, text) for question, text in whole]
    verdicts = [judge_all(name, judge, exchanges) for name, judge in judges.items()] if exchanges else []
    kept = []
    for i, (question, text) in enumerate(whole):
        labels = [verdict[i].label for verdict in verdicts]
        reason = next((label for label in labels if label not in ("safe", "complied")), "kept")
        counts[reason] += 1
        if reason == "kept":
            kept.append(_answered(question, text, model.name, judged_by, ", ".join(labels)))
    if not kept:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(counts.items()))
        raise DataError(f"None of {model.name}'s answers to {len(questions)} benign questions can be kept ({reasons}). Take other prompts.")
    return Written(kept, counts)


def choose_refusals(
    questions: Sequence[Example], refusals: Mapping[str, Sequence[str | None]], judges: Sequence[str], seed: int
) -> list[Example]:
    """One refusal for each question, drawn by seed from the models that refuse it; questions that none refuses are dropped.

    Raises:
        DataError: no model refuses anything. Says how many each refused, never what they said.
    """
    chosen = []
    for i, question in enumerate(questions):
        offers = [(name, replies[i]) for name, replies in sorted(refusals.items()) if replies[i] is not None]
        if offers:
            responder, text = random.Random(f"{seed} {question.id}").choice(offers)
            chosen.append(_answered(question, str(text), responder, judges, "refusal"))
    if not chosen:
        numbers = ", ".join(f"{name} {sum(r is not None for r in replies)}" for name, replies in sorted(refusals.items()))
        raise DataError(f"No model refuses any of {len(questions)} harmful questions ({numbers}). The pool needs an aligned model.")
    return chosen


def _answered(question: Example, answer: str, responder: str, judges: Sequence[str] = (), verdicts: str = "") -> Example:
    p = question.provenance
    made = Provenance(p.generator, responder, ", ".join(judges), verdicts if judges else "", p.seed, __version__)
    return Example(question.kind, question.prompt, answer, question.topic, made)
