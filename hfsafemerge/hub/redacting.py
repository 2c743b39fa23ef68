"""The log of the Hub's client without what it must not hold: with HF_DEBUG=1 it writes down the body of each request."""

import logging
import re
import shlex
from collections.abc import Iterable

from huggingface_hub import get_token

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{5,}\b")
REQUESTS = "huggingface_hub.utils._http"


def redact_log() -> None:
    """Have the client's log leave out tokens, and the bodies of requests, in which the secrets of jobs and Spaces stand.

    The filter is on the logger that writes requests, so that whoever else listens does not get them either, and on the handlers of
    the library, for what its other parts say.
    """
    holders: Iterable[logging.Filterer] = (logging.getLogger(REQUESTS), *logging.getLogger("huggingface_hub").handlers)
    for holder in holders:
        if _redact not in holder.filters:
            holder.addFilter(_redact)


def without_token(text: str) -> str:
    """A text in which the user's token does not stand."""
    token = get_token()
    return text.replace(token, "<token>") if token else text


def _redact(record: logging.LogRecord) -> bool:
    said = record.getMessage()
    record.msg, record.args = TOKEN.sub("<token>", without_token(_without_body(said))), ()
    return True


def _without_body(said: str) -> str:
    """A request without its body, which the client writes as a command for curl; what is no request as it is."""
    if not said.startswith("Send: curl "):
        return said
    try:
        words = shlex.split(said)
    except ValueError:
        return "Send: a request that can't be shown without its body"
    at = words.index("-d") + 1 if "-d" in words else len(words)
    if at < len(words) - 1:  # the address is the last word; before it there is no body where that is empty
        words[at] = "<body>"
    return shlex.join(words)
