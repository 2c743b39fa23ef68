"""What can be done with a finished run: another candidate of its search merged and measured, as a run of its own."""

import json
import secrets
import shutil
import time
from typing import Any

from hfsafemerge.errors import RunError
from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import stages
from hfsafemerge.running.calibrating import CALIBRATION, FOLDER
from hfsafemerge.running.directory import write_json
from hfsafemerge.running.generating import REPORT
from hfsafemerge.running.inputs import CHECKED
from hfsafemerge.running.searching import FRONT, LOG, PARAMETERS, PLOT
from space import jobs
from space.accounts import Owner
from space.job import Job, find, root
from space.queueing import QUEUE

REUSED = (CHECKED, REPORT, "data", CALIBRATION, FOLDER, PARAMETERS, LOG, FRONT, PLOT)  # what the stages before the merge made


def offered(job: Job) -> list[int]:
    """The candidates of a finished run that can be picked: those on the front of its search; none where nothing was searched."""
    file = job.run / FRONT
    return sorted(int(point["number"]) for point in json.loads(file.read_text())) if file.exists() else []


def chosen(job: Job) -> int | None:
    """The candidate that a run merged; None before there is one."""
    file = job.run / PARAMETERS
    return json.loads(file.read_text())["search"]["number"] if file.exists() else None


def pick(job_id: str, number: int, owner: Owner, token: str | None) -> str:
    """Start a run that merges and measures another candidate of a finished search; its id.

    Data and search are those of the finished run, which stays as it is. Should they no longer be what the recipe makes, the new
    run stops and says so, rather than search anew.

    Args:
        job_id: the finished run.
        number: of the candidate.
        owner: who asks, and whose the new run is.
        token: what to read models with: on a Space, their weights are fetched again.

    Raises:
        RunError: the run is not finished, or it has no such candidate on its front, or too many runs wait.
    """
    jobs.result(job_id, owner)
    old = find(job_id, owner)
    known = offered(old)
    if not known:
        raise RunError("This run searched nothing, so there is no other candidate to merge.")
    if number not in known:
        raise RunError(f"Candidate {number} is not on the front of this search. Choose one of {', '.join(map(str, known))}.")
    QUEUE.refuse_more(owner)
    new = Job(root() / secrets.token_hex(16))
    recipe = Recipe.load(old.recipe).changed({"search.pick": number}).to_yaml()
    _copy(old, new)
    new.recipe.write_text(recipe)
    facts = {"owner": owner.key, "pid": None, "asked": time.time(), "steps": _steps(new, old.facts, recipe), "lab": old.facts["lab"]}
    write_json(new.directory / "job.json", facts | {"picked": number})
    try:
        QUEUE.join(new, owner, token)
    except RunError:
        shutil.rmtree(new.directory)
        raise
    jobs.dispatch()
    return new.id


def _steps(new: Job, old: dict[str, Any], recipe: str) -> list[dict[str, Any]]:
    """What the new run does: of the lab only its last step, since its models are there."""
    if old["lab"]:
        return jobs.steps_of(new, None, LabChoices())[1:]
    return jobs.steps_of(new, recipe, LabChoices())


def _copy(old: Job, new: Job) -> None:
    """A run directory in which everything is done up to the merge."""
    new.directory.mkdir(parents=True, mode=0o700)
    new.run.mkdir()
    for name in REUSED:
        source = old.run / name
        if source.is_dir():
            shutil.copytree(source, new.run / name)
        elif source.exists():
            shutil.copyfile(source, new.run / name)
    shutil.copyfile(old.run / "recipe.yaml", new.run / "recipe.yaml")
    names = list(stages(calibrated=True))
    before = names[: names.index("merge")]
    manifest: dict[str, Any] = json.loads((old.run / "run.json").read_text())
    manifest["stages"] = {name: entry for name, entry in manifest["stages"].items() if name in before}
    write_json(new.run / "run.json", manifest)
