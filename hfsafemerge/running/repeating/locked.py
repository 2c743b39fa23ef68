"""What stands in hfsafemerge.lock.json: all that is needed to rebuild a published merge, and to see whether anything differs."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hfsafemerge.errors import HubError
from hfsafemerge.recipe import PushSpec

LOCK, FORMAT = "hfsafemerge.lock.json", 2
SCHEMA = "https://github.com/hfsafemerge/hfsafemerge/blob/main/hfsafemerge/schemas/lock.schema.json"
DEEPEST = 40  # levels of a lock's JSON
COMMIT = r"^[0-9a-f]{40}$"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
Made = Literal["generate", "calibrate", "search", "merge", "evaluate"]
MADE: tuple[Made, ...] = get_args(Made)


class LockPart(BaseModel):
    """A part of a lock: frozen, and without room for keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, populate_by_name=True)


class LockedModel(LockPart):
    """A model that the run read: the base, an expert, a judge, a writer, an encoder."""

    ref: str
    """As the recipe names it."""
    commit: str
    """The commit of its repository; local-... of a folder, nothing of one that was only on a server."""
    adapter_commit: str | None
    """That of its LoRA adapter."""
    license: str | None
    architecture: str
    dtypes: str
    """Of its weights, as safetensors names them."""
    bytes: Count
    """That are downloaded of it."""


class LockedDataset(LockPart):
    """A dataset that the run read."""

    ref: str
    """As the recipe names it."""
    commit: str
    """The commit of its repository; local-... of a folder."""
    license: str | None


class PublishedData(LockPart):
    """A dataset that the run made and published."""

    repo_id: str = Field(json_schema_extra={"format": "repo_id"})
    """As namespace/name."""
    commit: Annotated[str, Field(pattern=COMMIT)]


class LockedRows(LockPart):
    """The rows of a kind that steered the merge."""

    rows: Count
    digest: Digest
    """SHA-256 of prompts, answers and topics in their order."""
    ids: list[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]] | None = None
    """Of rows of another's dataset, which are not published again: which of its rows they are, in their order."""


class LockedSearch(LockPart):
    """The way that the search took."""

    candidates: Count
    digest: Digest
    """SHA-256 of what was asked and the fitness that came of it, candidate after candidate; of no time that anything took."""


class LockedScores(LockPart):
    """What was measured."""

    digest: Digest
    """SHA-256 of scores.json, as JSON with sorted keys and no spaces."""
    items: dict[str, dict[str, Digest]]
    """By model and benchmark, the SHA-256 of all labels and hashes of replies, as labels.json has them."""


class Device(LockPart):
    """The processor or the GPU that computed, as far as results may depend on it."""

    type: Literal["cpu", "cuda"]
    name: str
    """Of the processor or the GPU."""
    capability: str
    """Which instructions it has: AVX2, AVX512; or the compute capability of the GPU."""
    threads: Annotated[int, Field(gt=0)]
    """Of torch, on the CPU."""


class Machine(LockPart):
    """On what a stage was done, as it was noted when the stage was finished."""

    device: Device
    packages: dict[str, str]
    """The versions of what computes."""


class LockedParameters(LockPart):
    """The parameters that the weights were made with."""

    method: str
    groups: dict[str, Any]
    """How numbers are spread over the tensors."""
    numbers: dict[str, Any]
    options: dict[str, Any]
    search: dict[str, Any]
    """What the search says of the chosen candidate."""


class Lock(LockPart):
    """hfsafemerge.lock.json of a published merge."""

    schema_: Literal["https://github.com/hfsafemerge/hfsafemerge/blob/main/hfsafemerge/schemas/lock.schema.json"] = Field(alias="$schema")
    format: Literal[2]
    version: str
    """Of hfsafemerge."""
    recipe: dict[str, Any]
    """The public recipe, as recipe.yaml has it."""
    seed: Count
    """Of the recipe, from which all that is random is drawn: data, calibration, search, merge, sampled replies."""
    models: dict[str, LockedModel]
    """By the part that they play."""
    datasets: dict[str, LockedDataset]
    """By the part that they play."""
    published: dict[Literal["safety", "domain", "benign"], PublishedData]
    """The run's own data by kind."""
    data: dict[Literal["safety", "domain", "benign"], LockedRows]
    """The rows by kind."""
    calibration: dict[str, dict[str, Any]] | None
    """For a method that asks how important entries are: by expert the examples and the digests of the scores."""
    parameters: LockedParameters
    search: LockedSearch
    tensors: dict[str, Digest]
    """By name the SHA-256 of dtype, shape and bytes."""
    files: dict[str, Digest]
    """By name the SHA-256 of each small file of the model: configuration, generation settings, tokenizer, chat template."""
    scores: LockedScores
    made_on: dict[Made, Machine]
    """By stage, on what it was done."""

    def to_json(self) -> dict[str, Any]:
        """As it stands in the file."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=False)


def read_lock(file: Path, name: str) -> Lock:
    """The lock of a published model, or of a directory in which one is rebuilt.

    Raises:
        HubError: it is of another format, does not fit its schema, or is nested deeper than any lock.
    """
    try:
        held = json.loads(file.read_text())
        known = held.get("format")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise HubError(f"{name} has a {LOCK} that can't be read: {str(error).splitlines()[0]}.") from error
    if _deeper(held, DEEPEST):
        raise HubError(f"{name} has a {LOCK} that can't be read: it is nested more than {DEEPEST} deep. No lock is.")
    if known != FORMAT:
        raise HubError(
            f"{name} has a {LOCK} of format {_short(known)}, and this version reads format {FORMAT}. Rebuild it with hfsafemerge "
            f"{_short(held.get('version', 'of another version'))}, or have its maker push the run again."
        )
    try:
        lock = Lock.model_validate(held)
        for place in lock.published.values():
            PushSpec(repo_id=place.repo_id)
    except ValidationError as error:
        first = error.errors()[0]
        raise HubError(
            f"{name} has a {LOCK} that can't be read: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
            "It needs another version of hfsafemerge."
        ) from error
    return lock


def _deeper(value: Any, most: int) -> bool:
    """Whether a JSON value holds others within each other more than so many deep."""
    inner = [value]
    for _ in range(most):
        inner = [
            each for found in inner if isinstance(found, dict | list) for each in (found.values() if isinstance(found, dict) else found)
        ]
    return bool(inner)


def _short(value: Any) -> str:
    return str(value)[:40]
