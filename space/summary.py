"""What the numbers of a finished run say in plain words: each rate of the merge held against the base, as far as it can be told."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from hfsafemerge.recipe import MERGED

BASE = "base"
LIMITS = "Measured on these prompts alone; other prompts, languages and attacks may show something else."


def summary(result: Mapping[str, Any]) -> str:
    """The sentences as HTML, one for each benchmark on which merge and base were compared; nothing where there is none.

    Args:
        result: what stands in scores.json.
    """
    found = [c for c in result.get("comparisons", []) if (c["model"], c["other"]) == (MERGED, BASE)]
    rows = "".join(f"<li>{_in_words(each, result['scores'])}</li>" for each in found)
    return f'<ul class="summary">{rows}</ul><p class="help">{LIMITS}</p>' if rows else ""


def _in_words(comparison: Mapping[str, Any], scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    about = (comparison["benchmark"], comparison["metric"])
    merged, base = (next((s["value"] for s in scores[model] if (s["benchmark"], s["metric"]) == about), None) for model in (MERGED, BASE))
    low, high = comparison["ci95"]
    rates = f"{100 * merged:.1f}% for the merge, {100 * base:.1f}% for the base; " if merged is not None and base is not None else ""
    difference = f"{_points(comparison['difference'])} points (95% interval {_points(low)} to {_points(high)})"
    if low <= 0 <= high:
        verdict = f"{comparison['n']} items can't tell that from no difference"
    else:
        improved = (low > 0) == (comparison["better"] == "higher")
        verdict = f"{'better' if improved else 'worse'} than the base by more than chance explains"
    name = f"{escape(about[1].replace('_', ' ').capitalize())} on {escape(about[0])}"
    return f"<strong>{name}:</strong> {rates}{difference}, {verdict}."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "\N{MINUS SIGN}")
