"""A push against the fewest requests and bytes it could take, and against a fault at each of its requests.

    python benchmarks/push_results.py --json docs/results/push.json --page docs/results/push.md

Against a local Hub, a small model (weights, a plot, its card, two more files), its data behind a gate and a collection of both are
pushed, by the plain LFS protocol. Then once for each request of such a push, and each kind of fault at it, another model of the same
sizes, until the same call finishes; what stands on the Hub is compared with what has to: one commit, one tag, one entry of each in
one collection, every file byte for byte. `killed` ends a process with SIGKILL at the request, before it is carried out or after.
"""

import argparse
import json
import logging
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_TOKEN": "hf_alice"}
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from huggingface_hub import HfApi, close_session
from pushing import FAULTS, at, content, data_of, model_of, problems, push_model, push_with_faults

from hfsafemerge.hub import client, waiting
from hfsafemerge.localhub.faults import Fault, FaultyHub, serve_with_faults

HELD = 30.0  # seconds that the request is held at which a process is killed
KILLS = {"killed before": Fault(".", cut=True, delay=HELD), "killed, and done": Fault(".", cut=True, lost=True, delay=HELD)}
# What can't be left out: for data and model each create, the state to commit on, the modes of the files, a commit, a tag, and the
# switch to public; for the data also the gate; for each file in LFS where to put it, the bytes and whether they arrived; the card's
# check; and the collection with its two items.
FEWEST = {"data": 8 + 3, "model": 7 + 1 + 2 * 2, "collection": 3}


def main() -> None:
    """Measure, and write the numbers and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    time.sleep, sleep = (lambda seconds: None), time.sleep  # the pauses between tries, which the client makes too
    waiting.SECONDS = 0.4
    with tempfile.TemporaryDirectory() as folder, serve_with_faults(Path(folder) / "hub") as server:
        client.api.cache_clear()
        os.environ["HF_ENDPOINT"] = server.url
        client.api = lambda: HfApi(endpoint=server.url, token="hf_alice")  # type: ignore[assignment] # a client of this hub
        close_session()
        found = {"requests": requests(server, Path(folder)), "faults": matrix(server, Path(folder), sleep)}
    given.json.write_text(json.dumps(found, indent=1) + "\n")
    given.page.write_text(page(found))


def requests(server: FaultyHub, folder: Path) -> dict[str, Any]:
    """What a push asks for and sends, the first time and again."""
    counts = {}
    files = content(folder / "clean", "alice/clean")
    for name in ("first", "again"):
        before = len(server.app.log)
        push_model(files, "alice/clean")
        log = server.app.log[before:]
        counts[name] = {"requests": len(log), "received": sum(r.received for r in log), "sent": sum(r.sent for r in log)}
        if name == "first":
            counts["log"] = [f"{request.method} {request.path}" for request in log]  # type: ignore[assignment] # a client of this hub
    size = sum(map(len, [*model_of("alice/clean").values(), *data_of("alice/clean").values()]))
    assert problems(server.url, "alice/clean") == []
    return counts | {"fewest": sum(FEWEST.values()), "parts": FEWEST, "bytes": size}


def matrix(server: FaultyHub, folder: Path, sleep: Any) -> dict[str, Any]:
    """By kind of fault: at how many requests it was met, how many calls it took, and what was wrong in the end."""
    before = len(server.app.log)
    push_model(content(folder / "count", "alice/count"), "alice/count")
    count = len(server.app.log) - before
    found: dict[str, Any] = {}
    for name in [*FAULTS, *KILLS]:
        calls, wrong = Counter[int](), []
        for number in range(count):
            repo_id = f"alice/{name.replace(' ', '-').replace(',', '')}-{number}"
            if name in KILLS:
                calls[killed(server, folder, repo_id, at(KILLS[name], number), sleep)] += 1
            else:
                fault = at(FAULTS[name], number)
                calls[push_with_faults(server, folder, repo_id, fault)] += 1
                assert fault.times == 0, (name, number)
            wrong += problems(server.url, repo_id)
        found[name] = {"requests": count, "by itself": calls[1], "by a second call": calls[2], "problems": wrong}
        print(name, found[name], flush=True)
    return found


def killed(server: FaultyHub, folder: Path, repo_id: str, fault: Fault, sleep: Any) -> int:
    """Push in a process that is killed at a request, then push in this one; 2, the calls that took."""
    files = content(folder / repo_id.split("/")[1], repo_id)
    server.app.faults = [fault]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pushing"])
    process = context.Process(target=push_to, args=(server.url, files, repo_id))
    process.start()
    while fault.times and process.is_alive():
        sleep(0.02)
    sleep(0.3)  # what is to be carried out is
    assert process.is_alive(), f"{repo_id}: the process ended before it was killed"
    process.kill()
    process.join()
    server.app.faults = []
    push_model(files, repo_id)
    return 2


def push_to(url: str, files: dict[str, Path], repo_id: str) -> None:
    """Push in a new process."""
    client.api = lambda: HfApi(endpoint=url, token="hf_alice")  # type: ignore[assignment] # a client of this hub
    push_model(files, repo_id)


def page(found: dict[str, Any]) -> str:
    """The numbers as Markdown."""
    asked, faults = found["requests"], found["faults"]
    first, again, fewest = asked["first"], asked["again"], asked["fewest"]
    total = sum(each["requests"] for each in faults.values())
    wrong = sum(len(each["problems"]) for each in faults.values())
    rows = "".join(
        f"| {name} | {e['requests']} | {e['by itself']} | {e['by a second call']} | {len(e['problems'])} |\n" for name, e in faults.items()
    )
    return f"""# What a push asks for, and what faults do to it

Measured by `python benchmarks/push_results.py --json docs/results/push.json --page docs/results/push.md` against the local Hub with
the unmodified client and plain LFS: a model of five files, two of them in LFS, its data of three files, one of them in LFS and all
behind a gate, and a collection of both.

| | requests | bytes of request bodies | bytes of answers |
|---|---|---|---|
| first push | {first["requests"]} | {first["received"]:,} | {first["sent"]:,} |
| the same again | {again["requests"]} | {again["received"]:,} | {again["sent"]:,} |
| needed | {fewest} | {asked["bytes"]:,} | |

Needed are, of the data and of the model, a request to create the repository, one for the state to commit on, one each for the card's
check, the modes of the files, the commit, the tag and the switch to public, one for the gate of the data, three for each file in LFS
(where to, the bytes, whether they arrived; the two of the model share the first), and three for the collection; and the bytes of the
files. Of the others three are the weights' own, since they go up before the rest: the card's check, their mode, and where to. All
that is left only looks: who the user is, whether there are repositories of these names, whose they are and whether they may be written
to, what stands before the weights go up, whether all files stand after the commit, which tags and collections there are, and whether
the gate still stands, and all of the history may be seen, before others can see it.
The bytes beyond those of the files are JSON, and small files in base64. Pushing the same again sends nothing but questions.

At each of the requests of such a push, each kind of fault once:

| fault | requests | finished by itself | by the same call again | wrong in the end |
|---|---|---|---|---|
{rows}
{total} pushes in all, {wrong} of them with anything lost, doubled, open to more than it should be, or not whole. The pauses between tries
are left out. Late answers come after {waiting.SECONDS:g} s of waiting at most here, 300 s otherwise.
"""


if __name__ == "__main__":
    main()
