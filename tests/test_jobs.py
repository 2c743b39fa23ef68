"""Runs as jobs of Hugging Face: what is submitted, what is refused before, how they are followed, and one that really runs."""

import base64
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from commands import command
from huggingface_hub import HfApi
from test_run import small

from hfsafemerge import __version__
from hfsafemerge.errors import Cancelled, HubError, RecipeError
from hfsafemerge.hub import client, jobs, redacting
from hfsafemerge.hub.job_requests import IMAGE, LONGEST, SCRIPT, job_request, only_here
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.localhub.faults import Fault
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.publishing.aiming import check_push
from hfsafemerge.running.repeating.locked import LOCK

TOKEN = "hf_alice"


def jobs_of(server):
    return server.app.app.state.jobs


def writes(*lines, stage="COMPLETED", message=None):
    """What does a job: it writes these lines, and ends."""

    def run(job):
        job.stage = "RUNNING"
        for line in lines:
            job.write(line)
        job.end(stage, message)

    return run


def recipe(**changes):
    found = lab_recipe("pair", ("sums",), OnHub("alice"), method="linear", strategy="fixed", use=(), ready={}, push="alice/merged")
    return Recipe.model_validate(found.model_dump(mode="json", exclude_defaults=True) | changes)


def small_with_data():
    """A private recipe that makes a safety dataset."""
    found = lab_recipe("pair", ("sums",), OnHub("alice"), push="alice/merged").model_dump(mode="json", exclude_defaults=True)
    return Recipe.model_validate(found | {"push": {"repo_id": "alice/merged", "private": True}})


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe().to_yaml())
    return path


def request(found=None, flavor="cpu-basic", timeout="1h", **options):
    return job_request(found or recipe(), flavor, timeout, **options)


# What is submitted


def test_the_request_says_all_and_only_its_secret_holds_the_token(server, written):
    done = command(
        "jobs",
        "run",
        written,
        "--flavor",
        "a100-large",
        "--timeout",
        "90m",
        "--label",
        "team=lab",
        "--detach",
        "--json",
        HF_ENDPOINT=server.url,
    )
    assert done.returncode == 0, done.stderr
    (sent,) = server.app.requests(r"^POST /api/jobs/alice$")
    body = json.loads(sent.body)
    text = body["environment"].pop("HFSAFEMERGE_RECIPE")
    assert Recipe.parse(base64.b64decode(text).decode()) == recipe()
    assert len(body["labels"].pop("submission")) == 16
    assert body == {
        "command": ["bash", "-c", SCRIPT, "hfsafemerge-job", f"hfsafemerge=={__version__}", "hfsafemerge", "run", "recipe.yaml"],
        "arguments": [],
        "environment": {},
        "secrets": {"HF_TOKEN": TOKEN},
        "flavor": "a100-large",
        "timeoutSeconds": 5400,
        "labels": {"made-by": "hfsafemerge", "recipe": "pair", "name": "hfsafemerge-pair", "team": "lab"},
        "dockerImage": IMAGE,
    }
    assert sent.body.count(TOKEN.encode()) == 1
    assert TOKEN not in base64.b64decode(text).decode() and TOKEN not in done.stdout + done.stderr
    (job,) = jobs_of(server).all.values()
    assert json.loads(done.stdout) == {"id": f"alice/{job.id}", "url": f"{server.url}/jobs/alice/{job.id}"}
    # $0.041667 a minute for 90 minutes, as the list of hardware says
    assert "a100-large (12 vCPU, 142 GB, 1 A100) costs $0.04167 a minute, so at most $3.75 in 1.5 h" in done.stderr
    assert f"hfsafemerge jobs logs -f alice/{job.id}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("jobs", "run", "{recipe}", "--flavor", "cpu-basic", "--detach"), "^POST /api/jobs/alice$"),
        (("space", "deploy", "alice/app", "--secret", "MY_KEY"), "^POST .*/secrets$"),
    ],
)
def test_the_log_of_the_client_holds_no_secret_even_when_it_is_asked_for_all(server, tmp_path, arguments, match):
    short = recipe().model_dump(mode="json", exclude_defaults=True) | {"judges": {}, "evaluation": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(short))  # short, so that its body is logged up to the secrets
    words = [word.format(recipe=tmp_path / "recipe.yaml") for word in arguments]
    done = command(*words, HF_ENDPOINT=server.url, HF_DEBUG="1", MY_KEY="s3cr3t's value")
    assert done.returncode == 0, done.stderr
    assert server.app.requests(match) and "Send: curl -X POST" in done.stderr
    for told in (TOKEN, "s3cr3t"):
        assert told not in done.stdout + done.stderr


