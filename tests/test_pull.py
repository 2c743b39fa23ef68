"""What is read from the Hub: who may, how often it is asked, and what is done about faults, damage and traps."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import HfApi, close_session, constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from tiny import tiny_model

from hfsafemerge import hub
from hfsafemerge.errors import CheckpointError, HubError, OutOfDisk, UnsafeRepository
from hfsafemerge.examples import Example, save_examples
from hfsafemerge.hub import client, jobs, lookup, retrying, stopping, verifying, waiting
from hfsafemerge.hub.listing import digest_of, is_cached
from hfsafemerge.localhub import serve
from hfsafemerge.localhub.faults import Fault, serve_with_faults
from hfsafemerge.recipe import DatasetRef, ModelRef
from hfsafemerge.running.pulling import wanted_repository


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    lookup._granted.cache_clear()
    return tmp_path / "cache"


@pytest.fixture
def faulty(tmp_path, monkeypatch, cache):
    """A Hub that fails on command, as alice, where waiting takes no time."""
    with serve_with_faults(tmp_path / "hub") as server:
        alice = HfApi(endpoint=server.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
        yield server


def publish(api, repo_id, folder, **options):
    api.create_repo(repo_id, **options)
    api.upload_folder(repo_id=repo_id, folder_path=folder, repo_type=options.get("repo_type"))
    return repo_id


def sharded(folder):
    """A tiny model whose weights are in several files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tiny_model(folder / "whole", 0)
    AutoModelForCausalLM.from_pretrained(folder / "whole").save_pretrained(folder / "sharded", max_shard_size="50KB")
    AutoTokenizer.from_pretrained(folder / "whole").save_pretrained(folder / "sharded")
    assert len(list((folder / "sharded").glob("model-*.safetensors"))) > 1
    return folder / "sharded"


@pytest.fixture
def model(faulty, tmp_path):
    return publish(client.api(), "alice/tiny", tiny_model(tmp_path / "model", 0))


def asked(server, since=0):
    return [f"{request.method} {request.path.split('/')[-1]}" for request in server.app.log[since:]]


# Requests


def test_a_model_is_found_with_one_request_for_what_it_is_and_one_for_its_files(faulty, model):
    start = len(faulty.app.log)
    found = hub.find_model(ModelRef(repo_id=model))
    log = faulty.app.log[start:]
    small = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert [r.path for r in log if "/api/" in r.path] == [f"/api/models/{model}", f"/api/models/{model}/tree/{found.commit}"]
    read = [r for r in log if r.method == "GET" and "/resolve/" in r.path]
    assert {r.path.split("/")[-1] for r in read} - {"model.safetensors"} <= small
    (header,) = [r for r in read if r.path.endswith(".safetensors")]
    assert header.headers["range"] == "bytes=0-100000"


def test_what_is_there_costs_no_request(faulty, model):
    found = hub.find_model(ModelRef(repo_id=model))
    hub.pull(found.ref, found.commit, found.access)
    start = len(faulty.app.log)
    hub.pull(found.ref, found.commit, found.access)
    assert asked(faulty, start) == []
    hub.find_model(ModelRef(repo_id=model))
    assert len(asked(faulty, start)) == 1  # which commit the branch stands for now, and nothing that is known


def test_only_the_shards_that_the_index_names_are_read(faulty, tmp_path):
    folder = sharded(tmp_path)
    (folder / "model-old.safetensors").write_bytes(b"stale")
    found = hub.find_model(ModelRef(repo_id=publish(client.api(), "alice/shards", folder)))
    pulled = hub.pull(found.ref, found.commit, found.access)
    assert not (pulled / "model-old.safetensors").exists() and len(list(pulled.glob("model-*.safetensors"))) > 1
    assert found.summary.tensors == hub.find_model(ModelRef(path=tmp_path / "whole")).summary.tensors


