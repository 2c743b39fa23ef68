"""What a search strategy can't do without, for a recipe that is made rather than written."""

import math
from collections.abc import Collection
from typing import Any

from hfsafemerge.merging import MergeMethod


def first_settings(strategy: str, method: MergeMethod, given: Collection[str]) -> dict[str, Any]:
    """The grid's values, and how far a draw of what has no upper bound goes; nothing for other strategies.

    Args:
        strategy: its name.
        method: the merge method.
        given: the parameters that are fixed, so that no search moves them.
    """
    if strategy == "grid":
        return {"preset": "paper"}
    searched = [p for p in method.parameters if p.number.searched and p.name not in given]
    ranges = {p.name: [max(0.0, p.number.low), 1.0] for p in searched if not math.isfinite(p.number.high - p.number.low)}
    return {"ranges": ranges} if strategy == "random_search" and ranges else {}