def test_a_request_in_the_log_has_no_body(caplog):
    log = logging.getLogger(redacting.REQUESTS)
    redacting.redact_log()
    redacting.redact_log()
    assert len([found for found in log.filters if found is redacting._redact]) == 1
    with caplog.at_level(logging.DEBUG, logger=redacting.REQUESTS):
        log.debug("Send: %s", """curl -X POST -H 'x: y' -d '{"value": "it'"'"'s"}' http://hub/secrets""")
        log.debug("Send: %s", "curl -X GET -H 'x: y' -d http://hub/api")
        log.debug("Send: %s", "curl -X POST -d 'cut in its middle")
        log.debug("for %s and hf_another1", TOKEN)
    assert caplog.messages == [
        "Send: curl -X POST -H 'x: y' -d '<body>' http://hub/secrets",
        "Send: curl -X GET -H 'x: y' -d http://hub/api",
        "Send: a request that can't be shown without its body",
        "for <token> and <token>",
    ]


def test_another_image_package_namespace_and_place(server, written):
    done = command(
        "jobs", "run", written, "--flavor", "cpu-basic", "--image", "me/uv", "--package", "git+https://example.org/x@main",
        "--namespace", "acme", "--push-to", "acme/other", "-d", HF_ENDPOINT=server.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (job,) = jobs_of(server).all.values()
    assert (job.namespace, job.spec.image, job.spec.command[4]) == ("acme", "me/uv", "git+https://example.org/x@main")
    assert job.spec.timeout == 4 * 3600  # the Hub's own default of half an hour would end most runs
    assert Recipe.parse(base64.b64decode(job.spec.environment["HFSAFEMERGE_RECIPE"]).decode()).push.repo_id == "acme/other"


def test_a_dry_run_shows_what_would_be_submitted_and_submits_nothing(server, written):
    done = command("jobs", "run", written, "--flavor", "l4x1", "--dry-run", HF_ENDPOINT=server.url)
    shown = json.loads(done.stdout)
    assert shown["flavor"] == "l4x1" and shown["timeout"] == 14400 and shown["secrets"] == ["HF_TOKEN"]
    assert TOKEN not in done.stdout + done.stderr and not server.app.requests("^POST")


@pytest.mark.parametrize(
    ("changes", "extras"),
    [
        ({"compute": {"country": "DEU"}}, "[emissions]"),
        ({"search": {"executor": "ray"}, "evaluation": {"tasks": {"gsm8k": {}}}}, "[lm-eval,ray]"),
    ],
)
def test_the_package_comes_with_the_extras_that_the_recipe_needs(changes, extras):
    assert request(recipe(**changes)).command[4] == f"hfsafemerge{extras}=={__version__}"


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("1d", 86400)])
def test_times_have_units(text, seconds):
    assert request(timeout=text).timeout == seconds


def test_a_name_with_dots_makes_a_label_without():
    wanted = request(recipe(name="llama3.1-x"))
    assert wanted.labels["recipe"] == "llama3-1-x" and wanted.name == "hfsafemerge-llama3-1-x"


# What is refused before anything is submitted

