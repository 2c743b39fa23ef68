"""Pictures of every step of the Space, light and dark, on a phone, a tablet and a wide screen.

    python benchmarks/space_screenshots.py

Starts a local Hub with the lab on it and the app as a Space beside it, signs in, and goes through the flow as a visitor does: models of
the Hub are checked, a run of the lab is watched and published. Writes docs/images/space/<step>-<width>-<light|dark>.png, and says which
pages scroll sideways. Takes about ten minutes on two cores, and Chromium.
"""

import argparse
import io
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from PIL import Image
from playwright.sync_api import sync_playwright
from space_server import CHROMIUM, CHROMIUM_OPTIONS, OAUTH, App, fill, go, sees, sign_in, start_app, stop_app, visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parent.parent
WIDTHS, MODES = (390, 1024, 1600), ("light", "dark")
COLOURS = 144  # of a picture's palette
TALLEST = 2400  # pixels of a picture; what is below is more of the same, such as the card
RUN_TIME = 600_000  # milliseconds that the run may take beside other work
NAME = "lab-merge"
RECIPE = """name: lab-three
base: {repo_id: alice/lab-aligned}
experts:
- {repo_id: alice/lab-sums-expert, topic: sums}
- {repo_id: alice/lab-reverse-expert, topic: reverse}
judges:
  llama_guard:
    model: {repo_id: alice/lab-guard}
data:
  count: 100
  judges: [llama_guard, refusal_phrases]
  safety:
    questions: {repo_id: alice/lab-world, config: harmful, split: validation}
  domain:
    in_context:
      sums: {repo_id: alice/lab-world, config: sums, split: validation}
      reverse: {repo_id: alice/lab-world, config: reverse, split: validation}
merge: {method: ties, parameters: {normalize: false}, layers_per_group: 1}
search: {strategy: cma_es, settings: {max_evaluations: 60}}
evaluation:
  benchmarks:
    sums:
      kind: domain
      dataset: {repo_id: alice/lab-world, config: sums, split: test}
      judges: [exact_match]
"""


@contextmanager
def local_hub(folder: Path) -> Iterator[str]:
    """A Hub of this machine, with the lab's models in alice's namespace; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hfsafemerge.localhub", "--root", str(folder), "--port", str(port), "--stop-with-input"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.stdin is not None
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"HF_ENDPOINT": url, "HF_TOKEN": "hf_alice", "HF_HOME": str(folder / "cache"), "HF_HUB_DISABLE_XET": "1"}
    try:
        while process.poll() is None:
            with socket.socket() as there:
                if there.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        from hfsafemerge.lab.models import lab_folder  # here: the client of the Hub reads its address when it is imported
        from hfsafemerge.lab.publishing import publish_lab, write_world

        write_world(lab_folder())
        publish_lab(lab_folder(), "alice")
        yield url
    finally:
        process.stdin.close()
        process.wait(20)


class Camera:
    """Takes pictures of a page in one width and mode."""

    def __init__(self, page: "Page", folder: Path, width: int, mode: str) -> None:
        self.page, self.folder, self.suffix = page, folder, f"{width}-{mode}.png"

    def take(self, step: str) -> None:
        """A picture of all of the page, without the empty space below it."""
        self.page.mouse.move(0, 0)
        self.page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        self.page.wait_for_timeout(900)
        over = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if over > 0:
            print(f"{step}-{self.suffix}: {over} pixels too wide")
        height = self.page.evaluate("document.querySelector('footer').getBoundingClientRect().bottom + window.scrollY")
        size = self.page.viewport_size or {"width": 0}
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(height + 16, TALLEST)}
        with Image.open(io.BytesIO(self.page.screenshot(full_page=True, clip=clip))) as picture:  # type: ignore[arg-type] # a dict is taken
            picture.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(self.folder / f"{step}-{self.suffix}", optimize=True)


def before_a_run(page: "Page", camera: Camera) -> None:
    """The steps that ask what to do."""
    camera.take("models")
    page.get_by_label("Models from the Hub").click()
    page.locator("#step-method-button").click()
    page.locator("#recipe-section > button").click()
    page.locator("#recipe .cm-content").fill(RECIPE)
    page.wait_for_timeout(1000)  # as long as anybody takes between typing and leaving
    page.locator("#recipe .cm-content").blur()
    page.wait_for_timeout(1000)
    page.locator("#step-models-button").click()
    sees(page, "#experts-list", "lab-reverse-expert")
    camera.take("models-hub")
    go(page, "models-next", "check")
    sees(page, "#check-found .good", "The models fit together.")
    camera.take("check")
    go(page, "check-next")
    camera.take("data")
    go(page, "data-next")
    page.locator("#advanced > button").click()
    page.locator("#field-density").wait_for()
    camera.take("method")


def start_run(page: "Page", candidates: int) -> str:
    """Start the lab's run as a visitor does; the end of the address that leads back to it."""
    go(page, "models-next", "check-next", "data-next")
    fill(page, "evaluations", str(candidates))
    go(page, "method-next", "start")
    page.wait_for_url("**/?*job=*", timeout=60_000)
    return page.url.partition("job=")[2].partition("&")[0]


