"""What stands beside the numbers of a benchmark: where its rows are from, which were left out, and what to doubt."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hfsafemerge.benchmarking import BENCHMARKS
from hfsafemerge.evaluation import Benchmark, Source
from hfsafemerge.examples import normalised
from hfsafemerge.judging import JUDGES
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import inputs

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


def describe(run: "Run", benchmark: Benchmark) -> Source:
    """Where a benchmark's examples come from; its doubtful points are told in an event too."""
    spec, role = run.recipe.evaluation.benchmarks[benchmark.name], f"benchmark {benchmark.name}"
    rows, chosen = inputs.rows(run, role), inputs.examples(run, role, benchmark.kind, spec.registered)
    used = inputs.benchmark_examples(run, benchmark.name)
    distinct = len({normalised(example.prompt) for example in chosen})
    left_out = {
        "of another kind": len(rows) - len(chosen),
        "repeated prompts": len(chosen) - distinct,
        "beyond the limit": distinct - len(used),
    }
    notes = circular(run.recipe, benchmark)
    for note in notes:
        run.emit(f"{benchmark.name}: {note}")
    license = run.read(inputs.CHECKED)["datasets"][role]["license"]
    if spec.registered is not None:
        registered = BENCHMARKS.get(spec.registered)
        notes += registered.notes_for(benchmark.judges)
        license = registered.license
    if len(used) < distinct:
        notes.append(f"Only the first {len(used)} of {distinct} prompts were used, so this is not the benchmark's number.")
    return Source(
        inputs.dataset_label(run, role),
        spec.dataset.config,
        spec.dataset.split,
        len(rows),
        {reason: count for reason, count in left_out.items() if count > 0},
        license or "",
        notes,
    )


def task_source(facts: Mapping[str, Any]) -> Source:
    """Where the questions of a task of lm-eval come from, which takes the newest rows of its dataset."""
    questions, asked = (sum(found[key] for found in facts.values()) for key in ("questions", "asked"))
    notes = [
        f"{name} of lm-eval, version {found['version']}: {found['metric']} after {found['filter']}, {found['fewshot']} examples shown, "
        f"{'through' if found['chat_template'] else 'without'} the model's chat template."
        for name, found in facts.items()
    ]
    notes.append("lm-eval takes its datasets as they are now, at no pinned commit.")
    notes.append("Whether its questions stand in the data that steered a merge was not checked.")
    if asked < questions:
        notes.append(f"Only {asked} of {questions} questions were asked, so this is not the task's number.")
    return Source("lm-eval", rows=questions, left_out={"beyond the limit": questions - asked} if asked < questions else {}, notes=notes)


def circular(recipe: Recipe, benchmark: Benchmark) -> list[str]:
    """A warning where the judge that chose the data which steered the merge is also the only one to measure it."""
    if recipe.data.safety is None and recipe.data.benign is None:
        return []
    headline = benchmark.judges[0]
    alike = [judge for judge in benchmark.judges if JUDGES.get(judge).says == JUDGES.get(headline).says]
    chose = {_what(recipe, judge) for judge in recipe.data.judges}
    if benchmark.kind == "domain" or any(_what(recipe, judge) not in chose for judge in alike):
        return []
    return [
        f"{headline} also chose the data that steered this merge, and no other judge of its kind looked at this benchmark: what it "
        "overlooks was overlooked twice. Add a judge of another lineage before you trust this number."
    ]


def _what(recipe: Recipe, judge: str) -> str:
    """What a judge judges with: two that share a model are one."""
    spec = recipe.judges.get(judge)
    return str(spec.model) if spec is not None and spec.model is not None else judge