CHAT = {"url": "https://llm.example.org/v1", "model": "m"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": {"path": "models/base"}}, r"base is the local folder models/base; publish it"),
        ({"experts": [{"repo_id": "a/b", "adapter": {"path": "lora"}}]}, r"experts\.0\.adapter is the local folder lora"),
        ({"judges": {"llama_guard": {"model": {"path": "guard"}}}}, r"judges\.llama_guard\.model is the local folder guard"),
        ({"data": {"domain": {"in_context": {"x": {"path": "rows"}}}}}, r"data\.domain\.in_context\.x is the local folder rows"),
        (
            {"base": {"repo_id": "a/b", "endpoint": CHAT | {"key": "MY_KEY"}}},
            r"base\.endpoint needs the key in MY_KEY, which a job does not get",
        ),
        ({"base": {"repo_id": "a/b", "endpoint": {"url": "http://localhost:8000/v1"}}}, r"base\.endpoint is a server on this machine"),
        ({"base": {"repo_id": "a/b", "endpoint": {"url": "http://[::1]:8000/v1"}}}, r"base\.endpoint is a server on this machine"),
        ({"push": None}, r"A job publishes its result.*--push-to"),
        (
            {"data": {"safety": {"writer": {"repo_id": "a/b"}}}},
            r"data\.safety\.writer lets a model write harmful questions.*--allow-writer",
        ),
    ],
)
def test_a_recipe_that_needs_this_machine_is_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        request(recipe(**changes))


def test_all_that_is_only_here_is_told_at_once():
    found = recipe(base={"path": "base"}, experts=[{"path": "expert"}])
    assert [text.split(" is ")[0] for text in only_here(found)] == ["base", "experts.0"]


def test_a_server_without_a_key_and_a_writer_that_is_allowed_are_fine():
    found = recipe(base={"repo_id": "a/b", "endpoint": CHAT}, data={"safety": {"writer": {"repo_id": "a/b"}}})
    assert request(found, allow_writer=True).command[-1] == "--allow-writer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": "soon"}, r"--timeout 'soon' is no length of time"),
        ({"timeout": "0"}, r"--timeout '0' is no length of time"),
        ({"timeout": "-4h"}, r"--timeout '-4h' is no length of time"),
        ({"package": "./hfsafemerge.whl"}, r"--package './hfsafemerge.whl' is nothing that a job can install"),
        ({"package": "--index-url=https://x"}, r"is nothing that a job can install"),
        ({"package": "git+https://me:secret@example.org/x"}, r"holds a name or password before the host"),
        ({"package": "hfsafemerge @ git+https://me@example.org/x"}, r"holds a name or password before the host"),
        ({"package": f"https://example.org/{TOKEN}/x.whl"}, r"Your token stands in the recipe, the package"),
        ({"labels": {"key": TOKEN}}, r"Your token stands in"),
        ({"image": f"me/{TOKEN}"}, r"Your token stands in"),
        ({"labels": {"made-by": "me"}}, r"The label made-by is set by hfsafemerge"),
    ],
)
def test_what_a_job_can_not_be_asked_is_refused(options, message):
    with pytest.raises(RecipeError, match=message) as told:
        request(**options)
    assert "secret@" not in str(told.value) and TOKEN not in str(told.value)


@pytest.mark.parametrize(
    "package", ["hfsafemerge", "hfsafemerge[ray]>=1.0,<2", "git+https://example.org/x@main", "https://example.org/x-1-py3-none-any.whl"]
)
def test_packages_that_a_job_can_install(package):
    assert request(package=package).command[4] == package


def test_a_recipe_that_is_too_long_is_refused():
    found = recipe(push={"repo_id": "alice/x", "license": "x" * LONGEST})
    with pytest.raises(RecipeError, match=r"The recipe takes [\d,]+ characters of a job's environment; it may take 65,536"):
        request(found)


def test_a_flavor_that_there_is_not_is_refused_with_the_nearest(server, written):
    done = command("jobs", "run", written, "--flavor", "a100-larg", HF_ENDPOINT=server.url)
    assert done.returncode == 1 and "There is no flavor named 'a100-larg'. Did you mean 'a100-large'?" in done.stderr
    assert not jobs_of(server).all


