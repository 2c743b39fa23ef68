"""What a published merge says of itself beside its lock: its scores, the way of its search, and labels where it publishes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hfsafemerge import hub
from hfsafemerge.errors import DataError
from hfsafemerge.evaluation import Item
from hfsafemerge.running.evaluating import LABELS, SCORES
from hfsafemerge.running.repeating.agreeing import Labels
from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import Candidate, read_candidates

ITEMS = TypeAdapter(dict[str, list[Item]])


def published_scores(repo_id: str, commit: str) -> dict[str, Any]:
    """scores.json. Raises HubError."""
    found: dict[str, Any] = hub.read_json(hub.fetch(repo_id, SCORES, commit)[0], f"{repo_id}/{SCORES}")
    return found


def published_candidates(repo_id: str, commit: str) -> list[Candidate]:
    """search.jsonl. Raises HubError, SearchError."""
    return read_candidates(hub.fetch(repo_id, LOG, commit)[0])


def published_labels(repo_id: str, commit: str) -> Labels | None:
    """labels.json, where the repository has it. Raises HubError, DataError."""
    with hub.hub_errors(repo_id):
        there = hub.api().file_exists(repo_id, LABELS, revision=commit)
    if not there:
        return None
    return items_of(hub.read_json(hub.fetch(repo_id, LABELS, commit)[0], f"{repo_id}/{LABELS}"))


def items_of(labels: Mapping[str, Sequence[Mapping[str, Any]]]) -> Labels:
    """The items that stand in a labels.json. Raises DataError for what are none."""
    try:
        return ITEMS.validate_python(dict(labels))
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{LABELS} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}. Evaluate again.") from error
