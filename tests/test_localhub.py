"""The local Hub against the clients it is for: huggingface_hub, datasets, transformers, a browser's requests."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, ModelCardData, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hfsafemerge.errors import HubError
from hfsafemerge.localhub import RunningHub, serve
from hfsafemerge.localhub.faults import Fault, serve_with_faults

# huggingface_hub's own upload of LFS files

ROOT = Path(__file__).parents[1]
CARD = "---\nlicense: mit\n---\n# Card\n"


@pytest.fixture(scope="module", autouse=True)
def _client_settings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        patch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
        yield


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with serve(tmp_path_factory.mktemp("hub"), multipart_chunk=100_000) as running:
        yield running


@pytest.fixture(scope="module")
def alice(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_alice")


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token="hf_bob")


@pytest.fixture(scope="module")
def anonymous(hub: RunningHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=False)


@pytest.fixture
def repo(alice: HfApi, request: pytest.FixtureRequest) -> str:
    """A new model repository of alice's, named after the test."""
    return alice.create_repo(f"alice/{request.node.name[:90]}").repo_id


def put(
    api: HfApi, repo_id: str, path: str = "a.txt", content: bytes = b"text", *,
    repo_type: str | None = None, revision: str | None = None, parent_commit: str | None = None,
) -> str:  # fmt: skip
    """Upload one file; the commit id."""
    add, message = CommitOperationAdd(path, content), f"Upload {path}"
    commit = api.create_commit(repo_id, [add], commit_message=message, repo_type=repo_type, revision=revision, parent_commit=parent_commit)
    return commit.oid


def read(url: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer, whatever its status."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, names, method=method)) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, dict(error.headers), error.read()


def make_folder(folder: Path) -> dict[str, bytes]:
    """A folder with regular and LFS files, one larger than a part; its content by path."""
    files = {
        "README.md": CARD.encode(),
        "config.json": b'{"model_type": "llama"}',
        "empty.txt": b"",
        "data/träin.jsonl": b'{"a": 1}\n',
        "data/deep/small.bin": b"\0\1\2",
        "model.safetensors": bytes(range(256)) * 1000,
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return files


def answers(url: str) -> bool:
    """Whether anything listens there."""
    try:
        with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port)):
            return True
    except ConnectionError:
        return False


