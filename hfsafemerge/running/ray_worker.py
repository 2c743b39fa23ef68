"""What runs on a machine of a Ray cluster: an evaluator that is made from what the driver sends."""

import os
import platform
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from hfsafemerge import __version__, hub
from hfsafemerge.errors import DataError, RunError
from hfsafemerge.merging import Groups
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.calibrating import CALIBRATION, FOLDER, SCORED
from hfsafemerge.running.candidates import evaluator
from hfsafemerge.searching import Measurement, Query

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


class Package(NamedTuple):
    """All that a worker needs of a run. It holds no token: every machine signs in to the Hub by itself."""

    version: str
    recipe: str
    checked: Any
    data: dict[str, bytes]
    calibration: Any
    """calibration.json with absolute folders, if the method asks for importance scores: they are too large to be sent."""
    groups: Groups
    folder: str
    """The working directory, from which a recipe's relative paths are meant."""
    device: str
    share: int
    """How many workers there are for one machine."""


class Answer(NamedTuple):
    """What a worker sends back: what it measured, if it was asked for that, and what it has to say."""

    found: Measurement | None
    messages: list[str]


class Worker:
    """What runs in an actor: an evaluator that stays open as long as the actor lives."""

    def __init__(self, package: Package) -> None:
        self._package = package
        self._open = ExitStack()
        self._messages: list[str] = []

    def start(self) -> Answer:
        """Load the models and the data. Raises RunError when the machine does not have what the recipe names."""
        package = self._package
        if package.version != __version__:
            found = f"{_host()} has hfsafemerge {__version__}, and the run is worked on with {package.version}"
            raise RunError(f"{found}. Install the same version on all machines of the Ray cluster.")
        with suppress(OSError):  # a machine without that folder has no use for relative paths
            os.chdir(package.folder)
        recipe = Recipe.parse(package.recipe)
        _require_folders(recipe, package.checked)
        _require_scores(package.calibration)
        torch.set_num_threads(recipe.compute.threads or _cores(package.share))
        with TemporaryDirectory(prefix="hfsafemerge-") as folder:  # nothing is read from it once all is loaded
            run = _unpacked(package, recipe, Path(folder) / "run")
            device = None if package.device == recipe.compute.device else package.device
            self._evaluator = self._open.enter_context(evaluator(run, package.groups, device=device, tell=self._messages.append))
        return Answer(None, self._told())

    def answer(self, query: Query, of_base: bool) -> Answer:
        """What a query asks for, or what the base itself gives on its examples."""
        began = time.perf_counter()
        terms = self._evaluator.reference(query) if of_base else self._evaluator(query)
        return Answer(Measurement(terms, time.perf_counter() - began, self._evaluator.live.kept.memory), self._told())

    def _told(self) -> list[str]:
        messages, self._messages[:] = [*self._messages], []
        return messages


def packed(run: "Run", groups: Groups, device: str, share: int) -> Package:
    """What a worker needs of a run."""
    data = {}
    for kind in run.recipe.search.use:
        path = run.directory / "data" / f"{kind}.parquet"
        try:
            data[path.name] = path.read_bytes()
        except OSError as error:
            raise DataError(f"Can't read the examples in {path}: {error}. Generate them again.") from error
    checked, calibration = run.read(inputs.CHECKED), _with_absolute_folders(run) if run.recipe.needs_importance else None
    return Package(__version__, run.recipe.to_yaml(), checked, data, calibration, groups, str(Path.cwd()), device, share)


def _with_absolute_folders(run: "Run") -> dict[str, Any]:
    folder, found = (run.directory / FOLDER).absolute(), run.read(CALIBRATION)
    for note in found.values():
        for which in SCORED:
            note[which]["folder"] = str(folder / note[which]["folder"])
    return dict(found)


def _unpacked(package: Package, recipe: Recipe, directory: Path) -> "Run":
    from hfsafemerge.running.directory import Run

    run = Run(recipe, directory)
    run.write(inputs.CHECKED, package.checked)
    run.write(CALIBRATION, package.calibration)
    (directory / "data").mkdir()
    for name, content in package.data.items():
        (directory / "data" / name).write_bytes(content)
    return run


def _require_folders(recipe: Recipe, checked: Any) -> None:
    """Raise RunError unless the local folders of the recipe's models are here, as they were when the run was checked."""
    for role in recipe.models:
        ref, found = recipe.model(role), checked["models"][role]
        for part, commit in ((ref, found["commit"]), (ref.adapter, found["adapter_commit"])):
            if part is None or part.path is None:
                continue
            if not part.path.exists():
                fault = "does not exist"
            elif hub.resolve(part) != commit:
                fault = "is not the one that the run was checked with (by names, sizes and times of its files)"
            else:
                continue
            raise RunError(
                f"On {_host()}, a machine of the Ray cluster, {part.path} {fault}. Models in local folders have to be at the same place "
                "on every machine: share the folder, copy it with its times (rsync -a), or put the model on the Hub."
            )


def _require_scores(calibration: Any) -> None:
    """Raise RunError unless the importance scores of the run are here. Their folders are named by all that they follow from."""
    for folder in [note[which]["folder"] for note in (calibration or {}).values() for which in SCORED]:
        if not Path(folder).is_dir():
            raise RunError(
                f"On {_host()}, a machine of the Ray cluster, {folder} does not exist. Importance scores are read from the run's "
                "directory, which has to be at the same place on every machine: share it, or set search.executor to local."
            )


def _host() -> str:
    return platform.node()


def _cores(share: int) -> int:
    """The cores of the actor's machine for each worker there."""
    import ray

    mine = ray.get_runtime_context().get_node_id()
    cores = next((int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["NodeID"] == mine), 1)
    return max(1, cores // share)
