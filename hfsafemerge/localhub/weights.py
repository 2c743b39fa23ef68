"""What the headers of a model's safetensors files say, all in one answer."""

import json
from typing import Any

from fastapi import APIRouter

from hfsafemerge.localhub.access import DownloadableRepo, TheHub
from hfsafemerge.localhub.information import read_text
from hfsafemerge.localhub.problems import HubProblem
from hfsafemerge.localhub.records import Commit
from hfsafemerge.localhub.store import Hub
from hfsafemerge.localhub.trees import no_entry

router = APIRouter()

LENGTH_BYTES = 8
LONGEST_HEADER = 100 * 10**6  # bytes, as the format has it


@router.get("/api/{kind}/{namespace}/{name}/safetensors-metadata/{path:path}")
def headers_of_shards(repo: DownloadableRepo, hub: TheHub, path: str) -> dict[str, Any]:
    """The headers of the files that an index on main names, and what the index says of them all."""
    commit = repo.head
    if path not in commit.tree:
        raise no_entry(repo, commit, path)
    try:
        index = json.loads(read_text(hub, commit, path))
        shards = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HubProblem(400, f"{path} of {repo.id} is no index of safetensors files: it has no weight_map. Upload a whole one.") from error
    folder = f"{path.rpartition('/')[0]}/".lstrip("/")
    for shard in shards:
        if folder + shard not in commit.tree:
            raise no_entry(repo, commit, folder + shard)
    return {"index": {"metadata": index.get("metadata")}, "headers": {shard: _header(hub, commit, folder + shard) for shard in shards}}


def _header(hub: Hub, commit: Commit, path: str) -> dict[str, Any]:
    with hub.blobs.path(commit.tree[path].sha256).open("rb") as file:
        size = int.from_bytes(file.read(LENGTH_BYTES), "little")
        try:
            header: dict[str, Any] = json.loads(file.read(size) if size <= LONGEST_HEADER else b"")
        except ValueError as error:
            raise HubProblem(400, f"{path} does not begin with a header of safetensors. Upload a whole file.") from error
    return header
