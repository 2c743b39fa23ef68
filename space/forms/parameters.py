"""What merge methods and search strategies can be told, from their registrations."""

from collections.abc import Sequence

from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES


def method_help(name: str) -> str:
    """What a merge method does, needs and can be told, from its registration."""
    method = MERGE_METHODS.get(name)
    low, high = method.experts
    experts = f"{low}" if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    named = _listed("Parameters", [p.name for p in method.parameters]) + _listed("Options", [o.name for o in method.options])
    return f"{method.summary} For {experts} expert{'' if experts == '1' else 's'}. {named}{_source(method.paper)}"


def strategy_help(name: str) -> str:
    """What a search strategy does, works with and can be told, from its registration."""
    strategy = SEARCH_STRATEGIES.get(name)
    only = f"Works with {' and '.join(strategy.methods)} only. " if strategy.methods else ""
    return f"{strategy.summary} {only}{_listed('Settings', list(strategy.settings))}{_source(strategy.paper)}"


def _listed(what: str, names: Sequence[str]) -> str:
    return f"{what}: {', '.join(names)}. " if names else ""


def _source(paper: str) -> str:
    return f"Source: {paper}." if paper else ""