def test_bytes_to_fetch_are_those_that_the_cache_has_not(faulty, model, tmp_path):
    size = (tmp_path / "model" / "model.safetensors").stat().st_size
    before = hub.find_model(ModelRef(repo_id=model))
    hub.pull(before.ref, before.commit, before.access)
    after = hub.find_model(ModelRef(repo_id=model))
    assert (before.download, before.to_fetch, after.download, after.to_fetch) == (size, size, size, 0)


# Who may read


CALLER = """
import sys
from hfsafemerge import hub
from hfsafemerge.errors import HubError
from hfsafemerge.recipe import DatasetRef, ModelRef
for kind, repo_id, commit, access in [line.split() for line in sys.argv[1:]]:
    try:
        if kind == "model":
            folder = hub.pull(ModelRef(repo_id=repo_id), commit, None if access == "unknown" else access)
            print("read", (folder / "model.safetensors").exists())
        else:
            found = hub.rows(DatasetRef(repo_id=repo_id, split="train"), commit, access)
            print("read", len(found))
    except HubError as error:
        print("refused", error)
"""


def as_user(url, home, token, *lines, **environment):
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_TOKEN": token, "OMP_NUM_THREADS": "1"} | environment
    done = subprocess.run([sys.executable, "-c", CALLER, *lines], env=os.environ | settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    return done.stdout.splitlines()


def test_users_who_share_a_cache_do_not_share_what_is_not_open_to_all(hub_url, repo_name, tmp_path):
    """The client answers a pinned commit out of the cache with no question asked, whoever fetched it."""
    api, folder = HfApi(token="hf_alice"), tiny_model(tmp_path / "m", 0)
    private, gated, data = (f"alice/{repo_name}-{kind}" for kind in ("private", "gated", "data"))
    publish(api, private, folder, private=True)
    publish(api, gated, folder)
    api.update_repo_settings(gated, gated="manual")
    (tmp_path / "d").mkdir()
    save_examples(tmp_path / "d" / "train.parquet", [Example("safety", "q", "a")])
    publish(api, data, tmp_path / "d", repo_type="dataset")
    api.update_repo_settings(data, repo_type="dataset", gated="manual")
    commits = [api.model_info(private).sha, api.model_info(gated).sha, api.dataset_info(data).sha]
    lines = [
        f"model {private} {commits[0]} private",
        f"model {private} {commits[0]} unknown",
        f"model {gated} {commits[1]} gated",
        f"dataset {data} {commits[2]} gated",
    ]
    assert as_user(hub_url, tmp_path / "home", "hf_alice", *lines) == ["read True", "read True", "read True", "read 1"]
    assert api.hf_hub_download(private, "config.json", revision=commits[0], token="hf_bob", cache_dir=tmp_path / "home" / "hub")  # the trap
    bob = as_user(hub_url, tmp_path / "home", "hf_bob", *lines)
    assert [line.split()[0] for line in bob] == ["refused"] * 4
    assert f"{private} does not exist at {hub_url}, or is private" in bob[0]
    assert f"{gated} is gated, and you have not been granted access. Ask for it on its page, {hub_url}/{gated}." in bob[2]
    assert f"its page, {hub_url}/datasets/{data}." in bob[3]
    api.grant_access(gated, "bob")
    assert as_user(hub_url, tmp_path / "home", "hf_bob", lines[2]) == ["read True"]
    # offline nobody can be asked, and what is in a cache of one's own is one's own
    offline = as_user(hub_url, tmp_path / "home", "hf_alice", *lines, f"model {gated} {'0' * 40} gated", HF_HUB_OFFLINE="1")
    assert offline[:4] == ["read True", "read True", "read True", "read 1"]
    assert "is not in the cache as this tool fetches it, and HF_HUB_OFFLINE is set" in offline[4] and "hfsafemerge pull" in offline[4]


def test_offline_the_cache_of_another_user_is_not_trusted(cache, monkeypatch):
    (cache / "models--alice--x").mkdir(parents=True)
    monkeypatch.setattr(lookup, "is_offline_mode", lambda: True)
    hub.require_access("alice/x", "model", "gated")
    monkeypatch.setattr(lookup.os, "getuid", lambda: cache.stat().st_uid + 1)
    hub.require_access("alice/x", "model", "public")
    with pytest.raises(HubError, match=r"alice/x is not open to all, and HF_HUB_OFFLINE is set.* set HF_HOME to a folder of your own"):
        hub.require_access("alice/x", "model", "gated")


def test_offline_the_tables_that_another_user_has_made_of_a_dataset_are_not_trusted(cache, tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "tables"))
    monkeypatch.setattr(lookup, "is_offline_mode", lambda: True)
    with pytest.raises(HubError, match=r"alice/BigRows is not in the cache, and HF_HUB_OFFLINE is set"):
        hub.require_access("alice/BigRows", "dataset", "gated")
    (tmp_path / "tables" / "alice___big_rows").mkdir(parents=True)
    hub.require_access("alice/BigRows", "dataset", "gated")
    monkeypatch.setattr(lookup.os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(HubError, match=r"what another user keeps in .*alice___big_rows"):
        hub.require_access("alice/BigRows", "dataset", "gated")


def test_public_repositories_cost_no_question_and_others_one(faulty, model):
    commit = hub.resolve(ModelRef(repo_id=model))
    hub.pull(ModelRef(repo_id=model), commit, "public")
    assert not faulty.app.requests("auth-check")
    client.api().update_repo_settings(model, private=True)
    for _ in range(2):
        assert hub.look_up(ModelRef(repo_id=model)).access == "private"
        hub.pull(ModelRef(repo_id=model), commit, "private")
    assert len(faulty.app.requests("auth-check")) == 1


def test_offline_a_branch_stands_for_no_commit(monkeypatch, faulty):
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(*args, **settings):
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(client.api(), "model_info", refuse)
    with pytest.raises(
        HubError, match=r"alice/x: The commit that it stands for is known to nobody here, and HF_HUB_OFFLINE is set\. Unset it"
    ):
        hub.resolve(ModelRef(repo_id="alice/x"))


# What is refused


def test_files_that_the_hubs_scan_warns_of_are_refused_by_name(faulty, model):
    scan = faulty.hub.issues.setdefault(("models", model), {})
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="training.bin", repo_id=model)
    scan["training.bin"] = "unsafe"
    hub.find_model(ModelRef(repo_id=model))  # which is not read
    scan["model.safetensors"] = "suspicious"
    with pytest.raises(UnsafeRepository, match=rf"{model}: the Hub's security scan warns of model.safetensors \(suspicious\)"):
        hub.find_model(ModelRef(repo_id=model))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda index: index.update({"lm_head.weight": "../outside.safetensors"}), UnsafeRepository, r"'\.\./outside\.safetensors'"),
        (
            lambda index: index.update({"lm_head.weight": "model-9.safetensors"}),
            CheckpointError,
            "names model-9.safetensors, which is not there",
        ),
        (lambda index: index.pop("model.norm.weight"), CheckpointError, r"disagree about tensor 'model.norm.weight'.*does not name it"),
        (lambda index: index.update({"extra": min(index.values())}), CheckpointError, r"disagree about tensor 'extra'"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(faulty, tmp_path, change, error, message):
    folder = sharded(tmp_path)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    change(index["weight_map"])
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(error, match=message):
        hub.find_model(ModelRef(repo_id=publish(client.api(), "alice/index", folder)))


def test_a_link_out_of_the_cache_is_refused(faulty, model, tmp_path):
    commit = hub.resolve(ModelRef(repo_id=model))
    file = hub.pull(ModelRef(repo_id=model), commit) / "model.safetensors"
    (tmp_path / "outside").write_bytes(file.read_bytes())
    file.unlink()
    file.symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafeRepository, match="is a link out of the cache"):
        hub.pull(ModelRef(repo_id=model), commit)


