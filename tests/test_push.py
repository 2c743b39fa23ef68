"""What is written to the Hub: in which order, whose it is, and what stands after a fault at any request."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, close_session
from pushing import FAULTS, MARK, SIZE, at, content, problems, push_model, push_with_faults, state

from hfsafemerge import hub
from hfsafemerge.errors import HubError
from hfsafemerge.hub import client, committing, opening, repositories, retrying, targets, waiting, writing
from hfsafemerge.localhub.faults import Fault, serve_with_faults

HERE = hub.Place("alice/x", "model", MARK)


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    with serve_with_faults(tmp_path / "hub") as server:
        alice = HfApi(endpoint=server.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        monkeypatch.setattr(retrying.time, "sleep", lambda seconds: None)
        close_session()
        yield server
        close_session()


@pytest.fixture
def files(tmp_path):
    return content(tmp_path / "f")


def written(tmp_path, **contents):
    tmp_path.mkdir(exist_ok=True)
    for name, found in contents.items():
        (tmp_path / name).write_bytes(found)
    return {name: tmp_path / name for name in contents}


# The order


def test_data_come_first_and_each_is_private_until_all_of_it_stands(faulty, files):
    pushed = push_model(files)
    names = {
        "create": "create",
        "settings": "settings",
        "commit": "/commit/",
        "tag": "/tag/",
        "lfs": "/lfs/[0-9a-f]{64}",
        "add": "/collections",
    }
    changes = [r for r in faulty.app.log if r.method not in ("GET", "HEAD")]
    order = [name for r in changes for name, part in names.items() if re.search(part, r.path)]
    data, model = ["create", "settings", "lfs", "commit", "tag", "settings"], ["create", "lfs", "lfs", "commit", "tag", "settings"]
    assert order == [*data, *model, "add", "add", "add"]
    assert problems(faulty.url, "alice/x") == []
    assert pushed == hub.Pushed("alice/x", state(faulty.url).head, f"{faulty.url}/alice/x", "run-1")


def test_pushing_again_is_no_commit(faulty, files):
    first = push_model(files)
    before = len(faulty.app.log)
    assert push_model(files) == first and state(faulty.url).commits == ["one", "initial commit"]
    asked = faulty.app.log[before:]
    assert {request.method for request in asked} == {"GET"}, [f"{r.method} {r.path}" for r in asked]


def test_what_is_public_only_afterwards_was_never_seen_half_done(faulty, files):
    faulty.app.faults = [Fault("/models/.*/commit/main", status=418, times=9)]
    with pytest.raises(HubError):
        push_model(files)
    left = state(faulty.url)
    assert left.private and left.commits == ["initial commit"]  # and the next one takes it
    faulty.app.faults = []
    assert push_model(files).commit == state(faulty.url).tags["run-1"]


def test_weights_of_an_earlier_push_are_taken_away_and_nothing_else(faulty, tmp_path):
    hub.publish(HERE, written(tmp_path / "a", **{MARK: b"1", "model.safetensors": b"x", "notes.txt": b"mine"}), "one")
    sharded = {"model-00001-of-00001.safetensors": b"y", "model.safetensors.index.json": b"{}"}
    hub.publish(HERE, written(tmp_path / "b", **{MARK: b"1"}, **sharded), "two")
    assert set(client.api().list_repo_files("alice/x")) - {".gitattributes"} == {MARK, "notes.txt", *sharded}


def test_progress_is_told_of_large_files_with_the_time_left(faulty, tmp_path, monkeypatch):
    said, clock = [], iter(range(0, 1000, 10))
    monkeypatch.setattr(committing, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # not everybody's
    three = {f"model-0000{n}-of-00003.safetensors": bytes([n]) * 2**20 for n in (1, 2, 3)}
    hub.publish(HERE, written(tmp_path / "a", **three), "one", progress=lambda *told: said.append(told))
    assert [(done, total) for _, done, total, _ in said] == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert said[0][3] is None and said[-1][3] == 0.0
    assert said[1][3] == pytest.approx(20.0)  # one of three equal files took one tick of ten seconds
    assert said[2][0].startswith("uploading model-00003-of-00003.safetensors; ") and "2" in said[2][0]


# Branches, tags, pull requests


def test_a_branch_is_started_and_main_stays(faulty, files):
    place = replace(HERE, revision="dev")
    pushed = hub.publish(place, files, "one", tag="run-1")
    refs = client.api().list_repo_refs("alice/x")
    assert {ref.name: ref.target_commit for ref in refs.branches}["dev"] == pushed.commit
    assert set(client.api().list_repo_files("alice/x")) == {".gitattributes"}
    assert hub.publish(place, files, "one", tag="run-1") == pushed


def test_a_branch_of_somebody_is_left_alone_though_main_is_empty(faulty, files):
    client.api().create_repo("alice/x", private=True)
    client.api().create_branch("alice/x", branch="dev")
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="theirs.txt", repo_id="alice/x", revision="dev")
    with pytest.raises(HubError, match="was not made by hfsafemerge; it is left alone"):
        hub.publish(replace(HERE, revision="dev"), files, "one")


def test_a_tag_that_stands_stays_where_it_is(faulty, files):
    first = hub.publish(HERE, files, "one", tag="v1")
    files["config.json"].write_text("{}")
    said = []
    second = hub.publish(HERE, files, "two", tag="v1", notify=said.append)
    assert first.tag == "v1" and second.tag is None and said == ["The tag v1 of alice/x names an earlier commit, and goes on to."]
    assert state(faulty.url).tags == {"v1": first.commit}


def test_a_pull_request_is_opened_once_and_changes_no_settings(faulty, files, monkeypatch):
    open_one = replace(HERE, private=False)
    hub.publish(open_one, {MARK: files[MARK]}, "one")
    bob = HfApi(endpoint=faulty.url, token="hf_bob")
    monkeypatch.setattr(client, "api", lambda: bob)
    faulty.app.faults = [Fault("/commit/main", lost=True, cut=True)]
    one = hub.propose(open_one, files, "better", description="why")
    assert one.pull_request == f"{faulty.url}/alice/x/discussions/1" and hub.propose(open_one, files, "better") == one
    assert len(list(bob.get_repo_discussions("alice/x"))) == 1
    found = bob.model_info("alice/x", revision=one.commit)
    assert {file.rfilename for file in found.siblings} >= files.keys() and state(faulty.url).commits == ["one", "initial commit"]


# Whose it is, and who sees it


def test_a_repository_that_is_not_ours_is_left_alone_unless_told(faulty, files):
    api = client.api()
    api.create_repo("alice/x", private=True)
    hub.publish(HERE, {MARK: files[MARK]}, "one")  # an empty one may be filled
    api.delete_file(MARK, "alice/x")
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="theirs.txt", repo_id="alice/x")
    before = api.model_info("alice/x").sha
    with pytest.raises(HubError, match=r"was not made by hfsafemerge; it is left alone\. Choose another repo_id, or say --overwrite"):
        hub.publish(HERE, files, "one")
    assert api.model_info("alice/x").sha == before
    hub.publish(replace(HERE, overwrite=True), files, "on top")
    assert {"theirs.txt", *files} <= set(api.list_repo_files("alice/x"))
    hub.publish(HERE, files, "again")  # it holds the marker now
    assert len([c for c in api.list_repo_commits("alice/x") if c.title == "on top"]) == 1


def test_nothing_on_the_hub_is_ever_deleted_but_stale_weights(faulty, files):
    for overwrite in (False, True):
        place = replace(HERE, overwrite=overwrite)
        for status in (401, 500):
            faulty.app.faults = [Fault("/commit/main", status=status, times=9)]
            with pytest.raises(HubError):
                hub.publish(place, files, "one")
    assert not faulty.app.requests("^DELETE") and state(faulty.url).commits == ["initial commit"]


def test_a_public_one_is_refused_where_a_private_one_is_wanted(faulty, files):
    push_model(files)
    files["config.json"].write_text("{}")
    with pytest.raises(HubError, match=r"alice/x is public, and the model is to be private\. .*say --no-private"):
        hub.publish(HERE, files, "two")
    assert state(faulty.url).commits == ["one", "initial commit"]


def test_one_that_is_made_public_during_a_long_upload_gets_nothing(faulty, files, monkeypatch):
    upload = committing._preupload

    def and_public(*arguments):
        upload(*arguments)
        client.api().update_repo_settings("alice/x", visibility="public")

    monkeypatch.setattr(committing, "_preupload", and_public)
    with pytest.raises(HubError, match="is public, and the model is to be private"):
        hub.publish(HERE, files, "one")
    assert state(faulty.url).commits == ["initial commit"]


@pytest.mark.parametrize("private", [True, False])
def test_a_gate_stands_before_anyone_can_look(faulty, private):
    place = hub.Place("alice/d", "dataset", MARK, private=private, gated=True)
    repositories.take(place)
    info = client.api().dataset_info("alice/d")
    assert (info.gated, info.private) == ("manual", True)
    client.api().create_repo("alice/e", repo_type="dataset", private=private)  # as a kill between two steps, or its owner, leaves it
    repositories.take(replace(place, repo_id="alice/e"))
    assert client.api().dataset_info("alice/e").gated == "manual"


def test_who_may_write_is_known_before_the_work(monkeypatch):
    hub.check_can_write(["alice/x", "acme/x"])
    with pytest.raises(HubError, match=r"You are alice and can't write to bob/x; you can to acme, alice"):
        hub.check_can_write(["bob/x"])
    monkeypatch.setattr(repositories, "get_token", lambda: None)
    with pytest.raises(HubError, match="Pushing needs a token with write access"):
        hub.check_can_write(["alice/x"])


def test_what_somebody_puts_in_an_empty_repository_meanwhile_is_left_alone(faulty, files):
    """Whose it is, is looked at again right before the commit."""
    repositories.take(HERE)
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="theirs.txt", repo_id="alice/x", commit_message="theirs")
    with pytest.raises(HubError, match="was not made by hfsafemerge; it is left alone"):
        committing.commit_files(HERE, files, {}, "one")
    assert state(faulty.url).commits == ["theirs", "initial commit"]


BAD = replace(HERE, private=False, private_because=("It answers 9 of 10 harmful requests.",))
GOOD = replace(HERE, private=False)


def anyone_reads(url, name, revision="main"):
    try:
        with urllib.request.urlopen(f"{url}/alice/x/resolve/{revision}/{name}") as answer:
            return answer.status == 200
    except urllib.error.HTTPError as error:
        assert error.code in (401, 403, 404)
        return False


@pytest.mark.parametrize("left", ["commit", "tag", "branch", "pull request"])
def test_what_had_to_be_private_is_never_opened_with_its_history(faulty, files, left):
    """However the refused weights are still held: below main, or only by a tag, a branch or a pull request."""
    api, good, bad = (
        client.api(),
        {MARK: files[MARK]},
        written(files[MARK].parent / "bad", **{MARK: b"{ }", "model.safetensors": b"BAD" * 99}),
    )
    start = hub.publish(replace(HERE, private=True), good, "start").commit
    assert state(faulty.url).private
    if left == "pull request":
        hub.propose(BAD, bad, "bad")
    else:
        hub.publish(replace(BAD, revision=None if left == "commit" else "bad"), bad, "bad", tag="run-bad")
    if left == "tag":
        api.delete_branch("alice/x", branch="bad")
    for call in (lambda: hub.check_target([GOOD]), lambda: hub.publish(GOOD, files, "good"), lambda: repositories.make_public(GOOD)):
        with pytest.raises(HubError, match=r"is private, and is not made public: its commit .* \('bad'\) holds .* Choose a new repository"):
            call()
    assert state(faulty.url).private and not anyone_reads(faulty.url, "model.safetensors", "run-bad")
    assert left == "commit" or state(faulty.url).head == start  # and nothing was put in
    hub.publish(HERE, files, "good")  # it may stay private, as it is
    hub.publish(replace(GOOD, repo_id="alice/y"), files, "good")
    assert not state(faulty.url, "alice/y").private


def test_earlier_private_pushes_that_may_be_seen_are_opened_with_the_newest(faulty, files):
    hub.publish(HERE, files, "one", description="Why.")
    files["config.json"].write_text("{}")
    hub.publish(GOOD, files, "two")
    assert state(faulty.url).commits == ["two", "one", "initial commit"] and anyone_reads(faulty.url, "config.json")
    said = [commit.message for commit in client.api().list_repo_commits("alice/x")]
    assert said == [opening.SHOWABLE, f"Why.\n\n{opening.SHOWABLE}", ""]


def test_somebody_s_private_repository_is_never_made_public_with_all_that_is_in_it(faulty, files):
    client.api().create_repo("alice/x", private=True)
    client.api().upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id="alice/x", commit_message="mine")
    place = replace(GOOD, overwrite=True)
    for call in (lambda: hub.check_target([place]), lambda: hub.publish(place, files, "one")):
        with pytest.raises(HubError, match=r"its commit .* \('mine'\) holds .* or make it public by hand"):
            call()
    assert state(faulty.url).commits == ["mine", "initial commit"]
    hub.publish(replace(HERE, overwrite=True), files, "one")  # privately, as it is
    with pytest.raises(HubError, match="make it public by hand"):  # though it holds the marker by now
        hub.publish(GOOD, files, "two")
    assert not anyone_reads(faulty.url, "notes.txt")


def test_only_weights_by_their_own_names_are_taken_away(faulty, files):
    api = client.api()
    keep = ["model-old/adapter.safetensors", "model-backup.safetensors", "old/model.safetensors", "model-1-of-2.safetensors"]
    hub.publish(HERE, {MARK: files[MARK]}, "one")
    for name in (*keep, "model-00001-of-00002.safetensors"):
        api.upload_file(path_or_fileobj=name.encode() * 99, path_in_repo=name, repo_id="alice/x")
    few = {MARK: files[MARK], "config.json": files["config.json"]}
    hub.publish(HERE, few, "no weights")
    assert "model-00001-of-00002.safetensors" in api.list_repo_files("alice/x")
    hub.publish(HERE, files, "weights")
    assert set(api.list_repo_files("alice/x")) == {".gitattributes", *keep, *files}
    data = hub.Place("alice/d", "dataset", MARK)
    hub.publish(data, {MARK: files[MARK]}, "one")
    api.upload_file(path_or_fileobj=b"x" * 999, path_in_repo="model-00001-of-00002.safetensors", repo_id="alice/d", repo_type="dataset")
    hub.publish(data, {MARK: files[MARK], "model.safetensors": files["model.safetensors"]}, "two")
    assert "model-00001-of-00002.safetensors" in api.list_repo_files("alice/d", repo_type="dataset")


# Known before


def test_a_look_before_writes_nothing_and_says_what_would_be_there(faulty, files):
    data = hub.Place("alice/x-safety", "dataset", MARK, gated=True)
    assert hub.check_target([GOOD, data]) == [hub.Outlook(new=True, private=False), hub.Outlook(new=True, private=True)]
    hub.publish(HERE, files, "one")
    before = len(faulty.app.log)
    assert hub.check_target([GOOD, data])[0] == hub.Outlook(new=False, private=False)  # since nothing in it had to be private
    assert hub.check_target([replace(HERE, pull_request=True)]) == [hub.Outlook(new=False, private=True)]
    assert {request.method for request in faulty.app.log[before:]} == {"GET"}


def test_all_that_a_push_refuses_is_told_before(faulty, files, monkeypatch):
    def refused(place, message, **options):
        with pytest.raises(HubError, match=message):
            hub.check_target([place], **options)

    refused(replace(HERE, repo_id="bob/x"), "You are alice and can't write to bob/x")
    refused(replace(HERE, pull_request=True), r"alice/x does not exist, or you can't see it, so no pull request can be opened there")
    hub.publish(GOOD, files, "one", tag="v1")
    hub.check_target([GOOD], tags={"alice/x": "v1"})  # it names the newest
    files["config.json"].write_text("{}")
    hub.publish(GOOD, files, "two")
    refused(GOOD, r"The tag v1 of alice/x names the commit [0-9a-f]{12} already\. Choose another tag", tags={"alice/x": "v1"})
    refused(HERE, "alice/x is public, and the model is to be private")
    refused(BAD, r"alice/x is public, and this merge has to be private\. It answers 9 of 10 harmful requests\.")
    refused(replace(HERE, pull_request=True), "a pull request there would be too, and the model is to be private")
    refused(replace(GOOD, marker="other.json"), "was not made by hfsafemerge; it is left alone")
    reader = HfApi(endpoint=faulty.url, token="hf_alice_ro")
    monkeypatch.setattr(client, "api", lambda: reader)
    refused(GOOD, r"The token of alice may only read\. Make one that may write")
    monkeypatch.setattr(targets, "check_can_write", lambda repo_ids: None)  # as one looks whose rights are finer than a role
    refused(GOOD, r"The Hub refused alice/x \(403\): .*read-only")


@pytest.mark.parametrize("request_to", ["whoami", "GET /api/models/alice/x$", "auth-check/write", "/refs", "GET /api/collections/"])
def test_faults_that_pass_are_outlasted_while_looking(faulty, files, request_to):
    hub.publish(GOOD, files, "one", tag="v1")
    slug = client.api().create_collection("Mine").slug
    faulty.app.faults = [Fault(request_to, status=503)]
    hub.check_target([GOOD], tags={"alice/x": "v1"})
    hub.check_collection(slug)
    assert faulty.app.faults[0].times == 0


def test_a_collection_that_is_not_there_or_not_ours_is_told_before(faulty):
    slug = client.api().create_collection("Mine").slug
    hub.check_collection(slug)
    hub.check_collection("A title")
    with pytest.raises(HubError, match="The Hub refused the collection alice/mine-000000000000000000000000"):
        hub.check_collection("alice/mine-000000000000000000000000")
    with pytest.raises(HubError, match="You are alice and can't write to bob/"):
        hub.check_collection(slug.replace("alice", "bob"))


def test_a_pull_request_shows_nobody_what_is_to_be_private(faulty, files, monkeypatch):
    hub.publish(GOOD, {MARK: files[MARK]}, "one")
    bob = HfApi(endpoint=faulty.url, token="hf_bob")
    monkeypatch.setattr(client, "api", lambda: bob)
    for place in (HERE, BAD):
        with pytest.raises(HubError, match="alice/x is public, a pull request there would be too"):
            hub.propose(place, files, "mine")
    assert not list(bob.get_repo_discussions("alice/x")) and not faulty.app.requests("/preupload/.*create_pr|/lfs/")


def test_a_tag_that_is_taken_is_told_before_anything_goes_up(faulty, files):
    hub.publish(HERE, files, "one", tag="v1")
    hub.publish(HERE, files, "one", tag="v1", new_tag=True)
    files["model.safetensors"].write_bytes(b"other" * 99)
    before = len(faulty.app.log)
    with pytest.raises(HubError, match=r"The tag v1 of alice/x names the commit .* already"):
        hub.publish(HERE, files, "two", tag="v1", new_tag=True)
    assert {request.method for request in faulty.app.log[before:]} == {"GET"}


# Traps of the client


def test_metadata_that_the_hub_does_not_take_are_told_before_anything_goes_up(faulty, tmp_path):
    bad = written(tmp_path / "a", **{"README.md": b"---\nlicense: bogus\nbase_model: /home/x\n---\n", "model.safetensors": bytes(5000)})
    with pytest.raises(HubError, match=r"Can't publish .*Invalid metadata in README.md"):
        hub.publish(HERE, bad, "one")
    assert not faulty.app.requests("/lfs/|/preupload/|/commit/")


def test_a_gitignore_that_leaves_files_out_is_told(faulty, files):
    """The client leaves them out without a word."""
    client.api().create_repo("alice/x", private=True)
    client.api().upload_file(path_or_fileobj=b"config.json\n", path_in_repo=".gitignore", repo_id="alice/x")
    with pytest.raises(HubError, match=r"The Hub left config.json out of alice/x\. Perhaps a .gitignore there names them"):
        hub.publish(replace(HERE, overwrite=True), files, "one")


def test_the_client_tries_a_commit_once_and_we_again(faulty, files):
    """Section 1.3: of all requests of an upload this one is not retried by the client."""
    faulty.app.faults = [Fault("POST .*/commit/main", status=503)]
    repositories.take(HERE)
    with pytest.raises(HubError, match=r"\(503\)"):
        committing.commit_files(HERE, files, {}, "one")
    assert len(faulty.app.requests("/commit/main")) == 1
    assert committing.commit_files(HERE, files, {}, "one")[0] == state(faulty.url).head


def test_a_commit_is_given_up_in_the_end(faulty, files):
    faulty.app.faults = [Fault("POST .*/commit/main", status=503, times=99)]
    said = []
    with pytest.raises(HubError, match=r"The Hub refused alice/x \(503\)"):
        hub.publish(HERE, files, "one", notify=said.append)
    assert len(faulty.app.requests("commit/main")) == 5 and len(said) == 4 and "Trying again (1 of 4)" in said[0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_commit_that_is_not_allowed_is_not_tried_again(faulty, files, status):
    faulty.app.faults = [Fault("POST .*/commit/main", status=status)]
    with pytest.raises(HubError, match=rf"\({status}\)"):
        hub.publish(HERE, files, "one")
    assert len(faulty.app.requests("/commit/main")) == 1


def test_a_commit_on_what_somebody_has_changed_meanwhile_is_made_on_top_of_it(faulty, files, monkeypatch):
    """412: the parent is not the newest any more. Their file stays."""
    create = HfApi.create_commit
    other = iter([b"theirs"])

    def and_theirs(self, *arguments, **options):
        if (content := next(other, None)) is not None:
            client.api().upload_file(path_or_fileobj=content, path_in_repo="theirs.txt", repo_id="alice/x", commit_message="theirs")
        return create(self, *arguments, **options)

    hub.publish(HERE, {MARK: files[MARK]}, "before")
    monkeypatch.setattr(HfApi, "create_commit", lambda self, *a, **o: and_theirs(self, *a, **o) if a[1:] else create(self, *a, **o))
    hub.publish(HERE, files, "one")
    assert state(faulty.url).commits == ["one", "theirs", "before", "initial commit"]
    assert [request.status for request in faulty.app.requests("/commit/main")] == [200, 200, 412, 200]


@pytest.mark.parametrize(
    ("headers", "pause"),
    [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=11', "RateLimit-Policy": '"fixed window";"api";q=500;w=300'}, 12.0)],
)
def test_the_wait_that_the_hub_asks_for_is_kept(faulty, files, headers, pause, monkeypatch):
    waited = []
    monkeypatch.setattr(retrying.time, "sleep", waited.append)
    faulty.app.faults = [Fault("POST .*/commit/main", status=429, headers=headers)]
    hub.publish(HERE, files, "one")
    assert waited == [pause]


def test_no_error_and_no_notice_of_a_push_holds_the_token(faulty, files):
    said = []
    for match in ("GET ", "POST ", "PUT "):
        faulty.app.faults = [Fault(match, status=500, times=99)]
        with pytest.raises(HubError) as caught:
            hub.publish(HERE, files, "one", notify=said.append)
        said.append(str(caught.value))
    assert said and not any("hf_alice" in text for text in said)


def test_a_file_that_stands_is_not_sent_again(faulty, files):
    """Section 1.5: a push that was killed after an upload goes on behind it."""
    faulty.app.faults = [Fault("/commit/main", status=401)]
    with pytest.raises(HubError):
        hub.publish(HERE, files, "one")
    hub.publish(HERE, files, "one")
    assert len(faulty.app.requests("PUT /lfs/")) == 2  # the weights, and a plot


def test_large_files_in_parts_arrive_whole(tmp_path, monkeypatch):
    with serve_with_faults(tmp_path / "hub", multipart_chunk=1000) as server:
        alice = HfApi(endpoint=server.url, token="hf_alice")
        monkeypatch.setattr(client, "api", lambda: alice)
        push_model(content(tmp_path / "f"))
        parts = server.app.requests("PUT /lfs/.*/[0-9]+$")
        assert problems(server.url, "alice/x") == [] and len(parts) == SIZE / 1000  # no other file is larger than a part


XET = """
import sys
from pathlib import Path
import pushing
pushing.SIZE = 3_000_000
files = pushing.content(Path(sys.argv[1]))
print(pushing.push_model(files) == pushing.push_model(files))
"""


def test_a_push_over_xet_stands_whole_and_again_is_no_commit(tmp_path):
    """In a process of its own, since the client reads at its import whether it may use Xet."""
    with serve_with_faults(tmp_path / "hub", xet=True) as server:
        kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_XET"}
        paths = os.pathsep.join([str(Path(__file__).parent), str(Path(hub.__file__).parents[2])])
        mine = {"HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": paths}
        done = subprocess.run(
            [sys.executable, "-c", XET, str(tmp_path / "f")],
            env=kept | {name: value for name, value in server.environment.items() if name != "HF_HUB_DISABLE_XET"} | mine,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and done.stdout == "True\n", done.stderr
        assert server.app.requests("xet-write-token") and not server.app.requests("PUT /lfs/")
        found = state(server.url)
        assert (found.commits, found.tags, found.private) == (["one", "initial commit"], {"run-1": found.head}, False)
        held = urllib.request.urlopen(f"{server.url}/alice/x/resolve/main/model.safetensors").read()
        assert held == (tmp_path / "f" / "model.safetensors").read_bytes() and len(held) == 3_000_000


def test_what_was_removed_from_the_client_is_not_used():
    """Section 1.1: `upload_large_folder` is gone, and `upload_folder` makes several commits of one push."""
    assert not hasattr(HfApi, "upload_large_folder")
    source = "".join(path.read_text() for path in Path(writing.__file__).parent.glob("*.py"))
    assert "upload_large_folder(" not in source and "upload_folder(place" not in source


# A fault at any request


@pytest.mark.parametrize("name", [*FAULTS])
def test_after_a_fault_at_any_request_the_same_call_finishes_with_one_revision(faulty, tmp_path, name, monkeypatch):
    """Every seventh request of each kind of fault here; the benchmark push_results.py takes all of them, and kills too."""
    push_model(content(tmp_path / "clean", "alice/clean"), "alice/clean")
    count, first = len(faulty.app.log), [*FAULTS].index(name) % 7
    if name.startswith("late"):  # nowhere else, since a busy machine is late by itself
        monkeypatch.setattr(waiting, "SECONDS", 0.4)
    assert problems(faulty.url, "alice/clean") == [] and count > 30
    for number in range(first, count, 7):
        repo_id, fault = f"alice/stopped-{number}", at(FAULTS[name], number)
        calls = push_with_faults(faulty, tmp_path, repo_id, fault)
        assert fault.times == 0 and calls == (2 if name == "401" else 1), (number, calls)
        assert problems(faulty.url, repo_id) == [], (name, number)
