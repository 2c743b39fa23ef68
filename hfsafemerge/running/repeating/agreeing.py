"""Whether two runs came to the same: tensors, the way of a search, and settings."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from hfsafemerge.checkpoint import Weights
from hfsafemerge.searching import Candidate


def other_entries(name: str, a: Weights, b: Weights) -> str:
    """How two tensors of one name differ, in words; nothing where every bit is the same."""
    if name not in a.tensors or name not in b.tensors:
        return "is in one of them alone"
    mine, theirs = a.tensors[name], b.tensors[name]
    if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
        return f"is {mine.dtype} {list(mine.shape)} and {theirs.dtype} {list(theirs.shape)}"
    x, y = a.read(name).flatten(), b.read(name).flatten()
    other = x.view(torch.uint8).reshape(len(x), -1).ne(y.view(torch.uint8).reshape(len(y), -1)).any(dim=1)
    if not other.any():
        return ""
    apart = (x[other].double() - y[other].double()).abs()
    largest = float(apart.max())
    relative = float((apart / torch.maximum(x[other].double().abs(), y[other].double().abs()).clamp(min=1e-45)).max())
    return f"{int(other.sum())} of {len(x)} elements differ, by at most {largest:.3g} ({relative:.2g} of the larger)"


def other_candidate(a: Sequence[Candidate], b: Sequence[Candidate]) -> str:
    """The first candidate that two searches do not share, in words; nothing where they went the same way."""
    for number, (x, y) in enumerate(zip(a, b, strict=False), 1):
        if x.query != y.query:
            genes = [i for i, (p, q) in enumerate(zip(x.genome, y.genome, strict=False), 1) if p != q]
            if len(x.genome) != len(y.genome):
                return f"candidate {number} has {len(x.genome)} genes and {len(y.genome)}"
            if not genes:
                return f"candidate {number} is asked about other data"
            by = max(abs(x.genome[i - 1] - y.genome[i - 1]) for i in genes)
            where = f"{len(genes)} of {len(x.genome)} genes"
            return f"candidate {number} differs in {where}, by at most {by:.3g}, the first being gene {genes[0]}"
        if x.fitness != y.fitness:
            return f"the fitness of candidate {number} is {x.fitness!r} and {y.fitness!r}, {abs(x.fitness - y.fitness):.3g} apart"
    return f"there are {len(a)} and {len(b)} candidates, the first {min(len(a), len(b))} alike" if len(a) != len(b) else ""


def other_settings(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """By dotted path, the values in which two JSON values differ; None stands for one that is in the other alone."""
    mine, theirs = dict(_leaves(a)), dict(_leaves(b))
    paths = dict.fromkeys([*mine, *theirs])
    return {path: (mine.get(path), theirs.get(path)) for path in paths if mine.get(path) != theirs.get(path)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else None
    if inner is None:
        yield path, value
        return
    for key, found in inner:
        yield from _leaves(found, f"{path}.{key}" if path else str(key))