@pytest.mark.parametrize(("name", "damage"), [("model.safetensors", "flip"), ("config.json", "flip"), ("model.safetensors", "cut")])
def test_a_damaged_file_in_the_cache_is_refused_until_it_is_deleted(faulty, model, name, damage):
    commit = hub.resolve(ModelRef(repo_id=model))
    file = hub.pull(ModelRef(repo_id=model), commit) / name
    content, real = file.read_bytes(), file.resolve()
    changed = bytes([content[0] ^ 1]) + content[1:] if damage == "flip" else content[:-1]
    real.write_bytes(changed)
    os.utime(real, ns=(1, 1))
    with pytest.raises(CheckpointError, match=rf"{name} is damaged: .*Delete {real}, then run the same command again"):
        hub.pull(ModelRef(repo_id=model), commit)
    real.unlink()
    assert (hub.pull(ModelRef(repo_id=model), commit) / name).read_bytes() == content


def test_a_file_is_hashed_once(faulty, model, monkeypatch):
    hashed = []
    real = verifying._digest
    monkeypatch.setattr(verifying, "_digest", lambda path, found, stop: hashed.append(path.name) or real(path, found, stop))
    commit = hub.resolve(ModelRef(repo_id=model))
    hub.pull(ModelRef(repo_id=model), commit)
    assert hashed and len(hashed) == len(set(hashed))
    hub.pull(ModelRef(repo_id=model), commit)
    assert len(hashed) == len(set(hashed))


