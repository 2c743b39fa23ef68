"""The step in which a run is started, found again, watched and stopped, phase by phase."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from space_cases import SMALL, wait_until_ended

from hfsafemerge.errors import HubError
from space import jobs
from space.actions import data, running
from space.forms import presets
from space.job import Job, find

pytestmark = pytest.mark.usefixtures("space_runs")


def begin(source: str = "lab", recipe: str = "", evaluations: float | None = 8) -> tuple[Any, str]:
    return running.begin(source, recipe, None, "pair", "ties", "cma_es", evaluations, None)


def request(**query: str) -> Any:
    return SimpleNamespace(query_params=query)


def visitor(token: str) -> gr.OAuthToken:
    return gr.OAuthToken(token=token, scope="", expires_at=0)


def test_the_lab_begins_with_what_was_chosen(long_jobs: object) -> None:
    job, said = begin(evaluations=None)
    assert find(job).facts["lab"] == {"pool": "pair", "method": "ties", "strategy": "cma_es", "evaluations": 200}
    assert 'class="note good"' in said and "goes on when you close this page" in said
    job, _ = running.begin("own", SMALL, None, "pair", "ties", "cma_es", 8, None)
    assert find(job).facts["lab"] is None and find(job).recipe.read_text() == SMALL


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"source": "own"}, "The recipe is empty"),
        ({"source": "own", "recipe": SMALL.replace("merge:", "mrge:")}, "Did you mean &#x27;merge&#x27;"),
        ({"source": "own", "recipe": presets.preset(presets.FIRST)}, "Name a base and its experts first"),
        ({"evaluations": 0}, "at least one evaluation"),
    ],
)
def test_what_can_not_begin_says_why_and_leaves_nothing(given: dict[str, Any], says: str, space_runs: Path) -> None:
    job, said = begin(**given)
    assert job == gr.skip() and says in said and 'class="note bad"' in said
    assert not space_runs.exists()


def test_on_a_space_no_recipe_reads_its_folders(on_space: None, tmp_path: Path) -> None:
    job, said = begin("own", SMALL.replace("{repo_id: lab/aligned}", f"{{path: {tmp_path}}}"))
    assert job == gr.skip() and "local folder" in said


def test_a_run_is_found_by_the_address_before_what_the_browser_remembers(long_jobs: object) -> None:
    first, second = begin()[0], begin()[0]
    job, said, step = running.restore(first, None, request(job=second))
    assert (job, said, step.selected) == (second, "", running.RUN)
    assert running.restore(first, None, request())[0] == first
    for nothing in ("", "0" * 32, "../x"):
        assert running.restore(nothing, None, request()) == ("", "", gr.skip())
    job, said, step = running.restore(first, None, request(job="0" * 32))
    assert job == "" and "There is no run" in said and step.selected == running.RUN


def test_a_finished_run_is_found_at_its_results(finished: Callable[..., Job]) -> None:
    job = finished()
    assert running.restore(job.id, None, request())[2].selected == running.RESULTS


def test_who_is_signed_out_keeps_the_way_back_to_a_run_of_theirs(long_jobs: object, on_space: None) -> None:
    alice = visitor("hf_alice")
    job, _ = running.begin("lab", "", None, "pair", "ties", "cma_es", 8, alice)
    assert running.restore(job, None, request()) == (job, "", gr.skip())
    kept, said, _ = running.restore("", None, request(job=job))
    assert kept == job and "sign in with the button" in said
    assert running.restore(kept, alice, request())[2].selected == running.RUN
    gone, said, _ = running.restore(job, visitor("hf_bob"), request(job=job))
    assert gone == "" and "There is no run" in said and "sign in" not in said


def watched(job: str, who: gr.OAuthToken | None = None) -> tuple[str, str, Any, str]:
    return running.watch(job, who)


def arranged(seen: str) -> tuple[bool, bool, str, bool, bool, Any]:
    """Of `arrange`: whether the clock goes, one can start, what the button says, one can cancel, at once, and the message."""
    timer, start, cancel, message = running.arrange(seen)
    return timer.active, start["interactive"], start["value"], cancel["visible"], cancel["interactive"], message


START, ANOTHER = "Start the run", "Start another run"


def test_a_run_is_watched_through_its_phases(long_jobs: object) -> None:
    going, waiting = begin()[0], begin()[0]
    stages, log, plot, seen = watched(going)
    assert "<strong>Running</strong>" in stages and log == "" and plot["visible"] is False and seen == f"{going} running"
    assert arranged(seen) == (True, False, START, True, True, "")
    stages, _, _, seen = watched(waiting)
    assert "<strong>Waiting</strong>: number 1 in the queue" in stages and seen == f"{waiting} queued"
    assert arranged(seen) == (True, False, START, True, True, "")

    (find(going).directory / "cancelled").touch()
    stages, _, _, seen = watched(going)
    assert "<strong>Stopping</strong>" in stages and seen == f"{going} stopping"
    assert arranged(seen) == (True, False, START, True, False, gr.skip())

    assert "was ended" in running.stop(going, None)
    stages, _, _, seen = watched(going)
    assert "<strong>Cancelled</strong>" in stages and arranged(seen) == (False, True, ANOTHER, False, False, gr.skip())
    assert "ended already" in running.stop(going, None)

    until = time.monotonic() + 60
    while watched(waiting)[3] != f"{waiting} running" and time.monotonic() < until:
        time.sleep(0.05)
    assert "was ended" in running.stop(waiting, None)


def test_a_waiting_run_is_stopped_or_lost(long_jobs: object) -> None:
    begin()
    second, third = begin()[0], begin()[0]
    assert "waits no longer" in running.stop(second, None)
    assert watched(second)[3] == f"{second} cancelled"
    jobs.QUEUE.leave(third)  # as when the app was started again
    stages, _, _, seen = watched(third)
    assert "<strong>Lost</strong>: The app was started again" in stages and 'class="note bad"' in stages
    assert arranged(seen) == (False, True, ANOTHER, False, False, "")


def test_a_failed_run_says_why(job_commands: Callable[[str], None]) -> None:
    job_commands("import sys; print('Error: It broke <here>.'); sys.exit(1)")
    job = begin()[0]
    wait_until_ended(job)
    stages, log, _, seen = watched(job)
    assert "<strong>Failed</strong>: It broke &lt;here&gt;." in stages and "It broke <here>." in log
    assert seen == f"{job} failed" and arranged(seen)[:3] == (False, True, ANOTHER)


def test_a_finished_run_shows_its_search(finished: Callable[..., Job]) -> None:
    job = finished()
    stages, log, plot, seen = watched(job.id)
    assert "<strong>Finished</strong>" in stages and "evaluate: done" in log and seen == f"{job.id} done"
    assert plot["visible"] and set(plot["value"]["line"]) == {"candidate", "best so far"}
    assert arranged(seen) == (False, True, ANOTHER, False, False, "")


def test_a_page_without_a_run_offers_to_start_one() -> None:
    assert watched("")[0] == "" and watched("")[3] == ""
    assert arranged("") == (False, True, START, False, False, "")
    assert "There is no run" in running.stop("0" * 32, None)


def test_a_hub_that_does_not_answer_stops_no_clock(long_jobs: object, on_space: None, monkeypatch: pytest.MonkeyPatch) -> None:
    job = running.begin("lab", "", None, "pair", "ties", "cma_es", 8, visitor("hf_alice"))[0]

    def gone(who: object) -> Any:
        raise HubError("The Hub can't be reached to see who you are. Try again in a minute.")

    monkeypatch.setattr(running, "owner_of", gone)
    stages, *rest = watched(job, visitor("hf_alice"))
    assert "can&#x27;t be reached" in stages and rest == [gr.skip()] * 3


def test_the_fields_of_the_data_write_the_recipe_and_what_can_not_be_is_told() -> None:
    before = presets.preset("evomm")
    after, said = data.set_data(before, "qwen3guard", "beavertails", "magpie", "none", 40, "quick")
    assert said == "" and "count: 40" in after and after != before
    same, said = data.set_data(before, "qwen3guard", "beavertails", "magpie", "none", 0, "quick")
    assert same == before and 'class="note bad"' in said


def test_what_would_be_made_is_estimated_before_any_model_is_loaded(lab_on_hub: str) -> None:
    from hfsafemerge.lab.recipes import OnHub, lab_recipe

    recipe = lab_recipe("estimate", ("sums",), OnHub(lab_on_hub), writer=False).to_yaml()
    shown = data.estimate(recipe, None)
    assert "<table>" in shown and "sums" in shown
    assert "mrge" in data.estimate(recipe.replace("merge:", "mrge:"), None)
