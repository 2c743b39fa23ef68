"""Search: genes and genomes, strategies that ask for candidates and are told their fitness, and the loop between them.

Nothing here knows of models or data: a candidate is a list of numbers, and whoever evaluates it says what its terms are.
"""

from hfsafemerge.searching.candidates import Candidate, SearchLog, read_candidates
from hfsafemerge.searching.genes import Gene, Genome, Query, Split
from hfsafemerge.searching.loop import NOTHING_SEARCHED, Evaluate, Finalist, Measurement, SearchResult, one_by_one, search
from hfsafemerge.searching.objectives import DOMAIN, Objective, Rule, Terms, TermScore, is_domain, pareto_front, topic_of
from hfsafemerge.searching.strategies import SEARCH_STRATEGIES, Measure, SearchStrategy, StrategyKind, search_strategy

__all__ = [
    "DOMAIN",
    "NOTHING_SEARCHED",
    "SEARCH_STRATEGIES",
    "Candidate",
    "Evaluate",
    "Finalist",
    "Gene",
    "Genome",
    "Measure",
    "Measurement",
    "Objective",
    "Query",
    "Rule",
    "SearchLog",
    "SearchResult",
    "SearchStrategy",
    "Split",
    "StrategyKind",
    "TermScore",
    "Terms",
    "is_domain",
    "one_by_one",
    "pareto_front",
    "read_candidates",
    "search",
    "search_strategy",
    "topic_of",
]
