"""Candidates in memory: experts that stay loaded, one running model, and the queries of a strategy answered with them."""

from hfsafemerge.live_merge.data import SearchData
from hfsafemerge.live_merge.evaluator import Evaluator
from hfsafemerge.live_merge.genes import decode, genes_of
from hfsafemerge.live_merge.imitation import Imitation
from hfsafemerge.live_merge.keeping import Deltas, KeptModels, Memory
from hfsafemerge.live_merge.live import LiveMerge

__all__ = ["Deltas", "Evaluator", "Imitation", "KeptModels", "LiveMerge", "Memory", "SearchData", "decode", "genes_of"]
