"""The users, their tokens, and what tokens that were given to an app allow it.

The users are fixed, and their tokens are no secrets: `hf_alice` (alice, who is in the organisation acme), `hf_bob` (bob)
and `hf_alice_ro` (alice, read-only). Nobody else exists.
"""

import secrets
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Literal

Scope = Literal[
    "read-repos", "contribute-repos", "write-repos", "manage-repos", "gated-repos", "write-collections", "write-discussions", "jobs"
]
SECONDS_OF_A_GRANT = 8 * 60 * 60


@dataclass(frozen=True)
class User:
    """A user as one token shows them: `writes` tells whether the token may change anything.

    The token of an `app` that the user signed in to stands for them as far as its `scopes` go, and for no organisation that
    they did not name; without an app it stands for them in all.
    """

    name: str
    organizations: tuple[str, ...] = ()
    writes: bool = True
    app: str | None = None
    scopes: frozenset[str] = frozenset()

    def belongs_to(self, namespace: str) -> bool:
        """Whether the namespace is the user's own or that of an organisation of theirs."""
        return namespace == self.name or namespace in self.organizations

    def allows(self, *scopes: Scope) -> bool:
        """Whether the token goes as far as one of the scopes."""
        return self.app is None or not self.scopes.isdisjoint(scopes)


TOKENS = {
    "hf_alice": User("alice", ("acme",)),
    "hf_bob": User("bob"),
    "hf_alice_ro": User("alice", ("acme",), writes=False),
}
USER_NAMES = sorted({user.name for user in TOKENS.values()})


def account_of(name: str) -> User | None:
    """The user of that name with all that is theirs."""
    return next((user for user in TOKENS.values() if user.name == name), None)


@dataclass
class Grants:
    """The tokens that users gave to apps. They are forgotten when the server stops."""

    seconds: int = SECONDS_OF_A_GRANT  # that a token is good for from now on
    _tokens: dict[str, tuple[User, float]] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, user: User, app: str, scopes: frozenset[str], organizations: tuple[str, ...]) -> str:
        """A new token with which the app may act for the user."""
        token = f"hf_oauth_{secrets.token_urlsafe(32)}"
        with self._lock:
            self._tokens[token] = (replace(user, app=app, scopes=scopes, organizations=organizations), time.time() + self.seconds)
        return token

    def find(self, token: str) -> User | None:
        """The user of a token that has not expired."""
        with self._lock:
            user, end = self._tokens.get(token, (None, 0.0))
        return user if time.time() < end else None