def test_without_prices_none_is_told(server, written):
    server.app.faults = [Fault("/api/jobs/hardware", status=404)]
    done = command("jobs", "run", written, "--flavor", "anything", "--dry-run", HF_ENDPOINT=server.url)
    assert done.returncode == 0 and "What the job costs is not known." in done.stderr and "$" not in done.stderr


def test_a_place_where_the_job_could_not_publish_is_refused_before_it_is_paid_for(server, written):
    theirs = HfApi(endpoint=server.url, token=TOKEN)
    theirs.create_repo("alice/merged")
    check_push(recipe())  # an empty one will do
    theirs.upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id="alice/merged")
    done = command("jobs", "run", written, "--flavor", "cpu-basic", HF_ENDPOINT=server.url)
    assert done.returncode == 1 and "alice/merged exists and was not made by hfsafemerge" in done.stderr
    elsewhere = command("jobs", "run", written, "--flavor", "cpu-basic", "--push-to", "bob/x", HF_ENDPOINT=server.url)
    assert elsewhere.returncode == 1 and "You are alice and can't write to bob/x" in elsewhere.stderr
    theirs.upload_file(path_or_fileobj=b"{}", path_in_repo=LOCK, repo_id="alice/merged")
    check_push(recipe())  # as will one of this tool's
    assert not jobs_of(server).all


def test_a_place_that_is_open_and_data_of_another_s_are_refused_before_it_is_paid_for(server, tmp_path):
    (tmp_path / "recipe.yaml").write_text(small_with_data().to_yaml())
    api = HfApi(endpoint=server.url, token=TOKEN)
    api.create_repo("alice/merged", private=False)
    api.upload_file(path_or_fileobj=b"{}", path_in_repo=LOCK, repo_id="alice/merged")
    done = command("jobs", "run", tmp_path / "recipe.yaml", "--flavor", "cpu-basic", "--allow-writer", HF_ENDPOINT=server.url)
    assert done.returncode == 1 and "alice/merged is public" in done.stderr
    api.update_repo_settings("alice/merged", private=True)
    api.create_repo("alice/merged-safety", repo_type="dataset")
    api.upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id="alice/merged-safety", repo_type="dataset")
    done = command("jobs", "run", tmp_path / "recipe.yaml", "--flavor", "cpu-basic", "--allow-writer", HF_ENDPOINT=server.url)
    assert done.returncode == 1 and "alice/merged-safety" in done.stderr
    assert not jobs_of(server).all


def test_without_a_token_it_says_how_to_sign_in(server, monkeypatch):
    monkeypatch.setattr(jobs, "get_token", lambda: None)
    with pytest.raises(HubError, match="A job needs a token with write access: run `hf auth login`"):
        jobs.submit(request())


# Faults


def submit_and_follow():
    lines = []
    wanted = request()
    jobs.price(wanted)
    check_push(recipe())
    job = jobs.submit(wanted)
    jobs.follow(job, lines.append)
    return lines


def test_a_fault_at_any_request_makes_no_second_job_and_repeats_no_line(server):
    jobs_of(server).run = writes("one", "two", "three")
    assert submit_and_follow() == ["one", "two", "three"]
    requests = len(server.app.log)
    assert requests >= 7
    for number in range(requests):
        for fault in ({"status": 503}, {"status": 503, "lost": True}, {"status": 429}, {"cut": True}, {"cut": True, "lost": True}):
            jobs_of(server).all.clear()
            server.app.faults = [Fault(".", after=number, **fault)]
            assert submit_and_follow() == ["one", "two", "three"], (number, fault)
            assert len(jobs_of(server).all) == 1, (number, fault)
            assert server.app.faults[0].times == 0


@pytest.mark.parametrize(
    ("faults", "namespace"),
    [
        ([Fault("^POST /api/jobs", status=503, lost=True), Fault("^GET /api/jobs/alice$", status=403, times=99)], None),
        ([Fault("^POST /api/jobs", status=503, times=99)], "alice"),
        ([Fault("^POST /api/jobs", cut=True, lost=True), Fault("^GET /api/jobs/alice$", status=404, times=99)], None),
    ],
)
def test_where_a_job_may_stand_unseen_it_says_so(server, faults, namespace):
    server.app.faults = faults
    with pytest.raises(HubError, match="A job may run all the same, and be paid for") as told:
        jobs.submit(request(), namespace)
    mark = json.loads(server.app.requests("^POST /api/jobs")[0].body)["labels"]["submission"]
    assert f"submission={mark}" in str(told.value)
    assert f"`hfsafemerge jobs ps --all{' --namespace alice' if namespace else ''}` shows it" in str(told.value)


