"""How the server says no: a status, a code that the clients turn into their exceptions, and a text for the person."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

ErrorCode = Literal["RepoNotFound", "RevisionNotFound", "EntryNotFound", "GatedRepo"]


class HubProblem(Exception):
    """A request that can't be granted. The server answers it with `status`, and goes on."""

    def __init__(self, status: int, message: str, *, code: ErrorCode | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Make the answer.

        Args:
            status: the HTTP status.
            message: what failed, the value found, and what to do.
            code: sent as X-Error-Code. Without it a client on http:// sees a bare HTTP error in place of its own exception.
            headers: more headers of the answer.
        """
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = dict(headers or {})


def malformed(errors: Iterable[Mapping[str, Any]]) -> HubProblem:
    """The answer to a request that is not as it should be, from what pydantic says of it."""
    texts = [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in errors]
    return HubProblem(400, f"The request is malformed. {'; '.join(texts)}.")
