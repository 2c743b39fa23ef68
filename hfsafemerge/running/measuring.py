"""One model on all benchmarks: asked once, judged by one judge after the other, kept as labels. A kill costs what was not judged."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hfsafemerge.evaluation import Benchmark, Item, label, reply_to
from hfsafemerge.examples import Example
from hfsafemerge.judging import JUDGES, Exchange, Judge, Verdict, judge_all
from hfsafemerge.lm_eval_tasks import answer_task
from hfsafemerge.recipe import MERGED
from hfsafemerge.running import inputs

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


@dataclass(frozen=True)
class Measured:
    """What came of one model: its items by benchmark and task, and what is to be known of the tasks."""

    items: Mapping[str, Sequence[Item]]
    facts: Mapping[str, Mapping[str, Any]]


class Asked(NamedTuple):
    """A benchmark's replies, which are in memory alone."""

    benchmark: Benchmark
    examples: list[Example]
    exchanges: list[Exchange]
    finished: list[bool]


class Verdicts:
    """What one judge said of exchanges, kept in a file by their hashes, so that a judge is asked once about each.

    Unclear verdicts are not kept: they hold what the judge said, and it is asked again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Verdict] = {}
        if path.exists():
            self._known = {key: Verdict(**found) for key, found in json.loads(path.read_text()).items()}

    def judge(self, name: str, judge: Judge, exchanges: Sequence[Exchange]) -> None:
        """Have exchanges judged that are not known yet. Raises JudgeError where the judge does not speak its format."""
        new = list({_key(exchange): exchange for exchange in exchanges if _key(exchange) not in self._known}.values())
        found = dict(zip(map(_key, new), judge_all(name, judge, new, of=len(exchanges)) if new else [], strict=True))
        self._known |= found
        kept = {key: verdict._replace(reason="")._asdict() for key, verdict in self._known.items() if verdict.label != "unclear"}
        part = self._path.with_name(self._path.name + ".part")
        part.write_text(json.dumps(kept))
        part.replace(self._path)

    def __call__(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """What was said of exchanges that were judged."""
        return [self._known[_key(exchange)] for exchange in exchanges]


def measure(run: "Run", name: str) -> Measured:
    """Measure a model on the benchmarks and tasks of a recipe, or go on where that was stopped.

    Raises RunError where the model is in a folder and has changed since the check: what was measured before is of another one.
    """
    if name != MERGED:
        inputs.require_unchanged(run, name)
    folder = run.work("evaluate") / name
    folder.mkdir(parents=True, exist_ok=True)
    todo = [benchmark for benchmark in run.recipe.benchmarks if not _file(folder, benchmark).exists()]
    if todo or not all(_file(folder, task).exists() for task in run.recipe.tasks):
        asked = _ask(run, name, folder, todo)
        _judge(run, name, folder, asked)
    found = {b.name: json.loads(_file(folder, b).read_text()) for b in [*run.recipe.benchmarks, *run.recipe.tasks]}
    items = {name: [Item(**item) for item in kept["items"]] for name, kept in found.items()}
    return Measured(items, {name: kept["facts"] for name, kept in found.items()})


def _ask(run: "Run", name: str, folder: Path, todo: Sequence[Benchmark]) -> list[Asked]:
    asked, total = [], len(run.recipe.benchmarks) + len(run.recipe.tasks)
    with inputs.loaded_model(run, name) as model:
        for benchmark in todo:
            examples = inputs.benchmark_examples(run, benchmark.name)
            asked.append(Asked(benchmark, examples, *reply_to(model, benchmark, examples)))
            run.emit(f"{name} on {benchmark.name}", len(run.recipe.benchmarks) - len(todo) + len(asked), total)
        for done, task in enumerate(run.recipe.tasks, len(run.recipe.benchmarks) + 1):
            if not _file(folder, task).exists():
                answered = answer_task(model, task)
                _keep(run, folder, task, answered.items, answered.facts)
            run.emit(f"{name} on {task.name}", done, total)
    return asked


def _judge(run: "Run", name: str, folder: Path, asked: Sequence[Asked]) -> None:
    """Judges of one model after those of another, since two may not fit into memory; a benchmark is kept when its last is through."""
    verdicts: dict[str, Judge] = {}
    for judges in _by_model(run, dict.fromkeys(judge for each in asked for judge in each.benchmark.judges)):
        known = {judge: Verdicts(folder / f"judge-{judge}.json") for judge in judges}
        with inputs.judges(run, judges) as bound:
            for judge in judges:
                for each in asked:
                    if judge in each.benchmark.judges:
                        known[judge].judge(judge, bound[judge], each.exchanges)
                        run.emit(f"{name} on {each.benchmark.name}: judged by {judge}")
        before, verdicts = verdicts.keys(), verdicts | known
        for each in asked:
            if not set(each.benchmark.judges) <= before and set(each.benchmark.judges) <= verdicts.keys():
                items = label(each.benchmark, each.examples, each.exchanges, each.finished, verdicts)
                _keep(run, folder, each.benchmark, items, {})


def _by_model(run: "Run", judges: Iterable[str]) -> list[list[str]]:
    """The judges in groups, each of which judges with one model, or is a rule."""
    found: dict[str, list[str]] = {}
    for judge in judges:
        spec = run.recipe.judges.get(judge)
        found.setdefault(f"{JUDGES.get(judge).needs} {spec.model}" if spec and spec.model else judge, []).append(judge)
    return list(found.values())


def _keep(run: "Run", folder: Path, benchmark: Benchmark, items: Sequence[Item], facts: Mapping[str, Any]) -> None:
    kept = {"items": [asdict(item) for item in items], "facts": facts}
    run.write(str(_file(folder, benchmark).relative_to(run.directory)), kept)


def _file(folder: Path, benchmark: Benchmark) -> Path:
    return folder / f"{benchmark.name}.json"


def _key(exchange: Exchange) -> str:
    """A hash of all that a judge sees."""
    return hashlib.sha256("\0".join(exchange).encode("utf-8", "surrogatepass")).hexdigest()
