"""A small model with data and a collection to push, the faults that a push meets, and what has to stand in the end."""

import random
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from huggingface_hub import HfApi

from hfsafemerge import hub
from hfsafemerge.errors import HubError
from hfsafemerge.localhub.faults import Fault, FaultyHub

MARK, ROWS = "hfsafemerge.lock.json", "data/train.parquet"
SIZE = 4000  # bytes of the weights
SLOW = 0.8  # seconds that an answer is late, for clients that wait half as long

# By name what goes wrong at a request; those of times 99 last until they are taken away.
FAULTS: Mapping[str, Fault] = {
    "500": Fault(".", status=500),
    "502": Fault(".", status=502),
    "503": Fault(".", status=503),
    "429": Fault(".", status=429, headers={"Retry-After": "1"}),
    "401": Fault(".", status=401),
    "412": Fault(".", status=412),
    "answered 503, and done": Fault(".", status=503, lost=True),
    "late": Fault(".", delay=SLOW),
    "late, and done": Fault(".", delay=SLOW, lost=True),
    "cut before": Fault(".", cut=True),
    "cut, and done": Fault(".", cut=True, lost=True),
}


def model_of(repo_id: str) -> dict[str, bytes]:
    """The files of a model; those for LFS are like no other's, since the Hub would know them."""
    made = random.Random(repo_id)
    return {
        "README.md": b"---\nlicense: mit\n---\n# small\n",
        "config.json": b'{"model_type": "llama"}',
        MARK: b"{}",
        "model.safetensors": made.randbytes(SIZE),
        "plot.png": b"\x89PNG\0" + made.randbytes(600),
    }


def data_of(repo_id: str) -> dict[str, bytes]:
    """The files of the data of a model."""
    return {"README.md": b"---\nlicense: mit\n---\n# rows\n", MARK: b"{}", ROWS: b"PAR1" + random.Random(f"{repo_id}-").randbytes(996)}


def content(folder: Path, repo_id: str = "alice/x") -> dict[str, Path]:
    """The files of the model, and below the folder `rows` those of its data."""
    model, data = model_of(repo_id), data_of(repo_id)
    for name, found in {**model, **{f"rows/{name}": found for name, found in data.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(found)
    return {name: folder / name for name in model}


def push_model(files: Mapping[str, Path], repo_id: str = "alice/x") -> hub.Pushed:
    """Look, publish data behind a gate, then the model, then both in a collection: what the stage push asks, without the work before."""
    rows = next(iter(files.values())).parent / "rows"
    data = hub.Place(f"{repo_id}-safety", "dataset", MARK, private=False, gated=True)
    model, collection = hub.Place(repo_id, "model", MARK, private=False), _title(repo_id)
    hub.check_target([model, data])
    hub.check_collection(collection)
    hub.publish(data, {name: rows / name for name in data_of(repo_id)}, "rows", tag="data-1")
    pushed = hub.publish(model, files, "one", tag="run-1")
    hub.collect(collection, "alice", [(repo_id, "model"), (f"{repo_id}-safety", "dataset")], private=False)
    return pushed


def push_with_faults(server: FaultyHub, folder: Path, repo_id: str, fault: Fault) -> int:
    """Push with a fault, and again without it until it is done; the number of calls that took."""
    files = content(folder / repo_id.split("/")[1], repo_id)
    server.app.faults = [fault]
    for calls in range(1, 4):
        try:
            push_model(files, repo_id)
        except HubError:
            server.app.faults = []
        else:
            server.app.faults = []
            return calls
    raise AssertionError(f"{repo_id} is not published after three calls")


def at(fault: Fault, number: int) -> Fault:
    """A fault for the request of that number, from now on."""
    return replace(fault, after=number)


@dataclass(frozen=True)
class State:
    """What stands of a push, as its owner finds it."""

    private: bool
    commits: list[str]
    tags: dict[str, str]
    head: str
    whole: bool
    gated: str | bool = False


def state(url: str, repo_id: str = "alice/x", repo_type: hub.RepoType = "model") -> State:
    """What stands of the model, or of its data."""
    api = HfApi(endpoint=url, token="hf_alice")
    found = api.repo_info(repo_id, repo_type=repo_type)
    tags = {tag.name: tag.target_commit for tag in api.list_repo_refs(repo_id, repo_type=repo_type).tags}
    commits = [commit.title for commit in api.list_repo_commits(repo_id, repo_type=repo_type)]
    wanted = model_of(repo_id) if repo_type == "model" else data_of(repo_id.removesuffix("-safety"))
    names = {file.rfilename for file in found.siblings or ()} - {".gitattributes"}
    place = f"{url}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}/resolve/main"
    whole = names == set(wanted) and all(_read(f"{place}/{name}") == bytes_ for name, bytes_ in wanted.items())
    return State(bool(found.private), commits, tags, str(found.sha), whole, getattr(found, "gated", False))


def collected(url: str, repo_id: str = "alice/x") -> list[list[tuple[str, str]]]:
    """The items of each collection of that name."""
    api = HfApi(endpoint=url, token="hf_alice")
    slugs = [found.slug for found in api.list_collections(owner="alice") if found.title == _title(repo_id)]
    return [[(item.item_id, item.item_type) for item in api.get_collection(slug).items] for slug in slugs]


def problems(url: str, repo_id: str) -> list[str]:
    """What is not as it has to be after a push: one commit, one tag, one entry for each in one collection, every file whole."""
    model, data = state(url, repo_id), state(url, f"{repo_id}-safety", "dataset")
    wanted = State(False, ["one", "initial commit"], {"run-1": model.head}, model.head, whole=True)
    rows = State(False, ["rows", "initial commit"], {"data-1": data.head}, data.head, whole=True, gated="manual")
    items = [[(repo_id, "model"), (f"{repo_id}-safety", "dataset")]]
    pairs = (("model", model, wanted), ("data", data, rows), ("collection", collected(url, repo_id), items))
    return [f"{what}: {found}" for what, found, right in pairs if found != right]


def _title(repo_id: str) -> str:
    return f"Merges of {repo_id.split('/')[1]}"


def _read(url: str) -> bytes:
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer hf_alice"})
    with urllib.request.urlopen(asked) as answer:
        found: bytes = answer.read()
    return found
