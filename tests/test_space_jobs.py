"""Jobs outlive the page and the app, end when they are told to, and keep no token."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gradio as gr
import pytest
from space_cases import SMALL, finished_job, wait_until_ended

from hfsafemerge.errors import HubError, RunError
from space import jobs, views
from space.__main__ import work
from space.actions import api, running
from space.job import error_line, find
from space.progress import last_event, status, tail

pytestmark = pytest.mark.usefixtures("space_runs")


@pytest.mark.parametrize("job_id", ["", ".", "..", "../" + "0" * 29, "0" * 32, "A" * 32, "0" * 31, "0" * 32 + "\n", "0" * 33])
def test_only_the_id_of_a_job_finds_one(job_id: str, space_runs: Path) -> None:
    (space_runs / ("0" * 32)).mkdir(parents=True)  # a folder that is no job
    for known in (find, jobs.cancel, jobs.result):
        with pytest.raises(RunError, match="There is no run"):
            known(job_id)
    with pytest.raises(gr.Error, match="There is no run"):
        api.status(job_id)


def test_the_process_of_a_job_does_its_commands_until_one_fails(tmp_path: Path) -> None:
    (tmp_path / "hf").mkdir()
    (tmp_path / "lock").touch()
    codes = [[sys.executable, "-c", f"import sys; open({str(tmp_path / name)!r}, 'w'); sys.exit({code})"] for name, code in
             (("first", 0), ("second", 3), ("third", 0))]  # fmt: skip
    (tmp_path / "job.json").write_text(json.dumps({"commands": codes}))
    with (tmp_path / "lock").open() as lock:
        assert work(tmp_path, lock.fileno()) == 3
    assert (tmp_path / "exit_code").read_text() == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exit_code", "first", "job.json", "lock", "second"]


def test_a_run_that_fails_says_why_and_keeps_no_token(tmp_path: Path) -> None:
    recipe = SMALL.replace("{repo_id: lab/aligned}", f"{{path: {tmp_path / 'nothing'}}}")
    job_id = jobs.start(recipe, "hf_very_secret")
    now = wait_until_ended(job_id)
    assert (now.phase, now.error) == ("failed", f"{tmp_path / 'nothing'} does not exist.")
    assert [stage.state for stage in now.stages] == ["stopped", *["waiting"] * 4]
    assert "does not exist" in views.watch(now) and "Traceback" not in now.log
    kept = [path.read_bytes() for path in find(job_id).directory.rglob("*") if path.is_file()]
    assert kept and not any(b"hf_very_secret" in content for content in kept)
    with pytest.raises(RunError, match="not finished"):
        jobs.result(job_id)


def test_no_more_runs_start_than_the_machine_takes(job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    job_commands("import time; time.sleep(600)")
    monkeypatch.setattr(jobs, "AT_ONCE", 1)
    monkeypatch.setattr(jobs, "GRACE", 60.0)
    first = jobs.start(SMALL)
    with pytest.raises(RunError, match="1 runs are going"):
        jobs.start(SMALL)
    assert "was ended" in jobs.cancel(first)
    now = status(find(first))
    assert (now.phase, now.stages[0].state) == ("cancelled", "waiting")
    assert jobs.cancel(first) == "The run has ended already."
    jobs.cancel(jobs.start(SMALL))  # now it may


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


def test_the_lab_is_made_first(job_commands: Callable[[str], None]) -> None:
    job_commands(
        "import pathlib, sys\n"
        "assert sys.argv[1] in ('init', 'run')\n"
        "print('lab: training base 20/1000')\n"
        "if sys.argv[1] == 'run': sys.exit(1)\n"
        "pathlib.Path(sys.argv[2]).write_text('name: lab')"
    )
    now = wait_until_ended(api.start("", None))
    assert [(stage.name, stage.state) for stage in now.stages][:2] == [("lab", "done"), ("check", "waiting")]
    assert (now.stage, now.message) == ("lab", "lab: training base 20/1000")
    assert now.error.startswith("The process was ended from outside")


def test_on_a_space_a_run_sees_neither_the_owners_token_nor_others_files(
    on_space: None, job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "secret")
    job_commands("import os; print(os.environ.get('HF_TOKEN'), os.environ.get('OAUTH_CLIENT_SECRET'), os.environ['HF_HOME'])")
    job = find(api.start(SMALL, None))
    wait_until_ended(job.id)
    assert job.log.read_text().split() == ["None", "None", str(job.directory / "hf")]


def test_publishing_says_why_it_failed_and_never_the_token(space_runs: Path, job_commands: Callable[[str], None]) -> None:
    job = finished_job(space_runs)
    job_commands("import os, sys; print('Error: bad header Bearer ' + os.environ['HF_TOKEN'], file=sys.stderr); sys.exit(1)")
    with pytest.raises(HubError, match=r"^bad header Bearer <token>$"):
        jobs.push(job.id, "me/merge", True, "hf_very_secret")
    assert "hf_very_secret" not in job.log.read_text()
    for wrong in ("me", "--redo", "me/merge/more", "me/merge\n", ""):
        with pytest.raises(HubError, match="no repository id"):
            jobs.push(job.id, wrong, True, "hf_very_secret")


def test_publishing_hands_on_what_was_asked(space_runs: Path, job_commands: Callable[[str], None]) -> None:
    job = finished_job(space_runs)
    job_commands(
        "import json, pathlib, sys; print(*sys.argv[1:])\n"
        "(pathlib.Path(sys.argv[2]) / 'pushed.json').write_text(json.dumps({'model': {'url': 'http://hub/me/merge'}, 'private_because': ['Why <not>.']}))"
    )
    assert jobs.push(job.id, "me/merge", False, "hf_token", "mit") == "http://hub/me/merge"
    assert job.log.read_text().split() == ["push", str(job.run), "me/merge", "--no-private", "--license=mit"]
    jobs.push(job.id, "me/other", True, "hf_token")
    assert job.log.read_text().splitlines()[1].split()[2:] == ["me/other", "--private"]
    shown = running.arrange(f"{job.id} done")[-1]
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
