"""What died while the app was away is put in order when it starts."""

import shutil
import time

from space.accounts import on_space
from space.job import CACHE, every_job, root

KEPT = 3 * 24 * 3600.0  # seconds that a visitor's job is kept


def sweep() -> list[str]:
    """Remove the caches of jobs that nobody works on, folders that never became jobs, and on a Space jobs that are old; their ids.

    On a machine of one's own, runs stay until they are deleted.
    """
    removed = []
    for job in every_job():
        if job.is_alive():
            continue
        shutil.rmtree(job.directory / CACHE, ignore_errors=True)
        if on_space() and time.time() - job.facts["asked"] > KEPT:
            shutil.rmtree(job.directory, ignore_errors=True)
            removed.append(job.id)
    for folder in root().glob("*"):
        if folder.is_dir() and not (folder / "job.json").exists() and time.time() - folder.stat().st_mtime > KEPT:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed
