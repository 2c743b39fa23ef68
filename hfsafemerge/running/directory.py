"""A run: one recipe carried through its stages in a directory that remembers what is done."""

import json
import time
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

from hfsafemerge import __version__
from hfsafemerge.errors import Cancelled, RunError
from hfsafemerge.recipe import Recipe, fingerprint
from hfsafemerge.registry import unknown_name
from hfsafemerge.running.doing import do_stage, refuse_changes
from hfsafemerge.running.events import Event, Listener, attention, silent
from hfsafemerge.running.files import exclusive, write_json, write_text
from hfsafemerge.running.notebook import looking
from hfsafemerge.running.notebook.showing import Markdown, Plot, Table
from hfsafemerge.running.publishing.aiming import Once, aim
from hfsafemerge.running.publishing.handing import Plan, Published, planned, published
from hfsafemerge.running.stages import Stage, stages, without_service

__all__ = ["Event", "Listener", "Run", "write_json"]


class Run:
    """A run directory: recipe.yaml, run.json, events.jsonl, and the files that the stages make.

    A stage whose inputs have not changed is not done again. A stage that was killed goes on from what it had written.
    """

    RECIPE = "recipe.yaml"

    def __init__(
        self, recipe: Recipe, directory: str | Path, listener: Listener = silent, *, allow_writer: bool = False, writes: bool = True
    ) -> None:
        """Open the directory for the recipe, or make it.

        Args:
            recipe: what to do.
            directory: where.
            listener: is told every event; one that is a context, such as Progress, is entered while stages are done.
            allow_writer: whether a model may write harmful questions (data.safety.writer). It is asked for anew each time.
            writes: whether opening may write; a directory that is only read stays as it is.

        Raises:
            RunError: the directory holds something else.
        """
        self.recipe = recipe
        self.directory = directory = Path(directory)
        self.allow_writer = allow_writer
        self.max_rows: int | None = None
        """Rows of each kind that a command makes at most, whatever the recipe says."""
        self.max_tokens: int | None = None
        """Tokens that a command lets models read and write, instead of data.max_tokens."""
        self.once = Once()
        """What is said of the next push alone."""
        self._listener = listener
        self._stage, self._began = "", 0.0
        started = any((directory / file).exists() for file in ("run.json", "run.json.part", self.RECIPE))
        if directory.exists() and not started and any(directory.iterdir()):
            raise RunError(f"{directory} holds files and is no run directory. Choose another with --directory.")
        if writes:
            directory.mkdir(parents=True, exist_ok=True)
        self.manifest: dict[str, Any] = {"version": __version__, "stages": {}}
        """What run.json holds."""
        if (directory / "run.json").exists():
            self.manifest = self._read_manifest()
        elif writes:
            write_json(directory / "run.json", self.manifest)

    @classmethod
    def open(cls, directory: str | Path, listener: Listener = silent, *, allow_writer: bool = False, writes: bool = True) -> "Run":
        """Open the run of a directory. Raises RunError when there is none."""
        directory = Path(directory)
        if not (directory / "recipe.yaml").exists():
            raise RunError(f"{directory} is no run directory: it has no recipe.yaml. Start one with `hfsafemerge run RECIPE`.")
        return cls(Recipe.load(directory / "recipe.yaml"), directory, listener, allow_writer=allow_writer, writes=writes)

    def do(self, target: str, *, redo: bool = False) -> None:
        """Do a stage, and before it the stages it needs that are not done; push is done whenever it is asked for.

        Args:
            target: check, generate, calibrate (for a method that asks for it), search, merge, evaluate or push.
            redo: do stages again whose part of the recipe has changed, instead of refusing.

        Raises:
            RunError: there is no such stage, or the directory is in use, or was made with another recipe.
            HfSafeMergeError: whatever went wrong in a stage; what it had made stays.
        """
        if target not in self._stages():
            raise RunError(unknown_name("stage of this run", target, self._stages()))
        with exclusive(self.directory), attention(self._listener):
            self.manifest = self._read_manifest()
            plan = self._plan(target)
            if not redo:
                refuse_changes(self, plan)
            write_text(self.directory / self.RECIPE, self.recipe.to_yaml())
            (self.directory / "cancel").unlink(missing_ok=True)
            for stage in plan:
                asked_again = stage.repeatable and stage.name == target  # what it made elsewhere may be gone or changed
                if asked_again or not self.is_done(stage.name):
                    do_stage(self, stage, self._after(stage.name))

    @property
    def scores(self) -> looking.Scores:
        """What was measured: every rate of every model with its interval. Raises RunError before evaluate is done."""
        return looking.scores_of(self)

    @property
    def parameters(self) -> Table:
        """The numbers of the merge, by parameter, group of layers and model. Raises RunError before search is done."""
        return looking.parameters_of(self)

    @property
    def candidates(self) -> Table:
        """All candidates of the search, the fittest first, with its plot. Raises RunError where nothing was searched."""
        return looking.candidates_of(self)

    @property
    def front(self) -> Table:
        """The candidates that none beats in every term. Raises RunError where nothing was searched."""
        return looking.front_of(self)

    @property
    def card(self) -> Markdown:
        """The model card as it was published. Raises RunError before push is done."""
        return looking.card_of(self)

    @property
    def model_path(self) -> Path:
        """The folder of the merged model. Raises RunError before merge is done."""
        looking.require_done(self, "merge")
        return self.directory / "model"

    def plot(self, name: str | None = None) -> Plot:
        """Draw alignment, refusals, categories or search; by default the first that there is. Raises RunError where there is none."""
        return looking.plot_of(self, name)

    def push(
        self,
        repo_id: str | None = None,
        *,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        commit_description: str | None = None,
        tag: str | None = None,
        collection: str | None = None,
        space: str | None = None,
        license: str | None = None,
        overwrite: bool = False,
        redo: bool = False,
    ) -> Published:
        """Publish the model with its card, and the datasets it was made with, doing before what is not done.

        One that was stopped goes on with the same call, and leaves one complete revision. `preview` shows what it would do.

        Args:
            repo_id: where to, as namespace/name; by default what the recipe says.
            private: whether the repositories are private; they are by default. Where what was measured speaks against publishing,
                the model's is private in any case.
            revision: a branch of the model's repository; created if missing.
            create_pr: open a pull request instead; the repository's settings stay.
            commit_message: the title of the model's commit.
            commit_description: what stands below it.
            tag: a name for the model's commit; by default run- and a digest.
            collection: title or slug of a collection for model, data and Space.
            space: a Space that shows the model, for the collection.
            license: the licence, where it does not follow from those of the models.
            overwrite: commit on top of a repository that this tool did not make, too.
            redo: do stages again whose part of the recipe has changed, instead of refusing.

        Raises:
            RecipeError: one of these can't stand there.
            RunError: nothing says where to publish, or the model was changed after the merge.
            HubError: the Hub refused, or the repository is public and the merge has to be private.
        """
        named = {"private": private, "revision": revision, "create_pr": create_pr, "commit_message": commit_message, "tag": tag}
        more = {"commit_description": commit_description, "collection": collection, "space": space, "license": license}
        aim(self, {"repo_id": repo_id, **named, **more, "overwrite": overwrite})
        try:
            self.do("push", redo=redo)
        finally:
            self.once = Once()
        return published(self)

    def preview(self, repo_id: str | None = None, **settings: Any) -> Plan:
        """What `push` would do with these settings: files, sizes, visibility and card. Nothing is uploaded. Raises as `push` does."""
        return planned(self, {"repo_id": repo_id, **settings})

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
        return int(self.manifest["stages"].get("generate", {}).get("rows", self.recipe.data.count))

    def is_done(self, name: str) -> bool:
        """Whether a stage is done for this recipe, with no fewer rows than are wanted now."""
        known = self.manifest["stages"].get(name, {})
        if not known.get("finished") or name not in self._stages() or known["fingerprint"] != self.fingerprint(name):
            return False
        return bool(known.get("rows", self.row_count) >= self.row_count)

    def seconds(self) -> dict[str, float]:
        """The time that each finished stage took, over all attempts."""
        return {name: stage["seconds"] for name, stage in self.manifest["stages"].items() if stage.get("finished")}

    def emissions(self) -> float | None:
        """Grams of CO2 equivalents that the finished stages took, over all attempts; None where one of them was not measured."""
        finished = [stage for stage in self.manifest["stages"].values() if stage.get("finished")]
        if not finished or any(stage.get("unmeasured", True) for stage in finished):
            return None
        return float(sum(stage["co2_g"] for stage in finished))

    def fingerprint(self, name: str) -> str:
        """What the result of a stage follows from: the tool, parts of the recipe, and the stages before."""
        stage, recipe = self._stages()[name], without_service(self.recipe.model_dump(mode="json"))
        parts = [reduce(lambda part, key: part[key], path.split("."), recipe) for path in stage.depends_on]
        return fingerprint([__version__, name, parts, [self.fingerprint(need) for need in stage.needs]])

    def begin(self, stage: str) -> float:
        """Let what is emitted from now on be of a stage; the time in which that is counted, in seconds."""
        self._stage, self._began = stage, time.monotonic()
        return self._began

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

    def __repr__(self) -> str:
        return f"Run({self.recipe.name!r}, {str(self.directory)!r}, done: {', '.join(self.seconds()) or 'nothing'})"

    def _repr_html_(self) -> str:
        return looking.html_of(self)

    def _plan(self, target: str) -> list[Stage]:
        known = self._stages()
        wanted = {target}
        for stage in reversed(known.values()):
            if stage.name in wanted:
                wanted |= set(stage.needs)
        return [stage for stage in known.values() if stage.name in wanted]

    def _after(self, name: str) -> list[str]:
        """The stages that work with what a stage makes."""
        found = [name]
        for stage in self._stages().values():
            if set(found) & set(stage.needs):
                found.append(stage.name)
        return found[1:]

    def _stages(self) -> dict[str, Stage]:
        return stages(calibrated=self.recipe.needs_importance)

    def _read_manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = self.read("run.json")
        return manifest
