"""labels.json as it is published: what each judge said of each item, by hashes, with no text of a question or a reply."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, get_args

from hfsafemerge.errors import DataError
from hfsafemerge.evaluation import Item
from hfsafemerge.judging import Label

HASH = re.compile(r"[0-9a-f]{16}")


def public_labels(labels: Mapping[str, Sequence[Item]]) -> dict[str, list[dict[str, Any]]]:
    """By model the items of all benchmarks, so that others can pair theirs with them.

    Categories are left out, since scores.json has the rates by category; clusters are hashed, since a dataset may name one by a text.

    Raises:
        DataError: an item holds something else than hashes, numbers and the labels that judges give.
    """
    for items in labels.values():
        for item in items:
            hashes = [item.example, *([item.reply] if item.reply else [])]
            if not all(HASH.fullmatch(each) for each in hashes) or not set(item.labels.values()) <= set(get_args(Label)):
                raise DataError(f"An item of {item.benchmark} holds a text where a hash or a label is due, so nothing is published.")
    return {model: [asdict(_without_texts(item)) for item in items] for model, items in labels.items()}


def _without_texts(item: Item) -> Item:
    cluster = hashlib.sha256(item.cluster.encode()).hexdigest()[:16] if item.cluster else ""
    return replace(item, cluster=cluster, category="")
