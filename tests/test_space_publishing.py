"""A merge is published from the page, and a run is sent to Hugging Face Jobs, with the visitor's own token and no other."""

import subprocess
import time
from collections.abc import Callable
from typing import Any

import gradio as gr
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from hfsafemerge.errors import HubError
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from space import elsewhere
from space.accounts import owner_of
from space.actions import checking
from space.actions import publishing as actions
from space.job import Job

Finished = Callable[..., Job]


def visitor(token: str, *, scope: str = "", expires_at: int = 0) -> gr.OAuthToken:
    return gr.OAuthToken(token=token, scope=scope, expires_at=expires_at)


ALICE, BOB = visitor("hf_alice"), visitor("hf_bob")


@pytest.fixture
def api(hub_url: str) -> HfApi:
    return HfApi(endpoint=hub_url, token="hf_alice")


@pytest.fixture
def job(finished: Finished, on_space: None) -> Job:
    """A finished run of alice's."""
    return finished(owner=owner_of(ALICE).key)


def preview(job: Job, name: str, *, namespace: str = "alice", create_pr: bool = False, who: gr.OAuthToken | None = ALICE) -> Any:
    return actions.preview(job.id, namespace, name, True, "apache-2.0", create_pr, who)


def publish(job: Job, name: str, *, private: bool = True, license: str = "apache-2.0", create_pr: bool = False) -> str:
    return actions.publish(job.id, "alice", name, private, license, create_pr, ALICE)


def test_one_may_publish_as_oneself_and_as_ones_organisations(on_space: None) -> None:
    where, said = actions.offer(ALICE)
    assert (where["choices"], where["value"], said) == (["alice", "acme"], "alice", "")
    assert actions.offer(BOB)[0]["choices"] == ["bob"]
    nowhere, said = actions.offer(None)
    assert nowhere["choices"] == [] and "Sign in with the button" in said
    assert "does not know your sign-in" in actions.offer(visitor("hf_wrong"))[1]


@pytest.mark.parametrize(
    ("namespace", "name", "meant"),
    [("alice", " merge ", "alice/merge"), ("alice", "acme/merge", "acme/merge"), (None, "acme/merge", "acme/merge"), ("", "", None)]
    + [("alice", wrong, None) for wrong in ("", "a/b/c", "--redo/x", "two words", "merge\nmore", "../x")]
    + [(None, "merge", None), ("--redo", "x", None)],
)
def test_only_what_can_be_a_repository_is_one(namespace: str | None, name: str, meant: str | None) -> None:
    if meant is not None:
        assert actions.repository(namespace, name) == meant
        return
    with pytest.raises(HubError, match=r"no repository id|Give the model a name"):
        actions.repository(namespace, name)


def test_a_preview_shows_files_and_card_and_uploads_nothing(job: Job, repo_name: str, api: HfApi) -> None:
    files, card, section = actions.preview(job.id, "alice", repo_name, False, "apache-2.0", False, ALICE)
    assert "It has to be private. The alignment on harmful" in files
    assert f"A new private repository alice/{repo_name}" in files and "model.safetensors" in files
    assert "rows of safety data" in files and "behind a gate" in files
    assert card.lstrip().startswith("#") and "lab-pair" in card and "license:" not in card.splitlines()[0]
    assert section["visible"] and section["open"]
    with pytest.raises(RepositoryNotFoundError):
        api.model_info(f"alice/{repo_name}")
    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(f"alice/{repo_name}-safety")


def test_a_preview_refuses_what_publishing_would(job: Job, repo_name: str, api: HfApi) -> None:
    others = f"alice/{repo_name}"
    api.create_repo(others)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="weights.txt", repo_id=others)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"name": "merge", "namespace": "bob"}, "You can&#x27;t write to bob/. Choose alice or acme"),
        ({"name": repo_name}, "exists and was not made by hfsafemerge"),
        ({"name": f"{repo_name}-none", "create_pr": True}, "is not there, or not for you to see"),
        ({"name": ""}, "Give the model a name"),
        ({"name": "merge", "who": BOB}, "There is no run"),
        ({"name": "merge", "who": None}, "There is no run"),
        ({"name": "merge", "who": visitor("hf_alice", expires_at=int(time.time()) - 1)}, "has expired"),
    ]
    for given, says in refused:
        said, card, section = preview(job, given.pop("name"), **given)
        assert says in said and 'class="note bad"' in said and card == "" and not section["visible"], said
    assert f"{others} is public, a pull request there would be too" in preview(job, repo_name, create_pr=True)[0]


