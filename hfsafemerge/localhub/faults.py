"""A local Hub that fails on command and notes every request, to see how clients bear it."""

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfsafemerge.localhub import Hub, client_environment, create_app
from hfsafemerge.localhub.server import address, listen

SECONDS_TO_STOP = 1  # for requests that a fault still delays
LARGEST_BODY_KEPT = 2**20


@dataclass
class Fault:
    """Something to go wrong, `times` times, with requests whose "METHOD /path" the pattern is found in.

    The request is answered with `status`, or not at all when it is to be `cut`, or else as always, only `delay` seconds later.
    The first `after` such requests pass, and every request counts in the order of arrival, whatever other faults do with it:
    `Fault(".", after=n)` meets the request `log[n]` of a new hub. With `lost` the request is carried out, and it is the answer
    that goes wrong. A `cut` with a `part` comes after that many bytes of the answer's body.
    """

    match: str
    status: int | None = None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    after: int = 0
    lost: bool = False
    cut: bool = False
    part: int = 0


@dataclass
class LoggedRequest:
    """A request and its answer; `headers` have names in lower case.

    `status` is None while there is no answer, and remains None when the connection was cut before one. `received` and `sent`
    are bytes of the bodies: those that the server has read, and those of the answer, so far. `body` is what it has read, up to
    LARGEST_BODY_KEPT bytes.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    status: int | None = None
    received: int = 0
    sent: int = 0
    body: bytes = field(default=b"", repr=False)  # it may hold a secret


class FaultyApp:
    """ASGI middleware: `faults` may be changed at any time, `log` holds every request in the order of arrival."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.faults: list[Fault] = []
        self.log: list[LoggedRequest] = []

    def requests(self, match: str) -> list[LoggedRequest]:
        """The logged requests whose "METHOD /path" the pattern is found in."""
        return [request for request in self.log if re.search(match, f"{request.method} {request.path}")]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it fail."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        request = LoggedRequest(scope["method"], scope["path"], scope["query_string"].decode(), headers)
        self.log.append(request)
        fault = self._next_fault(f"{request.method} {request.path}")

        async def count_received() -> Message:
            message = await receive()
            chunk = message.get("body", b"")
            request.received += len(chunk)
            request.body += chunk[: LARGEST_BODY_KEPT - len(request.body)]
            return message

        async def count_sent(message: Message) -> None:  # before the client can see the answer and look into the log
            if message["type"] == "http.response.start":
                request.status = message["status"]
            elif request.method != "HEAD":
                request.sent += len(message.get("body", b""))
            await send(message)

        if fault is None:
            await self.app(scope, count_received, count_sent)
        else:
            await self._fail(fault, scope, count_received, count_sent, send)

    def _next_fault(self, asked: str) -> Fault | None:
        found = None
        for fault in [fault for fault in self.faults if re.search(fault.match, asked)]:
            if fault.after > 0:
                fault.after -= 1
            elif found is None and fault.times > 0:
                fault.times -= 1
                found = fault
        return found

    async def _fail(self, fault: Fault, scope: Scope, receive: Receive, send: Send, connection: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        carried_out = fault.lost or fault.part > 0
        if carried_out:
            await self.app(scope, receive, keep)
        elif fault.cut or fault.status is not None:
            while (await receive()).get("more_body"):  # the client must have sent all before it reads an answer
                pass
        await asyncio.sleep(fault.delay)
        if fault.cut:
            for message in _beginning(answer, fault.part):
                await send(message)
            await _cut(receive, connection)
        elif fault.status is not None:
            await JSONResponse({"error": "injected fault"}, fault.status, fault.headers)(scope, receive, send)
        elif carried_out:
            for message in answer:
                await send(message)
        else:
            await self.app(scope, receive, send)


def _beginning(answer: list[Message], size: int) -> Iterator[Message]:
    """The messages of an answer up to that many bytes of its body; none for no bytes."""
    for message in answer if size else ():
        body = message.get("body", b"")
        yield {**message, "body": body[:size], "more_body": True} if body else message
        size -= len(body)
        if size <= 0 and body:
            return


async def _cut(receive: Receive, connection: Send) -> None:
    """Close the connection of a request. ASGI has no word for it, so this reaches for what uvicorn's `send` is bound to."""
    connection.__self__.transport.close()  # type: ignore[attr-defined] # a bound method
    while (await receive())["type"] != "http.disconnect":  # or uvicorn would miss an answer
        pass


@dataclass(frozen=True)
class FaultyHub:
    """A hub in a thread of this process, the middleware in front of it, and the folder that it is kept in."""

    url: str
    app: FaultyApp
    hub: Hub
    root: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send the clients of a new process here, as alice."""
        return client_environment(self.url, xet=self.hub.xet is not None)


@contextmanager
def serve_with_faults(root: Path, *, multipart_chunk: int | None = None, xet: bool = False, cdn: bool = False) -> Iterator[FaultyHub]:
    """Run a hub that can be told to fail. It ends with the block. The options are those of `serve`."""
    hub = Hub(root, multipart_chunk=multipart_chunk, xet=xet)
    app = FaultyApp(create_app(hub))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=SECONDS_TO_STOP))
    with listen(0) as listener, listen(0) if cdn else nullcontext() as second:  # they queue who comes before the server runs
        hub.cdn = address(second) if second else None
        thread = threading.Thread(target=server.run, kwargs={"sockets": [each for each in (listener, second) if each]})
        thread.start()
        try:
            yield FaultyHub(address(listener), app, hub, root)
        finally:
            server.should_exit = True
            thread.join()
