"""A run of the lab that a job of the Space has finished: made once, smaller than the lab's own, and copied for each test."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from hfsafemerge.lab.choices import LabChoices
from space.job import Job

CHOICES = LabChoices(evaluations=8)


@pytest.fixture(scope="session")
def finished_lab(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The job, which no test may change."""
    from space_cases import wait_until_ended

    from space import jobs
    from space.job import find

    recipe = yaml.safe_load(CHOICES.recipe(lab).to_yaml())
    recipe["data"]["count"] = 100
    for benchmark in recipe["evaluation"]["benchmarks"].values():
        benchmark["limit"] = 40
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HFSAFEMERGE_SPACE_RUNS", str(tmp_path_factory.mktemp("finished")))
        patch.delenv("SYSTEM", raising=False)
        job_id = jobs.start(yaml.safe_dump(recipe))
        now = wait_until_ended(job_id)
        assert now.phase == "done", now.log
        job = find(job_id)
    (job.directory / "job.json").write_text(json.dumps(job.facts | {"lab": asdict(CHOICES)}))
    return job


@pytest.fixture
def finished(finished_lab: Job, space_runs: Path) -> Callable[..., Job]:
    """Makes copies of the job among the Space's jobs, with other facts where they are given."""

    def copy(**facts: object) -> Job:
        job = Job(space_runs / finished_lab.id)
        shutil.copytree(finished_lab.directory, job.directory)
        (job.directory / "job.json").write_text(json.dumps(job.facts | facts))
        return job

    return copy