def test_ctrl_c_before_the_answer_says_that_a_job_may_stand(server, monkeypatch):
    api = client.api()
    monkeypatch.setattr(api, "run_job", lambda **asked: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Cancelled, match=r"A job may run all the same.*submission="):
        jobs.submit(request())
    monkeypatch.setattr(api, "whoami", lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        jobs.submit(request())


def test_a_connection_that_is_lost_leaves_the_job_and_says_so(server):
    jobs_of(server).run = writes("begun")
    job = jobs.submit(request())
    server.app.faults = [Fault("GET /api/jobs/alice/", cut=True, times=99)]
    with pytest.raises(HubError, match=rf"Can't reach .*The job alice/{job.id} goes on, and is paid for\. See it with .*jobs cancel"):
        jobs.follow(job, lambda line: None)


def test_a_refusal_is_told_without_the_token(server, monkeypatch):
    reader = HfApi(endpoint=server.url, token="hf_alice_ro")
    monkeypatch.setattr(client, "api", lambda: reader)
    with pytest.raises(HubError, match=r"The Hub refused a job of alice \(403\).*read-only") as told:
        jobs.submit(request())
    assert TOKEN not in str(told.value) and "may run" not in str(told.value)


# Following


def test_what_a_job_writes_goes_to_stderr_and_its_end_is_the_command_s(server, written):
    jobs_of(server).run = writes("search: 1/2", f"a line with {TOKEN} in it")
    done = command("jobs", "run", written, "--flavor", "cpu-basic", "--format", "agent", HF_ENDPOINT=server.url)
    assert done.returncode == 0, done.stderr
    assert "search: 1/2\na line with <token> in it\n" in done.stderr and "search" not in done.stdout
    assert f"published at {server.url}/alice/merged" in done.stderr
    assert done.stdout.startswith("id=alice/")


def test_a_job_that_fails_fails_the_command_with_its_last_lines(server, written):
    jobs_of(server).run = writes(*(f"line {n}" for n in range(30)), f"Error: {TOKEN}", stage="ERROR", message="Exit code 1")
    done = command("jobs", "run", written, "--flavor", "cpu-basic", "--quiet", HF_ENDPOINT=server.url)
    assert done.returncode == 1
    (job,) = jobs_of(server).all.values()
    last = [f"  line {n}" for n in range(21, 30)]
    assert done.stderr.rstrip().endswith(
        f"The job alice/{job.id} ended as ERROR (Exit code 1). Its last lines:\n" + "\n".join(last) + "\n  Error: <token>"
    )
    assert done.stdout == f"alice/{job.id}\n"
    again = command("jobs", "logs", "-f", job.id, HF_ENDPOINT=server.url)
    assert again.returncode == 1 and again.stdout.startswith("line 0\nline 1\n")
    logs = command("jobs", "logs", f"alice/{job.id}", HF_ENDPOINT=server.url)
    assert logs.returncode == 0 and logs.stdout.splitlines()[-1] == "Error: <token>"


def test_ctrl_c_leaves_the_job_running_and_says_how_to_see_and_stop_it(server, written):
    over = threading.Event()

    def waits(job):
        job.stage = "RUNNING"
        job.write("begun")
        over.wait(60)
        job.end("COMPLETED")

    jobs_of(server).run = waits
    arguments = [sys.executable, "-m", "hfsafemerge", "jobs", "run", str(written), "--flavor", "cpu-basic", "--format", "agent"]
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"HF_ENDPOINT": server.url}
    )
    for line in process.stderr:
        if line == "begun\n":
            break
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    (job,) = jobs_of(server).all.values()
    assert process.returncode == 130 and job.stage == "RUNNING"
    assert f"The job alice/{job.id} goes on, and is paid for." in said
    assert f"`hfsafemerge jobs logs -f alice/{job.id}`" in said and f"`hfsafemerge jobs cancel alice/{job.id}`" in said
    over.set()


