"""The real app as a Space, driven through its API with the tokens of its visitors."""

import os
import re
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
import yaml
from gradio_client import Client
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi
from space_server import OAUTH, App, start_app

from hfsafemerge.lab.recipes import OnHub, lab_recipe
from space import layout
from space.actions import api
from space.job import Job

PAGE = Path(__file__).parent.parent / "docs" / "space.md"
SPACE = OAUTH | {"OAUTH_CLIENT_SECRET": secrets.token_hex(16), "HF_TOKEN": "hf_owner_of_the_space"}


@contextmanager
def served(folder: Path) -> Iterator[App]:
    """A Space whose jobs outlive it."""
    app = start_app(folder, SPACE | {"OPENID_PROVIDER_URL": os.environ["HF_ENDPOINT"]})
    try:
        yield app
    finally:
        app.process.terminate()
        app.process.wait(60)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where the app keeps its jobs; those that still go on are ended."""
    yield tmp_path
    for job in (Job(file.parent) for file in tmp_path.glob("runs/*/job.json")):
        if job.is_alive() and job.facts["pid"] is not None:
            os.killpg(job.facts["pid"], signal.SIGKILL)


def client(app: App, token: str | None = None) -> Client:
    return Client(app.url, oauth_token=token, verbose=False)


def poll(of: Client, job: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status for which `reached` holds."""
    until = time.monotonic() + 500
    while True:
        now: dict[str, Any] = of.predict(job, api_name="/status")
        if reached(now):
            return now
        assert now["phase"] in ("queued", "running", "stopping") and time.monotonic() < until, now
        time.sleep(0.5)


def small_recipe(namespace: str) -> str:
    recipe = yaml.safe_load(lab_recipe("space", ("sums",), OnHub(namespace), settings={"max_evaluations": 6}, writer=False).to_yaml())
    recipe["data"]["count"] = 60
    for benchmark in recipe["evaluation"]["benchmarks"].values():
        benchmark["limit"] = 20
    return str(yaml.safe_dump(recipe))


def test_the_whole_flow_with_a_restart_of_the_app_in_its_midst(lab_on_hub: str, hub_url: str, repo_name: str, folder: Path) -> None:
    recipe = small_recipe(lab_on_hub)
    with served(folder) as app:
        alice, others = client(app, "hf_alice"), [client(app, "hf_bob"), client(app)]
        with pytest.raises(AppError, match="Did you mean 'merge'"):
            alice.predict(recipe.replace("merge:", "mrge:"), api_name="/check")
        found = alice.predict(recipe, api_name="/check")
        assert found["problems"] == [] and "in order" in found["says"] and found["rows"][0]["ref"].startswith("alice/lab-")
        assert found["download_bytes"] > 0 and any(place["dollars_per_hour"] for place in found["places"])
        with pytest.raises(AppError, match="local folder /etc"):
            alice.predict(recipe.replace("repo_id: alice/lab-sums-expert", "path: /etc"), api_name="/start")
        job, waits = alice.predict(recipe, api_name="/start"), alice.predict(recipe, api_name="/start")
        assert alice.predict(waits, api_name="/status")["phase"] == "queued"
        for other in others:
            for name in ("/status", "/result", "/cancel"):
                with pytest.raises(AppError, match="There is no run"):
                    other.predict(job, api_name=name)
            with pytest.raises(AppError, match=r"There is no run|Publishing needs"):
                other.predict(job, "bob/merge", True, api_name="/push")
        with pytest.raises(AppError, match="does not know your sign-in"):
            client(app, "hf_wrong").predict(job, api_name="/status")
        with pytest.raises(AppError, match="not finished"):
            alice.predict(job, api_name="/result")
        printed = app.log.read_text()

    with served(folder) as app:
        alice = client(app, "hf_alice")
        lost = alice.predict(waits, api_name="/status")
        assert (lost["phase"], lost["error"]) == ("lost", "The app was started again while this run waited. Start it anew.")
        now = poll(alice, job, lambda now: now["phase"] == "done")
        done = [stage["name"] for stage in now["stages"] if stage["state"] == "done"]
        assert done == ["check", "generate", "search", "merge", "evaluate"]
        scores = alice.predict(job, api_name="/result")["scores"]
        assert set(scores) == {"base", "sums", "merged"}
        assert {score["metric"] for score in scores["merged"]} >= {"alignment", "over_refusal", "accuracy"}

        with pytest.raises(AppError, match="can't write to bob/"):
            alice.predict(job, f"bob/{repo_name}", True, api_name="/push")
        assert alice.predict(job, f"alice/{repo_name}", True, api_name="/push") == f"{hub_url}/alice/{repo_name}"
        hub = HfApi(endpoint=hub_url, token="hf_alice")
        assert hub.model_info(f"alice/{repo_name}").private
        assert {"README.md", "model.safetensors", "hfsafemerge.lock.json"} <= set(hub.list_repo_files(f"alice/{repo_name}"))

        second = alice.predict(recipe, api_name="/start")
        poll(alice, second, lambda now: now["phase"] == "running")
        assert "is kept" in alice.predict(second, api_name="/cancel")
        assert alice.predict(second, api_name="/status")["phase"] == "cancelled"
        assert not Job(app.runs / second).is_alive() and not (app.runs / second / "hf").exists()
        assert "ended already" in alice.predict(second, api_name="/cancel")
        printed += app.log.read_text()
    kept = [path for path in app.runs.rglob("*") if path.is_file() and "/hf/" not in str(path)]
    assert not any(token in path.read_bytes() for path in kept for token in (b"hf_alice", b"hf_owner_of_the_space"))
    assert "hf_alice" not in printed
    gradios_own = printed.count("RuntimeError: `spaces` package is required")  # the platform installs it
    assert printed.count("Traceback") == gradios_own