def after_a_run(page: "Page", camera: Camera) -> None:
    """The steps that show what came of it."""
    sees(page, "#table", "merged")
    camera.take("results")
    page.locator("#front-section > button").click()
    page.locator("#front canvas, #front svg").first.wait_for()
    page.locator("#chat-section > button").click()
    fill(page, "prompt", "what is 3 red torch plus 4 ?")
    go(page, "ask")
    page.locator("#replies [role=status]").first.wait_for(timeout=RUN_TIME)
    camera.take("more")
    go(page, "results-next")
    fill(page, "repo-name", NAME)
    go(page, "preview")
    sees(page, "#preview-files", "repository", patience=RUN_TIME)
    sees(page, "#card", "merge")
    camera.take("publish")


def every_view(browser: "Browser", app: App, folder: Path) -> Iterator[tuple["Page", Camera, str]]:
    """A page and its camera for each width and mode, signed in, and the end of its address."""
    for width in WIDTHS:
        for mode in MODES:
            context = visitor(browser, app, dark=mode == "dark", width=width)
            page = context.new_page()
            page.goto(f"/?__theme={mode}")
            sign_in(page, "alice")
            yield page, Camera(page, folder, width, mode), f"__theme={mode}"
            context.close()


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images" / "space", help="where the pictures go")
    parser.add_argument("--candidates", type=int, default=60, help="candidates of the run's search")
    asked = parser.parse_args()
    if CHROMIUM is None:
        parser.error("there is no Chromium (apt-get install chromium)")
    asked.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as place, local_hub(Path(place) / "hub") as url, sync_playwright() as api:
        given = OAUTH | {"OPENID_PROVIDER_URL": url, "OAUTH_CLIENT_SECRET": secrets.token_hex(16)}
        app = start_app(Path(place), given, without=("HF_TOKEN",))
        try:
            browser = api.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS))
            for page, camera, theme in every_view(browser, app, asked.folder):
                page.goto(f"/?{theme}")
                page.wait_for_selector("#source")
                before_a_run(page, camera)
            job = ""
            for page, camera, theme in every_view(browser, app, asked.folder):
                job = job or start_run(page, asked.candidates)
                page.goto(f"/?job={job}&{theme}")
                sees(page, "#stages", "Search the parameters")
                page.locator("#search-plot canvas, #search-plot svg").first.wait_for(timeout=RUN_TIME)
                camera.take("run")
            while not (app.runs / job / "exit_code").exists():
                time.sleep(0.5)
            for page, camera, theme in every_view(browser, app, asked.folder):
                page.goto(f"/?job={job}&{theme}")
                after_a_run(page, camera)
            browser.close()
        finally:
            stop_app(app)
    pictures = list(asked.folder.glob("*.png"))
    print(f"{len(pictures)} pictures, {sum(picture.stat().st_size for picture in pictures) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
