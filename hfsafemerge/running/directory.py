"""A run: one recipe carried through its stages in a directory that remembers what is done."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from hfsafemerge import __version__
from hfsafemerge.errors import Cancelled, RunError
from hfsafemerge.recipe import Recipe, fingerprint
from hfsafemerge.running.emissions import measured
from hfsafemerge.running.stages import Stage, stages, without_service


@dataclass(frozen=True)
class Event:
    """One thing that happened: a stage began or ended, or it is at `done` of `total`. The command line and the Space print these."""

    stage: str
    message: str
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    left: float | None = None  # seconds, from a step that knows better than the stage's pace so far

    @property
    def eta(self) -> float | None:
        """Seconds left at the pace so far; None before there is one."""
        if self.left is not None:
            return self.left
        return self.seconds / self.done * (self.total - self.done) if self.done and self.total else None


def clock(seconds: float) -> str:
    """A time such as 42 s, 3 min or 1 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


Listener = Callable[[Event], None]


class Run:
    """A run directory: recipe.yaml, run.json, events.jsonl, and the files that the stages make.

    A stage whose inputs have not changed is not done again. A stage that was killed goes on from what it had written.
    """

    RECIPE = "recipe.yaml"

    def __init__(self, recipe: Recipe, directory: Path, listener: Listener = lambda event: None, *, allow_writer: bool = False) -> None:
        """Open the directory for the recipe, or make it.

        Args:
            recipe: what to do.
            directory: where.
            listener: is told every event.
            allow_writer: whether a model may write harmful questions (data.safety.writer). It is asked for anew each time.

        Raises:
            RunError: the directory holds something else.
        """
        self.recipe = recipe
        self.directory = directory
        self.allow_writer = allow_writer
        self.max_rows: int | None = None
        """Rows of each kind that a command makes at most, whatever the recipe says."""
        self.max_tokens: int | None = None
        """Tokens that a command lets models read and write, instead of data.max_tokens."""
        self._listener = listener
        self._stage, self._began = "", 0.0
        started = any((directory / file).exists() for file in ("run.json", "run.json.part", self.RECIPE))
        if directory.exists() and not started and any(directory.iterdir()):
            raise RunError(f"{directory} holds files and is no run directory. Choose another with --directory.")
        directory.mkdir(parents=True, exist_ok=True)
        self._manifest: dict[str, Any] = {"version": __version__, "stages": {}}
        if (directory / "run.json").exists():
            self._manifest = self._read_manifest()
        else:
            write_json(directory / "run.json", self._manifest)

    @classmethod
    def open(cls, directory: Path, listener: Listener = lambda event: None, *, allow_writer: bool = False) -> "Run":
        """Open the run of a directory. Raises RunError when there is none."""
        if not (directory / "recipe.yaml").exists():
            raise RunError(f"{directory} is no run directory: it has no recipe.yaml. Start one with `hfsafemerge run RECIPE`.")
        return cls(Recipe.load(directory / "recipe.yaml"), directory, listener, allow_writer=allow_writer)

    def do(self, target: str, *, redo: bool = False) -> None:
        """Do a stage, and before it the stages it needs that are not done.

        Args:
            target: check, generate, calibrate (for a method that asks for it), search, merge, evaluate or push.
            redo: do stages again whose part of the recipe has changed, instead of refusing.

        Raises:
            RunError: the directory is in use, or was made with another recipe.
            HfSafeMergeError: whatever went wrong in a stage; what it had made stays.
        """
        with self._exclusive():
            self._manifest = self._read_manifest()
            self._refuse_changes(target, redo)
            _write(self.directory / self.RECIPE, self.recipe.to_yaml())
            (self.directory / "cancel").unlink(missing_ok=True)
            for stage in self._plan(target):
                if not self.is_done(stage.name):
                    self._do(stage)

    def publish_to(self, repo_id: str | None, private: bool | None = None, license: str | None = None) -> None:
        """Change where the run is published, and how. Raises RecipeError for what is no repository id."""
        known = self.recipe.push.model_dump() if self.recipe.push else {}
        wanted = {"repo_id": repo_id, "private": private, "license": license}
        changes = known | {key: value for key, value in wanted.items() if value is not None}
        if changes:
            self.recipe = Recipe.parse(yaml.safe_dump(self.recipe.model_dump(mode="json", exclude_defaults=True) | {"push": changes}))

    @property
    def row_count(self) -> int:
        """Rows of each kind that are wanted: data.count, or less where a command said so."""
        return min(self.recipe.data.count, self.max_rows or self.recipe.data.count)

    @property
    def token_limit(self) -> int | None:
        """Tokens that models may read and write for the data; None for no limit."""
        return self.max_tokens or self.recipe.data.max_tokens

    @property
    def made_count(self) -> int:
        """Rows of each kind that were wanted of the data that are there."""
        return int(self._manifest["stages"].get("generate", {}).get("rows", self.recipe.data.count))

    def is_done(self, name: str) -> bool:
        """Whether a stage is done for this recipe, with no fewer rows than are wanted now."""
        known = self._manifest["stages"].get(name, {})
        if not known.get("finished") or name not in self._stages() or known["fingerprint"] != self.fingerprint(name):
            return False
        return bool(known.get("rows", self.row_count) >= self.row_count)

    def seconds(self) -> dict[str, float]:
        """The time that each finished stage took, over all attempts."""
        return {name: stage["seconds"] for name, stage in self._manifest["stages"].items() if stage.get("finished")}

    def emissions(self) -> float | None:
        """Grams of CO2 equivalents that the finished stages took, over all attempts; None where one of them was not measured."""
        finished = [stage for stage in self._manifest["stages"].values() if stage.get("finished")]
        if not finished or any(stage.get("unmeasured", True) for stage in finished):
            return None
        return float(sum(stage["co2_g"] for stage in finished))

    def fingerprint(self, name: str) -> str:
        """What the result of a stage follows from: the tool, parts of the recipe, and the stages before."""
        stage, recipe = self._stages()[name], without_service(self.recipe.model_dump(mode="json"))
        parts = [reduce(lambda part, key: part[key], path.split("."), recipe) for path in stage.depends_on]
        return fingerprint([__version__, name, parts, [self.fingerprint(need) for need in stage.needs]])

    def emit(self, message: str, done: int = 0, total: int = 0, *, left: float | None = None) -> None:
        """Tell the listener and events.jsonl where the stage is. Raises Cancelled when the run was asked to stop."""
        event = Event(self._stage, message, done, total, time.monotonic() - self._began, left)
        with (self.directory / "events.jsonl").open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 2), **asdict(event)}) + "\n")
        self._listener(event)
        if (self.directory / "cancel").exists():
            raise Cancelled("The run was cancelled. The same command goes on from here.")

    def cancel(self) -> None:
        """Ask whoever works on the run to stop at the next step."""
        (self.directory / "cancel").touch()

    def work(self, name: str) -> Path:
        """A folder for what a stage has half done; it goes when the stage is finished or its inputs change."""
        folder = self.directory / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def read(self, file: str) -> Any:
        """The content of a JSON file that a stage has made."""
        try:
            return json.loads((self.directory / file).read_text())
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.directory / file} is missing or damaged: {error}. Delete {self.directory / 'run.json'} to do the stages again."
            ) from error

    def write(self, file: str, value: Any) -> None:
        """Write a JSON file, whole or not at all."""
        write_json(self.directory / file, value)

    def _plan(self, target: str) -> list[Stage]:
        known = self._stages()
        wanted = {target}
        for stage in reversed(known.values()):
            if stage.name in wanted:
                wanted |= set(stage.needs)
        return [stage for stage in known.values() if stage.name in wanted]

    def _stages(self) -> dict[str, Stage]:
        return stages(calibrated=self.recipe.needs_importance)

    def _do(self, stage: Stage) -> None:
        entry = self._manifest["stages"].setdefault(stage.name, {})
        if entry.get("fingerprint") != self.fingerprint(stage.name):
            shutil.rmtree(self.directory / "work" / stage.name, ignore_errors=True)
            entry |= {"fingerprint": self.fingerprint(stage.name), "seconds": 0.0, "co2_g": None, "unmeasured": False}
        entry["finished"] = False
        names = list(self._stages())
        for later in names[names.index(stage.name) + 1 :]:  # they were made from what this stage made before
            self._manifest["stages"].pop(later, None)
        write_json(self.directory / "run.json", self._manifest)
        self._stage, self._began = stage.name, time.monotonic()
        self.emit("started")

        before = entry["unmeasured"]

        def emitted(grams: float) -> None:
            entry.update(co2_g=(entry["co2_g"] or 0.0) + grams, unmeasured=before)

        try:
            with measured(self.recipe.compute.country, emitted):
                entry["unmeasured"] = True  # until the figure is in, which a killed attempt never gives
                write_json(self.directory / "run.json", self._manifest)
                stage.work(self)
        except BaseException:
            with suppress(OSError):  # on a full disk, what filled it is the error to tell
                self._note_seconds(entry)
            raise
        entry["finished"] = True
        entry.pop("rows", None)
        if cut := stage.name == "generate" and self.row_count < self.recipe.data.count:
            entry["rows"] = self.row_count
        self._note_seconds(entry)
        if not cut:  # a command for more rows goes on from there
            shutil.rmtree(self.directory / "work" / stage.name, ignore_errors=True)
        self.emit("done")

    def _note_seconds(self, entry: dict[str, Any]) -> None:
        entry["seconds"] = round(entry["seconds"] + time.monotonic() - self._began, 3)
        write_json(self.directory / "run.json", self._manifest)

    def _refuse_changes(self, target: str, redo: bool) -> None:
        for stage in self._plan(target):
            entry = self._manifest["stages"].get(stage.name, {})
            work = self.directory / "work" / stage.name
            to_lose = entry.get("finished") or (work.exists() and any(work.iterdir()))
            if to_lose and not stage.repeatable and entry["fingerprint"] != self.fingerprint(stage.name) and not redo:
                raise RunError(
                    f"The recipe (or the tool) changed since {stage.name} was done in {self.directory}. "
                    "Choose another directory with --directory, or do the changed stages again with --redo."
                )

    def _read_manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = self.read("run.json")
        return manifest

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        try:
            with FileLock(self.directory / ".lock", timeout=0):
                yield
        except Timeout as error:
            raise RunError(
                f"Another process is working in {self.directory}. Wait for it, cancel it, or choose another directory."
            ) from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, whole or not at all."""
    _write(path, json.dumps(value, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    with part.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