def test_what_publishing_refuses_is_said(job: Job, repo_name: str, api: HfApi) -> None:
    api.create_repo(f"alice/{repo_name}", private=True)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="weights.txt", repo_id=f"alice/{repo_name}")
    assert "was not made by" in publish(job, repo_name)
    assert set(api.list_repo_files(f"alice/{repo_name}")) == {".gitattributes", "weights.txt"}
    assert "can&#x27;t write to bob/" in publish(job, "bob/merge") and job.published is None
    expired = actions.publish(job.id, "alice", repo_name, True, "", False, visitor("hf_alice", expires_at=1))
    assert "has expired" in expired
    assert "There is no run" in actions.publish(job.id, "bob", repo_name, True, "", False, BOB)


def test_a_merge_is_published_and_proposed_and_its_token_is_nowhere(
    job: Job, repo_name: str, api: HfApi, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands: list[str] = []
    plain = subprocess.run

    def run(command: list[str], **given: Any) -> Any:
        commands.extend(map(str, command))
        return plain(command, **given)

    monkeypatch.setattr(subprocess, "run", run)
    said = publish(job, repo_name, private=False)  # forty items are too few to show that the alignment is kept
    assert f"/alice/{repo_name}</a>" in said and "It was made private. The alignment on harmful" in said
    assert api.model_info(f"alice/{repo_name}").private
    assert {"README.md", "model.safetensors", "hfsafemerge.lock.json"} <= set(api.list_repo_files(f"alice/{repo_name}"))
    api.create_repo(f"acme/{repo_name}", private=True)
    said = actions.publish(job.id, "acme", repo_name, False, "apache-2.0", True, ALICE)
    assert "Proposed at" in said and f"/acme/{repo_name}/discussions/1</a>" in said
    assert "README.md" in api.list_repo_files(f"acme/{repo_name}", revision="refs/pr/1")

    kept = [path for path in job.directory.rglob("*") if path.is_file() and b"hf_alice" in path.read_bytes()]
    assert kept == [] and "push" in commands and not any("hf_alice" in word for word in commands)
    assert "hf_alice" not in "".join(capfd.readouterr())


def test_the_machines_of_jobs_and_their_prices_are_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    known = elsewhere.flavors()
    found = [(flavor.name, flavor.gpu_bytes, round(flavor.dollars_per_hour or 0, 2)) for flavor in known]
    assert {("l4x1", int(24e9), 0.8), ("a100-large", int(80e9), 2.5), ("h200", int(141e9), 5.0)} <= set(found)
    assert [price for *_, price in found] == sorted(price for *_, price in found)
    assert [elsewhere.smallest(known, size) for size in (0, 10**12)] == [known[0], None]
    monkeypatch.setattr(HfApi, "list_jobs_hardware", lambda *args, **kwargs: (_ for _ in ()).throw(OSError()))
    assert elsewhere.flavors() == []


def test_a_run_is_sent_to_jobs_on_the_visitors_account(lab_on_hub: str, on_space: None, repo_name: str, api: HfApi) -> None:
    recipe = lab_recipe("away", ("sums",), OnHub(lab_on_hub), writer=False).to_yaml()
    said = checking.send_away(recipe, "a100-large", f"alice/{repo_name}", visitor("hf_alice", scope="openid profile contribute-repos jobs"))
    assert 'class="note good"' in said and "/jobs/alice/" in said
    made = next(iter(api.list_jobs(namespace="alice", labels={"made-by": "hfsafemerge"})))
    assert made.flavor == "a100-large" and f"/jobs/alice/{made.id}" in said
    assert "hf_alice" not in said and "hf_alice" not in str(made)


def test_a_sign_in_without_the_scope_for_jobs_is_told_what_to_do(lab_on_hub: str, on_space: None) -> None:
    recipe = lab_recipe("away", ("sums",), OnHub(lab_on_hub), writer=False).to_yaml()
    said = checking.send_away(recipe, "a100-large", "alice/merge", visitor("hf_alice", scope="openid profile contribute-repos gated-repos"))
    assert "does not let this app start jobs" in said
    assert "hfsafemerge jobs run recipe.yaml --flavor a100-large --push-to alice/merge" in said


@pytest.mark.parametrize(
    ("flavor", "target", "who", "says"),
    [
        ("", "alice/merge", ALICE, "Name the machine"),
        ("--dry-run", "alice/merge", ALICE, "Name the machine"),
        ("a100-large", "merge", ALICE, "no repository id"),
        ("a100-large", "--detach", ALICE, "no repository id"),
        ("a100-large", "bob/merge", ALICE, "bob"),
        ("a100-large", "alice/merge", None, "Sign in"),
    ],
)
def test_what_jobs_refuse_is_said(
    lab_on_hub: str, on_space: None, api: HfApi, flavor: str, target: str, who: gr.OAuthToken | None, says: str
) -> None:
    recipe = lab_recipe("away", ("sums",), OnHub(lab_on_hub), writer=False).to_yaml()
    before = len(list(api.list_jobs(namespace="alice")))
    said = checking.send_away(recipe, flavor, target, who)
    assert 'class="note bad"' in said and says in said, said
    assert len(list(api.list_jobs(namespace="alice"))) == before
