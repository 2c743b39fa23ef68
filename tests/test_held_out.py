"""What the benchmarks ask is kept out of all that steers a merge, whether it is asked, wrapped or beyond the limit."""

import random

from test_benchmarks import evaluation_recipe, publish, world

from hfsafemerge.examples import Example, save_examples
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, calibrating, inputs


def wrapped(lab, tmp_path, repo_name):
    """A recipe that asks two of twelve wrapped requests."""
    place = publish("template_jailbreaks", world(lab, "harmful", 12), tmp_path, f"alice/{repo_name}")
    return evaluation_recipe(lab, {"template_jailbreaks": {"registered": "template_jailbreaks", "dataset": place, "limit": 2}})


def test_requests_are_held_out_with_their_wrappers_and_beyond_the_limit(lab, tmp_path, repo_name):
    run = Run(wrapped(lab, tmp_path, repo_name), tmp_path / "run")
    run.do("check")
    found, asked = inputs.benchmark_prompts(run), inputs.benchmark_examples(run, "template_jailbreaks")
    requests = world(lab, "harmful", 12)
    assert set(requests) <= set(found) and len(found) == 5 * len(requests)  # in four wrappers, and without
    assert len(asked) == 2 and {e.prompt for e in asked} < set(found) - set(requests)


def test_a_request_that_a_benchmark_wraps_calibrates_nothing(lab, tmp_path, repo_name):
    requests = world(lab, "harmful", 12)
    rows = [Example("domain", prompt, "no") for prompt in (*requests, "what is new ?")]
    random.Random(0).shuffle(rows)
    save_examples(tmp_path / "rows.parquet", rows)
    found = wrapped(lab, tmp_path, repo_name).model_dump(mode="json", exclude_defaults=True)
    found["merge"] = {"method": "led"}
    found["calibration"] = {"data": {"sums": {"path": str(tmp_path / "rows.parquet"), "columns": {"prompt": "prompt", "answer": "answer"}}}}
    run = Run(Recipe.model_validate(found), tmp_path / "run")
    run.do("check")
    run.do("calibrate")
    assert run.read(calibrating.CALIBRATION)["sums"]["ids"] == [Example("domain", "what is new ?", "no").id]
