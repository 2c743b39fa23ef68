"""What a search and its result look like, as tables that the page plots."""

from collections.abc import Sequence
from contextlib import suppress

import pandas as pd

from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import Candidate, TermScore, is_domain
from space.job import Job
from space.results import chosen, offered

TRAJECTORY = ("candidate", "fitness", "line")
FRONT_COLUMNS = ("candidate", "safety", "domain", "fitness", "point")
MERGED, ON_FRONT, BEATEN = "this merge", "on the front", "beaten"


def trajectory(job: Job) -> pd.DataFrame:
    """The fitness of each candidate of a search so far, and of the fittest until then; empty before there are any.

    Candidates that were measured on a part of the data only are left out, since their fitness says something else; and the best
    are those that keep the objective's constraints.
    """
    rows: list[tuple[int, float, str]] = []
    best: float | None = None
    for candidate in _candidates(job):
        rows.append((candidate.number, candidate.fitness, "candidate"))
        if candidate.admitted:
            best = candidate.fitness if best is None else max(best, candidate.fitness)
        if best is not None:
            rows.append((candidate.number, best, "best so far"))
    return pd.DataFrame(rows, columns=list(TRAJECTORY))


def front(job: Job) -> pd.DataFrame:
    """The candidates of a finished search by safety and domain: what this run merged, the others that none beats, and those beaten.

    Both are means of log-likelihoods in nats a token: larger is better. Empty where there are not both.
    """
    merged, best = chosen(job), set(offered(job))
    rows = []
    for each in _candidates(job) if best else ():
        domain = _mean([term for name, term in each.terms.items() if is_domain(name)])
        if domain is not None and "safety" in each.terms:
            point = MERGED if each.number == merged else ON_FRONT if each.number in best else BEATEN
            rows.append((each.number, each.terms["safety"].mean, domain, each.fitness, point))
    return pd.DataFrame(rows, columns=list(FRONT_COLUMNS))


def samples(job: Job, count: int = 5) -> dict[str, list[tuple[str, str]]]:
    """A few prompts and answers of the data that are harmless, by kind. Harmful requests are on no page."""
    found = {}
    for kind in ("domain", "benign"):
        file = job.run / "data" / f"{kind}.parquet"
        if file.exists():
            rows = pd.read_parquet(file, columns=["prompt", "answer"])[:count]
            found[kind] = [(str(prompt), str(answer)) for prompt, answer in rows.itertuples(index=False)]
    return found


def _mean(terms: Sequence[TermScore]) -> float | None:
    """The mean over all examples of the terms alike; None of none."""
    count = sum(term.n for term in terms)
    return sum(term.n * term.mean for term in terms) / count if count else None


def _candidates(job: Job) -> list[Candidate]:
    """The candidates that were measured on all the data: of a search that goes on those so far, as far as they stand whole."""
    text = ""
    for file in (job.run / "work" / "search" / LOG, job.run / LOG):  # the first goes when the second is there
        with suppress(FileNotFoundError):
            text = file.read_text()
            break
    found = [Candidate.from_json(line) for line in text.splitlines(keepends=True) if line.endswith("}\n")]
    return [candidate for candidate in found if candidate.whole]
