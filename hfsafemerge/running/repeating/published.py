"""What a published merge says of itself beside its lock: its scores, the way of its search, and labels where it publishes them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hfsafemerge import hub
from hfsafemerge.errors import DataError, HubError, SearchError
from hfsafemerge.evaluation import Item, Results
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.repeating.rating import Labels, results_in
from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import Candidate, read_candidates

ITEMS = TypeAdapter(dict[str, list[Item]])


def published_scores(repo_id: str, commit: str) -> dict[str, Any]:
    """scores.json. Raises HubError."""
    found: dict[str, Any] = hub.read_json(hub.fetch(repo_id, SCORES, commit)[0], f"{repo_id}/{SCORES}")
    return found


def published_results(found: Any, repo_id: str) -> Results:
    """The results of a published scores.json. Raises HubError for what is none, or does not fit together."""
    try:
        return results_in(found)
    except (DataError, RecursionError) as error:
        raise HubError(f"{repo_id} has a {SCORES} that can't be read: {error}") from error


def published_candidates(repo_id: str, commit: str) -> list[Candidate]:
    """search.jsonl. Raises HubError."""
    file = hub.fetch(repo_id, LOG, commit)[0]
    try:
        return read_candidates(file)
    except (SearchError, RecursionError) as error:
        raise HubError(f"{repo_id} has a {LOG} that can't be read: {_first_fault(file)}.") from error


def _first_fault(log: Path) -> str:
    for number, line in enumerate(log.read_bytes().splitlines(), 1):
        try:
            Candidate.from_json(line.decode())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return f"line {number}: {type(error).__name__}: {error}"
    return "it is no text"


def published_labels(repo_id: str, commit: str) -> Labels | None:
    """labels.json, where the repository has it. Raises HubError."""
    with hub.hub_errors(repo_id):
        there = hub.api().file_exists(repo_id, LABELS, revision=commit)
    if not there:
        return None
    try:
        return items_of(hub.read_json(hub.fetch(repo_id, LABELS, commit)[0], f"{repo_id}/{LABELS}"))
    except DataError as error:
        raise HubError(f"{repo_id}: {error}") from error


def items_of(labels: Mapping[str, Sequence[Mapping[str, Any]]]) -> Labels:
    """The items that stand in a labels.json. Raises DataError for what are none."""
    try:
        return ITEMS.validate_python(dict(labels))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{LABELS} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}. Evaluate again.") from error
