"""What `import hfsafemerge as hsm` offers: the commands as functions, for notebooks and scripts.

They write nothing to stdout, never exit, and show progress where somebody looks on. After Ctrl-C, or the stop button of a notebook,
the same call goes on where it was.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hfsafemerge._recipe_parts import ComputeSpec
from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import RecipeError
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.recipe import ModelRef, Recipe
from hfsafemerge.running.comparing import evaluate_models
from hfsafemerge.running.directory import Run
from hfsafemerge.running.events import Event, Listener, attention
from hfsafemerge.running.inputs import CHECKED
from hfsafemerge.running.naming import evaluation_of, judge_specs, model_ref
from hfsafemerge.running.notebook.opening import RecipeLike, open_run
from hfsafemerge.running.notebook.progress import Progress
from hfsafemerge.running.notebook.showing import Table, plain_table
from hfsafemerge.running.notebook.surroundings import threads, without_bars
from hfsafemerge.running.pulling import REPOSITORY, wanted_by_run, wanted_repository
from hfsafemerge.running.repeating.differing import Difference, compare_runs
from hfsafemerge.running.room import Needs
from hfsafemerge.searching import SEARCH_STRATEGIES

StageName = Literal["check", "generate", "calibrate", "search", "merge", "evaluate", "push"]


@dataclass(frozen=True, repr=False, kw_only=True)
class Differences(Table):
    """In what two runs differ."""

    found: Difference
    """The same, with every rate that both have and the test of whether they agree."""


def run(
    recipe: RecipeLike,
    directory: str | Path | None = None,
    *,
    until: StageName = "evaluate",
    listener: Listener | None = None,
    allow_writer: bool = False,
    redo: bool = False,
) -> Run:
    """Do a recipe: check, generate, search, merge and evaluate, as far as that is not done.

    The same call goes on after it was stopped, and returns at once when all is done; a push looks again whether all is published.

    Args:
        recipe: a recipe, the path of its YAML file (mergekit's too), the directory of a run, or what the YAML would hold as a dict.
        directory: where the run keeps its files; runs/NAME by default.
        until: the last stage to do. `run(...).push(...)` publishes.
        listener: is told every event, instead of showing progress; `hsm.silent` for nothing at all.
        allow_writer: let the model of data.safety.writer write harmful questions. It is asked for anew each time.
        redo: do stages again whose part of the recipe has changed, instead of refusing.

    Raises:
        RecipeError: the recipe asks for what does not exist or does not fit together.
        RunError: the directory is in use, or holds another recipe's run.
        HfSafeMergeError: whatever went wrong in a stage; what it had made stays.

    Example:
        >>> import hfsafemerge as hsm
        >>> run = hsm.run("recipe.yaml")
        >>> run.scores
    """
    opened = open_run(recipe, directory, Progress() if listener is None else listener, allow_writer=allow_writer)
    with _surroundings(opened.recipe):
        opened.do(until, redo=redo)
    return opened


def check(recipe: RecipeLike, directory: str | Path | None = None, *, listener: Listener | None = None, redo: bool = False) -> Table:
    """See whether the models of a recipe fit together, before any weights are downloaded.

    Args:
        recipe: as for `run`.
        directory: as for `run`, which goes on from there.
        listener: as for `run`.
        redo: check again although the recipe has changed.

    Returns:
        A row for each model: where it is from, its commit, licence, architecture, dtypes and bytes. Below it stands what is to be
        downloaded and written, and how long that takes at a rate that is assumed.

    Raises:
        IncompatibleExperts: the models can't be merged.
        HubError: one of them is not there, or can't be read by you.
        RecipeError: the recipe asks for what does not exist or does not fit together.
    """
    done = run(recipe, directory, until="check", listener=listener, redo=redo)
    wanted = ("ref", "commit", "license", "architecture", "dtypes", "bytes")
    models = done.read(CHECKED)["models"]
    rows = [{"model": role, **{name: found[name] for name in wanted}} for role, found in models.items()]
    needed = Needs.from_json(done.read(CHECKED)["needs"])
    return plain_table(f"Models of {done.recipe.name}", [{**row, "size": in_words(row["bytes"])} for row in rows], [f"{needed}."])


def pull(
    source: RecipeLike,
    directory: str | Path | None = None,
    *,
    revision: str | None = None,
    repo_type: Literal["model", "dataset"] = "model",
    listener: Listener | None = None,
) -> Table:
    """Download into the cache what a merge reads, each file verified. What is there already is not fetched again.

    Args:
        source: a repository, as "namespace/name" or "namespace/name@revision"; or a recipe, as for `run`, for all that it reads.
        directory: as for `run`, of a recipe.
        revision: a branch, tag or commit of a repository that names none.
        repo_type: what a repository is.
        listener: as for `run`.

    Returns:
        A row for each repository: its commit, and the path of the folder with its files.

    Raises:
        HubError: it is not there, or can't be read by you.
        UnsafeRepository: it holds what is never fetched.
    """
    told = Progress() if listener is None else listener
    with attention(told):
        if isinstance(source, str) and REPOSITORY.fullmatch(source) and not Path(source).exists():
            wanted = [wanted_repository(source, revision, repo_type, _teller(told))]
        elif revision is not None:
            raise RecipeError("A recipe names the revisions itself; leave `revision` out.")
        else:
            wanted = wanted_by_run(run(source, directory, until="check", listener=told))
        for each in wanted:
            each.fetch(_teller(told), _meter(told, each.name))
    rows = [{"repository": each.name, "commit": each.commit, "path": str(each.folder)} for each in wanted]
    return plain_table("In the cache", rows)


def evaluate(
    models: str | Path | ModelRef | Sequence[str | Path | ModelRef],
    suite: str | None = None,
    *,
    benchmarks: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    tasks: Sequence[str] = (),
    judges: Mapping[str, str | Path] | None = None,
    limit: int | None = None,
    device: str = "auto",
    directory: str | Path = Path("runs") / "comparison",
    listener: Listener | None = None,
    redo: bool = False,
) -> Run:
    """Measure models side by side, without a merge, and compare each with the first one.

    Args:
        models: folders, or repositories such as "namespace/name" or "namespace/name@revision".
        suite: quick, standard or paper.
        benchmarks: registered benchmarks, as `hfsafemerge list benchmarks` shows them; or benchmarks of your own by name, as a recipe
            has them under `evaluation.benchmarks`.
        tasks: tasks of lm-eval.
        judges: by name, the model that a judge judges with; judges whose models are open need none.
        limit: only the first items of each benchmark: no number to publish.
        device: where models run: auto, cpu, cuda, cuda:1, ...
        directory: where what is found is kept. The same call goes on there.
        listener: as for `run`.
        redo: measure again what the directory holds for other settings, instead of refusing.

    Returns:
        A run whose `scores` and `plot()` show what was found.

    Raises:
        RecipeError: what is asked for does not exist or does not fit together.
        RunError: the directory holds something else.

    Example:
        >>> hsm.evaluate(["me/my-merge", "meta-llama/Llama-3.1-8B-Instruct"], "quick").scores
    """
    if suite is None and not benchmarks and not tasks:
        raise RecipeError("Say what to measure models on: a suite such as 'quick', benchmarks or tasks.")
    several = [models] if isinstance(models, str | Path | ModelRef) else list(models)
    with without_bars():
        return evaluate_models(
            [model_ref(model) for model in several],
            Path(directory),
            evaluation_of(suite, benchmarks, tasks, limit),
            judges=judge_specs(judges or {}),
            compute=ComputeSpec(device=device),
            listener=Progress() if listener is None else listener,
            redo=redo,
        )


def diff(a: str | Path, b: str | Path) -> Differences:
    """Show in what two runs or published merges differ: recipe, inputs, data, search, weights, scores.

    Args:
        a: the directory of a run, or a published merge such as "namespace/name@revision".
        b: the other one.

    Returns:
        A row for each difference, so that nothing is in it where the two are the same.

    Raises:
        RunError: one of them is neither.
        HubError: one was not published by this tool, or can't be fetched.
    """
    found = compare_runs(a, b)
    rows = tuple({"part": row.part, "what": row.what, "a": row.a, "b": row.b} for row in found.rows)
    head = ("part", "what", found.a, found.b)
    cells = tuple((row.part, row.what, row.a, row.b) for row in found.rows)
    notes = tuple(f"Not compared: {part}" for part in found.unknown) if rows else (f"{found.summary}.",)
    return Differences(title="Differences", rows=rows, head=head, cells=cells, notes=notes, found=found)


def methods() -> Table:
    """The merge methods that a recipe can name, each in one sentence, with where it is from."""
    rows = [{"name": method.name, "summary": method.summary, "source": method.paper} for method in MERGE_METHODS]
    return plain_table("Merge methods", rows)


def strategies() -> Table:
    """The search strategies that a recipe can name, each in one sentence, with where it is from."""
    rows = [{"name": strategy.name, "summary": strategy.summary, "source": strategy.paper} for strategy in SEARCH_STRATEGIES]
    return plain_table("Search strategies", rows)


def _teller(listener: Listener) -> Callable[[str], None]:
    return lambda message: listener(Event("pull", message))


def _meter(listener: Listener, name: str) -> Callable[[int, int, float | None], None]:
    """Tells bytes that have come, in whole megabytes."""
    began = time.monotonic()

    def tell(done: int, total: int, left: float | None) -> None:
        megabytes, of = math.ceil(done / 1e6), math.ceil(total / 1e6)
        listener(Event("pull", f"MB of {name}", megabytes, of, time.monotonic() - began, left))

    return tell


@contextmanager
def _surroundings(recipe: Recipe) -> Iterator[None]:
    """Threads as the recipe says; and no bars of libraries, where models are loaded: a plain merge imports neither of these."""
    with threads(recipe.compute.threads):
        if not recipe.loads_models:
            yield
            return
        with without_bars():
            yield
