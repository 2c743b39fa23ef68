"""What a run will take of disks and time, told before anything large is fetched."""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from huggingface_hub import constants

from hfsafemerge import hub
from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import OutOfDisk
from hfsafemerge.running.events import clock

BYTES_PER_SECOND = 50e6  # what is assumed of the connection: 400 Mbit/s; nothing that the check reads is large enough to measure it
SPARE = 1.02


@dataclass(frozen=True)
class Needs:
    """Bytes that a run takes, and bytes that are free; `seconds` for the download at BYTES_PER_SECOND."""

    weights_to_fetch: int
    weights_cached: int
    datasets_at_most: int
    result: int
    free_for_cache: int
    free_for_run: int
    one_disk: bool

    @property
    def seconds(self) -> float:
        """The time that the weights take to come; those in the cache take none."""
        return self.weights_to_fetch / BYTES_PER_SECOND

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> "Needs":
        """What check.json holds, read again."""
        return cls(**{field.name: found[field.name] for field in fields(cls)})

    def as_dict(self) -> dict[str, Any]:
        """What check.json holds of it."""
        return asdict(self) | {"seconds_to_fetch": round(self.seconds, 1), "assumed_bytes_per_second": int(BYTES_PER_SECOND)}

    def __str__(self) -> str:
        """As it is printed."""
        rate = f"about {clock(self.seconds)} at {BYTES_PER_SECOND / 1e6:.0f} MB/s"
        fetched = f"{in_words(self.weights_to_fetch)} of weights to download ({rate}), {in_words(self.weights_cached)} in the cache"
        datasets = f", at most {in_words(self.datasets_at_most)} of datasets" if self.datasets_at_most else ""
        return f"{fetched}{datasets}, {in_words(self.result)} to write"


def needs(directory: Path, models: Iterable[hub.FoundModel], datasets: Iterable[Mapping[str, Any]], result: int) -> Needs:
    """What a run in a directory takes: each model and dataset counted once, whatever parts it plays."""
    weights = {model.label: (model.to_fetch, model.download - model.to_fetch) for model in models if model.ref.path is None}
    cache = existing(Path(constants.HF_HUB_CACHE))
    return Needs(
        weights_to_fetch=sum(missing for missing, _ in weights.values()),
        weights_cached=sum(cached for _, cached in weights.values()),
        datasets_at_most=sum({(d["ref"], d["commit"]): d["bytes_at_most"] for d in datasets}.values()),
        result=result,
        free_for_cache=shutil.disk_usage(cache).free,
        free_for_run=shutil.disk_usage(directory).free,
        one_disk=cache.stat().st_dev == directory.stat().st_dev,
    )


def require_room(directory: Path, needed: Needs) -> None:
    """Raise OutOfDisk unless the weights that are not in the cache and the result have room where they go.

    The datasets are not counted: of their files only a few are read, and which is not known yet.
    """
    fetched, result = needed.weights_to_fetch * SPARE, needed.result * SPARE
    if needed.one_disk and fetched + result > needed.free_for_run:
        raise OutOfDisk(
            f"{directory} needs {in_words(needed.result)} for the result, and the cache on the same disk "
            f"{in_words(needed.weights_to_fetch)} for weights; {in_words(needed.free_for_run)} are free. "
            "Make room, or choose another directory or HF_HOME."
        )
    if not needed.one_disk and fetched > needed.free_for_cache:
        raise OutOfDisk(
            f"{constants.HF_HUB_CACHE} needs {in_words(needed.weights_to_fetch)} for weights and has "
            f"{in_words(needed.free_for_cache)} free. Make room, or set HF_HOME to another disk."
        )
    if not needed.one_disk and result > needed.free_for_run:
        raise OutOfDisk(
            f"{directory} needs {in_words(needed.result)} and has {in_words(needed.free_for_run)} free. "
            "Make room or choose another directory."
        )


def existing(path: Path) -> Path:
    """A folder, or the nearest one above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
