"""What the server tells of a repository: its card, its tags, its files."""

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query

from hfsafemerge.localhub.access import ReadableRepo, TheHub
from hfsafemerge.localhub.cards import as_list, card_data
from hfsafemerge.localhub.records import Commit, Entry, Repo, stable_id
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


Expand = Annotated[list[str] | None, Query()]


@router.get("/api/{kind}/{namespace}/{name}")
def repo_info(
    repo: ReadableRepo,
    hub: TheHub,
    blobs: bool = False,
    expand: Expand = None,
    security: Annotated[bool, Query(alias="securityStatus")] = False,
) -> dict[str, Any]:
    """The repository at its newest commit; with `expand` no more than what is named there."""
    return _shown(hub, repo, repo.head, blobs=blobs, expand=expand, security=security)


@router.get("/api/{kind}/{namespace}/{name}/revision/{revision:path}")
def revision_info(
    repo: ReadableRepo, hub: TheHub, revision: str, blobs: bool = False, expand: Expand = None,
    security: Annotated[bool, Query(alias="securityStatus")] = False,
) -> dict[str, Any]:  # fmt: skip
    """The repository at a revision."""
    return _shown(hub, repo, repo.find(revision), blobs=blobs, expand=expand, security=security)


def only(information: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The named fields of what is known, as far as there are any, and always the id."""
    return {name: information[name] for name in ("_id", "id", *names) if name in information}


def _shown(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool, expand: list[str] | None, security: bool) -> dict[str, Any]:
    information = describe(hub, repo, commit, blobs=blobs)
    if security:
        issues = [
            {"path": path, "level": level}
            for path, level in sorted(hub.issues.get((repo.kind, repo.id), {}).items())
            if path in commit.tree
        ]
        information["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": issues}
    return only(information, expand) if expand else information


def describe(hub: Hub, repo: Repo, commit: Commit, *, blobs: bool = False) -> dict[str, Any]:
    """All about a repository at a commit. With `blobs`, each file comes with its size and ids."""
    card = card_data(read_text(hub, commit, "README.md"))
    siblings = [{"rfilename": path} | (_blob(entry) if blobs else {}) for path, entry in sorted(commit.tree.items())]
    information = {
        "_id": stable_id(repo.id), "id": repo.id, "author": repo.namespace, "sha": commit.oid, "createdAt": repo.created,
        "lastModified": commit.date, "private": repo.private, "gated": repo.gated, "disabled": False, "downloads": 0, "likes": 0,
        "trendingScore": 0, "usedStorage": sum(entry.size for entry in commit.tree.values()), "cardData": card, "siblings": siblings,
    }  # fmt: skip
    if repo.kind == "spaces":
        named = {field: as_list(card.get(field)) for field in ("models", "datasets")}
        return information | named | {"sdk": repo.settings["sdk"], "tags": _unique([repo.settings["sdk"], *as_list(card.get("tags"))])}
    if repo.kind == "datasets":
        return information | {"tags": _unique(_dataset_tags(card))}
    config = _model_config(hub, commit)
    library = card.get("library_name") or ("transformers" if "model_type" in config else None)
    pipeline_tag = card.get("pipeline_tag") or ("text-generation" if _writes_text(config) else None)
    tags = _unique(_model_tags(card, [library, pipeline_tag, config.get("model_type")], commit))
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


def _writes_text(config: dict[str, Any]) -> bool:
    return any(str(name).endswith("ForCausalLM") for name in as_list(config.get("architectures")))


def _model_tags(card: dict[str, Any], derived: Iterable[str | None], commit: Commit) -> Iterator[object]:
    yield from as_list(card.get("tags"))
    yield from filter(None, derived)
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
