"""The body of a request, however large, streamed to a file."""

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from hfsafemerge.localhub.blobs import COPY_BYTES, Blobs


@dataclass(frozen=True)
class Received:
    """A file that came in, and its digest."""

    file: Path
    sha256: str


@asynccontextmanager
async def received(blobs: Blobs, request: Request) -> AsyncIterator[Received]:
    """The body of a request as a file, which is gone after the block unless the block moved it away.

    Threads do the writing and hashing, a megabyte at a time, so that other requests are answered meanwhile.
    """
    path = blobs.new_file()
    digest = hashlib.sha256()
    try:
        with path.open("wb") as file:

            def keep(chunks: Iterable[bytes]) -> None:
                for chunk in chunks:
                    digest.update(chunk)
                    file.write(chunk)

            waiting: list[bytes] = []
            async for chunk in request.stream():
                waiting.append(chunk)
                if sum(map(len, waiting)) >= COPY_BYTES:
                    await run_in_threadpool(keep, waiting)
                    waiting = []
            await run_in_threadpool(keep, waiting)
        yield Received(path, digest.hexdigest())
    finally:
        path.unlink(missing_ok=True)