def test_ctrl_c_stops_verification_within_a_chunk(tmp_path):
    """As a process of its own does it: the main thread is interrupted while others hash."""
    stop, file = stopping.Stop(), tmp_path / "large"
    file.write_bytes(bytes(3 * verifying.CHUNK))
    began, hashed = threading.Event(), []

    class Hash:
        def update(self, chunk):
            hashed.append(len(chunk))
            began.set()
            wait_for(lambda: stop.asked)

        def hexdigest(self):
            raise AssertionError("it went on to the end")

    def interrupt():
        began.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopping.all_at_once([lambda: verifying._digest(file, Hash(), stop), lambda: None], 2, stop, interrupt)
    wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.endswith("(work)")])
    assert hashed == [verifying.CHUNK]


def test_a_file_that_came_for_another_repository_over_xet_need_not_come_again(cache, monkeypatch):
    from huggingface_hub._tree_cache import TreeCacheEntry
    from huggingface_hub.utils import _shared_blobs

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    entry = TreeCacheEntry(3, "0" * 40, "1" * 64, 3, "a" * 64)
    assert hub.bytes_to_fetch("alice/x", "model", "c" * 40, {"model.safetensors": entry}) == 3
    cache.mkdir()
    assert _shared_blobs._ensure_shared_blobs_dir(cache)
    shared = _shared_blobs.shared_blob_path(cache, "a" * 64)
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"abc")
    assert hub.bytes_to_fetch("alice/x", "model", "c" * 40, {"model.safetensors": entry}) == 0


def test_a_download_that_has_no_room_is_refused_with_numbers(faulty, model, monkeypatch):
    commit = hub.resolve(ModelRef(repo_id=model))
    from hfsafemerge.checkpoint import disk

    monkeypatch.setattr(disk.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5_000}))
    with pytest.raises(OutOfDisk, match=r"needs .* MB and has 0\.0 MB free"):
        hub.pull(ModelRef(repo_id=model), commit)
    assert not faulty.app.requests("GET .*safetensors")


# Faults


