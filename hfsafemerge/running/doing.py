"""How a stage is done: timed, its emissions measured, and noted in run.json with the machine, whatever comes of it."""

import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from hfsafemerge.errors import RunError
from hfsafemerge.running.emissions import measured
from hfsafemerge.running.files import write_json
from hfsafemerge.running.machine import machine
from hfsafemerge.running.merging import device_of
from hfsafemerge.running.stages import Stage

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

MACHINE = "machine"  # of a stage in run.json: on what it was finished


def refuse_changes(run: "Run", plan: Sequence[Stage]) -> None:
    """Raise RunError where doing one of these stages would throw away what was made for another recipe."""
    for stage in plan:
        entry = run.manifest["stages"].get(stage.name, {})
        work = run.directory / "work" / stage.name
        to_lose = entry.get("finished") or (work.exists() and any(work.iterdir()))
        if to_lose and not stage.repeatable and entry["fingerprint"] != run.fingerprint(stage.name):
            raise RunError(
                f"The recipe (or the tool) changed since {stage.name} was done in {run.directory}. "
                "Choose another directory with --directory, or do the changed stages again with --redo."
            )


def do_stage(run: "Run", stage: Stage, later: Sequence[str]) -> None:
    """Do a stage.

    Args:
        run: whose it is.
        stage: the stage.
        later: the stages that work with what it makes; they are to be done again, since they were made from what this one made before.
    """
    entry = run.manifest["stages"].setdefault(stage.name, {})
    if entry.get("fingerprint") != run.fingerprint(stage.name):
        shutil.rmtree(run.directory / "work" / stage.name, ignore_errors=True)
        entry |= {"fingerprint": run.fingerprint(stage.name), "seconds": 0.0, "co2_g": None, "unmeasured": False}
    entry["finished"] = False
    for name in later:
        run.manifest["stages"].pop(name, None)
    _note(run)
    began = run.begin(stage.name)
    run.emit("started")
    before = entry["unmeasured"]

    def emitted(grams: float) -> None:
        entry.update(co2_g=(entry["co2_g"] or 0.0) + grams, unmeasured=before)

    try:
        with measured(run.recipe.compute.country, emitted):
            entry["unmeasured"] = True  # until the figure is in, which a killed attempt never gives
            _note(run)
            stage.work(run)
    except BaseException as error:  # whatever ended it, its time counts
        if isinstance(error, KeyboardInterrupt):
            error.add_note("The same command goes on from here.")
        with suppress(OSError):  # on a full disk, what filled it is the error to tell
            _note_seconds(run, entry, began)
        raise
    if not stage.repeatable:  # one that publishes computes nothing
        entry[MACHINE] = machine(device_of(run.recipe.compute.device))
    entry["finished"] = True
    entry.pop("rows", None)
    if cut := stage.name == "generate" and run.row_count < run.recipe.data.count:
        entry["rows"] = run.row_count
    _note_seconds(run, entry, began)
    if not cut:  # a command for more rows goes on from there
        shutil.rmtree(run.directory / "work" / stage.name, ignore_errors=True)
    run.emit("done")


def _note_seconds(run: "Run", entry: dict[str, Any], began: float) -> None:
    entry["seconds"] = round(entry["seconds"] + time.monotonic() - began, 3)
    _note(run)


def _note(run: "Run") -> None:
    write_json(run.directory / "run.json", run.manifest)
