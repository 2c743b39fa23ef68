"""What is known of a run before anything is spent: do the models fit together, under which licence, how large, how long, and where."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hfsafemerge.card import resolve_license
from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import HfSafeMergeError, RunError
from hfsafemerge.recipe import Recipe
from space import elsewhere
from space.commands import answer
from space.hardware import Hardware

RUNNING_SHARE = 1.2  # of a model's weights, what it takes to run it: activations and the cache of its attention
LARGEST_HERE = 4e9  # bytes of weights that a CPU works through in hours rather than days


@dataclass(frozen=True)
class Row:
    """A model and what is known of it; `bytes` of weights."""

    role: str
    ref: str
    commit: str
    architecture: str
    dtypes: str
    bytes: int
    license: str
    access: str


@dataclass(frozen=True)
class Place:
    """Where the run could be done, whether it fits there and why (not), and what an hour costs in US dollars, as far as it is known."""

    name: str
    fits: bool
    why: str
    dollars_per_hour: float | None = None


@dataclass(frozen=True)
class Found:
    """What was found. Sizes are in bytes, `seconds` those of the download; `problems` stand in the way, `notes` do not."""

    rows: list[Row]
    problems: list[str]
    notes: list[str]
    license: str | None
    download_bytes: int
    disk_bytes: int
    gpu_bytes: int
    seconds: float | None
    places: list[Place]


def look(recipe: Recipe, token: str | None, hardware: Hardware) -> Found:
    """Look at all models of a recipe by their headers, with the visitor's token. Nothing large is downloaded."""
    with TemporaryDirectory(prefix="hfsafemerge-") as folder:
        directory = Path(folder)
        (directory / "recipe.yaml").write_text(recipe.to_yaml())
        try:
            answer(directory, token, "check", directory / "recipe.yaml", "--directory", directory / "run")
        except HfSafeMergeError as error:
            return Found([], [str(error)], [], None, 0, 0, 0, None, [])
        checked = json.loads((directory / "run" / "check.json").read_text())
    rows = [_row(role, found) for role, found in checked["models"].items()]
    needs = checked["needs"]
    gpu_bytes = _on_device(recipe, checked["models"])
    license, notes = _license(recipe, checked)
    notes += [
        f"{row.role} ({row.ref}) is {row.access}: so is what you may do with a merge of it." for row in rows if row.access != "public"
    ]
    return Found(
        rows,
        [],
        notes,
        license,
        needs["weights_to_fetch"] + needs["datasets_at_most"],
        needs["weights_to_fetch"] + needs["datasets_at_most"] + needs["result"],
        gpu_bytes,
        needs["seconds_to_fetch"],
        places(gpu_bytes, needs["weights_to_fetch"] + needs["result"], hardware),
    )


def refuse_misfit(found: Found) -> None:
    """Raise RunError for a run that this machine is too small for. What else stands in its way, the run itself says."""
    if found.places and not found.places[0].fits:
        elsewhere_ = "; ".join(f"{place.name} fits" for place in found.places[1:] if place.fits)
        raise RunError(f"This run does not fit here: {found.places[0].why}. {elsewhere_ or 'Duplicate this Space with larger hardware'}.")


def places(gpu_bytes: int, disk_bytes: int, hardware: Hardware) -> list[Place]:
    """Where a run of that size fits: here, and the cheapest machine of Hugging Face Jobs."""
    found = [_here(gpu_bytes, disk_bytes, hardware)]
    known = elsewhere.flavors()
    if (flavor := elsewhere.smallest(known, gpu_bytes)) is not None:
        why = f"{flavor.says} has {in_words(flavor.gpu_bytes)}, the run needs about {in_words(gpu_bytes)}"
        found.append(Place(f"Hugging Face Jobs, {flavor.name}", True, why, flavor.dollars_per_hour))
    elif known:
        most = in_words(max(flavor.gpu_bytes for flavor in known))
        found.append(
            Place("Hugging Face Jobs", False, f"the run needs about {in_words(gpu_bytes)} on GPUs, and no machine has more than {most}")
        )
    return found


def _here(gpu_bytes: int, disk_bytes: int, hardware: Hardware) -> Place:
    if disk_bytes > hardware.disk_bytes:
        return Place("Here", False, f"it needs {in_words(disk_bytes)} of disk, and {in_words(hardware.disk_bytes)} are free")
    if hardware.kind == "gpu":
        enough = gpu_bytes <= hardware.gpu_bytes
        why = f"the GPU has {in_words(hardware.gpu_bytes)}, the run needs about {in_words(gpu_bytes)}"
        return Place("Here", enough, why if enough else why + "; models then take turns on it, which is slower, or it may not fit")
    if gpu_bytes > LARGEST_HERE:
        return Place("Here", False, f"the run needs a GPU with about {in_words(gpu_bytes)}; on {hardware.name} it would take days")
    if gpu_bytes > hardware.memory_bytes:
        return Place(
            "Here", False, f"it needs about {in_words(gpu_bytes)} of memory, and this machine has {in_words(hardware.memory_bytes)}"
        )
    return Place("Here", True, f"small enough for a CPU: about {in_words(gpu_bytes)} of memory")


def _on_device(recipe: Recipe, models: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes of memory on the device at the fullest: the models of a search together and one that runs, or one guard."""
    pool = [models[role]["bytes"] for role in recipe.models]
    together = sum(pool) + RUNNING_SHARE * pool[0] if recipe.strategy.needs_data else RUNNING_SHARE * max(pool)
    alone = [RUNNING_SHARE * found["bytes"] for role, found in models.items() if role not in recipe.models]
    return int(max([together, *alone]))


def _license(recipe: Recipe, checked: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    known = {checked["models"][role]["ref"]: checked["models"][role]["license"] for role in recipe.models}
    try:
        license, why = resolve_license(known, recipe.push.license if recipe.push else None)
        return license, [why]
    except HfSafeMergeError as error:
        return None, [f"To publish, name the licence yourself in the last step. {error}"]


def _row(role: str, found: Mapping[str, Any]) -> Row:
    return Row(
        role,
        str(found["ref"]),
        str(found["commit"])[:12],
        str(found["architecture"]),
        str(found["dtypes"]),
        int(found["bytes"]),
        str(found["license"] or "none named"),
        str(found["access"]),
    )