def test_a_rate_limit_is_waited_out_for_as_long_as_the_hub_says(faulty, model, monkeypatch):
    waited, said = [], []
    monkeypatch.setattr(retrying.time, "sleep", waited.append)
    faulty.app.faults = [
        Fault(f"GET /api/models/{model}", status=429, headers={"Retry-After": "7"}),
        Fault(f"GET /api/models/{model}", status=429, headers={"ratelimit": '"api";r=0;t=55'}),
        Fault(f"GET /api/models/{model}", status=503),
    ]
    hub.resolve(ModelRef(repo_id=model), "model", said.append)
    assert waited == [7, 56, 2.0]  # what it says, what it says, and the third wait of our own
    assert "(429)" in said[0] and "Trying again (1 of 4) in 7 s" in said[0] and "Trying again (3 of 4)." in said[2]


def test_a_wait_has_an_end():
    response = client.httpx.Response(429, headers={"Retry-After": "99999"}, request=client.httpx.Request("GET", "http://x"))
    assert retrying.wait_before(0, HfHubHTTPError("slow", response=response)) == retrying.LONGEST_WAIT


@pytest.mark.parametrize(
    ("match", "ask"),
    [
        ("GET .*/tree/", lambda repo_id, commit: hub.listing(repo_id, "model", commit)),
        ("GET .*safetensors", lambda repo_id, commit: hub.find_model(ModelRef(repo_id=repo_id))),
        ("GET .*auth-check", lambda repo_id, commit: hub.require_access(repo_id, "model", None)),
        ("GET .*whoami", lambda repo_id, commit: hub.check_can_write([repo_id])),
        ("GET /api/models/alice/tiny$", lambda repo_id, commit: hub.is_missing(repo_id, "model")),
        ("GET /api/jobs", lambda repo_id, commit: jobs.listed("alice")),
    ],
)
def test_no_request_waits_for_ever(faulty, model, monkeypatch, match, ask):
    """Which the client's own would, even those of a session with a limit, since they say that there is none."""
    commit = hub.resolve(ModelRef(repo_id=model))
    close_session()
    monkeypatch.setattr(waiting, "SECONDS", 0.4)
    faulty.app.faults = [Fault(match, delay=100, times=99)]
    with pytest.raises(HubError, match="timed out"):
        ask(model, commit)
    assert len([r for r in faulty.app.log if r.status is None]) >= 1
    close_session()


def test_a_step_in_which_the_client_has_waited_in_vain_again_and_again_is_not_repeated(monkeypatch):
    clock, tries = [0.0], []
    monkeypatch.setattr(retrying.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)

    def ask(takes):
        tries.append(takes)
        clock[0] += takes
        raise HubError("no answer") from client.httpx.ReadTimeout("timed out")

    for takes, expected in ((waiting.SECONDS + 1, 5), (6 * waiting.TO_LOOK, 1)):
        tries.clear()
        with pytest.raises(HubError, match="no answer"):
            retrying.persist(lambda takes=takes: ask(takes))
        assert len(tries) == expected


@pytest.mark.parametrize("kind", [ConnectionError, RuntimeError])
def test_a_refusal_that_xet_tells_in_its_text_is_one(kind):
    """hf_xet raises a ConnectionError for an answer of 403, too."""
    said = "Client error: HTTP status client error (403 Forbidden) for url (http://x/xet-write-token)"
    with pytest.raises(HubError, match=r"The Hub refused alice/x \(403\): Client error") as caught, hub.hub_errors("alice/x"):
        raise kind(said)
    assert not retrying.passes(caught.value.__cause__)
    assert retrying.passes(kind("HTTP status server error (503 Service Unavailable)"))
    with pytest.raises(RuntimeError) as wrapped:
        raise RuntimeError("Error while uploading 'model.safetensors' to the Hub.") from kind(said)
    assert client.first_line(wrapped.value) == f"Error while uploading 'model.safetensors' to the Hub: {said}"
    assert not retrying.passes(wrapped.value)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_stays_is_not_tried_again(faulty, model, status):
    start = len(faulty.app.log)
    faulty.app.faults = [Fault("GET /api/models", status=status, times=9)]
    with pytest.raises(HubError, match=rf"The Hub refused {model} \({status}\)"):
        hub.resolve(ModelRef(repo_id=model))
    assert len(asked(faulty, start)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 500},
        {"status": 503, "times": 2},
        {"cut": True},
        {"cut": True, "part": 100},
        {"status": 429, "headers": {"Retry-After": "1"}},
    ],
)
def test_a_fault_at_any_request_is_borne(faulty, model, cache, fault):
    """Every request of a check and a pull in turn. benchmarks/pull_results.py has more kinds of faults, and a dataset."""
    ref, start = ModelRef(repo_id=model), len(faulty.app.log)

    def check_and_pull():
        found = hub.find_model(ref)
        return hub.pull(found.ref, found.commit, found.access)

    check_and_pull()
    count = len(faulty.app.log) - start
    assert count > 10
    for at in range(count):
        constants.HF_HUB_CACHE = str(cache / str(at))
        faulty.app.faults = [Fault(".", after=at, **fault)]
        folder = check_and_pull()
        assert faulty.app.faults[0].times == 0
        files = hub.listing(model, "model", folder.name)
        for file in folder.iterdir():
            assert file.resolve().name == digest_of(files[file.name])
        assert is_cached(model, "model", folder.name, "model.safetensors", files["model.safetensors"])
        assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_a_part_of_a_snapshot_is_never_taken_for_the_whole(faulty, model, cache):
    """What the client's `snapshot_download` does when it has no listing, and the Hub fails."""
    commit = hub.resolve(ModelRef(repo_id=model))
    client.api().hf_hub_download(model, "config.json", revision=commit)
    faulty.app.faults = [Fault("GET .*/tree/", status=503, times=99)]
    assert Path(client.api().snapshot_download(model, revision=commit)).is_dir()  # the trap: a folder without weights
    with pytest.raises(HubError, match=r"\(503\)"):
        hub.pull(ModelRef(repo_id=model), commit)


def command(*words, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "hfsafemerge", *words], env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_pull_that_was_stopped_goes_on(tmp_path, how):
    with serve_with_faults(tmp_path / "hub") as server:
        repo_id = publish(HfApi(endpoint=server.url, token="hf_alice"), "alice/shards", sharded(tmp_path))
        environment = server.environment | {"HF_HOME": str(tmp_path / "home")}
        start = len(server.app.log)

        def read():  # whole files, without the headers that the check reads
            return [r for r in server.app.log[start:] if r.method == "GET" and r.path.endswith(".safetensors") and "range" not in r.headers]

        stuck = Fault("GET .*model-00002-of-.*safetensors", delay=100, after=1)
        server.app.faults = [stuck]
        pull = command("pull", repo_id, **environment)
        others = len(list((tmp_path / "sharded").glob("model-*.safetensors"))) - 1
        wait_for(lambda: stuck.times == 0 and len([r for r in read() if r.status]) == others)
        wait_for(lambda: len(list(tmp_path.glob("home/hub/models--*/snapshots/*/model-*.safetensors"))) == others)
        pull.send_signal(how)
        _, said = pull.communicate(timeout=30)
        assert pull.returncode == (130 if how == signal.SIGINT else -how)
        assert how == signal.SIGKILL or "The same command goes on from here" in said
        left = list(tmp_path.glob("home/hub/models--*/blobs/*.incomplete"))
        assert left or how == signal.SIGINT
        server.app.faults = []
        before = len(read())
        again = command("pull", repo_id, "--json", **environment)
        told, said = again.communicate(timeout=60)
        assert again.returncode == 0, said
        assert len(read()) == before + 1  # the one that was stopped
        assert not list(tmp_path.glob("home/hub/models--*/blobs/*.incomplete"))
        folder = Path(json.loads(told)[0]["path"])
        for file in (tmp_path / "sharded").glob("model-*.safetensors"):
            assert (folder / file.name).read_bytes() == file.read_bytes()