def test_who_is_signed_out_has_the_lab(folder: Path, lab: Path) -> None:
    with served(folder) as app:
        anyone = client(app)
        with pytest.raises(AppError, match="no pool 'none'"):
            anyone.predict("", "none", api_name="/start")
        with pytest.raises(AppError, match="at least one evaluation"):
            anyone.predict("", evaluations=0, api_name="/start")
        job = anyone.predict("", evaluations=6, method="task_arithmetic", strategy="gradient", api_name="/start")
        assert client(app, "hf_bob").predict(job, api_name="/status")["phase"] == "running"  # who has the id of nobody's run
        facts = Job(app.runs / job).facts
        assert facts["owner"] is None and facts["lab"]["method"] == "task_arithmetic" and facts["lab"]["evaluations"] == 6
        with pytest.raises(AppError, match="Publishing needs a Hugging Face account"):
            anyone.predict(job, "alice/merge", True, api_name="/push")
        anyone.predict(job, api_name="/cancel")
        every = anyone.view_api(return_format="dict", print_info=False)["named_endpoints"]
        told = {name: endpoint for name, endpoint in every.items() if not name.startswith("/_")}  # Gradio's own, of its sign-in button
        assert set(told) == {"/check", "/start", "/status", "/result", "/cancel", "/push"}
        for name, endpoint in told.items():
            parameters = {each["parameter_name"]: each["python_type"]["type"] for each in endpoint["parameters"]}
            assert "visitor" not in parameters and len(endpoint["returns"]) == 1, name
            assert not set(parameters.values()) - {"str", "bool", "int", "float"}, (name, parameters)


def test_the_session_of_the_page_runs(lab: Path, hub_url: str, repo_name: str, folder: Path) -> None:
    (session,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    begun, seen, finished = re.fullmatch(r"(.*?)(space[^\n]*/status.*?\n)(.*)", session, re.DOTALL).groups()
    names: dict[str, Any] = {}
    with served(folder) as app:
        begun = begun.replace("NAMESPACE/NAME", app.url).replace("hf_...", "hf_alice").replace("evaluations=20", "evaluations=6")
        exec(begun + seen, names)
        poll(names["space"], names["job"], lambda now: now["phase"] == "done")
        exec(finished.replace("NAMESPACE/my-merge", f"alice/{repo_name}"), names)
    assert HfApi(endpoint=hub_url, token="hf_alice").model_info(f"alice/{repo_name}").private


def test_the_docstrings_explain_every_parameter() -> None:
    for function in (api.check, api.start, api.status, api.result, api.cancel, api.push):
        said = function.__doc__ or ""
        names = function.__wrapped__.__code__.co_varnames[: function.__wrapped__.__code__.co_argcount]
        assert all(f"\n        {name}: " in said for name in names), function.__name__


def test_what_the_caller_can_not_put_right_is_told_without_a_traceback() -> None:
    with pytest.raises(gr.Error) as told:
        api.status("nothing", None)
    assert "There is no run" in str(told.value) and not told.value.print_exception


def test_there_are_tools_only_where_what_they_need_is_installed(space_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    page: Any = SimpleNamespace(launch=lambda **settings: given.update(settings))
    for installed in (None, object()):
        monkeypatch.setattr(api, "find_spec", lambda name, installed=installed: installed)
        layout.launch(page)
        assert given["mcp_server"] is (installed is not None)
