"""Files of a commit into the cache: several at a time, tried again after faults that pass, stopped at once when told to."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from huggingface_hub import constants, hf_hub_download, is_offline_mode
from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]  # its own, which takes the names it gives to bars
from huggingface_hub.utils._xet import abort_xet_session

from hfsafemerge.checkpoint import require_space
from hfsafemerge.errors import Cancelled
from hfsafemerge.hub import client
from hfsafemerge.hub.client import RepoType
from hfsafemerge.hub.listing import Listing, bytes_to_fetch, digest_of, storage
from hfsafemerge.hub.retrying import Notify, persist, say_nothing
from hfsafemerge.hub.stopping import Stop, all_at_once
from hfsafemerge.hub.verifying import verify

AT_ONCE = 8
Tell = Callable[[int, int, float | None], None]
"""Is told bytes that have come, bytes that are to come in all, and the seconds left."""


def tell_nothing(done: int, total: int, left: float | None) -> None:
    """What is told of a download where nobody listens."""


def download(
    repo_id: str,
    repo_type: RepoType,
    commit: str,
    files: Listing,
    notify: Notify = say_nothing,
    tell: Tell = tell_nothing,
) -> Path:
    """The folder in the cache with these files of a commit, each compared with the digest that the Hub lists.

    What is complete is not fetched again. A file that was stopped half-way begins anew over plain HTTP, and goes on from its
    chunks over Xet.

    Raises:
        OutOfDisk: the cache has no room.
        HubError: the Hub refused, or the faults did not pass.
        CheckpointError: a file in the cache is not what the Hub lists.
    """
    root = storage(repo_id, repo_type)
    folder = root / "snapshots" / commit
    total = bytes_to_fetch(repo_id, repo_type, commit, files)
    missing = [name for name in files if not (folder / name).exists()]
    if total and not is_offline_mode():
        root.mkdir(parents=True, exist_ok=True)
        require_space(root, total)
        for name in missing:
            _remove_leftovers(root, digest_of(files[name]))
    came = _Came(total, tell)

    def fetch(name: str) -> None:
        came.stop.require_wanted()
        with client.hub_errors(f"{name} of {repo_id}@{commit[:8]}", offline="It is not in the cache"):
            api = client.api()
            hf_hub_download(
                repo_id, name, repo_type=repo_type, revision=commit, token=api.token, endpoint=api.endpoint, tqdm_class=came.bar(),
                library_name="hfsafemerge",
            )  # fmt: skip

    try:
        all_at_once([partial(persist, partial(fetch, name), notify) for name in missing], AT_ONCE, came.stop, came.report)
    except (KeyboardInterrupt, Cancelled):
        abort_xet_session()
        raise
    verify(root, folder, files)
    return folder


class _Came:
    """The bytes that have come so far, over all files, and whether any more are wanted."""

    def __init__(self, total: int, tell: Tell) -> None:
        self.count = 0
        self.stop = Stop()
        self._total, self._tell, self._began = total, tell, time.monotonic()

    def report(self) -> None:
        """Say how far it is."""
        if self._total:
            pace = self.count / max(time.monotonic() - self._began, 1e-3)
            left = (self._total - self.count) / pace if 0 < self.count < self._total else None
            self._tell(min(self.count, self._total), self._total, left)

    def bar(self) -> type[tqdm]:
        """A bar that shows nothing and counts here: the one way in which the client tells how far it is."""
        came = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **settings: Any) -> None:
                super().__init__(*args, **(settings | {"disable": True}))  # type: ignore[no-untyped-call] # inherited

            def update(self, n: float | None = 1) -> None:
                came.stop.require_wanted()
                came.count += int(n or 0)

            def update_transfer(self, n: float | None = 1) -> None:
                """Bytes from the network, of which Xet needs fewer than the file has."""

            def set_transfer_postfix_str(self, postfix: str, refresh: bool = False) -> None:
                """Its speed."""

        return Bar


def _remove_leftovers(root: Path, digest: str) -> None:
    """Remove what a killed download left of a file: its name is no one's, so nothing goes on from it, and it takes room."""
    left = list((root / "blobs").glob(f"{digest}.*.incomplete"))
    if left:
        lock = Path(constants.HF_HUB_CACHE, ".locks", root.name, f"{digest}.lock")
        with suppress(Timeout), FileLock(lock, timeout=0):  # whoever holds it is writing one of them
            for part in left:
                part.unlink(missing_ok=True)
