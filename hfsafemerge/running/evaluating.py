"""The stage evaluate: what the merge, and the models it is made of, are measured to do."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from hfsafemerge.evaluation import Benchmark, build_results
from hfsafemerge.recipe import MERGED
from hfsafemerge.running import inputs
from hfsafemerge.running.describing import describe, task_source
from hfsafemerge.running.measuring import Measured, measure
from hfsafemerge.running.searching import LOG
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

SCORES, LABELS = "scores.json", "labels.json"


def evaluate(run: "Run") -> None:
    """Measure the merge, and the models it is made of, on the held-out benchmarks.

    labels.json keeps what the judges said of each item, for paired comparisons with other runs; replies are kept nowhere.
    """
    others = run.recipe.models if run.recipe.evaluation.compare else []
    log = run.directory / LOG
    tried = 0 if not run.recipe.strategy.needs_data else len(read_candidates(log)) if log.exists() else None
    write_results(run, [*others, MERGED], [(MERGED, other) for other in others], "base" if others else None, tried)


def write_results(
    run: "Run", names: Sequence[str], pairs: Sequence[tuple[str, str]], reference: str | None, tried: int | None = None
) -> None:
    """Measure models, model by model, and write scores.json and labels.json.

    Args:
        run: whose benchmarks, judges and models these are.
        names: the models.
        pairs: which of them are compared.
        reference: the aligned one.
        tried: how many candidates a search compared before it chose.
    """
    benchmarks: list[Benchmark] = [*run.recipe.benchmarks, *run.recipe.tasks]
    sources = {benchmark.name: describe(run, benchmark) for benchmark in run.recipe.benchmarks}
    measured: dict[str, Measured] = {name: measure(run, name) for name in names} if benchmarks else {}
    for task in run.recipe.tasks:
        sources[task.name] = task_source(measured[names[0]].facts[task.name])
    results = build_results(
        {name: found.items for name, found in measured.items()},
        benchmarks,
        reference=reference if measured else None,
        margin=run.recipe.evaluation.margin if reference is not None else None,
        pairs=pairs if measured else [],
        refs={name: _ref(run, name) for name in names},
        sources=sources,
        judge_models=inputs.judge_models(run),
        calibrations={judge: errors.calibration() for judge, errors in run.recipe.evaluation.judge_errors.items()},
        candidates_tried=tried,
    )
    items = {name: [asdict(item) for by in found.items.values() for item in by] for name, found in measured.items()}
    run.write(LABELS, items)
    run.write(SCORES, results.to_json())


def _ref(run: "Run", name: str) -> str:
    """A model on the Hub and its commit; nothing for one of this machine."""
    if name == MERGED:
        return ""
    ref = inputs.model_roles(run.recipe)[name]
    if ref.path is not None or (ref.adapter is not None and ref.adapter.path is not None):
        return ""
    return f"{ref}@{inputs.commit(run, 'models', name)}"
