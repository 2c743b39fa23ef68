"""The jobs that wait for their turn. Their tokens are in the memory of this app, and gone when it ends."""

import threading
from collections.abc import Collection
from dataclasses import dataclass

from hfsafemerge.errors import RunError
from space.accounts import HERE, Owner
from space.job import Job

LONGEST = 20
EACH = 2  # of one owner that may wait


@dataclass(frozen=True)
class Waiting:
    """A job that waits, and what it is to read the Hub with."""

    job: Job
    owner: Owner
    token: str | None


class Queue:
    """First come, first served; but an owner of whom a run is going lets others pass."""

    def __init__(self) -> None:
        self._waiting: list[Waiting] = []
        self._lock = threading.Lock()

    def join(self, job: Job, owner: Owner, token: str | None) -> None:
        """Wait for a turn. Raises RunError when too many wait."""
        with self._lock:
            self._refuse_more(owner)
            self._waiting.append(Waiting(job, owner, token))

    def refuse_more(self, owner: Owner) -> None:
        """Raise RunError when too many wait, in all or of the owner's."""
        with self._lock:
            self._refuse_more(owner)

    def _refuse_more(self, owner: Owner) -> None:
        if len(self._waiting) >= LONGEST:
            raise RunError(f"{LONGEST} runs wait already. Try again later, or duplicate this Space to have one of your own.")
        if owner not in (HERE, Owner(None)) and sum(waiting.owner == owner for waiting in self._waiting) >= EACH:
            raise RunError(f"{EACH} runs of yours wait already. Cancel one, or try again when one has begun.")

    def take(self, going: Collection[Owner]) -> Waiting | None:
        """The next whose turn it is, which then waits no longer; None where all wait for runs of their own."""
        with self._lock:
            found = next((each for each in self._waiting if each.owner == HERE or each.owner not in going), None)
            if found is not None:
                self._waiting.remove(found)
            return found

    def leave(self, job_id: str) -> bool:
        """Wait no longer; whether it waited."""
        with self._lock:
            found = next((each for each in self._waiting if each.job.id == job_id), None)
            if found is not None:
                self._waiting.remove(found)
            return found is not None

    def position(self, job_id: str) -> int | None:
        """The place in the queue, from 1 on; None for a job that does not wait."""
        with self._lock:
            return next((place for place, each in enumerate(self._waiting, 1) if each.job.id == job_id), None)


QUEUE = Queue()
