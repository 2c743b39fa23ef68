"""A local Hub that fails on command and notes every request, to see how clients bear it."""

import asyncio
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hfsafemerge.localhub import Hub, client_environment, create_app
from hfsafemerge.localhub.server import listen


@dataclass
class Fault:
    """Something to go wrong, `times` times, with requests whose "METHOD /path" the pattern is found in.

    Without a status the request is answered as always, only later. The first `after` such requests pass. With `lost` it is
    the answer that does not come through: what was asked for is done.
    """

    match: str
    status: int | None = None
    times: int = 1
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    after: int = 0
    lost: bool = False


@dataclass(frozen=True)
class LoggedRequest:
    """A request and the status of its answer; `headers` have names in lower case."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    status: int


class FaultyApp:
    """ASGI middleware: `faults` may be changed at any time, `log` holds what was answered."""

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

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":  # before the client can see the answer and look into the log
                self.log.append(LoggedRequest(scope["method"], scope["path"], scope["query_string"].decode(), headers, message["status"]))
            await send(message)

        asked = f"{scope['method']} {scope['path']}"
        fault = next((fault for fault in self.faults if fault.times > 0 and re.search(fault.match, asked)), None)
        if fault is not None and fault.after > 0:
            fault.after, fault = fault.after - 1, None
        if fault is not None:
            fault.times -= 1
            await asyncio.sleep(fault.delay)
        if fault is not None and fault.status is not None:
            if fault.lost:
                await self.app(scope, receive, _nowhere)
                await JSONResponse({"error": "injected fault"}, fault.status, fault.headers)(scope, receive, note_status)
                return
            while (await receive()).get("more_body"):  # the client must have sent all before it reads an answer
                pass
            await JSONResponse({"error": "injected fault"}, fault.status, fault.headers)(scope, receive, note_status)
        else:
            await self.app(scope, receive, note_status)


async def _nowhere(message: Message) -> None:
    """Where an answer goes that is lost."""


@dataclass(frozen=True)
class FaultyHub:
    """A hub in a thread of this process, and the middleware in front of it."""

    url: str
    app: FaultyApp

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send the clients of a new process here, as alice."""
        return client_environment(self.url)


@contextmanager
def serve_with_faults(root: Path, *, multipart_chunk: int | None = None) -> Iterator[FaultyHub]:
    """Run a hub that can be told to fail. It ends with the block."""
    app = FaultyApp(create_app(Hub(root, multipart_chunk=multipart_chunk)))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    with listen(0) as listener:  # it queues who comes before the server runs
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield FaultyHub(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        finally:
            server.should_exit = True
            thread.join()
