"""The stage evaluate: what the merge, and the models it is made of, are measured to do."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from hfsafemerge.evaluation import Item, compare, label, reply_to, score
from hfsafemerge.recipe import MERGED
from hfsafemerge.run import inputs

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

SCORES, LABELS = "scores.json", "labels.json"


def evaluate(run: "Run") -> None:
    """Measure the merge, and the models it is made of, on the held-out benchmarks.

    labels.json keeps what the judges said of each item, for paired comparisons with other runs; replies are kept nowhere.
    """
    benchmarks = run.recipe.benchmarks
    others = run.recipe.models if run.recipe.evaluation.compare else []
    items = {name: _measured(run, name) for name in [*others, MERGED]} if benchmarks else {}
    scores = {name: [s.to_json() for b in benchmarks for s in score(b, by[b.name])] for name, by in items.items()}
    merged = items.get(MERGED, {})
    comparisons = [compare(b, MERGED, merged[b.name], other, items[other][b.name]).to_json() for b in benchmarks for other in others]
    run.write(LABELS, {name: [asdict(item) for found in by.values() for item in found] for name, by in items.items()})
    run.write(SCORES, {"scores": scores, "comparisons": comparisons})


def _measured(run: "Run", name: str) -> dict[str, list[Item]]:
    """The items of one model by benchmark, kept as labels only."""
    file = run.work("evaluate") / f"{name}.json"
    if not file.exists():
        replies = {}
        with inputs.language_model(run, name) as model:
            for done, benchmark in enumerate(run.recipe.benchmarks, 1):
                examples = inputs.benchmark_examples(run, benchmark.name)
                replies[benchmark.name] = (examples, *reply_to(model, benchmark, examples))
                run.emit(f"{name} on {benchmark.name}", done, len(run.recipe.benchmarks))
        names = list(dict.fromkeys(judge for benchmark in run.recipe.benchmarks for judge in benchmark.judges))
        with inputs.judges(run, names) as judges:
            items = [item for benchmark in run.recipe.benchmarks for item in label(benchmark, *replies[benchmark.name], judges)]
        run.write(str(file.relative_to(run.directory)), [asdict(item) for item in items])
    measured = [Item(**item) for item in json.loads(file.read_text())]
    return {benchmark.name: [item for item in measured if item.benchmark == benchmark.name] for benchmark in run.recipe.benchmarks}
