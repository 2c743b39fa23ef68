"""The app in a process of its own, as on a Space or on a machine of one's own, and a Chromium that looks at it.

Playwright's loop counts as running as long as Playwright does, so a browser lives as long as one file of tests and no longer.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium")
# Nothing outside this machine is asked: neither by Chromium itself nor by Gradio's page, which looks for the Space on the Hub.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
PATIENCE = 60_000  # milliseconds that a person's browser may take for one thing on a busy machine
OAUTH = {
    "SYSTEM": "spaces",
    "SPACE_ID": "alice/hfsafemerge",
    "OAUTH_CLIENT_ID": "space",
    "OAUTH_CLIENT_SECRET": "secret",
    "OAUTH_SCOPES": "openid profile contribute-repos gated-repos",
}


@dataclass(frozen=True)
class App:
    """An app that runs, and where its jobs and what it printed are."""

    url: str
    runs: Path
    log: Path
    process: subprocess.Popen[bytes]


def start_app(folder: Path, extra: dict[str, str], *, without: tuple[str, ...] = ()) -> App:
    """Start `python app.py` with jobs in a folder, and return when it answers.

    Args:
        folder: for its jobs and its log.
        extra: variables of its environment.
        without: variables that it does not get.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs, log = folder / "runs", folder / "app.log"
    kept = {name: value for name, value in os.environ.items() if name not in (*OAUTH, "SPACE_HOST", *without)}
    place = {"GRADIO_SERVER_NAME": "127.0.0.1", "GRADIO_SERVER_PORT": str(port), "HFSAFEMERGE_SPACE_RUNS": str(runs)}
    machine = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}  # two runs at once, whatever the machine
    with log.open("wb") as printed:
        process = subprocess.Popen([sys.executable, "app.py"], cwd=ROOT, env=kept | place | machine | extra, stdout=printed, stderr=printed)
    app = App(f"http://127.0.0.1:{port}", runs, log, process)
    while process.poll() is None:
        try:
            with urllib.request.urlopen(f"{app.url}/gradio_api/startup-events"):
                return app
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"The app did not start:\n{log.read_text()}")


def stop_app(app: App) -> None:
    """Stop the app and every job of it, which would outlive it."""
    from space.job import Job  # here, as it takes seconds that tests without a browser need not wait

    app.process.terminate()
    app.process.wait(20)
    for job in map(Job, app.runs.glob("[0-9a-f]*")):
        if job.is_alive() and job.facts["pid"] is not None:
            os.killpg(job.facts["pid"], signal.SIGKILL)


@pytest.fixture(scope="session")
def space_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app as a Space of alice's, whose visitors sign in at the session's local Hub."""
    given = OAUTH | {"OPENID_PROVIDER_URL": os.environ["HF_ENDPOINT"], "OAUTH_CLIENT_SECRET": secrets.token_hex(16)}
    app = start_app(tmp_path_factory.mktemp("space"), given)
    yield app
    stop_app(app)


@pytest.fixture(scope="session")
def own_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on a machine of one's own, with neither a token nor a Hub that answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path_factory.mktemp("own")
    app = start_app(folder, {"HF_ENDPOINT": nobody, "HF_HOME": str(folder / "hf")}, without=("HF_TOKEN",))
    yield app
    stop_app(app)


@pytest.fixture(scope="module")
def chromium() -> "Iterator[Browser]":
    """A browser. Skips where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed (pip install -e '.[dev]')")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


def visitor(browser: "Browser", app: App, *, dark: bool = False, width: int = 1280) -> "BrowserContext":
    """A browser of somebody's own, with cookies and memory of its own."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(base_url=app.url, color_scheme=scheme, viewport={"width": width, "height": 900})
    context.set_default_timeout(PATIENCE)
    return context


def open_page(context: "BrowserContext", query: str = "") -> "Page":
    """The page in a new tab, when it can be used."""
    page = context.new_page()
    page.goto(f"/{query}")
    page.locator("#steps").wait_for()
    return page


def sign_in(page: "Page", name: str) -> None:
    """Press the page's button, and choose who to be on the Hub's page."""
    page.locator("#sign-in").click()
    page.locator(f"#as-{name}").click()
    page.locator("#steps").wait_for()
    page.get_by_text(f"Logout ({name})").wait_for()


def sees(page: "Page", place: str, text: str, *, patience: int = PATIENCE) -> None:
    """Wait until somebody who looks at a place of the page sees a text there; fail when that does not come."""
    from playwright.sync_api import expect

    expect(page.locator(place)).to_be_visible(timeout=patience)
    expect(page.locator(place)).to_contain_text(text, timeout=patience)


def fill(page: "Page", field: str, text: str) -> None:
    """Type into a field, whatever it is made of, and leave it."""
    box = page.locator(f"#{field} input, #{field} textarea").first
    box.fill(text)
    box.press("Enter" if box.get_attribute("role") == "listbox" else "Tab")


def write_recipe(page: "Page", text: str) -> None:
    """Put a recipe into the editor of the step Method, and leave it."""
    if not page.locator("#recipe .cm-content").is_visible():
        page.locator("#recipe-section > button").click()
    page.locator("#recipe .cm-content").fill(text)
    page.locator("#recipe .cm-content").blur()


def go(page: "Page", *buttons: str) -> None:
    """Press buttons, one after the other: `models-next`, `data-back` and so on."""
    for button in buttons:
        page.locator(f"#{button}").click()
