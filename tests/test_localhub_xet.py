"""Xet storage and redirects of the local Hub. The clients read how they upload when they are imported, so each is a new process."""

import os
import subprocess
import sys
import textwrap
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from hfsafemerge.localhub import serve
from hfsafemerge.localhub.faults import FaultyHub, serve_with_faults

# first one file, then one that is the same three megabytes and a little more: it is cut in pieces, and only new ones are sent
UPLOAD = """
    import random
    from pathlib import Path
    from huggingface_hub import HfApi
    folder = Path({folder!r})
    folder.mkdir()
    content = random.Random(0).randbytes(3_000_000)
    (folder / "one.safetensors").write_bytes(content)
    (folder / "README.md").write_text("---\\nlicense: mit\\n---\\n")
    api = HfApi()
    api.create_repo("alice/weights", exist_ok=True)
    api.upload_folder(repo_id="alice/weights", folder_path=folder)
    (folder / "two.safetensors").write_bytes(content + b"a little more")
    print(api.upload_folder(repo_id="alice/weights", folder_path=folder).oid)
"""
DOWNLOAD = """
    from huggingface_hub import snapshot_download
    print(snapshot_download("alice/weights"))
"""


def run_client(script: str, hub: FaultyHub, home: Path, **environment: str) -> str:
    """Run a script in a new process whose clients speak to the hub; what it prints."""
    variables = os.environ | hub.environment | {"HF_HOME": str(home)} | environment
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xet")


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[FaultyHub]:
    """A hub with Xet, to which a folder was uploaded by it."""
    with serve_with_faults(root / "hub", xet=True) as running:
        run_client(UPLOAD.format(folder=str(root / "up")), running, root / "home")
        yield running


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".gitattributes"}


def test_an_upload_by_xet_sends_no_large_file_over_http_and_keeps_equal_pieces_once(hub: FaultyHub, root: Path) -> None:
    assert not hub.app.requests("^PUT |objects/batch")
    assert hub.app.requests("xet-write-token/main")
    assert max(request.received for request in hub.app.log) < 10_000
    stored = sum(path.stat().st_size for path in (root / "hub/xet").rglob("*") if path.parent.name == "xorbs" and path.suffix != ".redb")
    assert 3_000_000 < stored < 4_000_000
    nodes = HfApi(endpoint=hub.url, token="hf_alice").get_paths_info("alice/weights", ["README.md", "one.safetensors", "two.safetensors"])
    card, *weights = [node.xet_hash for node in nodes if isinstance(node, RepoFile)]
    assert card is None
    assert len(set(weights) - {None}) == 2


def test_a_client_downloads_by_xet(hub: FaultyHub, root: Path, tmp_path: Path) -> None:
    before = len(hub.app.log)
    folder = run_client(DOWNLOAD, hub, tmp_path)
    assert files(Path(folder)) == files(root / "up")
    assert [request.path for request in hub.app.log[before:] if "xet-read-token" in request.path]
    assert sum(request.sent for request in hub.app.log[before:]) < 20_000


def test_a_client_without_xet_finds_the_same_bytes(hub: FaultyHub, root: Path, tmp_path: Path) -> None:
    before = len(hub.app.log)
    folder = run_client(DOWNLOAD, hub, tmp_path, HF_HUB_DISABLE_XET="1")
    assert files(Path(folder)) == files(root / "up")
    assert not [request for request in hub.app.log[before:] if "xet" in request.path]
    assert sum(request.sent for request in hub.app.log[before:]) > 6_000_000


def test_what_is_there_already_is_not_sent_again(hub: FaultyHub, root: Path, tmp_path: Path) -> None:
    commit = HfApi(endpoint=hub.url, token="hf_alice").model_info("alice/weights").sha
    assert run_client(UPLOAD.format(folder=str(tmp_path / "up")), hub, tmp_path / "home") == commit


def test_a_token_for_the_store_is_for_those_who_may(hub: FaultyHub) -> None:
    api = HfApi(endpoint=hub.url, token="hf_alice")
    api.create_repo("alice/gated")
    api.update_repo_settings("alice/gated", gated="manual")
    asked = [("hf_alice", "read"), ("hf_alice", "write"), ("hf_bob", "read"), ("hf_alice_ro", "write")]
    found = [status(f"{hub.url}/api/models/alice/gated/xet-{mode}-token/main", token) for token, mode in asked]
    assert found == [200, 200, 403, 403]


def status(url: str, token: str | None = None) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_large_files_come_from_another_origin_and_the_token_stays(tmp_path: Path) -> None:
    with serve_with_faults(tmp_path / "hub", cdn=True) as other:
        run_client(UPLOAD.format(folder=str(tmp_path / "up")), other, tmp_path / "home")
        folder = run_client(DOWNLOAD, other, tmp_path / "home2")
        assert files(Path(folder)) == files(tmp_path / "up")
        redirected = other.app.requests("^GET /lfs/")
        assert len(redirected) == 2
        assert all("authorization" not in request.headers for request in redirected)
        assert {f"http://{request.headers['host']}" for request in redirected} == {other.hub.cdn}
        assert other.hub.cdn != other.url
        assert {request.status for request in other.app.requests("^(GET|HEAD) /alice/weights/resolve/.*safetensors")} == {302}
        asked = f"{other.hub.cdn}{redirected[0].path}?{redirected[0].query}"
        assert [status(asked), status(asked, "hf_alice"), status(asked.replace("signature=", "signature=0"))] == [200, 400, 403]


def test_the_command_serves_both(tmp_path: Path) -> None:
    with serve(tmp_path / "hub", xet=True, cdn=True) as hub:
        assert hub.environment["HF_HUB_DISABLE_XET"] == "0"
        api = HfApi(endpoint=hub.url, token="hf_alice")
        api.create_repo("alice/weights")
        assert status(f"{hub.url}/api/models/alice/weights/xet-write-token/main", "hf_alice") == 200