def test_a_dry_run_says_what_would_be_fetched_and_fetches_no_weights(tmp_path):
    with serve_with_faults(tmp_path / "hub") as server:
        repo_id = publish(HfApi(endpoint=server.url, token="hf_alice"), "alice/tiny", tiny_model(tmp_path / "m", 0))
        done = command("pull", repo_id, "--dry-run", "--json", **server.environment, HF_HOME=str(tmp_path / "home"))
        told, said = done.communicate(timeout=60)
        assert done.returncode == 0, said
        found = json.loads(told)
        size = (tmp_path / "m" / "model.safetensors").stat().st_size
        assert found["to_download"] == size and found["free"] > 0
        assert [row["file"] for row in found["files"] if not row["cached"]] == ["model.safetensors"]
        assert not server.app.requests("GET .*safetensors$")[1:]  # its header


@pytest.mark.parametrize(("option", "value"), [("--revision", "v1"), ("--type", "dataset")])
def test_options_of_repositories_are_refused_where_there_are_only_recipes(tmp_path, option, value):
    (tmp_path / "recipe.yaml").write_text("name: x\n")
    pull = command("pull", str(tmp_path / "recipe.yaml"), option, value)
    _, said = pull.communicate(timeout=60)
    assert pull.returncode == 2 and f"{option} is for repositories" in said


def test_the_revision_in_a_name_goes_before_the_option(faulty, model):
    client.api().create_tag(model, tag="v1")
    first = hub.resolve(ModelRef(repo_id=model))
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id=model)
    assert wanted_repository(f"{model}@v1", "main", "model").commit == first
    assert wanted_repository(model, "v1", "model").commit == first != wanted_repository(model, None, "model").commit


def test_a_dataset_that_is_pulled_by_its_name_can_be_read_as_a_folder(faulty, tmp_path):
    """With its README.md, which says what its configurations are."""
    import datasets

    (tmp_path / "d" / "odd").mkdir(parents=True)
    save_examples(tmp_path / "d" / "odd" / "file.parquet", [Example("safety", "q1", "a1")])
    front = "---\nconfigs:\n- config_name: harmful\n  data_files:\n  - {split: test, path: odd/file.parquet}\n---\n"
    (tmp_path / "d" / "README.md").write_text(front)
    repo_id = publish(client.api(), "alice/rows", tmp_path / "d", repo_type="dataset")
    wanted = wanted_repository(repo_id, None, "dataset")
    wanted.fetch(hub.say_nothing, hub.tell_nothing)
    assert len(datasets.load_dataset(str(wanted.folder), "harmful", split="test", cache_dir=str(tmp_path / "made"))) == 1


# Elsewhere


def test_a_mirror_is_asked_instead(tmp_path):
    """HF_ENDPOINT, read when the client is imported."""
    with serve(tmp_path / "mirror") as mirror:
        repo_id = publish(HfApi(endpoint=mirror.url, token="hf_alice"), "alice/only-there", tiny_model(tmp_path / "m", 0))
        commit = HfApi(endpoint=mirror.url, token="hf_alice").model_info(repo_id).sha
        assert as_user(mirror.url, tmp_path / "home", "hf_alice", f"model {repo_id} {commit} unknown") == ["read True"]


