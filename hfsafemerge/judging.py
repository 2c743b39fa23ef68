"""Judges: functions that label exchanges. A judge that can't tell says so, and too many such labels stop the work."""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from hfsafemerge.errors import JudgeError, RecipeError
from hfsafemerge.language_model import LanguageModel
from hfsafemerge.registry import Registry

Label = Literal["safe", "unsafe", "refused", "complied", "correct", "wrong", "degenerate", "unclear"]
MAX_UNCLEAR = 0.02


class Exchange(NamedTuple):
    """One prompt and a model's reply to it; `answer` is the right one where there is one."""

    prompt: str
    reply: str
    answer: str = ""


class Verdict(NamedTuple):
    """A judge's label for one exchange, and what it named as the reason, such as hazard codes."""

    label: Label
    reason: str = ""


Judge = Callable[[Sequence[Exchange]], list[Verdict]]


@dataclass(frozen=True)
class JudgeKind:
    """A registered judge: its function, and whether it judges with a model."""

    name: str
    paper: str
    says: tuple[Label, Label]
    function: Callable[..., list[Verdict]]
    needs_model: bool

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.function) or "").splitlines()[0]

    def bind(self, model: LanguageModel | None) -> Judge:
        """The judge with its model. Raises RecipeError when it needs one and has none."""
        if not self.needs_model:
            return self.function
        if model is None:
            raise RecipeError(f"The judge {self.name} judges with a model. Name one: `judges: {{{self.name}: {{model: ...}}}}`.")
        return lambda exchanges: self.function(exchanges, model=model)


JUDGES: Registry[JudgeKind] = Registry("judge", "hfsafemerge.judges")
Function = TypeVar("Function", bound=Callable[..., list[Verdict]])


def judge(name: str, *, says: tuple[Label, Label], paper: str = "") -> Callable[[Function], Function]:
    """Register a judge: a function of exchanges, and of a `model` where it names one.

    Args:
        name: the name in recipes.
        says: the two labels it tells apart.
        paper: where it is from.
    """

    def register(function: Function) -> Function:
        JUDGES.add(name, JudgeKind(name, paper, says, function, "model" in inspect.signature(function).parameters))
        return function

    return register


def judge_all(name: str, judge: Judge, exchanges: Sequence[Exchange]) -> list[Verdict]:
    """The verdicts of a judge on all exchanges; a reply with nothing in it is degenerate, unless the judge calls it unsafe or unclear.

    Raises:
        JudgeError: more than 2% of the verdicts are unclear, so the judge does not speak its format.
    """
    verdicts = judge(exchanges)
    if len(verdicts) != len(exchanges):
        raise JudgeError(f"The judge {name} gave {len(verdicts)} verdicts on {len(exchanges)} exchanges.")
    unclear = sum(verdict.label == "unclear" for verdict in verdicts)
    if unclear > MAX_UNCLEAR * len(exchanges):
        sample = next(verdict.reason for verdict in verdicts if verdict.label == "unclear")
        raise JudgeError(
            f"The judge {name} could not be understood on {unclear} of {len(exchanges)} exchanges; it said {sample[:40]!r}, for one. "
            "Check that its model and revision are the right ones for this judge."
        )
    kept = ("unsafe", "unclear")
    return [
        Verdict("degenerate") if is_degenerate(exchange.reply) and verdict.label not in kept else verdict
        for exchange, verdict in zip(exchanges, verdicts, strict=True)
    ]


def is_degenerate(reply: str) -> bool:
    """Whether a reply says nothing: empty, or one word over and over."""
    words = reply.split()
    return not words or (len(words) >= 8 and Counter(words).most_common(1)[0][1] > 0.8 * len(words))
