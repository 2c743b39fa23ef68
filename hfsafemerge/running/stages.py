"""The stages of a run: what does each, what it needs, and which parts of a recipe change what it makes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfsafemerge._recipe_data import DataSpec
from hfsafemerge.recipe import SearchSpec

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

SERVICE = ("key", "parallel", "timeout", "retries", "requests_per_minute", "price_read", "price_written")


@dataclass(frozen=True)
class Stage:
    """A step of a run: what does it, which stages it needs, and which further parts of the recipe change what it makes."""

    name: str
    work: Callable[["Run"], None]
    needs: tuple[str, ...]
    depends_on: tuple[str, ...]
    repeatable: bool = False  # doing it again for another recipe loses nothing


def stages(*, calibrated: bool = False) -> dict[str, Stage]:
    """All stages by name, in the order of work; calibrate only for a merge method that asks how important entries are."""
    from hfsafemerge.running.calibrating import calibrate
    from hfsafemerge.running.checking import check
    from hfsafemerge.running.evaluating import evaluate
    from hfsafemerge.running.generating import generate
    from hfsafemerge.running.merging import merge
    from hfsafemerge.running.publishing.pushing import push
    from hfsafemerge.running.searching import search

    fitting = ("merge.chat_template", "merge.tokenizer", "merge.slices")
    method = ("merge.method", "merge.parameters", "merge.layers_per_group", "merge.per_tensor", "merge.chunks")
    precision = ("compute.dtype", "compute.quantization")
    calibration = ("calibration.data",) if calibrated else ()
    searched = tuple(
        f"search.{name}" for name in SearchSpec.model_fields if name not in ("pick", "memory", "compile", "executor", "workers")
    )
    data = tuple(f"data.{name}" for name in DataSpec.model_fields if name not in ("count", "max_rejected", "max_tokens"))
    found = (
        Stage("check", check, (), ("base", "experts", "judges", *data, *calibration, "evaluation.benchmarks", *fitting)),
        Stage("generate", generate, ("check",), ("seed", "data.count", *precision)),
        *([Stage("calibrate", calibrate, ("generate",), ("seed", "calibration", *precision))] if calibrated else []),
        Stage("search", search, ("calibrate" if calibrated else "generate",), ("seed", *searched, *method, *precision)),
        Stage("merge", merge, ("search",), ("merge", "search.pick")),
        Stage("evaluate", evaluate, ("merge",), ("evaluation", *precision)),
        Stage("push", push, ("evaluate",), ("name", "push"), repeatable=True),
    )
    return {stage.name: stage for stage in found}


def without_service(value: Any) -> Any:
    """A recipe's values without what an endpoint costs and how it is waited for, which change no row."""
    if isinstance(value, dict):
        served = isinstance(value.get("endpoint"), dict)
        kept = {key: without_service(found) for key, found in value.items()}
        return kept | {"endpoint": {k: v for k, v in kept["endpoint"].items() if k not in SERVICE}} if served else kept
    return [without_service(found) for found in value] if isinstance(value, list) else value
