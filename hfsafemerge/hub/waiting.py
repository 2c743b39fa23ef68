"""Steps against the Hub that are done again after faults that pass, of which a Hub that does not answer is one."""

from collections.abc import Callable

from huggingface_hub.utils import get_session, httpx  # type: ignore[attr-defined]  # as in client

from hfsafemerge.hub.retrying import Done, Notify, persist, say_nothing

SECONDS = 300.0  # that a request may wait for the next bytes; a commit of many files takes the Hub a minute or two


def insist(step: Callable[[], Done], notify: Notify = say_nothing) -> Done:
    """As `persist`, with no request that waits for ever, which the client's do unless whoever set it up said otherwise."""

    def bounded() -> Done:
        session = get_session()  # anew, since the client makes another one after some faults
        if session.timeout == httpx.Timeout(None):
            session.timeout = httpx.Timeout(SECONDS)
        return step()

    return persist(bounded, notify)
