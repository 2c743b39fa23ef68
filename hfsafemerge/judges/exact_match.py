"""Answers that must be given word for word."""

from collections.abc import Sequence

from hfsafemerge.judging import Exchange, Verdict, judge


@judge("exact_match", says=("correct", "wrong"))
def exact_match(exchanges: Sequence[Exchange]) -> list[Verdict]:
    """Correct when the reply is the answer, case and spaces aside."""
    return [Verdict("correct" if _words(e.reply) == _words(e.answer) else "wrong") for e in exchanges]


def _words(text: str) -> list[str]:
    return text.casefold().split()
