"""Jobs outlive the page and the app, end when they are told to, and keep no token."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from space_cases import SMALL, finished_job, wait_until_ended

from hfsafemerge.errors import HubError, RunError
from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.recipe import Recipe
from space import jobs, queueing, views
from space.__main__ import work
from space.accounts import HERE, NOBODY, Owner
from space.actions import api, publishing
from space.environment import variables, without_secrets
from space.job import Job, error_line, every_job, find, root
from space.progress import last_event, status, tail
from space.sweeping import sweep

pytestmark = pytest.mark.usefixtures("space_runs")


@pytest.mark.parametrize("job_id", ["", ".", "..", "../" + "0" * 29, "0" * 32, "A" * 32, "0" * 31, "0" * 32 + "\n", "0" * 33])
def test_only_the_id_of_a_job_finds_one(job_id: str, space_runs: Path) -> None:
    (space_runs / ("0" * 32)).mkdir(parents=True)  # a folder that is no job
    for known in (find, jobs.cancel, jobs.result):
        with pytest.raises(RunError, match="There is no run"):
            known(job_id)
    with pytest.raises(gr.Error, match="There is no run"):
        api.status(job_id, None)


def step(code: str, *, token: bool = False, offline: bool = True) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", code], "token": token, "offline": offline}


def job_of(directory: Path, *steps: dict[str, Any]) -> Job:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "lock").touch()
    (directory / "job.json").write_text(json.dumps({"owner": None, "pid": None, "asked": time.time(), "steps": steps, "lab": False}))
    return Job(directory)


def test_the_process_of_a_job_does_its_steps_until_one_fails(tmp_path: Path) -> None:
    codes = (("first", 0), ("second", 3), ("third", 0))
    job_of(tmp_path, *(step(f"import sys; open({str(tmp_path / name)!r}, 'w'); sys.exit({code})") for name, code in codes))
    (tmp_path / "hf").mkdir()
    with (tmp_path / "lock").open() as lock:
        assert work(tmp_path, lock.fileno()) == 3
    assert (tmp_path / "exit_code").read_text() == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exit_code", "first", "job.json", "lock", "second"]


def test_only_the_steps_that_may_have_the_token_and_what_they_print_of_it_is_hidden(tmp_path: Path) -> None:
    shows = "import os; print(os.environ.get('HF_TOKEN'), os.environ.get('HF_HUB_OFFLINE'))"
    job = job_of(tmp_path / "job", step(shows, token=True, offline=False), step(shows))
    with (job.directory / "lock").open() as lock, job.log.open("wb") as log:
        command = [sys.executable, "-m", "space", str(job.directory), str(lock.fileno()), "0"]
        process = subprocess.run(command, input=b"very secret\n", stdout=log, env=variables(job), pass_fds=[lock.fileno()], check=True)
    assert process.returncode == 0
    assert job.log.read_text().splitlines() == ["<token> None", "None 1"]


def test_what_looks_like_a_token_is_hidden_too() -> None:
    assert without_secrets("Bearer hf_abcdefghijklmnopqrst and hf_hub_download") == "Bearer <token> and hf_hub_download"
    assert without_secrets("x eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl y") == "x <token> y"


def test_a_run_may_take_only_so_long(tmp_path: Path) -> None:
    job = job_of(tmp_path / "job", step("import time; time.sleep(600)"))
    with (job.directory / "lock").open() as lock, job.log.open("wb") as log:
        command = [sys.executable, "-m", "space", str(job.directory), str(lock.fileno()), "0.0002"]
        process = subprocess.run(
            command, input=b"\n", stdout=log, env=variables(job), pass_fds=[lock.fileno()], start_new_session=True, timeout=60
        )
    assert process.returncode == -signal.SIGKILL and job.exit_code == 124
    assert "as long as one may take here" in error_line(job.log.read_text())


def test_a_run_that_fails_says_why_and_keeps_no_token(tmp_path: Path) -> None:
    recipe = SMALL.replace("{repo_id: lab/aligned}", f"{{path: {tmp_path / 'nothing'}}}")
    job_id = jobs.start(recipe, HERE, "hf_very_secret")
    now = wait_until_ended(job_id)
    assert (now.phase, now.error) == ("failed", f"{tmp_path / 'nothing'} does not exist.")
    assert [stage.state for stage in now.stages] == ["stopped", *["waiting"] * 4]
    assert "does not exist" in views.watch(now) and "Traceback" not in now.log
    kept = [path.read_bytes() for path in find(job_id).directory.rglob("*") if path.is_file()]
    assert kept and not any(b"hf_very_secret" in content for content in kept)
    with pytest.raises(RunError, match="not finished"):
        jobs.result(job_id)


SLEEP = "import time; time.sleep(600)"
ALICE, BOB = Owner("a"), Owner("b")


def wait_until(reached: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def slow(long_jobs: Callable[[int], None]) -> None:
    """Runs that take ten minutes, on a machine that takes two at once."""
    long_jobs(2)


def phases(*ids: str) -> list[tuple[str, int | None]]:
    found = [status(Job(root() / each)) for each in ids]
    return [(now.phase, now.position) for now in found]


def test_each_has_one_run_at_a_time_and_the_others_wait_in_order(slow: None) -> None:
    first, second = jobs.start(SMALL, ALICE), jobs.start(SMALL, ALICE)
    third, fourth = jobs.start(SMALL, BOB), jobs.start(SMALL, Owner("c"))
    assert phases(first, second, third, fourth) == [("running", None), ("queued", 1), ("running", None), ("queued", 2)]
    assert "number 1 in the queue" in views.watch(status(find(second, ALICE)))
    jobs.cancel(third, BOB)
    wait_until(lambda: phases(fourth)[0][0] == "running")  # alice's second lets it pass
    assert phases(second) == [("queued", 1)]
    jobs.cancel(first, ALICE)
    wait_until(lambda: phases(second)[0][0] == "running")


def test_a_run_that_waits_is_cancelled_without_ever_having_begun(slow: None) -> None:
    jobs.start(SMALL, ALICE)
    waiting = jobs.start(SMALL, ALICE)
    assert jobs.cancel(waiting, ALICE) == "The run waits no longer."
    assert phases(waiting) == [("cancelled", None)] and not find(waiting, ALICE).begun
    assert jobs.cancel(waiting, ALICE) == "The run has ended already."


def test_too_many_that_wait_are_refused_and_leave_nothing(slow: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        jobs.start(SMALL, ALICE)
    with pytest.raises(RunError, match="2 runs of yours wait already"):
        jobs.start(SMALL, ALICE)
    monkeypatch.setattr(queueing, "LONGEST", 2)
    with pytest.raises(RunError, match="2 runs wait already"):
        jobs.start(SMALL, BOB)
    assert len(every_job()) == 3


def test_a_run_that_waited_when_the_app_was_started_again_is_lost_and_says_so(slow: None) -> None:
    jobs.start(SMALL, ALICE)
    waiting = jobs.start(SMALL, ALICE)
    assert jobs.QUEUE.leave(waiting)  # as if this process had no memory of it
    now = status(find(waiting, ALICE))
    assert (now.phase, now.error) == ("lost", "The app was started again while this run waited. Start it anew.")
    assert "Lost" in views.watch(now)


def test_a_run_belongs_to_who_started_it(slow: None) -> None:
    job = jobs.start(SMALL, ALICE)
    for call in (find, jobs.cancel, jobs.result):
        for other in (BOB, NOBODY):
            with pytest.raises(RunError, match="There is no run"):
                call(job, other)
    with pytest.raises(RunError, match="There is no run"):
        jobs.push(job, BOB, "bob/merge", True, "hf_bob")
    assert find(job, ALICE).id == job
    anyones = jobs.start(SMALL, NOBODY)  # who has the address of a run that nobody signed for may see it
    assert find(anyones, BOB).id == anyones


def test_what_died_is_swept_and_what_lives_or_is_new_stays(slow: None, space_runs: Path, on_space: None) -> None:
    alive = jobs.start(SMALL, ALICE)
    dead = job_of(space_runs / ("1" * 32))
    old = job_of(space_runs / ("2" * 32))
    facts = old.facts
    (old.directory / "job.json").write_text(json.dumps(facts | {"asked": time.time() - 4 * 24 * 3600}))
    for job in (dead, find(alive, ALICE)):
        (job.directory / "hf").mkdir(exist_ok=True)
    assert sweep() == [old.id]
    assert not (dead.directory / "hf").exists() and dead.directory.exists()
    assert (find(alive, ALICE).directory / "hf").exists() and not old.directory.exists()


def test_a_run_is_cancelled_before_its_process_is_written_down(
    job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_commands("import time; time.sleep(600)")
    monkeypatch.setattr(jobs, "GRACE", 0.2)
    job = find(jobs.start(SMALL))
    facts = job.facts
    (job.directory / "job.json").write_text(json.dumps(facts | {"pid": None}))
    assert "has not yet" in jobs.cancel(job.id)
    (job.directory / "job.json").write_text(json.dumps(facts))
    monkeypatch.setattr(jobs, "GRACE", 60.0)
    assert "was ended" in jobs.cancel(job.id)


def test_a_run_that_is_asked_may_stop_by_itself(job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    job_commands(
        "import pathlib, sys, time\n"
        "run = pathlib.Path(sys.argv[sys.argv.index('--directory') + 1]); run.mkdir()\n"
        'entry = \'{"finished": false, "seconds": 0.0}\'\n'
        "(run / 'run.json').write_text('{\"stages\": {\"check\": ' + entry + '}}')\n"
        "while not (run / 'cancel').exists(): time.sleep(0.05)\n"
        "sys.exit(130)"
    )
    monkeypatch.setattr(jobs, "GRACE", 60.0)
    job = find(jobs.start(SMALL))
    while not (job.run / "run.json").exists():
        time.sleep(0.05)
    assert "has stopped" in jobs.cancel(job.id)
    assert job.exit_code == 130
    assert status(job).phase == "cancelled"


def test_the_lab_is_made_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "steps_of", lambda job, recipe, choices: [
        step(f"print('training base 20/1000'); open({str(job.recipe)!r}, 'w').write('name: lab')"), step("import sys; sys.exit(1)")
    ])  # fmt: skip
    now = wait_until_ended(api.start("", None))
    assert [(stage.name, stage.state) for stage in now.stages][:2] == [("lab", "done"), ("check", "waiting")]
    assert (now.stage, now.message) == ("lab", "training base 20/1000")
    assert now.error.startswith("The process was ended from outside")


def test_the_steps_of_the_lab_write_its_recipe_and_measure(lab: Path, space_runs: Path) -> None:
    job = Job(space_runs / ("3" * 32))
    job.directory.mkdir(parents=True)
    first, second = jobs.steps_of(job, None, LabChoices("three", "task_arithmetic", "gradient"))
    subprocess.run(first["command"], check=True, env=variables(job), cwd=Path(jobs.__file__).parents[1])
    recipe = Recipe.load(job.recipe)
    assert (len(recipe.experts), recipe.merge.method, recipe.search.strategy) == (2, "task_arithmetic", "gradient")
    assert second["command"][3:7] == ["evaluate", str(job.recipe), "--directory", str(job.run)]
    assert not any(each["token"] or not each["offline"] for each in (first, second))


def test_on_a_space_models_are_loaded_without_token_and_network(on_space: None, space_runs: Path) -> None:
    pull, measure = jobs.steps_of(Job(space_runs / ("3" * 32)), SMALL, LabChoices())
    assert (pull["command"][3], pull["token"], pull["offline"]) == ("pull", True, False)
    assert (measure["command"][3], measure["token"], measure["offline"]) == ("evaluate", False, True)
    with_task = jobs.steps_of(Job(space_runs / ("3" * 32)), SMALL + "evaluation: {tasks: {gsm8k: {}}}", LabChoices())[1]
    assert (with_task["token"], with_task["offline"]) == (False, False)


def test_on_a_space_a_run_sees_nothing_of_the_owners_and_a_cache_of_its_own(
    on_space: None, job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "OAUTH_CLIENT_SECRET", "COMMUNITY_KEY"):
        monkeypatch.setenv(name, "secret")
    job_commands("import os; print([n for n, v in os.environ.items() if v == 'secret'], os.environ['HF_HOME'])")
    job = find(api.start(SMALL, None), NOBODY)
    wait_until_ended(job.id)
    assert job.log.read_text().splitlines() == [f"[] {job.directory / 'hf'}"] * 2


def test_publishing_says_why_it_failed_and_never_the_token(space_runs: Path, job_commands: Callable[[str], None]) -> None:
    job = finished_job(space_runs)
    job_commands("import os, sys; print('Error: bad header Bearer ' + os.environ['HF_TOKEN'], file=sys.stderr); sys.exit(1)")
    with pytest.raises(HubError, match=r"^bad header Bearer <token>$"):
        jobs.push(job.id, HERE, "me/merge", True, "hf_very_secret")
    assert "hf_very_secret" not in job.log.read_text()
    for wrong in ("me", "--redo", "me/merge/more", "me/merge\n", ""):
        with pytest.raises(HubError, match="no repository id"):
            jobs.push(job.id, HERE, wrong, True, "hf_very_secret")


def test_publishing_hands_on_what_was_asked(space_runs: Path, job_commands: Callable[[str], None]) -> None:
    job = finished_job(space_runs)
    job_commands(
        "import json, pathlib, sys; print(*sys.argv[1:])\n"
        "(pathlib.Path(sys.argv[2]) / 'pushed.json').write_text(json.dumps({'model': {'url': 'http://hub/me/merge', 'pull_request': None}, 'private_because': ['Why <not>.']}))"
    )
    assert jobs.push(job.id, HERE, "me/merge", False, "hf_token", "mit") == "http://hub/me/merge"
    assert job.log.read_text().split() == ["push", str(job.run), "me/merge", "--no-private", "--license=mit"]
    jobs.push(job.id, HERE, "me/other", True, "hf_token")
    assert job.log.read_text().splitlines()[1].split()[2:] == ["me/other", "--private"]
    shown = publishing.publishing(job)
    assert "http://hub/me/merge" in shown and "It was made private. Why &lt;not&gt;." in shown


def test_the_last_whole_event_counts(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert last_event(file) is None
    line = json.dumps({"time": 1.0, "stage": "search", "message": "candidate", "done": 2, "total": 8, "seconds": 10.0})
    file.write_text(line + "\n" + line[:20])
    event = last_event(file)
    assert event is not None and (event.stage, event.done, event.eta) == ("search", 2, 30.0)


def test_a_tail_begins_at_a_line(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    file.write_text("first\nsecond\nthird\n")
    assert tail(file, 100) == "first\nsecond\nthird\n"
    assert tail(file, 14) == tail(file, 17) == "second\nthird\n"
    assert tail(tmp_path / "none", 10) == ""


def test_an_error_line_is_found() -> None:
    assert error_line("search: started\nError: It broke.\nHint: mend it\n") == "It broke."
    assert error_line("Traceback\n") == ""
