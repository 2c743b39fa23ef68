"""The server: the application made of all routes, and the process that it runs in."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

from hfsafemerge.errors import HubError
from hfsafemerge.localhub.store import Hub

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

HOST = "127.0.0.1"
PURPOSE = "A Hub for trying, demos and testing alone."
ANNOUNCEMENT = "export HF_ENDPOINT="
PACKAGE_PARENT = Path(__file__).resolve().parents[2]
SECONDS_TO_START = 120
SECONDS_TO_STOP = 10
EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def create_app(hub: Hub) -> "FastAPI":
    """The ASGI application that serves a hub."""
    # imported here, as `serve` leaves them to another process
    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError

    from hfsafemerge.localhub import (
        account,
        cards,
        collections,
        copying,
        discussions,
        downloads,
        finding,
        information,
        jobs,
        lfs,
        oauth,
        pages,
        repositories,
        revisions,
        spaces,
        trees,
        uploads,
        weights,
        xet,
    )
    from hfsafemerge.localhub.answers import answer_malformed, answer_problem, unimplemented
    from hfsafemerge.localhub.problems import HubProblem

    app = FastAPI(openapi_url=None)
    app.state.hub = hub
    app.exception_handler(HubProblem)(answer_problem)
    app.exception_handler(RequestValidationError)(answer_malformed)
    app.state.jobs = jobs.Jobs()
    app.state.consents = oauth.Consents()
    about_all = (account, oauth, cards, collections, jobs, xet)  # before what would take them for repositories
    about_repos = (repositories, finding, information, revisions, trees, discussions, uploads, lfs, downloads, copying, weights)
    for routes in (*about_all, *about_repos, spaces):
        app.include_router(routes.router)
    app.add_api_route("/api/{rest:path}", unimplemented, methods=EVERY_METHOD)  # before the pages, which would take it for a model
    app.include_router(pages.router)
    app.add_api_route("/{rest:path}", unimplemented, methods=EVERY_METHOD)
    return app


def run(
    root: Path, port: int, *, multipart_chunk: int | None = None, xet: bool = False, cdn: bool = False, stop_with_input: bool = False
) -> None:  # fmt: skip
    """Serve a folder until a signal comes, or with `stop_with_input` until standard input ends.

    Raises:
        HubError: the port is taken.
    """
    with listen(port) as listener, listen(0) if cdn else nullcontext() as second:
        hub = Hub(root, multipart_chunk=multipart_chunk, xet=xet)
        hub.cdn = address(second) if second else None
        settings = f"export HF_TOKEN=hf_alice\nexport HF_HUB_DISABLE_XET={'0' if xet else '1'}"
        sys.stdout.write(f"{ANNOUNCEMENT}{address(listener)}\n{settings}\n# {PURPOSE} Ctrl-C stops it.\n")
        sys.stdout.flush()
        import uvicorn  # imported here, as `serve` leaves it to another process

        server = uvicorn.Server(uvicorn.Config(create_app(hub), log_level="warning", ws="none"))
        if stop_with_input:
            threading.Thread(target=_stop_at_end_of_input, args=(server,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.run(sockets=[each for each in (listener, second) if each])


def address(listener: socket.socket) -> str:
    """The URL of a server that listens there."""
    return f"http://{HOST}:{listener.getsockname()[1]}"


def listen(port: int) -> socket.socket:
    """A socket for a server on 127.0.0.1. Raises HubError when the port is taken."""
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise HubError(f"Can't listen on {HOST}:{port}: {error.strerror}. Choose another port, or 0 for any that is free.") from error
    # connections inherit it; asyncio forgets it for a socket that it did not make, and each answer would take 40 ms more
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _stop_at_end_of_input(server: "uvicorn.Server") -> None:
    while os.read(0, 1024):  # unlike sys.stdin it holds no lock that the interpreter wants at exit
        pass
    server.should_exit = True


@dataclass(frozen=True)
class RunningHub:
    """A hub that runs in a process of its own."""

    url: str
    process: "subprocess.Popen[str]"
    xet: bool = False

    @property
    def environment(self) -> dict[str, str]:
        """The variables that send the clients of a new process here, as alice."""
        return client_environment(self.url, xet=self.xet)


def client_environment(url: str, *, xet: bool = False) -> dict[str, str]:
    """The variables that send the clients to a hub, as alice. They are read at import, so give them to a new process."""
    return {
        "HF_ENDPOINT": url,
        "HF_TOKEN": "hf_alice",
        "HF_HUB_DISABLE_XET": "0" if xet else "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    }


@contextmanager
def serve(
    root: Path, port: int = 0, *, multipart_chunk: int | None = None, xet: bool = False, cdn: bool = False
) -> Iterator[RunningHub]:  # fmt: skip
    """Run a hub in a process of its own, which ends with the block, and with this process however that dies.

    Args:
        root: the folder that holds all repositories; what it holds already is served.
        port: where to listen on 127.0.0.1; 0 is any that is free.
        multipart_chunk: have larger files uploaded in parts of that many bytes.
        xet: take and give large files by Xet, for one client process at a time.
        cdn: redirect who downloads a large file to another port, as the Hub does to another host.

    Raises:
        HubError: it did not start.
    """
    command = [sys.executable, "-m", "hfsafemerge.localhub", "--root", str(root), "--port", str(port), "--stop-with-input"]
    if multipart_chunk is not None:
        command += ["--multipart-chunk", str(multipart_chunk)]
    command += [flag for flag, is_set in (("--xet", xet), ("--cdn", cdn)) if is_set]
    search_path = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    # its own session, or Ctrl-C would stop it before those who use it are done
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        env=os.environ | {"PYTHONPATH": search_path},
    ) as process:  # fmt: skip
        try:
            yield RunningHub(_wait_until_it_answers(process), process, xet)
        finally:
            process.terminate()
            try:
                process.wait(SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_until_it_answers(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    scheme, _, address = process.stdout.readline().strip().removeprefix(ANNOUNCEMENT).partition("://")
    if address:
        with closing(HTTPConnection(address, timeout=SECONDS_TO_START)) as connection, suppress(OSError, HTTPException):
            connection.request("GET", "/")
            if connection.getresponse().status == HTTPStatus.OK:
                return f"{scheme}://{address}"
    raise HubError("The local Hub did not start. What it wrote to standard error tells why.")