@pytest.mark.parametrize("xet", [True, False])
def test_weights_come_over_xet_by_default_and_over_lfs_where_it_is_disabled(tmp_path, xet):
    with serve_with_faults(tmp_path / "hub", xet=True) as server:
        upload = "import sys, huggingface_hub as h; a = h.HfApi(); a.create_repo('alice/x'); a.upload_folder(repo_id='alice/x', folder_path=sys.argv[1])"
        environment = os.environ | server.environment | {"HF_HOME": str(tmp_path / "home")}
        subprocess.run([sys.executable, "-c", upload, str(tiny_model(tmp_path / "m", 0))], env=environment, check=True, capture_output=True)
        start = len(server.app.log)
        pull = command(
            "pull", "alice/x", "--json", **(server.environment | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "01"[not xet]})
        )
        told, said = pull.communicate(timeout=60)
        assert pull.returncode == 0, said
        folder = Path(json.loads(told)[0]["path"])
        assert (folder / "model.safetensors").read_bytes() == (tmp_path / "m" / "model.safetensors").read_bytes()
        log = server.app.log[start:]
        assert bool([r for r in log if "xet-read-token" in r.path]) == xet
        whole = [r for r in log if r.method == "GET" and r.path.endswith(".safetensors") and "range" not in r.headers]
        assert len(whole) == (0 if xet else 1)


# What the client does that one must know


def test_a_gated_repository_is_a_kind_of_missing_one(faulty, model, monkeypatch):
    """So it has to be caught first, or its form would never be named."""
    assert issubclass(GatedRepoError, RepositoryNotFoundError)
    client.api().update_repo_settings(model, gated="manual")
    bob = HfApi(endpoint=faulty.url, token="hf_bob")
    monkeypatch.setattr(client, "api", lambda: bob)
    with pytest.raises(HubError, match="is gated"):
        hub.look_up(ModelRef(repo_id=model))


def test_over_http_only_the_hubs_own_code_tells_a_missing_repository(faulty):
    with pytest.raises(RepositoryNotFoundError):
        client.api().model_info("alice/none")
    faulty.app.faults = [Fault("GET /api/models/alice/none", status=404)]
    with pytest.raises(HfHubHTTPError) as caught:
        client.api().model_info("alice/none")
    assert not isinstance(caught.value, RepositoryNotFoundError)


def test_what_a_forced_download_hides_is_found(faulty, model):
    """The client raises ValueError around it."""
    faulty.app.faults = [Fault("HEAD .*config.json", status=503, times=99)]
    with pytest.raises(ValueError, match="Force download failed") as caught:
        client.api().hf_hub_download(model, "config.json", force_download=True)
    assert retrying.passes(caught.value)


def test_rows_are_fetched_once_and_then_read_without_the_hub(faulty, tmp_path):
    (tmp_path / "d").mkdir()
    save_examples(tmp_path / "d" / "train.parquet", [Example("safety", "q1", "a1")])
    repo_id = publish(client.api(), "alice/rows", tmp_path / "d", repo_type="dataset")
    commit = hub.resolve(DatasetRef(repo_id=repo_id), "dataset")
    line, home = f"dataset {repo_id} {commit} public", tmp_path / "home"
    assert as_user(faulty.url, home, "hf_alice", line, line) == ["read 1", "read 1"]
    assert len([r for r in faulty.app.requests("GET .*train.parquet") if r.status == 200]) == 1
    start = len(faulty.app.log)
    assert as_user(faulty.url, home, "hf_alice", line, HF_HUB_OFFLINE="1") == ["read 1"]
    assert asked(faulty, start) == []


def test_an_outage_is_not_taken_for_a_dataset_without_data(faulty, tmp_path):
    """What `datasets` makes of a README that can't be read."""
    (tmp_path / "d").mkdir()
    save_examples(tmp_path / "d" / "train.parquet", [Example("safety", "q1", "a1")])
    (tmp_path / "d" / "README.md").write_text("---\nlicense: mit\n---\n# rows\n")
    repo_id = publish(client.api(), "alice/rows", tmp_path / "d", repo_type="dataset")
    commit = hub.resolve(DatasetRef(repo_id=repo_id), "dataset")
    faulty.app.faults = [Fault("HEAD .*README.md", status=503, times=999)]
    with pytest.raises(HubError, match=r"The Hub refused README.md of alice/rows@.* \(503\)"):
        hub.pull_dataset(DatasetRef(repo_id=repo_id), commit, "public")