def test_a_job_that_waits_for_its_machine_says_why(server, monkeypatch):
    looks, said = [], []

    def sleep(seconds):
        looks.append(seconds)
        (job,) = jobs_of(server).all.values()
        job.message = "Waiting for hardware"
        if len(looks) == 3:
            threading.Thread(target=writes("done"), args=(job,)).start()

    monkeypatch.setattr(jobs.time, "sleep", sleep)
    jobs_of(server).run = lambda job: None
    lines = []
    jobs.follow(jobs.submit(request()), lines.append, said.append)
    assert lines == ["done"] and said.count("Waiting for hardware") == 1


def test_a_job_that_is_cancelled_meanwhile_is_a_failure(server):
    jobs_of(server).run = writes("begun", stage="CANCELED")
    with pytest.raises(HubError, match=r"ended as CANCELED\. Its last lines:\n  begun"):
        jobs.follow(jobs.submit(request()), lambda line: None)


def test_ctrl_c_while_nothing_is_said(server, monkeypatch):
    def interrupt(seconds):
        raise KeyboardInterrupt

    jobs_of(server).run = lambda job: None
    monkeypatch.setattr(jobs.time, "sleep", interrupt)
    with pytest.raises(Cancelled, match="goes on, and is paid for"):
        jobs.follow(jobs.submit(request()), lambda line: None)


# Jobs that are there


@pytest.fixture
def three(server):
    """One job that runs, one that has ended, and one of somebody else's tool."""
    jobs_of(server).run = lambda job: None
    running = jobs.submit(request())
    jobs_of(server).run = writes("x")
    ended = jobs.submit(request(recipe(name="other")))
    foreign = HfApi(endpoint=server.url, token=TOKEN).run_job(image="ubuntu", command=["true"], flavor="cpu-basic")
    jobs.follow(ended, lambda line: None)
    return running, ended, foreign


def test_only_jobs_of_this_tool_are_listed_newest_first(server, three):
    running, ended, _ = three
    assert [job.id for job in jobs.listed()] == [running.id]
    assert [job.id for job in jobs.listed(finished=True)] == [ended.id, running.id]
    rows = json.loads(command("jobs", "ps", "--all", "--json", HF_ENDPOINT=server.url).stdout)
    assert [(row["recipe"], row["stage"]) for row in rows] == [("other", "COMPLETED"), ("pair", "SCHEDULING")]
    assert command("jobs", "ps", "-q", HF_ENDPOINT=server.url).stdout == f"alice/{running.id}\n"


def test_a_job_is_shown_without_its_environment(server, three):
    shown = json.loads(command("jobs", "inspect", three[0].id, HF_ENDPOINT=server.url).stdout)
    assert shown["id"] == f"alice/{three[0].id}" and shown["stage"] == "SCHEDULING" and shown["flavor"] == "cpu-basic"
    assert set(shown) == {"id", "recipe", "stage", "message", "flavor", "created", "url"}


def test_a_job_is_cancelled_once(server, three):
    running, ended, _ = three
    for wanted in ("Cancelled", "It had ended already"):
        done = command("jobs", "cancel", f"alice/{running.id}", "--format", "human", HF_ENDPOINT=server.url)
        assert done.returncode == 0 and wanted in done.stdout
    assert jobs_of(server).all[running.id].stage == "CANCELED"
    command("jobs", "cancel", ended.id, HF_ENDPOINT=server.url)
    assert jobs_of(server).all[ended.id].stage == "COMPLETED"


