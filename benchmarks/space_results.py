"""How soon the page is painted after a cold start, and how fast it answers twenty visitors, with and without a run beside them.

    python benchmarks/space_results.py --json docs/results/space.json --page docs/results/space.md

`python app.py` is started anew several times, each time in a new process, and timed to the first painted page in Chromium. Then
twenty gradio_clients ask for the state of a run every two seconds for a minute, and one more loads the page as often: once after
the run has ended, and once while a run of the lab goes on. All of it is on one machine, Chromium and the clients too.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_ANALYTICS_ENABLED": "False"}
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).parent.parent))  # of the app

from gradio_client import Client
from space_server import CHROMIUM, CHROMIUM_OPTIONS, App, start_app, stop_app

from hfsafemerge.checkpoint import in_words
from hfsafemerge.lab.models import lab_folder
from space.hardware import detect

EVALUATIONS = 5000  # that the run is to make, so many that it goes on all the time
STARTS, VISITORS, SECONDS, EVERY = 5, 20, 60.0, 2.0
STATUS, PAGE = "state of a run", "the page"


def main() -> None:
    """Measure, and write the numbers and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    lab_folder()  # trained before anything is timed
    machine = detect()
    found: dict[str, Any] = {"cores": machine.cores, "memory_bytes": machine.memory_bytes, "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as folder:
        found["starts"] = [cold_start(Path(folder) / f"start-{number}") for number in range(STARTS)]
        found["latency"] = latencies(Path(folder) / "app")
    given.json.write_text(json.dumps(found, indent=1) + "\n")
    given.page.write_text(page(found))


def cold_start(folder: Path) -> dict[str, float]:
    """Seconds from `python app.py` to the server's first answer, and to the first page that can be used."""
    from playwright.sync_api import sync_playwright

    folder.mkdir()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(CHROMIUM_OPTIONS))
        tab = browser.new_page()
        began = time.perf_counter()
        app = start_app(folder, {})
        try:
            answered = time.perf_counter() - began
            tab.goto(app.url)
            tab.wait_for_selector("#source", timeout=60_000)
            return {"answers": answered, "painted": time.perf_counter() - began}
        finally:
            browser.close()
            stop_app(app)


def latencies(folder: Path) -> dict[str, dict[str, Any]]:
    """By what goes on beside them, what twenty visitors wait for."""
    folder.mkdir()
    app = start_app(folder, {"HFSAFEMERGE_SPACE_RUNS": str(folder / "runs")})
    try:
        clients = [Client(app.url, verbose=False) for _ in range(VISITORS)]
        job = clients[0].predict("", evaluations=EVALUATIONS, api_name="/start")
        time.sleep(15)  # until it has begun in earnest
        during = ask(app, clients, job)
        if (still := clients[0].predict(job, api_name="/status")["phase"]) != "running":
            raise SystemExit(f"The run beside the visitors is {still}, so it was not beside them all the time. Raise EVALUATIONS.")
        clients[0].predict(job, api_name="/cancel")
        return {"a run beside them": during, "no run": ask(app, clients, job)}
    finally:
        stop_app(app)


def ask(app: App, clients: Sequence[Client], job: str) -> dict[str, Any]:
    """The seconds that each answer took."""
    took: dict[str, list[float]] = {STATUS: [], PAGE: []}
    until = time.perf_counter() + SECONDS

    def again(what: str, one: Callable[[], object], delay: float) -> None:
        time.sleep(delay)
        while (began := time.perf_counter()) < until:
            one()
            took[what].append(time.perf_counter() - began)
            time.sleep(max(0.0, EVERY - took[what][-1]))

    def load() -> None:
        with urllib.request.urlopen(app.url) as answer:
            answer.read()

    visits: list[tuple[str, Callable[[], object], float]] = [(PAGE, load, 0.0)]
    for number, client in enumerate(clients):
        visits.append((STATUS, lambda client=client: client.predict(job, api_name="/status"), EVERY * number / VISITORS))
    threads = [threading.Thread(target=again, args=visit) for visit in visits]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {what: summary(seconds) for what, seconds in took.items()}


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """What stands in the table of one thing that is waited for."""
    ordered = sorted(seconds)
    return {"n": len(ordered), "median": statistics.median(ordered), "p95": ordered[int(0.95 * (len(ordered) - 1))], "max": ordered[-1]}


def page(found: dict[str, Any]) -> str:
    """The page docs/results/space.md."""
    painted, answers = (statistics.median(start[what] for start in found["starts"]) for what in ("painted", "answers"))
    each = ", ".join(f"{start['painted']:.1f}" for start in found["starts"])
    rows = "\n".join(
        f"| {what} | {beside} | {n['n']} | {n['median'] * 1000:.0f} | {n['p95'] * 1000:.0f} | {n['max'] * 1000:.0f} |"
        for what in (STATUS, PAGE)
        for beside, by in found["latency"].items()
        for n in [by[what]]
    )
    return f"""# How fast the page is

Written by `benchmarks/space_results.py` on {found["cores"]} cores without a GPU and {in_words(found["memory_bytes"])} of memory (load before it
began: {found["load_before"]:.1f}), with Chromium and the clients on the same machine.

**Cold start.** From `python app.py` in a new process to the first painted page that can be used: {painted:.1f} s, the median of
{len(found["starts"])} ({each}); the server answers after {answers:.1f} s.

**Twenty visitors.** Each asks for the state of a run every {EVERY:g} s, for a minute, and the page is loaded as often. Milliseconds:

| what | beside | n | median | 95% | longest |
|---|---|---|---|---|---|
{rows}

The run is one of the lab, whose processes want all cores.
"""


if __name__ == "__main__":
    main()
