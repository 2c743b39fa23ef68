"""The local Hub that fails on command: every request is counted and measured, and every fault does what it says."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, IncompleteRead, RemoteDisconnected
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from hfsafemerge.localhub.faults import Fault, FaultyHub, serve_with_faults


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[FaultyHub]:
    with serve_with_faults(tmp_path) as running:
        yield running


def ask(hub: FaultyHub, path: str, method: str = "GET", body: object = None, timeout: float = 60) -> tuple[int, bytes]:
    """Status and body of an answer to alice, on a connection of its own."""
    connection = HTTPConnection(urlsplit(hub.url).netloc, timeout=timeout)
    try:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Authorization": "Bearer hf_alice", "Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def create(hub: FaultyHub, name: str) -> tuple[int, bytes]:
    return ask(hub, "/api/repos/create", "POST", {"name": name})


def models(hub: FaultyHub) -> list[str]:
    return [model["id"] for model in json.loads(ask(hub, "/api/models")[1])]


def test_bodies_are_measured_both_ways(hub: FaultyHub) -> None:
    sent = json.dumps({"name": "one"}).encode()
    status, answer = create(hub, "one")
    page = ask(hub, "/alice/one/resolve/main/.gitattributes")[1]
    ask(hub, "/alice/one/resolve/main/.gitattributes", "HEAD")
    assert status == 200
    assert [(request.method, request.status, request.received, request.sent) for request in hub.app.log] == [
        ("POST", 200, len(sent), len(answer)),
        ("GET", 200, 0, len(page)),
        ("HEAD", 200, 0, 0),
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_fault_meets_the_request_of_its_number(hub: FaultyHub, number: int) -> None:
    hub.app.faults.append(Fault(".", 503, after=number))
    assert [ask(hub, "/api/models")[0] for _ in range(4)] == [503 if n == number else 200 for n in range(4)]
    assert [request.status for request in hub.app.log].index(503) == number


def test_faults_count_every_request_whatever_other_faults_do(hub: FaultyHub) -> None:
    hub.app.faults += [Fault(".", 500, after=1), Fault("^GET", 502, after=3), Fault("^POST", 400), Fault(".", 503, after=2, times=2)]
    assert [ask(hub, "/api/models")[0] for _ in range(5)] == [200, 500, 503, 502, 503]


def test_numbers_are_those_of_the_log_when_many_ask_at_once(hub: FaultyHub) -> None:
    hub.app.faults += [Fault(".", delay=0.3), Fault(".", 503, after=7)]  # the first is answered after the others
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: (n, ask(hub, f"/api/models?limit={n}")[0]), range(20)))
    assert [request.status for request in hub.app.log] == [503 if n == 7 else 200 for n in range(20)]
    assert [n for n, status in answers if status == 503] == [int(hub.app.log[7].query.removeprefix("limit="))]


def test_a_cut_request_is_not_carried_out(hub: FaultyHub) -> None:
    hub.app.faults.append(Fault("^POST ", cut=True))
    with pytest.raises(RemoteDisconnected):
        create(hub, "cut")
    assert models(hub) == []
    assert (hub.app.log[0].status, hub.app.log[0].sent, hub.app.log[0].received) == (None, 0, len('{"name": "cut"}'))


def test_a_lost_answer_leaves_what_was_asked_for(hub: FaultyHub) -> None:
    hub.app.faults += [Fault("^POST ", cut=True, lost=True), Fault("^POST ", 504, after=1, lost=True)]
    with pytest.raises(RemoteDisconnected):
        create(hub, "one")
    assert create(hub, "two")[0] == 504
    assert models(hub) == ["alice/one", "alice/two"]
    assert [request.status for request in hub.app.log] == [None, 504, 200]


def test_a_late_answer_comes_after_the_deed_when_it_is_lost(hub: FaultyHub) -> None:
    hub.app.faults += [Fault("^POST ", delay=60, lost=True), Fault("^POST ", delay=60, after=1)]
    for name in ("done", "never"):
        with pytest.raises(TimeoutError):
            ask(hub, "/api/repos/create", "POST", {"name": name}, timeout=0.5)
    deadline = time.monotonic() + 60
    while not models(hub) and time.monotonic() < deadline:  # the client has left, and the server works on
        time.sleep(0.05)
    assert models(hub) == ["alice/done"]


def test_an_answer_is_cut_in_its_middle(hub: FaultyHub) -> None:
    create(hub, "one")
    path = "/alice/one/resolve/main/.gitattributes"
    whole = ask(hub, path)[1]
    hub.app.faults.append(Fault("resolve", cut=True, part=100))
    with pytest.raises(IncompleteRead) as caught:
        ask(hub, path)
    assert caught.value.partial == whole[:100]
    assert (hub.app.log[-1].status, hub.app.log[-1].sent) == (200, 100)
