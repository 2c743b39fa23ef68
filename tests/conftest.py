"""One local Hub and one trained lab for the whole session.

The Hub's clients read their settings when they are imported, so the environment is set before anything else is.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hfsafemerge.localhub.faults import FaultyHub

# A shell's background job ignores Ctrl-C, and so would all that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["space_server", "space_finished", "published_runs"]  # the app and a browser; runs that are finished, and published

ROOT = Path(__file__).parent.parent
HUB_ROOT = tempfile.TemporaryDirectory(prefix="hfsafemerge-tests-")


def _start_hub() -> tuple[str, subprocess.Popen[bytes]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hfsafemerge.localhub", "--root", f"{HUB_ROOT.name}/hub", "--port", str(port), "--stop-with-input"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"{url}/api/models"):
                return url, process
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("The local Hub did not start.")


HUB_URL, HUB_PROCESS = _start_hub()
os.environ.update(
    HF_ENDPOINT=HUB_URL,
    HF_TOKEN="hf_alice",
    HF_HOME=f"{HUB_ROOT.name}/hf",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    HF_DATASETS_DISABLE_PROGRESS_BARS="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    GRADIO_ANALYTICS_ENABLED="False",
    TOKENIZERS_PARALLELISM="false",
    NO_COLOR="1",
)


def pytest_sessionfinish() -> None:
    """Stop the Hub by closing the input it watches."""
    assert HUB_PROCESS.stdin is not None
    HUB_PROCESS.stdin.close()
    HUB_PROCESS.wait(10)
    HUB_ROOT.cleanup()


@pytest.fixture(scope="session", autouse=True)
def two_threads() -> None:
    """The number of threads that CI has, whatever the machine, and no bars of transformers in the output."""
    import torch
    import transformers

    torch.set_num_threads(2)
    transformers.logging.disable_progress_bar()


@pytest.fixture
def hub_url() -> str:
    """The address of the session's local Hub, where HF_TOKEN is alice's."""
    return HUB_URL


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["FaultyHub"]:
    """A hub of the test's own that can be told to fail, with alice signed in; nobody waits before asking it again."""
    from huggingface_hub import HfApi

    from hfsafemerge.hub import client, retrying
    from hfsafemerge.localhub.faults import serve_with_faults

    with serve_with_faults(tmp_path / "hub") as found:
        alice = HfApi(endpoint=found.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
        yield found


@pytest.fixture
def repo_name() -> str:
    """A name that no other test uses."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture(scope="session")
def lab() -> Path:
    """The lab's folder, trained once and kept in the cache, with the world's items in it."""
    from hfsafemerge.lab.models import lab_folder
    from hfsafemerge.lab.publishing import write_world

    folder = lab_folder()
    write_world(folder)
    return folder


@pytest.fixture(scope="session")
def lab_on_hub(lab: Path) -> str:
    """The lab as public repositories of alice's; the namespace."""
    from hfsafemerge.lab.publishing import publish_lab

    publish_lab(lab, "alice")
    return "alice"


@pytest.fixture
def working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.fixture
def space_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the Space's jobs, empty; and a machine that is no Space, whatever the tests run on."""
    monkeypatch.setenv("HFSAFEMERGE_SPACE_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("SYSTEM", raising=False)
    return tmp_path / "runs"


@pytest.fixture
def on_space(space_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Space with sign-in."""
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "client")


@pytest.fixture
def job_commands(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Have the Space's jobs run Python code instead of hfsafemerge; the code finds the words of the command in sys.argv."""
    from space import jobs

    return lambda code: monkeypatch.setattr(jobs, "command", lambda *words: [sys.executable, "-c", code, *map(str, words)])


@pytest.fixture
def long_jobs(job_commands: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """The Space's jobs take ten minutes, one at once unless the test allows more; what is left of them is ended."""
    from space import jobs
    from space.job import every_job

    def allow(at_once: int) -> None:
        monkeypatch.setattr(jobs, "at_once", lambda: at_once)

    job_commands("import time; time.sleep(600)")
    monkeypatch.setattr(jobs, "GRACE", 60.0)
    allow(1)
    yield allow
    for job in every_job():
        jobs.QUEUE.leave(job.id)
    for job in every_job():
        jobs.cancel(job.id, job.owner)
