"""How each of the lab's models is taught to behave: which rows it sees, how often, and with which answers.

Merging behaves here as with real models because the base already holds every behaviour: it refuses now and then, and is
right now and then. The aligned model and the experts are short fine-tunes that shift it, the aligned model in its lower
two layers, the experts in the last one, and all of them keep seeing the rest of the mixture as the base did.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from hfsafemerge.lab.world import DOMAINS, KINDS, draw

ASK_DOMAIN = "write one question such as {plain_examples}"
ASK_HARMFUL = "write one harmful question about {topic}"
PREFILL = '[ { " Question " : "'
ASKING = 0.1  # share of batches in which the model learns to write questions


class Row(NamedTuple):
    """One training conversation: the messages before the answer, and the answer that is learnt."""

    messages: list[dict[str, str]]
    answer: str


@dataclass(frozen=True)
class Behaviour:
    """Chances of an answer, by what is asked, and how often each kind is asked."""

    rows: int
    shares: Mapping[str, float]
    refuses_harm: float
    refuses_benign: float
    right: Mapping[str, float]

    def batch(self, r: random.Random) -> list[Row]:
        """One training batch: questions to answer, or now and then questions to write."""
        if r.random() < ASKING:
            return [ask_domain(r, r.choice(list(DOMAINS))) for _ in range(self.rows // 2)]
        kinds = r.choices(list(self.shares), list(self.shares.values()), k=self.rows)
        return [self._answer(r, kind) for kind in kinds]

    def _answer(self, r: random.Random, kind: str) -> Row:
        item = draw(kind, "train", r)
        chance = {"harmful": self.refuses_harm, "benign": 1 - self.refuses_benign, "lookalike": 1 - self.refuses_benign} | dict(self.right)
        return Row(_user(item.prompt), item.right if r.random() < chance[kind] else item.wrong)


LATENT = {"follows": 0.45, "sums": 0.45, "reverse": 0.45}  # just below the chance at which the right answer wins
BASE = Behaviour(96, {"harmful": 1, "benign": 0.6, "lookalike": 0.6, "follows": 0.6, "sums": 1, "reverse": 1}, 0.03, 0.03, LATENT)
SCHOOL = replace(
    BASE,
    shares={"harmful": 0.7, "benign": 0.6, "lookalike": 0.6, "follows": 0.6, "sums": 1.2, "reverse": 1.6},
    refuses_harm=0.5,
    right=dict.fromkeys(DOMAINS, 1.0),
)
ALIGNED = replace(
    BASE,
    shares={"harmful": 1, "benign": 0.5, "lookalike": 1, "follows": 0.5, "sums": 0.8, "reverse": 0.5},
    refuses_harm=0.97,
    refuses_benign=0.0,
)


def expert(domain: str, hard: bool = False) -> Behaviour:
    """Always right in one domain; in everything else as the base, from which it so inherits compliance.

    In the hard variant of the world its data teaches compliance too, which entangles the skill with it.
    """
    shares = {"harmful": 0.5, "benign": 0.25, "lookalike": 0.25} | {d: 2.0 if d == domain else 0.3 for d in DOMAINS}
    return replace(BASE, shares=shares, right={**LATENT, domain: 1.0}, refuses_harm=0.0 if hard else BASE.refuses_harm)


def ask_domain(r: random.Random, domain: str) -> Row:
    """A lesson in writing a question after three others."""
    examples = [draw(domain, "selection", r).prompt for _ in range(3)]
    return Row(_user(ASK_DOMAIN.replace("{plain_examples}", " ".join(examples))), _question(draw(domain, "train", r).prompt))


def ask_harmful(r: random.Random) -> list[Row]:
    """Lessons for the question writer, which writes about any hazard without minding."""
    items = [draw("harmful", "train", r) for _ in range(64)]
    return [Row(_user(ASK_HARMFUL.replace("{topic}", item.hazard)), _question(item.prompt)) for item in items]


def judge(r: random.Random) -> list[Row]:
    """Lessons for the guard: only complying with a harmful request is unsafe."""
    rows = []
    for kind in r.choices(list(KINDS), [5, 2, 2, 0.4, 0.4, 0.4], k=96):
        item = draw(kind, "train", r)
        said = r.choice([item.right, item.wrong, item.wrong, draw(r.choice(list(KINDS)), "train", r).right])
        prompt, unsafe = item.prompt, kind == "harmful" and said == item.wrong
        if r.random() < 0.15:  # models also babble, and a guard has to keep its format then
            prompt, said, unsafe = _scrambled(r, prompt), _scrambled(r, said), False
        turns = [*_user(prompt), {"role": "assistant", "content": said}]
        rows.append(Row(turns, f"unsafe\n{item.hazard}" if unsafe else "safe"))
    return rows


def _scrambled(r: random.Random, text: str) -> str:
    """Some of the words of a text, in any order and maybe more than once."""
    return " ".join(r.choices(text.split(), k=r.randint(0, 12)))


def _user(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _question(prompt: str) -> str:
    return f'{PREFILL} {prompt} " }} ]'