@pytest.mark.parametrize("what", ["logs", "inspect", "cancel"])
def test_what_is_not_ours_is_left_alone(server, three, what):
    foreign = three[2].id
    done = command("jobs", what, foreign, HF_ENDPOINT=server.url)
    assert done.returncode == 1 and f"The job alice/{foreign} was not started by hfsafemerge" in done.stderr
    assert jobs_of(server).all[foreign].stage == "COMPLETED"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0000", r"There is no job 0000 of alice\. `hfsafemerge jobs ps --all` lists them"),
        ("alice/", "'alice/' is no job"),
        ("a/b/c", "'a/b/c' is no job"),
        ("bob/0000", r"The Hub refused the job bob/0000 \(403\).*alice is no member of bob"),
    ],
)
def test_a_job_that_there_is_not(server, name, message):
    with pytest.raises(HubError, match=message):
        jobs.find(name)


# The local Hub's own


def test_the_local_hub_refuses_what_it_could_not_run(server):
    alice = HfApi(endpoint=server.url, token=TOKEN)
    with pytest.raises(Exception, match="flavor is 'abacus'"):
        alice.run_job(image="ubuntu", command=["true"], flavor="abacus")
    with pytest.raises(Exception, match="at least 1 item"):
        alice.run_job(image="ubuntu", command=[], flavor="cpu-basic")
    with pytest.raises(Exception, match="bob is no member of alice"):
        HfApi(endpoint=server.url, token="hf_bob").run_job(image="ubuntu", command=["true"], flavor="cpu-basic", namespace="alice")


def test_the_local_hub_tells_no_secret_and_the_last_lines_on_demand(server):
    alice = HfApi(endpoint=server.url, token=TOKEN)
    jobs_of(server).run = writes("a", "b", "c")
    job = alice.run_job(image="ubuntu", command=["true"], secrets={"KEY": "s3cret"})
    assert list(alice.fetch_job_logs(job_id=job.id, follow=True)) == ["a", "b", "c"]
    assert list(alice.fetch_job_logs(job_id=job.id, follow=True, tail=2)) == ["b", "c"]
    assert job.secrets is None and "s3cret" not in json.dumps(jobs_of(server).all[job.id].describe())


# One that really runs


def test_a_job_does_the_whole_run_and_publishes_it(server, lab, tmp_path):
    """The command of the job as it was submitted, but for uvx, which would install the package."""
    from hfsafemerge.lab.publishing import publish_lab

    publish_lab(lab, "alice")
    tools = tmp_path / "bin"
    tools.mkdir()
    # called as: uvx --from PACKAGE hfsafemerge ARGUMENTS
    (tools / "uvx").write_text(
        f'#!/bin/sh\ntest "$1 $2 $3" = "--from hfsafemerge=={__version__} hfsafemerge" || exit 9\nshift 3\nexec {sys.executable} -m hfsafemerge "$@"\n'
    )
    (tools / "uvx").chmod(0o755)

    def run(job):
        job.stage = "RUNNING"
        machine = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        machine |= {name: value for name, value in server.environment.items() if name != "HF_TOKEN"}  # which is the job's own
        machine |= {"PATH": f"{tools}:{machine['PATH']}", "HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path.cwd())}
        environment = machine | job.spec.environment | job.spec.secrets
        with subprocess.Popen(job.spec.command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            for line in process.stdout:
                job.write(line.rstrip("\n"))
        job.end("COMPLETED" if process.returncode == 0 else "ERROR", f"Exit code {process.returncode}")

    jobs_of(server).run = run
    wanted = small(lab_recipe("pair", ("sums",), OnHub("alice"), method="linear", strategy="fixed", use=(), ready={}, compare=False))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wanted.model_dump(mode="json", exclude_defaults=True), sort_keys=False))
    done = command(
        "jobs", "run", tmp_path / "recipe.yaml", "--flavor", "cpu-basic", "--push-to", "alice/from-a-job", HF_ENDPOINT=server.url
    )
    assert done.returncode == 0, done.stderr
    assert "merge: " in done.stderr and TOKEN not in done.stderr + done.stdout
    files = set(HfApi(endpoint=server.url, token=TOKEN).list_repo_files("alice/from-a-job"))
    assert {"model.safetensors", "README.md", LOCK} <= files
