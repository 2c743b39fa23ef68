"""The Space: what is uploaded and set, in which order, what a second deployment does, and what is refused."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from commands import command
from huggingface_hub import HfApi

from hfsafemerge import __version__
from hfsafemerge.errors import HubError
from hfsafemerge.hub.space_files import front_matter, space_files
from hfsafemerge.hub.spaces import MARKER, Deployment, deploy
from hfsafemerge.localhub.faults import Fault

TOKEN = "hf_alice"
README = "---\ntitle: t\nsdk: gradio\napp_file: app.py\n---\n# t\n"


@pytest.fixture
def files(tmp_path):
    """A Space that is quick to upload."""
    folder = tmp_path / "space"
    (folder / "hfsafemerge").mkdir(parents=True)
    contents = {"README.md": README, "app.py": "print()", "requirements.txt": "gradio", "hfsafemerge/a.py": "A = 1", "hfsafemerge/b.py": ""}
    for name, text in contents.items():
        (folder / name).write_text(text)
    return {name: folder / name for name in contents}


def changes(server):
    """What was asked for that changes something, in order, each with its body."""
    small_talk = ("validate-yaml", "preupload", "/objects/")
    asked = [request for request in server.app.log if request.method != "GET" and not any(part in request.path for part in small_talk)]
    return [(f"{request.method} {request.path}", request.body) for request in asked if request.method != "HEAD"]


def api(server):
    return HfApi(endpoint=server.url, token=TOKEN)


def state(server, repo_id="alice/app"):
    found = api(server).space_info(repo_id)
    runtime = api(server).get_space_runtime(repo_id)
    return {
        "private": found.private,
        "files": {file.rfilename for file in found.siblings} - {".gitattributes"},
        "commits": [commit.title for commit in api(server).list_repo_commits(repo_id, repo_type="space")],
        "hardware": (runtime.requested_hardware, runtime.sleep_time),
        "variables": {key: value.value for key, value in api(server).get_space_variables(repo_id).items()},
        "secrets": sorted(api(server).get_space_secrets(repo_id)),
    }


# What is done


def test_the_whole_space_is_deployed_by_the_command_and_again_nothing_is(server):
    arguments = (
        "space", "deploy", "alice/app", "--hardware", "a100-large", "--sleep-time", "900", "--no-private",
        "--variable", "MODE=lab", "--secret", "MY_KEY", "--json",
    )  # fmt: skip
    done = command(*arguments, HF_ENDPOINT=server.url, MY_KEY="s3cret")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    asked = changes(server)
    assert [what for what, _ in asked] == [
        "POST /api/repos/create",
        "POST /api/spaces/alice/app/variables",
        "POST /api/spaces/alice/app/secrets",
        "POST /api/spaces/alice/app/commit/main",
        "PUT /api/spaces/alice/app/settings",
    ]
    bodies = [json.loads(body) for what, body in asked if "commit" not in what]
    assert bodies == [
        {
            "name": "app", "organization": "alice", "visibility": "private", "type": "space", "sdk": "gradio", "hardware": "a100-large",
            "sleepTimeSeconds": 900,
        },
        {"key": "MODE", "value": "lab"},
        {"key": "MY_KEY", "value": "s3cret"},
        {"visibility": "public"},
    ]  # fmt: skip
    assert "s3cret" not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr
    made = state(server)
    assert made["commits"] == [f"hfsafemerge {__version__}", "initial commit"] and made["files"] == {*space_files(), MARKER}
    assert made["hardware"] == ("a100-large", 900) and made["variables"] == {"MODE": "lab"} and made["secrets"] == ["MY_KEY"]
    assert not made["private"] and told["url"] == f"{server.url}/spaces/alice/app" and told["hardware"] == "a100-large"
    assert told["commit"] == api(server).space_info("alice/app").sha
    assert "hf_oauth: contribute-repos, gated-repos" in done.stderr

    server.app.log.clear()
    again = command(*arguments, HF_ENDPOINT=server.url, MY_KEY="s3cret")
    assert again.returncode == 0 and json.loads(again.stdout) == told
    assert [what for what, _ in changes(server)] == ["POST /api/spaces/alice/app/secrets"]  # nobody can tell whether it differs
    assert state(server) == made


def test_what_is_uploaded_can_be_imported_by_itself(tmp_path):
    for name, path in space_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / name)
    code = "import hfsafemerge.cli, hfsafemerge.running, hfsafemerge.dataset_card, space; print(hfsafemerge.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "hfsafemerge" / "__init__.py")
    assert front_matter(space_files())["app_file"] == "app.py"
    assert not [name for name in space_files() if "__pycache__" in name or name.endswith(".pyc")]


def test_a_new_space_is_private_and_runs_on_the_free_hardware(server, files):
    done = deploy(Deployment("alice/app"), files)
    assert state(server) | {"files": None} == {
        "private": True, "files": None, "commits": [f"hfsafemerge {__version__}", "initial commit"], "hardware": ("cpu-basic", 172800),
        "variables": {}, "secrets": [],
    }  # fmt: skip
    assert done.changed and done.hardware == "cpu-basic"


def test_without_a_name_it_is_the_user_s_own(server):
    done = command("space", "deploy", "--dry-run", HF_ENDPOINT=server.url)
    assert done.returncode == 0 and f"{server.url}/spaces/alice/hfsafemerge would get these" in done.stderr


def test_files_that_are_no_more_are_taken_away_and_others_stay(server, files):
    deploy(Deployment("alice/app"), files)
    api(server).upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="alice/app", repo_type="space")
    del files["hfsafemerge/b.py"]
    assert deploy(Deployment("alice/app"), files).changed
    assert state(server)["files"] == {*files, MARKER, "notes.txt"}
    assert not deploy(Deployment("alice/app"), files).changed


def test_a_list_that_somebody_has_broken_takes_nothing_away(server, files):
    deploy(Deployment("alice/app"), files)
    api(server).upload_file(path_or_fileobj=b"[", path_in_repo=MARKER, repo_id="alice/app", repo_type="space")
    del files["hfsafemerge/b.py"]
    deploy(Deployment("alice/app"), files)
    assert "hfsafemerge/b.py" in state(server)["files"]


def test_only_what_differs_is_set(server, files):
    deploy(Deployment("alice/app", hardware="l4x1", sleep_time=600, variables={"A": "1", "B": "2"}), files)
    server.app.log.clear()
    deploy(Deployment("alice/app", private=True, hardware="a100-large", sleep_time=600, variables={"A": "1", "B": "3"}), files)
    assert [(what, json.loads(body)) for what, body in changes(server)] == [
        ("POST /api/spaces/alice/app/variables", {"key": "B", "value": "3"}),
        ("POST /api/spaces/alice/app/hardware", {"flavor": "a100-large", "sleepTimeSeconds": 600}),
    ]
    server.app.log.clear()
    deploy(Deployment("alice/app", hardware="a100-large", sleep_time=-1), files)
    assert [(what, json.loads(body)) for what, body in changes(server)] == [("POST /api/spaces/alice/app/sleeptime", {"seconds": -1})]


def test_who_can_see_it_changes_only_on_demand(server, files):
    for private, found in ((None, True), (False, False), (None, False), (True, True)):
        deploy(Deployment("alice/app", private=private), files)
        assert state(server)["private"] is found


def test_a_dry_run_changes_nothing_and_shows_no_secret(server):
    arguments = ("space", "deploy", "alice/app", "--hardware", "l4x1", "--secret", "MY_KEY", "--dry-run", "--json")
    done = command(*arguments, HF_ENDPOINT=server.url, MY_KEY="s3cret")
    rows = json.loads(done.stdout)
    assert {row["file"] for row in rows} == set(space_files()) and all(row["bytes"] >= 0 for row in rows)
    assert "hardware: l4x1" in done.stderr and "MY_KEY: ***" in done.stderr and "s3cret" not in done.stdout + done.stderr
    assert not changes(server)


# Faults


def test_a_fault_at_any_request_leaves_one_deployment(server, files):
    wanted = Deployment("alice/app", private=False, hardware="l4x1", sleep_time=60, variables={"A": "1"}, secrets={"S": "s3cret"})
    deploy(wanted, files)
    requests, whole = len(server.app.log), state(server)
    assert requests >= 10
    for number in range(requests):
        for fault in ({"status": 503}, {"status": 503, "lost": True}, {"status": 429}, {"cut": True}, {"cut": True, "lost": True}):
            api(server).delete_repo("alice/app", repo_type="space")
            server.app.faults = [Fault(".", after=number, **fault)]
            deploy(wanted, files)
            spent, server.app.faults = server.app.faults[0].times == 0, []
            assert spent and state(server) == whole, (number, fault)


def test_after_a_refusal_at_any_request_the_same_call_goes_on(server, files):
    """As after a kill: what was done stays done, and the next call does the rest."""
    wanted = Deployment("alice/app", private=False, hardware="l4x1", sleep_time=60, variables={"A": "1"}, secrets={"S": "s3cret"})
    deploy(wanted, files)
    requests, whole = len(server.app.log), state(server)
    for number in range(requests):
        api(server).delete_repo("alice/app", repo_type="space")
        server.app.faults = [Fault(".", status=403, after=number)]
        with pytest.raises(HubError) as told:
            deploy(wanted, files)
        server.app.faults = []
        assert "s3cret" not in str(told.value) and TOKEN not in str(told.value)
        deploy(wanted, files)
        assert state(server) == whole, number


# What is refused


def test_a_space_of_somebody_else_s_making_is_left_alone_unless_told(server, files):
    api(server).create_repo("alice/app", repo_type="space", space_sdk="gradio")
    api(server).upload_file(path_or_fileobj=b"theirs", path_in_repo="app.py", repo_id="alice/app", repo_type="space")
    with pytest.raises(HubError, match=r"The Space alice/app exists and was not made by hfsafemerge; it is left alone.*--overwrite"):
        deploy(Deployment("alice/app", variables={"A": "1"}), files)
    assert state(server)["files"] == {"app.py"} and not state(server)["variables"]
    deploy(Deployment("alice/app", overwrite=True), files)
    assert state(server)["files"] == {*files, MARKER} and len(state(server)["commits"]) == 3
    deploy(Deployment("alice/app"), files)  # from now on it is this tool's


def test_a_space_of_another_namespace_is_refused(server, files):
    with pytest.raises(HubError, match="You are alice and can't write to bob/app"):
        deploy(Deployment("bob/app"), files)


@pytest.mark.parametrize("name", ["app", "a/b/c", "a b/c"])
def test_a_name_that_is_none_is_refused(server, files, name):
    with pytest.raises(HubError, match=r"is no name of a Space\. Write it as namespace/name"):
        deploy(Deployment(name), files)


@pytest.mark.parametrize(
    ("readme", "message"),
    [
        (README.replace("sdk: gradio", "sdk: docker"), "says sdk: docker and app_file: app.py. It must say gradio"),
        (README.replace("app_file: app.py", "app_file: main.py"), "app_file: main.py. It must say gradio, and name a file that is there"),
        (README.replace("title: t", "title: ["), "can't be read"),
        (README.replace("title: t", f"short_description: {'x' * 61}"), "The Hub does not take the front matter.*short_description"),
    ],
)
def test_front_matter_that_the_hub_would_not_serve_is_refused_before_anything_is_made(server, files, readme, message):
    files["README.md"].write_text(readme)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(HubError, match=message):
            deploy(Deployment("alice/app"), files)
    assert not changes(server) and not api(server).repo_exists("alice/app", repo_type="space")


@pytest.mark.parametrize("hardware", [None, "cpu-basic"])
def test_free_hardware_can_not_be_told_when_to_sleep(server, files, hardware):
    with pytest.raises(HubError, match="Only hardware that is paid for sleeps when it is told"):
        deploy(Deployment("alice/app", hardware=hardware, sleep_time=60), files)
    assert not changes(server)


def test_hardware_that_there_is_not_is_told_by_the_hub(server, files):
    deploy(Deployment("alice/app"), files)
    with pytest.raises(HubError, match=r"The Hub refused the hardware of alice/app \(400\)"):
        deploy(Deployment("alice/app", hardware="abacus"), files)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--secret", "MY_KEY=s3cret"), "--secret MY_KEY takes the name alone"),
        (("--secret", "NOT_SET"), "there is no NOT_SET in your environment"),
        (("--variable", "A"), "--variable 'A' is not KEY=VALUE"),
        (("--variable", f"A={TOKEN}"), "--variable A holds your token"),
        (("--variable", "HOME=1", "--secret", "HOME"), "HOME is both a variable and a secret"),
    ],
)
def test_settings_that_would_show_a_secret_are_refused(arguments, message):
    done = command("space", "deploy", "alice/app", *arguments, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 2 and message in done.stderr and "s3cret" not in done.stderr


def test_an_installation_without_the_space_s_files_says_what_to_do(tmp_path):
    with pytest.raises(HubError, match=r"The Space's files are not with this installation .*has no README.md.*Clone the repository"):
        space_files(tmp_path)


def test_a_gitignore_that_hides_a_file_is_noticed(server, files):
    deploy(Deployment("alice/app"), files)
    api(server).upload_file(path_or_fileobj=b"*.cfg\n", path_in_repo=".gitignore", repo_id="alice/app", repo_type="space")
    files["new.cfg"] = Path(files["app.py"]).with_name("new.cfg")
    files["new.cfg"].write_text("x")
    with pytest.raises(HubError, match=r"The Hub left new\.cfg out of alice/app\. A \.gitignore there may name it"):
        deploy(Deployment("alice/app"), files)


# The local Hub's own


def test_the_local_hub_keeps_a_space_s_settings(server):
    alice, bob = api(server), HfApi(endpoint=server.url, token="hf_bob")
    alice.create_repo("alice/app", repo_type="space", space_sdk="gradio", private=True)
    with pytest.raises(Exception, match=r"(?i)repository ?not ?found"):
        bob.get_space_runtime("alice/app")
    alice.update_repo_settings("alice/app", repo_type="space", visibility="public")
    with pytest.raises(Exception, match="bob is no member of alice"):
        bob.add_space_secret("alice/app", "A", "1")
    alice.add_space_secret("alice/app", "A", "s3cret", description="d")
    found = alice.get_space_secrets("alice/app")
    assert found["A"].description == "d" and not any("s3cret" in file.read_text() for file in server.root.rglob("*.json"))
    alice.delete_space_secret("alice/app", "A")
    assert alice.get_space_secrets("alice/app") == {}
    alice.add_space_variable("alice/app", "B", "1")
    assert alice.delete_space_variable("alice/app", "B") == {}
    assert alice.pause_space("alice/app").stage == "PAUSED" and alice.restart_space("alice/app").stage == "NO_APP_FILE"
    assert "a100-large" in {hardware.name for hardware in alice.list_spaces_hardware()}