def wait_until(condition: Callable[[], bool]) -> bool:
    """Whether it came true within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run_client(script: str, hub: RunningHub, home: Path) -> str:
    """Run a script in a new process whose clients speak to the hub; what it prints."""
    environment = os.environ | hub.environment | {"HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# repositories


def test_a_repository_is_made_once_and_deleted(alice: HfApi) -> None:
    url = alice.create_repo("alice/once")
    assert (url.repo_id, alice.repo_exists("alice/once")) == ("alice/once", True)
    assert alice.create_repo("alice/once", exist_ok=True) == url
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_repo("alice/once")
    alice.create_repo("alice/once", repo_type="dataset")
    alice.delete_repo("alice/once")
    assert not alice.repo_exists("alice/once")
    assert alice.repo_exists("alice/once", repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError):
        alice.delete_repo("alice/once")


def test_names_and_paths_that_lead_elsewhere_are_refused(hub: RunningHub, repo: str) -> None:
    headers = {"Authorization": "Bearer hf_alice", "Content_Type": "application/json"}
    for name in ("../x", "x.git", "a--b", ".x", ""):
        status, _, body = read(f"{hub.url}/api/repos/create", "POST", json.dumps({"name": name}).encode(), **headers)
        assert status == 400
        assert "is no name for a repository" in body.decode()
    for path in ("../x", "/x", "a//b", "a/./b", ".git/config", "a\\b", ""):
        lines = [
            {"key": "header", "value": {"summary": "x"}},
            {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
        ]
        commit = "\n".join(map(json.dumps, lines)).encode()
        status, _, body = read(f"{hub.url}/api/models/{repo}/commit/main", "POST", commit, **headers)
        assert status == 400
        assert "is no path within a repository" in body.decode()


def test_whoami(alice: HfApi, bob: HfApi, hub: RunningHub) -> None:
    assert alice.whoami()["name"] == "alice"
    assert [organization["name"] for organization in alice.whoami()["orgs"]] == ["acme"]
    assert bob.whoami()["orgs"] == []
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(endpoint=hub.url, token="hf_nobody").whoami()


def test_repositories_are_listed_by_what_they_are(alice: HfApi, bob: HfApi) -> None:
    for name, private in (("acme/list-one", False), ("acme/list-two", True), ("alice/list-three", False)):
        alice.create_repo(name, private=private)
    card = ModelCard("")
    card.data = ModelCardData(
        license="mit", base_model=["alice/a", "alice/b"], tags=["merge"], library_name="transformers", pipeline_tag="text-generation"
    )
    put(alice, "acme/list-one", "README.md", str(card).encode())
    assert [model.id for model in alice.list_models(search="LIST-")] == ["acme/list-one", "acme/list-two", "alice/list-three"]
    assert [model.id for model in bob.list_models(author="acme")] == ["acme/list-one"]
    assert [model.id for model in bob.list_models(filter=["text-generation", "base_model:merge:alice/b"])] == ["acme/list-one"]
    assert [model.id for model in alice.list_models(search="list-", limit=1)] == ["acme/list-one"]
    assert list(bob.list_models(search="list-", filter="gguf")) == []


def test_information_comes_from_the_card_and_the_files(alice: HfApi, repo: str) -> None:
    card = ModelCardData(license="apache-2.0", base_model=["a/b", "c/d"], datasets=["e/f"], language="en", tags=["merge"])
    put(alice, repo, "README.md", f"---\n{card.to_yaml()}\n---\n".encode())
    put(alice, repo, "model.safetensors", b"\0" * 100)
    info = alice.model_info(repo, files_metadata=True)
    tags = {"merge", "safetensors", "en", "base_model:merge:a/b", "base_model:c/d", "dataset:e/f", "license:apache-2.0"}
    assert tags <= set(info.tags or ())
    assert info.card_data is not None
    assert info.card_data.base_model == ["a/b", "c/d"]
    assert (info.private, info.gated, info.author, info.sha) == (False, False, "alice", alice.list_repo_commits(repo)[0].commit_id)
    sizes = {file.rfilename: (file.size, file.lfs.sha256[:4] if file.lfs else None) for file in info.siblings or ()}
    assert sizes["model.safetensors"] == (100, "cd00")
    dataset = alice.create_repo("alice/about", repo_type="dataset").repo_id
    put(alice, dataset, "README.md", b"---\nlicense: mit\ntask_categories: [text-generation]\n---\n", repo_type="dataset")
    assert alice.dataset_info(dataset).tags == ["task_categories:text-generation", "license:mit"]


# uploads and downloads


def test_a_folder_comes_back_byte_for_byte(alice: HfApi, repo: str, tmp_path: Path) -> None:
    files = make_folder(tmp_path / "up")
    done = alice.upload_folder(repo_id=repo, folder_path=tmp_path / "up")
    assert {file.path for file in alice.list_repo_tree(repo, recursive=True) if hasattr(file, "lfs") and file.lfs} == {
        "data/deep/small.bin",
        "model.safetensors",
    }
    down = Path(alice.snapshot_download(repo, cache_dir=tmp_path / "cache"))
    assert down.name == alice.model_info(repo).sha
    assert {path: (down / path).read_bytes() for path in files} == files
    assert {path.relative_to(down).as_posix() for path in down.rglob("*") if path.is_file()} == files.keys() | {".gitattributes"}
    assert done.oid == down.name
    alice.verify_repo_checksums(repo, cache_dir=tmp_path / "cache")


def test_what_is_there_already_is_not_committed_again(alice: HfApi, repo: str, tmp_path: Path) -> None:
    make_folder(tmp_path)
    first = alice.upload_folder(repo_id=repo, folder_path=tmp_path)
    assert alice.upload_folder(repo_id=repo, folder_path=tmp_path).oid == first.oid
    assert len(alice.list_repo_commits(repo)) == 2
    (tmp_path / "config.json").write_text("{}")
    assert alice.upload_folder(repo_id=repo, folder_path=tmp_path).oid != first.oid


def test_files_are_added_replaced_and_deleted_in_one_commit(alice: HfApi, repo: str, tmp_path: Path) -> None:
    make_folder(tmp_path)
    alice.upload_folder(repo_id=repo, folder_path=tmp_path)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd("config.json", b"{}"),
        CommitOperationAdd("new.bin", b"\0" * 1000),
        CommitOperationDelete("empty.txt"),
        CommitOperationDelete("data/"),
    ]
    alice.create_commit(repo, operations, commit_message="Change it", commit_description="All of it")
    assert sorted(alice.list_repo_files(repo)) == [".gitattributes", "README.md", "config.json", "model.safetensors", "new.bin"]
    newest = alice.list_repo_commits(repo)[0]
    assert (newest.title, newest.message, newest.authors) == ("Change it", "All of it", ["alice"])
    with pytest.raises(EntryNotFoundError, match="doesn't exist"):
        alice.delete_file("empty.txt", repo)
    with pytest.raises(HfHubHTTPError, match="file and a folder"):
        put(alice, repo, "config.json/x")


def test_headers_and_ranges(alice: HfApi, repo: str, hub: RunningHub) -> None:
    commit = put(alice, repo, "model.bin", bytes(range(200)))
    url = f"{hub.url}/{repo}/resolve/main/model.bin"
    status, headers, body = read(url, "HEAD")
    assert (status, body, headers["content-length"], headers["x-linked-size"]) == (200, b"", "200", "200")
    assert headers["x-repo-commit"] == commit
    assert headers["x-linked-etag"] == headers["etag"]
    for asked, start, end in (("bytes=10-19", 10, 20), ("bytes=190-", 190, 200), ("bytes=-5", 195, 200), ("bytes=150-999", 150, 200)):
        status, headers, body = read(url, Range=asked)
        assert (status, body) == (206, bytes(range(start, end)))
        assert headers["content-range"] == f"bytes {start}-{end - 1}/200"
    status, headers, _ = read(url, Range="bytes=200-")
    assert (status, headers["content-range"]) == (416, "bytes */200")


def test_the_header_of_safetensors_is_read_in_ranges(alice: HfApi, repo: str, tmp_path: Path) -> None:
    header = b'{"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    put(alice, repo, "model.safetensors", len(header).to_bytes(8, "little") + header + b"\0" * 24)
    metadata = alice.get_safetensors_metadata(repo)
    assert metadata.parameter_count == {"F32": 6}
    assert metadata.files_metadata["model.safetensors"].tensors["w"].shape == [2, 3]


def test_large_files_come_in_parts(alice: HfApi, repo: str, tmp_path: Path) -> None:
    with serve_with_faults(tmp_path / "hub", multipart_chunk=1000) as other:
        api = HfApi(endpoint=other.url, token="hf_alice")
        api.create_repo("alice/parts")
        content = os.urandom(2500)
        put(api, "alice/parts", "weights.bin", content)
        assert [request.headers["content-length"] for request in other.app.requests("^PUT ")] == ["1000", "1000", "500"]
        assert not any("authorization" in request.headers for request in other.app.requests("^PUT "))
        assert Path(api.hf_hub_download("alice/parts", "weights.bin", cache_dir=tmp_path / "cache")).read_bytes() == content
        assert not any((tmp_path / "hub/parts").iterdir())


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with serve_with_faults(tmp_path) as hub:
        api = HfApi(endpoint=hub.url, token="hf_alice")
        api.create_repo("alice/broken")
        connection = HTTPConnection(urlsplit(hub.url).netloc)
        connection.putrequest("POST", "/api/models/alice/broken/commit/main")
        connection.putheader("Authorization", "Bearer hf_alice")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"key": "header"')
        assert api.whoami()["name"] == "alice"  # others are served meanwhile
        connection.close()
        assert wait_until(lambda: not any((tmp_path / "incoming").iterdir()))
        assert len(api.list_repo_commits("alice/broken")) == 1


def test_what_is_missing_is_named(alice: HfApi, repo: str, tmp_path: Path) -> None:
    with pytest.raises(RevisionNotFoundError, match="no revision 'v9'"):
        alice.model_info(repo, revision="v9")
    with pytest.raises(RevisionNotFoundError):
        put(alice, repo, revision="v9")
    with pytest.raises(EntryNotFoundError):
        alice.hf_hub_download(repo, "nothing.txt", cache_dir=tmp_path)
    assert list(tmp_path.glob("models--*/.no_exist/*/nothing.txt"))
    with pytest.raises(EntryNotFoundError):
        list(alice.list_repo_tree(repo, "nothing"))
    assert not alice.file_exists(repo, "nothing.txt")
    with pytest.raises(RepositoryNotFoundError):
        alice.model_info("alice/no-such-model")


def test_an_unknown_route_is_named(hub: RunningHub) -> None:
    for path in ("/api/buckets/alice/x", "/api/papers/alice/x"):
        status, _, body = read(f"{hub.url}{path}")
        assert status == 404
        assert f"does not implement GET {path}" in body.decode()


def test_xet_is_refused_with_the_way_out(hub: RunningHub, repo: str) -> None:
    status, _, body = read(f"{hub.url}/api/models/{repo}/xet-write-token/main", Authorization="Bearer hf_alice")
    assert status == 501
    assert b"HF_HUB_DISABLE_XET=1" in body


def test_a_listing_has_pages_folders_and_last_commits(alice: HfApi, repo: str) -> None:
    alice.create_commit(repo, [CommitOperationAdd(f"many/{n:03}.txt", b"x") for n in range(120)], commit_message="Many")
    changed = put(alice, repo, "many/007.txt", b"y")
    nodes = {node.path: node for node in alice.list_repo_tree(repo, recursive=True, expand=True)}
    assert len(nodes) == 122
    assert {path for path, node in nodes.items() if node.last_commit and node.last_commit.oid == changed} == {"many", "many/007.txt"}
    assert [node.path for node in alice.list_repo_tree(repo)] == [".gitattributes", "many"]
    found = alice.get_paths_info(repo, ["many", "many/001.txt", "none.txt"], expand=True)
    assert [node.path for node in found] == ["many", "many/001.txt"]


# revisions


def test_branches_and_tags(alice: HfApi, repo: str, tmp_path: Path) -> None:
    first = put(alice, repo, content=b"one")
    alice.create_branch(repo, branch="dev/new")
    alice.create_tag(repo, tag="v1", tag_message="first")
    on_branch = put(alice, repo, content=b"two", revision="dev/new")
    refs = alice.list_repo_refs(repo)
    assert {branch.name: branch.target_commit for branch in refs.branches} == {"main": first, "dev/new": on_branch}
    assert {tag.name: tag.target_commit for tag in refs.tags} == {"v1": first}
    for revision, content in (("dev/new", b"two"), ("v1", b"one"), (on_branch, b"two"), (first[:10], b"one")):
        assert Path(alice.hf_hub_download(repo, "a.txt", revision=revision, cache_dir=tmp_path)).read_bytes() == content
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_branch(repo, branch="dev/new")
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_tag(repo, tag="v1")
    alice.create_branch(repo, branch="dev/new", exist_ok=True)
    alice.delete_branch(repo, branch="dev/new")
    alice.delete_tag(repo, tag="v1")
    with pytest.raises(RevisionNotFoundError):
        alice.delete_tag(repo, tag="v1")
    assert len(alice.list_repo_refs(repo).branches) == 1


def test_a_stale_parent_is_refused(alice: HfApi, repo: str) -> None:
    old = put(alice, repo, content=b"one")
    new = put(alice, repo, content=b"two", parent_commit=old)
    with pytest.raises(HfHubHTTPError, match="412") as caught:
        put(alice, repo, content=b"three", parent_commit=old)
    assert new in str(caught.value)
    assert alice.model_info(repo).sha == new


def test_commits_at_once_all_arrive(alice: HfApi, repo: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda n: put(alice, repo, f"{n}.txt", b"%d" % n), range(8)))
    assert {commit.commit_id for commit in alice.list_repo_commits(repo)} > made
    assert len(made) == 8
    assert set(alice.list_repo_files(repo)) == {".gitattributes", *(f"{n}.txt" for n in range(8))}


# pull requests


def test_a_pull_request_is_made_with_a_commit_and_merged(alice: HfApi, bob: HfApi, repo: str) -> None:
    put(alice, repo, "a.txt", b"one")
    changes: list[CommitOperationAdd | CommitOperationDelete] = [CommitOperationAdd("b.bin", b"\0b"), CommitOperationDelete("a.txt")]
    proposal = bob.create_commit(repo, changes, commit_message="Add b", create_pr=True)
    assert (proposal.pr_num, proposal.pr_revision) == (1, "refs/pr/1")
    put(alice, repo, "c.txt", b"meanwhile")
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "a.txt", "c.txt"}
    assert set(alice.list_repo_files(repo, revision="refs/pr/1")) == {".gitattributes", "b.bin"}
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.merge_pull_request(repo, 1)
    alice.merge_pull_request(repo, 1)
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "b.bin", "c.txt"}
    details = alice.get_discussion_details(repo, 1)
    assert (details.status, details.merge_commit_oid) == ("merged", alice.model_info(repo).sha)
    with pytest.raises(HfHubHTTPError, match="can't be merged"):
        alice.merge_pull_request(repo, 1)


def test_a_pull_request_is_drafted_and_then_filled(alice: HfApi, bob: HfApi, repo: str) -> None:
    draft = bob.create_pull_request(repo, title="Better", description="Much")
    assert (draft.status, draft.is_pull_request, draft.num) == ("draft", True, 1)
    put(bob, repo, content=b"better", revision=draft.git_reference)
    put(alice, repo, content=b"other")
    assert alice.get_discussion_details(repo, 1).conflicting_files == ["a.txt"]
    with pytest.raises(HfHubHTTPError, match=r"Main has changed a\.txt"):
        alice.merge_pull_request(repo, 1)
    assert alice.comment_discussion(repo, 1, "No").content == "No"
    assert alice.change_discussion_status(repo, 1, "closed").new_status == "closed"
    talk = alice.create_discussion(repo, title="Talk")
    assert [found.num for found in alice.get_repo_discussions(repo)] == [2, 1]
    assert [found.num for found in alice.get_repo_discussions(repo, discussion_status="open")] == [talk.num]


# access


def test_a_private_repository_is_absent_to_others(alice: HfApi, bob: HfApi, anonymous: HfApi, hub: RunningHub, repo: str) -> None:
    put(alice, repo)
    alice.update_repo_settings(repo, private=True)
    assert alice.model_info(repo).private
    for api in (bob, anonymous):
        with pytest.raises(RepositoryNotFoundError):
            api.model_info(repo)
        with pytest.raises(RepositoryNotFoundError):
            api.auth_check(repo)
    assert read(f"{hub.url}/api/models/{repo}")[0] == 401
    assert read(f"{hub.url}/api/models/{repo}", Authorization="Bearer hf_bob")[0] == 404
    assert read(f"{hub.url}/{repo}/resolve/main/a.txt")[0] == 401
    assert read(f"{hub.url}/{repo}/resolve/main/a.txt?token=hf_alice")[2] == b"text"
    alice.update_repo_settings(repo, visibility="public")
    assert not bob.model_info(repo).private


def test_a_gated_repository_is_for_those_who_were_let_in(
    alice: HfApi, bob: HfApi, anonymous: HfApi, hub: RunningHub, repo: str, tmp_path: Path
) -> None:
    put(alice, repo)
    alice.update_repo_settings(repo, gated="manual")
    assert bob.model_info(repo).gated == "manual"
    assert '<span class="flag">gated: manual</span>' in read(f"{hub.url}/{repo}")[2].decode()
    for api, status in ((bob, "403"), (anonymous, "401")):
        with pytest.raises(GatedRepoError, match=status):
            api.auth_check(repo)
        with pytest.raises(GatedRepoError):
            api.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)
    alice.grant_access(repo, "bob")
    assert [access.username for access in alice.list_accepted_access_requests(repo)] == ["bob"]
    assert Path(bob.hf_hub_download(repo, "a.txt", cache_dir=tmp_path)).read_bytes() == b"text"
    alice.reject_access_request(repo, "bob", rejection_reason="No")
    with pytest.raises(GatedRepoError):
        bob.auth_check(repo)
    with pytest.raises(HfHubHTTPError, match="404"):
        alice.grant_access(repo, "carol")


def test_only_a_token_that_may_write_writes(alice: HfApi, bob: HfApi, anonymous: HfApi, hub: RunningHub, repo: str) -> None:
    reader = HfApi(endpoint=hub.url, token="hf_alice_ro")
    for api, why in ((reader, "read-only"), (bob, "bob is no member of alice")):
        for attempt in (put, HfApi.delete_repo, lambda api, repo: api.create_tag(repo, tag="v1")):
            with pytest.raises(HfHubHTTPError, match=f"403.*{why}"):
                attempt(api, repo)
        with pytest.raises(HfHubHTTPError, match="403"):
            api.auth_check(repo, write=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        reader.create_commit(repo, [CommitOperationAdd("w.bin", b"\0")], commit_message="x", create_pr=True)
    with pytest.raises(HfHubHTTPError, match="403"):
        bob.create_repo("acme/not-mine")
    with pytest.raises(HfHubHTTPError, match="401"):
        put(anonymous, repo)
    alice.auth_check(repo, write=True)


# cards and pages


def test_a_bad_card_is_refused_with_the_reason(alice: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match=r"\"license\" is 'free-for-all', which is no license id"):
        put(alice, repo, "README.md", b"---\nlicense: free-for-all\n---\n")
    with pytest.raises(ValueError, match="base_model_relation"):
        put(alice, repo, "README.md", b"---\nbase_model_relation: cousin\n---\n")
    with pytest.raises(ValueError, match="can't be parsed"):
        put(alice, repo, "README.md", b"---\na: [\n---\n")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        put(alice, repo, "README.md", b"# No metadata\n")


def test_a_model_card_is_checked_and_pushed(hub: RunningHub, repo: str, tmp_path: Path) -> None:
    script = f"""
        from huggingface_hub import ModelCard, ModelCardData
        card = ModelCard("---\\n" + ModelCardData(license="nonsense").to_yaml() + "\\n---\\n# Card")
        try:
            card.push_to_hub("{repo}")
        except ValueError as error:
            print("no license id" in str(error))
        card.data.license = "mit"
        card.push_to_hub("{repo}")
        print(ModelCard.load("{repo}").data.license)
    """
    assert run_client(script, hub, tmp_path) == "True\nmit\n"


def test_a_page_shows_the_card_to_a_person(alice: HfApi, hub: RunningHub, repo: str) -> None:
    card = (
        CARD
        + "<script>alert(1)</script>\n\n![plot](./plot%20one.png) [data](data/x.json#a) [js](javascript:x) [web](https://example.org/)\n\n|a|b|\n|-|-|\n|1|2|\n"
    )
    put(alice, repo, "README.md", card.encode())
    put(alice, repo, "plot one.png", b"\x89PNG")
    status, headers, body = read(f"{hub.url}/{repo}")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Card</h1>" in page
    assert "<pre>license: mit</pre>" in page
    assert "<td>1</td>" in page
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert f'<img src="/{repo}/resolve/main/plot%20one.png"' in page
    assert f'href="/{repo}/resolve/main/data/x.json#a"' in page
    assert 'href="https://example.org/"' in page
    assert 'href="javascript' not in page
    status, headers, body = read(f"{hub.url}/{repo}/resolve/main/plot%20one.png")
    assert (status, headers["content-type"], body) == (200, "image/png", b"\x89PNG")
    assert repo in read(f"{hub.url}/")[2].decode()
    first = alice.list_repo_commits(repo)[-1].commit_id
    assert "README.md" not in read(f"{hub.url}/{repo}/tree/{first}")[2].decode()
    assert read(f"{hub.url}/{repo}/tree/main/")[0] == 200


def test_a_page_of_a_private_repository_needs_a_token(alice: HfApi, hub: RunningHub) -> None:
    repo = alice.create_repo("acme/hidden-page", private=True, repo_type="dataset").repo_id
    put(alice, repo, "README.md", (CARD + "![x](x.png)").encode(), repo_type="dataset")
    address = f"{hub.url}/datasets/{repo}"
    absent = read(f"{hub.url}/datasets/acme/no-such-page")[2].decode()
    for query in ("", "?token=hf_bob", "?token=nonsense"):
        status, _, body = read(address + query)
        assert status == 404
        assert body.decode() == absent.replace("no-such-page", "hidden-page")
    status, _, body = read(f"{address}?token=hf_alice")
    assert status == 200
    assert f'src="/datasets/{repo}/resolve/main/x.png?token=hf_alice"' in body.decode()
    assert '<span class="flag">private</span>' in body.decode()
    assert "hidden-page" not in read(f"{hub.url}/")[2].decode()
    assert "hidden-page" in read(f"{hub.url}/?token=hf_alice")[2].decode()


# other clients


def test_datasets_pushes_and_loads_two_configurations(hub: RunningHub, tmp_path: Path) -> None:
    script = """
        from datasets import Dataset, DatasetDict, load_dataset
        for name, rows in (("benign", ["a", "b"]), ("domain", ["c", "d", "e"])):
            both = {split: Dataset.from_dict({"text": rows}) for split in ("train", "test")}
            DatasetDict(both).push_to_hub("alice/two-configs", name)
        for name, rows in (("benign", ["a", "b"]), ("domain", ["c", "d", "e"])):
            assert load_dataset("alice/two-configs", name, split="test")["text"] == rows
        print(list(load_dataset("alice/two-configs", "domain", streaming=True, split="train"))[0]["text"])
    """
    assert run_client(script, hub, tmp_path) == "c\n"


def test_transformers_pushes_and_loads_a_model(hub: RunningHub, tmp_path: Path) -> None:
    script = """
        import torch
        from tokenizers import Tokenizer, models
        from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        torch.set_num_threads(1)
        sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=3, **sizes))
        words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
        model.push_to_hub("alice/tiny-llama", max_shard_size="5KB")
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").push_to_hub("alice/tiny-llama")
        loaded = AutoModelForCausalLM.from_pretrained("alice/tiny-llama")
        assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
        print(AutoTokenizer.from_pretrained("alice/tiny-llama")("b")["input_ids"])
    """
    assert run_client(script, hub, tmp_path) == "[2]\n"


# persistence


def upload_some(api: HfApi, folder: Path) -> list[str]:
    """Make the same repository each time; its commit ids, newest first."""
    make_folder(folder)
    repo = api.create_repo("alice/kept", exist_ok=True).repo_id
    api.upload_folder(repo_id=repo, folder_path=folder)
    api.create_tag(repo, tag="v1")
    put(api, repo, "b.bin", b"\0b")
    api.delete_file("empty.txt", repo)
    return [commit.commit_id for commit in api.list_repo_commits(repo)]


def test_a_killed_server_starts_again_where_it_was(tmp_path: Path) -> None:
    with serve(tmp_path / "hub") as first:
        alice = HfApi(endpoint=first.url, token="hf_alice")
        commits = upload_some(alice, tmp_path / "up")
        alice.update_repo_settings("alice/kept", gated="auto", private=True)
        alice.grant_access("alice/kept", "bob")
        alice.create_commit("alice/kept", [CommitOperationAdd("c.txt", b"c")], commit_message="c", create_pr=True)
        before = [alice.model_info("alice/kept", files_metadata=True), alice.list_repo_refs("alice/kept", include_pull_requests=True)]
        first.process.kill()
        first.process.wait()
    (tmp_path / "hub/incoming/half").write_bytes(b"half")
    with serve(tmp_path / "hub") as second:
        alice = HfApi(endpoint=second.url, token="hf_alice")
        assert [commit.commit_id for commit in alice.list_repo_commits("alice/kept")] == commits
        after = [alice.model_info("alice/kept", files_metadata=True), alice.list_repo_refs("alice/kept", include_pull_requests=True)]
        assert after == before
        assert [access.username for access in alice.list_accepted_access_requests("alice/kept")] == ["bob"]
        alice.merge_pull_request("alice/kept", 1)
        down = Path(alice.snapshot_download("alice/kept", local_dir=tmp_path / "down"))
        assert (down / "model.safetensors").read_bytes() == (tmp_path / "up/model.safetensors").read_bytes()
        assert (down / "c.txt").read_bytes() == b"c"
    assert not (tmp_path / "hub/incoming/half").exists()


def test_equal_uploads_give_equal_commits(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        with serve(tmp_path / name) as hub:
            found.append(upload_some(HfApi(endpoint=hub.url, token="hf_alice"), tmp_path / "up"))
    assert found[0] == found[1]
    assert len(set(found[0])) == 4


# the process


def test_the_command_prints_what_to_set(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hfsafemerge.localhub", "--root", str(tmp_path), "--port"]
    with subprocess.Popen([*command, "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().strip() for _ in range(3)]
        url = lines[0].removeprefix("export HF_ENDPOINT=")
        assert lines[1:] == ["export HF_TOKEN=hf_alice", "export HF_HUB_DISABLE_XET=1"]
        assert read(url)[0] == 200
        port = str(urlsplit(url).port)
        second = subprocess.run([*command, port], capture_output=True, text=True, cwd=ROOT, check=False)
        assert second.returncode == 1
        assert f"Can't listen on 127.0.0.1:{port}" in second.stderr
        assert "Traceback" not in second.stderr
        with pytest.raises(HubError, match="did not start"), serve(tmp_path, int(port)):
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_the_server_dies_with_its_parent(tmp_path: Path) -> None:
    script = f"""
        import os, signal, sys
        from pathlib import Path
        from hfsafemerge.localhub import serve
        assert "fastapi" not in sys.modules
        with serve(Path({str(tmp_path)!r})) as hub:
            print(hub.url, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    """
    parent = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert parent.returncode == -signal.SIGKILL
    assert wait_until(lambda: not answers(parent.stdout.strip()))


# faults


def test_the_client_tries_a_failed_upload_again(tmp_path: Path) -> None:
    with serve_with_faults(tmp_path) as hub:
        api = HfApi(endpoint=hub.url, token="hf_alice")
        api.create_repo("alice/fault")
        hub.app.faults.append(Fault("^PUT /lfs/", 503, times=2, headers={"Retry-After": "0"}))
        put(api, "alice/fault", "w.bin", b"\0w")
        assert [request.status for request in hub.app.requests("^PUT ")] == [503, 503, 200]
        hub.app.faults.append(Fault("^POST .*/commit/main", 503))
        with pytest.raises(HfHubHTTPError, match="503"):
            put(api, "alice/fault", "x.txt")
        assert sorted(api.list_repo_files("alice/fault")) == [".gitattributes", "w.bin"]
