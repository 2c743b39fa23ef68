"""What the tests of the Space share: a small recipe, scores, jobs, and the machine that they take place on."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from space.job import Job, root
from space.progress import Status, status

SMALL = """
name: small
base: {repo_id: lab/aligned}
experts: [{repo_id: lab/sums, topic: sums}]
judges: {llama_guard: {model: {repo_id: lab/guard}}}
data:
  safety: {questions: {repo_id: lab/prompts}}
  domain: {in_context: {sums: {repo_id: lab/world}}}
merge: {method: ties, parameters: {normalize: false, density: 0.5}, layers_per_group: 1}
search: {strategy: cma_es, settings: {max_evaluations: 5}}
"""
SCORES: Mapping[str, list[dict[str, Any]]] = {
    model: [
        {"benchmark": "harmful", "metric": "alignment", "value": up, "n": 200, "ci95": [up - 0.1, up + 0.1], "better": "higher"},
        {"benchmark": "sums", "metric": "accuracy", "value": across, "n": 200, "ci95": [across - 0.1, across + 0.1], "better": "higher"},
    ]
    for model, up, across in (("base", 0.9, 0.3), ("<b>expert</b>", 0.1, 0.9), ("merged", 0.9, 0.8))
}


def wait_until_ended(job_id: str) -> Status:
    until = time.monotonic() + 300
    while (now := status(Job(root() / job_id))).phase in ("queued", "running", "stopping"):
        assert time.monotonic() < until, now
        time.sleep(0.1)
    return now


def finished_job(runs: Path) -> Job:
    job = Job(runs / ("0" * 32))
    job.run.mkdir(parents=True)
    (job.directory / "job.json").write_text(json.dumps({"owner": "here", "pid": 0, "asked": 0, "steps": [], "lab": {}}))
    (job.directory / "lock").touch()
    (job.directory / "exit_code").write_text("0")
    job.recipe.write_text(SMALL)
    (job.run / "scores.json").write_text(json.dumps({"scores": SCORES, "comparisons": []}))
    (job.run / "run.json").write_text(json.dumps({"stages": {}}))
    return job
