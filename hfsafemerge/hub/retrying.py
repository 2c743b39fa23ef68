"""Steps that may be done twice, done again after faults of the Hub or the connection that pass."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx, parse_ratelimit_headers  # type: ignore[attr-defined]  # as in client

from hfsafemerge.errors import HubError
from hfsafemerge.hub import waiting
from hfsafemerge.hub.client import status_of

RETRIES = 4
SPARE = 30  # seconds beyond one wait in vain that a step may take beside it
LONGEST_WAIT = 300  # seconds; the Hub counts requests in windows of that length
Done = TypeVar("Done")
Notify = Callable[[str], None]


def say_nothing(message: str) -> None:
    """What is told of faults where nobody listens."""


def persist(step: Callable[[], Done], notify: Notify = say_nothing) -> Done:
    """Do a step that may be done twice; do it again after faults that pass.

    Args:
        step: raises HubError, whose cause tells whether the fault passes.
        notify: is told of each fault before the step is tried again.

    Raises:
        HubError: a fault that stays, or the last of RETRIES + 1 that would pass; also no answer to a step in which the client
            has asked several times by itself, and waited for more than `waiting.SECONDS` in all.
    """
    for attempt in range(RETRIES + 1):
        began = time.monotonic()
        try:
            return step()
        except HubError as error:
            if attempt == RETRIES or not passes(error.__cause__):
                raise
            if time.monotonic() - began > waiting.SECONDS + SPARE and _unanswered(error.__cause__):
                raise
            pause = wait_before(attempt, error.__cause__)
            notify(f"{error} Trying again ({attempt + 1} of {RETRIES}){f' in {pause:.0f} s' if pause > 5 else ''}.")
            time.sleep(pause)
    raise AssertionError("the loop returns or raises")


def passes(cause: BaseException | None) -> bool:
    """Whether a fault may be gone when the same thing is tried again."""
    for error in _chain(cause):
        if (status := status_of(error)) is not None:
            return status in (408, 409, 412, 429) or status >= 500
        if isinstance(error, httpx.HTTPError | ConnectionError | TimeoutError):
            return not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError)
        if type(error) is OSError and "Consistency check failed" in str(error):  # the client's only word for an answer cut short
            return True
    return False


def wait_before(attempt: int, cause: BaseException | None) -> float:
    """Seconds to wait after an attempt, counted from 0: what the Hub asks for, at most LONGEST_WAIT, or ever longer by itself."""
    for error in _chain(cause):
        if isinstance(error, HfHubHTTPError) and error.response is not None:
            asked = _asked(error.response.headers)
            if asked is not None:
                return min(asked, float(LONGEST_WAIT))
    return 0.5 * float(2**attempt)


def _unanswered(cause: BaseException | None) -> bool:
    return any(isinstance(error, httpx.TimeoutException) for error in _chain(cause))


def _asked(headers: Mapping[str, str]) -> float | None:
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds) + 1
    after = str(headers.get("Retry-After", "")).strip()
    return float(after) if after.isdigit() else None  # a date, which the Hub does not send, is not read


def _chain(cause: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it was raised from while the clients only wrapped it."""
    while cause is not None:
        yield cause
        wraps = isinstance(cause, RuntimeError | ValueError | LocalEntryNotFoundError) and not isinstance(cause, HfHubHTTPError)
        cause = cause.__cause__ if wraps else None
