"""Digests of what a run makes, which say whether two runs made the same: SHA-256, of contents and never of files."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hfsafemerge.examples import Example
from hfsafemerge.searching import Candidate


def digest_of(value: Any) -> str:
    """Of a JSON value, however it is written."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def of_rows(examples: Iterable[Example]) -> str:
    """Of prompts, answers and topics in their order; where they came from steers nothing."""
    return digest_of([[e.kind, e.prompt, e.answer, e.topic] for e in examples])


def of_trajectory(candidates: Iterable[Candidate]) -> str:
    """Of what was asked and the fitness that came of it, in order; of no time that anything took."""
    return digest_of([[asdict(candidate.query), candidate.fitness] for candidate in candidates])


def of_items(labels: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, str]]:
    """By model and benchmark, of what stands in labels.json: all labels and hashes of replies in their order."""
    found: dict[str, dict[str, list[Any]]] = {}
    for model, items in labels.items():
        by = found.setdefault(model, {})
        for item in items:
            by.setdefault(item["benchmark"], []).append([item[key] for key in ("example", "sample", "finished", "reply", "labels")])
    return {model: {benchmark: digest_of(items) for benchmark, items in by.items()} for model, by in found.items()}
