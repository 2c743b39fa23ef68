"""What the server tells of a repository: its card, its tags, its files."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query

from hfsafemerge.localhub.access import Caller, ReadableRepo, TheHub, may_see
from hfsafemerge.localhub.account import stable_id
from hfsafemerge.localhub.cards import as_list, card_data
from hfsafemerge.localhub.records import Commit, Entry, Kind, Repo
from hfsafemerge.localhub.store import Hub

router = APIRouter()

# fields of a dataset card; their values become tags that begin with the name of the field
DATASET_TAGS = (
    "annotations_creators",
    "language_creators",
    "language",
    "size_categories",
    "source_datasets",
    "task_categories",
    "task_ids",
)


@router.get("/api/{kind}")
def list_repos(
    kind: Kind, hub: TheHub, user: Caller, search: str = "", author: str | None = None, pipeline_tag: str | None = None,
    tags: Annotated[list[str] | None, Query(alias="filter")] = None, gated: bool | None = None, limit: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """The repositories that the caller may see, by id. All conditions must hold."""
    found = []
    for repo in hub.all(kind):
        if not may_see(user, repo) or search.lower() not in repo.id.lower():
            continue
        if author not in (None, repo.namespace) or gated not in (None, bool(repo.gated)):
            continue
        information = describe(hub, repo, repo.head)
        if set(tags or ()) <= set(information["tags"]) and pipeline_tag in (None, information.get("pipeline_tag")):
            found.append(information)
    return found[:limit]


@router.get("/api/{kind}/{namespace}/{name}")
def repo_info(repo: ReadableRepo, hub: TheHub, blobs: bool = False) -> dict[str, Any]:
    """The repository at its newest commit."""
    return describe(hub, repo, repo.head, blobs=blobs)


@router.get("/api/{kind}/{namespace}/{name}/revision/{revision:path}")
def revision_info(repo: ReadableRepo, hub: TheHub, revision: str, blobs: bool = False) -> dict[str, Any]:
    """The repository at a revision."""
    return describe(hub, repo, repo.find(revision), blobs=blobs)


def describe(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """All about a repository at a commit. With `blobs`, each file comes with its size and ids."""
    card = card_data(read_text(hub, commit, "README.md"))
    siblings = [{"rfilename": path} | (_blob(entry) if blobs else {}) for path, entry in sorted(commit.tree.items())]
    information = {
        "_id": stable_id(repo.id), "id": repo.id, "author": repo.namespace, "sha": commit.oid, "createdAt": repo.created,
        "lastModified": commit.date, "private": repo.private, "gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0,
        "usedStorage": sum(entry.size for entry in commit.tree.values()), "cardData": card, "siblings": siblings,
    }  # fmt: skip
    if repo.kind == "datasets":
        return information | {"tags": _unique(_dataset_tags(card))}
    config = _model_config(hub, commit)
    tags = _unique(_model_tags(card, config, commit))
    library, pipeline_tag = card.get("library_name"), card.get("pipeline_tag")
    return information | {"modelId": repo.id, "library_name": library, "pipeline_tag": pipeline_tag, "config": config, "tags": tags}


def read_text(hub: Hub, commit: Commit, path: str) -> str:
    """The text of a file; nothing, when it is absent."""
    entry = commit.tree.get(path)
    return hub.blobs.path(entry.sha256).read_text(encoding="utf-8", errors="replace") if entry else ""


def lfs_pointer(entry: Entry) -> dict[str, Any]:
    """What the clients are told of a file in LFS."""
    return {"size": entry.size, "pointerSize": entry.pointer_size}


def _blob(entry: Entry) -> dict[str, Any]:
    blob: dict[str, Any] = {"size": entry.size, "blobId": entry.oid}
    return blob | {"lfs": {"sha256": entry.sha256} | lfs_pointer(entry)} if entry.lfs else blob


def _model_config(hub: Hub, commit: Commit) -> dict[str, Any]:
    try:
        config = json.loads(read_text(hub, commit, "config.json") or "{}")
    except ValueError:
        return {}
    return {name: config[name] for name in ("architectures", "model_type") if name in config} if isinstance(config, dict) else {}


def _unique(tags: Iterable[object]) -> list[str]:
    return list(dict.fromkeys(map(str, tags)))


def _model_tags(card: dict[str, Any], config: dict[str, Any], commit: Commit) -> Iterator[object]:
    yield from as_list(card.get("tags"))
    for tag in (card.get("library_name"), card.get("pipeline_tag"), config.get("model_type")):
        if tag:
            yield tag
    if any(path.endswith(".safetensors") for path in commit.tree):
        yield "safetensors"
    yield from as_list(card.get("language"))
    bases = as_list(card.get("base_model"))
    relation = card.get("base_model_relation") or ("merge" if len(bases) > 1 else "finetune")
    for base in bases:
        yield f"base_model:{base}"
        yield f"base_model:{relation}:{base}"
    yield from (f"dataset:{name}" for name in as_list(card.get("datasets")))
    yield from (f"license:{name}" for name in as_list(card.get("license")))


def _dataset_tags(card: dict[str, Any]) -> Iterator[object]:
    yield from as_list(card.get("tags"))
    for field in DATASET_TAGS:
        yield from (f"{field}:{value}" for value in as_list(card.get(field)))
    yield from (f"license:{name}" for name in as_list(card.get("license")))
