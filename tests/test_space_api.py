"""The real app, driven through its API."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from huggingface_hub import HfApi

from hfsafemerge.lab.recipes import OnHub, lab_recipe
from space.job import find

pytestmark = pytest.mark.usefixtures("space_runs")

ROOT = Path(__file__).parents[1]


@contextmanager
def served(space_runs: Path, log: Path) -> Iterator[Client]:
    """The app in a process of its own, with no terminal and no account but the environment's."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"
    environment = os.environ | {"GRADIO_SERVER_PORT": str(port), "HFSAFEMERGE_SPACE_RUNS": str(space_runs)}
    with log.open("a") as output:
        app = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 240
        while True:
            assert app.poll() is None and time.monotonic() < until, log.read_text()
            try:
                with urllib.request.urlopen(url) as answer:
                    assert b"hfsafemerge" in answer.read()
                break
            except OSError:
                time.sleep(0.3)
        yield Client(url, verbose=False)
    finally:
        app.terminate()
        app.wait(60)


def poll(client: Client, job: str, reached: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status for which `reached` holds."""
    until = time.monotonic() + 900
    while True:
        now: dict[str, Any] = client.predict(job, api_name="/status")
        if reached(now):
            return now
        assert now["phase"] in ("running", "stopping") and time.monotonic() < until, now
        time.sleep(0.5)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes/text content:DeprecationWarning")  # huggingface_hub's own LFS
@pytest.mark.timeout(2400)
def test_the_app_runs_watches_publishes_and_cancels(
    lab_on_hub: str, hub_url: str, repo_name: str, space_runs: Path, tmp_path: Path
) -> None:
    log = tmp_path / "app.log"
    recipe = lab_recipe("space", ("sums",), OnHub(lab_on_hub), settings={"max_evaluations": 12}, writer=False).to_yaml()
    with served(space_runs, log) as client:
        said = client.predict(recipe.replace("merge:", "mrge:"), api_name="/check")
        assert "Did you mean 'merge'?" in said
        with pytest.raises(AppError, match="mrge"):
            client.predict(recipe.replace("merge:", "mrge:"), api_name="/start")
        job = client.predict(recipe, api_name="/start")
        with pytest.raises(AppError, match="not finished"):
            client.predict(job, api_name="/result")

    with served(space_runs, log) as client:  # the app was started again, and the run has gone on without it
        now = poll(client, job, lambda now: now["phase"] == "done")
        assert [stage["name"] for stage in now["stages"] if stage["state"] == "done"] == [
            "check",
            "generate",
            "search",
            "merge",
            "evaluate",
        ]
        scores = client.predict(job, api_name="/result")["scores"]
        assert set(scores) == {"base", "sums", "merged"}
        assert {score["metric"] for score in scores["merged"]} >= {"alignment", "over_refusal", "accuracy"}

        with pytest.raises(AppError, match="can't write to bob/"):
            client.predict(job, f"bob/{repo_name}", True, api_name="/push")
        address = client.predict(job, f"alice/{repo_name}", True, api_name="/push")
        assert address == f"{hub_url}/alice/{repo_name}"
        api = HfApi(endpoint=hub_url, token="hf_alice")
        assert {"README.md", "model.safetensors", "alignment.png"} <= set(api.list_repo_files(f"alice/{repo_name}"))
        assert api.model_info(f"alice/{repo_name}").private
        for kind in ("safety", "domain"):
            assert "data/train.parquet" in api.list_repo_files(f"alice/{repo_name}-{kind}", repo_type="dataset")

        second = client.predict(recipe, api_name="/start")
        poll(client, second, lambda now: now["stage"] == "generate")
        assert "is kept" in client.predict(second, api_name="/cancel")
        assert client.predict(second, api_name="/status")["phase"] == "cancelled"
        assert not find(second).is_alive()
        again = Client(client.src, verbose=False).predict(second, api_name="/status")
        assert (again["job"], again["phase"]) == (second, "cancelled")
    assert "Traceback" not in log.read_text()
