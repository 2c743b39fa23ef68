"""Objectives: one number to maximise out of what was measured of each kind of data."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hfsafemerge.errors import SearchError

DOMAIN = "domain"
PENALTY = 10.0  # fitness lost for each nat by which a constraint is missed; more than a domain term gains by it in practice
Rule = Literal["weighted", "constrained", "pooled", "even"]


@dataclass(frozen=True)
class TermScore:
    """The mean over `n` examples of what a kind of data gives, at most 0: the log-probability (nats a token) of its answers."""

    mean: float
    n: int
    error: float = 0.0
    """The standard error of the mean over examples."""
    slope: tuple[float, ...] = ()
    """The derivative with respect to each gene, where it was asked for."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in search.jsonl."""
        found: dict[str, Any] = {"mean": self.mean, "n": self.n, "error": self.error}
        return found | ({"slope": list(self.slope)} if self.slope else {})

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "TermScore":
        """The score of a line of search.jsonl."""
        return cls(**{**found, "slope": tuple(found.get("slope", ()))})


Terms = Mapping[str, TermScore]
"""By kind of data: "safety", "benign", and "domain" or, with more than one topic, "domain/<topic>"."""


def is_domain(term: str) -> bool:
    """Whether a term is of a domain's questions."""
    return term.split("/")[0] == DOMAIN


@dataclass(frozen=True)
class Objective:
    """The number to maximise, a sum over the terms that were measured.

    weighted: L_safety + alpha * L_expert + beta * L_benign (arXiv:2406.14563, eq. 5, without its third term).
    constrained: L_expert, as long as safety (and benign) lose no more than `epsilon` nats a token against the reference, the
        aligned model; beyond that, ten times what is lost is taken off, and such a candidate is never recommended.
    pooled: the mean over all examples alike, as LM-Cocktail weighs them (the same, eq. 3).
    even: the plain sum of the terms, each topic by its weight, as Expert Merging has it (arXiv:2509.25712).

    L_expert is the mean over the domain examples alike, or over the topics by `weights` where there are any.
    """

    rule: Rule = "weighted"
    alpha: float = 0.3
    beta: float = 0.3
    weights: Mapping[str, float] = field(default_factory=dict)
    epsilon: float = 0.05
    reference: Terms = field(default_factory=dict)
    """What the aligned model scores on the same examples."""

    def fitness(self, terms: Terms) -> float:
        """The fitness of what was measured, larger is better. Raises SearchError when it is no finite number."""
        if not terms:
            raise SearchError("There is nothing to make a fitness of: no kind of data has examples.")
        factors = self._factors(terms)
        value = sum(factors[name] * term.mean for name, term in terms.items())
        if self.rule == "constrained":
            value = sum(factors[name] * terms[name].mean for name in terms if is_domain(name))
            value -= PENALTY * sum(self._missed(terms).values())
        if not math.isfinite(value):
            means = {name: term.mean for name, term in terms.items()}
            raise SearchError(f"The fitness came out as {value} from {means}. A model or an example gives no finite likelihood.")
        return value

    def slope(self, terms: Terms) -> list[float]:
        """The derivative of the fitness with respect to each gene, from those of the terms. Raises SearchError when one is not finite."""
        factors = self._factors(terms)
        columns = zip(*(term.slope for term in terms.values()), strict=True)
        found = [sum(f * d for f, d in zip(factors.values(), column, strict=True)) for column in columns]
        if not all(map(math.isfinite, found)):
            raise SearchError("A derivative of the fitness is no finite number. A model or an example gives no finite likelihood.")
        return found

    def error(self, terms: Terms) -> float:
        """The standard error of the fitness: its spread over other draws of as many examples."""
        factors = self._factors(terms)
        return math.sqrt(sum((factors[name] * term.error) ** 2 for name, term in terms.items()))

    def admits(self, terms: Terms) -> bool:
        """Whether every constraint is kept."""
        return self.rule != "constrained" or not any(self._missed(terms).values())

    def _missed(self, terms: Terms) -> dict[str, float]:
        """By how much each guarded term is below what it has to be at least."""
        return {n: max(0.0, self.reference[n].mean - self.epsilon - t.mean) for n, t in terms.items() if not is_domain(n)}

    def _factors(self, terms: Terms) -> dict[str, float]:
        """The derivative of the fitness with respect to each term."""
        if self.rule == "pooled":
            return {name: term.n / sum(each.n for each in terms.values()) for name, term in terms.items()}
        if self.rule == "even":
            return {name: self.weights.get(topic_of(name), 1.0) for name in terms}
        domains = {n: self.weights.get(topic_of(n), 1.0) if self.weights else term.n for n, term in terms.items() if is_domain(n)}
        total = sum(domains.values()) or 1.0
        guards = [name for name in terms if not is_domain(name)]
        alpha = self.alpha if guards and self.rule == "weighted" else 1.0
        found = {}
        missed = self._missed(terms) if self.rule == "constrained" else {}
        for name in terms:
            if is_domain(name):
                found[name] = alpha * domains[name] / total
            elif self.rule == "constrained":
                found[name] = PENALTY * (missed[name] > 0)
            else:
                found[name] = self.beta if name == "benign" else 1.0
        return found


def topic_of(term: str) -> str:
    """The topic of a domain's term; nothing for other terms."""
    return term.partition("/")[2]


def pareto_front(points: Sequence[Terms]) -> list[int]:
    """The numbers of those that no other one beats: as good in every term, and better in one."""
    means = [[term.mean for term in terms.values()] for terms in points]

    def beaten(mine: Sequence[float], theirs: Sequence[float]) -> bool:
        return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))

    return [i for i, mine in enumerate(means) if not any(beaten(mine, theirs) for theirs in means) and mine not in means[:i]]
