"""No request that waits for ever: the client's do, unless whoever calls it says otherwise."""

from huggingface_hub.utils import get_session, httpx  # type: ignore[attr-defined]  # as in client

SECONDS = 300.0  # that a request may wait for the next bytes; a commit of many files takes the Hub a minute or two
TO_LOOK = 60.0  # that one which changes nothing may


def bound_requests() -> None:
    """See that requests of the client's present session end; it makes another one after some faults, so before each step."""
    hooks = get_session().event_hooks["request"]
    if _bound not in hooks:
        hooks.append(_bound)


def _bound(request: httpx.Request) -> None:
    """Put a limit where there is none. The session's own would not do: some of the client's functions say that there is none."""
    limit = min(SECONDS, TO_LOOK) if request.method in ("GET", "HEAD") else SECONDS
    limits = request.extensions.get("timeout", {})
    request.extensions["timeout"] = {what: limits.get(what) or limit for what in ("connect", "read", "write", "pool")}
