"""Spaces: their hardware, when they sleep, their variables and secrets. They are stored and described; no app runs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from hfsafemerge.localhub.access import Caller, TheHub, find_repo, require_change
from hfsafemerge.localhub.hardware import FREE, HARDWARE, described
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Repo, now

router = APIRouter()
router.add_api_route("/api/spaces/hardware", lambda: described(HARDWARE))

ASLEEP_WHEN_FREE = 172800  # seconds, which nobody can change


class _Hardware(BaseModel):
    flavor: str
    sleep_time: Annotated[int | None, Field(alias="sleepTimeSeconds")] = None


class _SleepTime(BaseModel):
    seconds: int


class _Key(BaseModel):
    key: Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_]*$")]


class _Value(_Key):
    value: str
    description: str | None = None


async def _readable(namespace: str, name: str, hub: TheHub, user: Caller) -> Repo:
    return find_repo(hub, user, "spaces", f"{namespace}/{name}")


async def _writable(repo: Annotated[Repo, Depends(_readable)], user: Caller) -> Repo:
    require_change(user, repo)
    return repo


ReadableSpace = Annotated[Repo, Depends(_readable)]
WritableSpace = Annotated[Repo, Depends(_writable)]
Bag = Literal["variables", "secrets"]


@router.get("/api/spaces/{namespace}/{name}/runtime")
def runtime(repo: ReadableSpace) -> dict[str, Any]:
    """What a Space runs on, and whether it does."""
    hardware = repo.settings["hardware"]
    empty = "README.md" not in repo.head.tree
    return {
        "stage": "PAUSED" if repo.settings.get("paused") else "NO_APP_FILE" if empty else "RUNNING",
        "hardware": {"current": None if empty else hardware, "requested": hardware},
        "gcTimeout": ASLEEP_WHEN_FREE if hardware == FREE else repo.settings["sleep_time"],
        "storage": None, "devMode": False,
    }  # fmt: skip


@router.post("/api/spaces/{namespace}/{name}/hardware")
def request_hardware(wanted: _Hardware, repo: WritableSpace, hub: TheHub) -> dict[str, Any]:
    """Give a Space other hardware."""
    if wanted.flavor not in HARDWARE:
        raise HubProblem(400, f"There is no hardware {wanted.flavor!r} for Spaces. Choose one of {', '.join(HARDWARE)}.")
    _change(hub, repo, hardware=wanted.flavor, sleep_time=wanted.sleep_time)
    return runtime(repo)


@router.post("/api/spaces/{namespace}/{name}/sleeptime")
def set_sleep_time(wanted: _SleepTime, repo: WritableSpace, hub: TheHub) -> dict[str, Any]:
    """Say after how many seconds without visitors a Space sleeps."""
    _change(hub, repo, sleep_time=wanted.seconds)
    return runtime(repo)


@router.post("/api/spaces/{namespace}/{name}/pause")
def pause(repo: WritableSpace, hub: TheHub) -> dict[str, Any]:
    """Stop a Space until it is started again."""
    _change(hub, repo, paused=True)
    return runtime(repo)


@router.post("/api/spaces/{namespace}/{name}/restart")
def restart(repo: WritableSpace, hub: TheHub) -> dict[str, Any]:
    """Start a Space, anew or again."""
    _change(hub, repo, paused=False)
    return runtime(repo)


@router.get("/api/spaces/{namespace}/{name}/{bag}")
def values(bag: Bag, repo: WritableSpace) -> Mapping[str, Any]:
    """The variables of a Space, or what is known of its secrets: never their values."""
    found: dict[str, Any] = repo.settings[bag]
    return found


@router.post("/api/spaces/{namespace}/{name}/{bag}")
def set_value(bag: Bag, given: _Value, repo: WritableSpace, hub: TheHub) -> Mapping[str, Any]:
    """Set a variable or a secret."""
    kept = given.model_dump(exclude_none=True, exclude={"value"} if bag == "secrets" else None) | {"updatedAt": now()}
    _change(hub, repo, **{bag: repo.settings[bag] | {given.key: kept}})
    return values(bag, repo)


@router.delete("/api/spaces/{namespace}/{name}/{bag}")
def remove_value(bag: Bag, doomed: _Key, repo: WritableSpace, hub: TheHub) -> Mapping[str, Any]:
    """Remove a variable or a secret."""
    _change(hub, repo, **{bag: {key: value for key, value in repo.settings[bag].items() if key != doomed.key}})
    return values(bag, repo)


def _change(hub: TheHub, repo: Repo, **settings: Any) -> None:
    with hub.changing(repo):
        repo.settings = repo.settings | settings
