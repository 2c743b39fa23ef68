"""The command as a user meets it: exit codes, one line for what they can put right, results on stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import command
from test_run import small

from hfsafemerge.lab.recipes import InFolder, OnHub, lab_recipe
from hfsafemerge.merging import MERGE_METHODS

COMMANDS = [
    "calibrate", "check", "data", "demo", "diff", "evaluate", "generate", "init", "jobs", "list", "merge", "pull", "push", "reproduce", "run",
    "search", "space",
]  # fmt: skip


def test_help_names_every_command_and_loads_nothing_heavy():
    done = command("--help")
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in COMMANDS)
    code = "import sys; sys.argv = ['hfsafemerge', '--help']\nfrom hfsafemerge.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    heavy = "print(sorted({'torch', 'transformers', 'gradio', 'datasets', 'scipy', 'pydantic', 'matplotlib'} & sys.modules.keys()), file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, env=os.environ)
    assert loaded.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mrege"], "Did you mean 'merge'?"),
        (["push", "--private"], "Missing argument 'RECIPE'"),
        (["reproduce", "--revision", "v1"], "Missing argument 'REPO_ID'"),
        (["jobs", "run", "r.yaml"], "Missing option '--flavor'"),
        (["list", "--format", "yaml"], "Valid values: agent, auto, human, json, quiet"),
        (["merge", "r.yaml", "--colour"], "No such option '--colour'"),
        (["run", ".", "--directory", "other"], "leave --directory out"),
        (["demo", "--seed", "many"], "'many' is not a valid integer"),
        (["demo", "--seed", "-1"], "-1 is not in the range"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message):
    done = command(*arguments)
    assert done.returncode == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "none.yaml"], "Can't read the recipe none.yaml"),
        (["run", "."], "is no run directory"),
        (["list", "metods"], "Did you mean 'methods'?"),
        (["reproduce", "alice/none"], "alice/none does not exist at"),
        (["reproduce", "gpt2"], "'gpt2' is no repository id"),
        (["init", "nowhere/recipe.yaml"], "No such file or directory (nowhere/recipe.yaml)"),
    ],
)
def test_what_a_user_can_put_right_is_one_line_and_exits_with_1(arguments, message, working_directory):
    done = command(*arguments)
    assert done.returncode == 1 and message in done.stderr
    assert done.stdout == "" and len([line for line in done.stderr.splitlines() if line.startswith("Error:")]) == 1


def test_parts_are_listed_as_data():
    done = command("list", "methods", "--json")
    assert {row["name"] for row in json.loads(done.stdout)} == set(MERGE_METHODS.names())
    assert command("list", "-q").stdout.split()[:2] == ["aligned_interpolation", "breadcrumbs"]


def test_init_writes_a_valid_recipe_and_never_over_one(working_directory):
    from hfsafemerge.recipe import Recipe

    done = command("init")
    assert done.returncode == 0 and Recipe.load(working_directory / "recipe.yaml").name == "llama3-openbio"
    assert "hfsafemerge check recipe.yaml" in done.stderr
    again = command("init")
    assert again.returncode == 1 and "it is left as it is" in again.stderr


def test_init_lab_writes_a_recipe_that_runs(lab, working_directory):
    assert command("init", "lab.yaml", "--lab").returncode == 0
    checked = command("check", "lab.yaml", "--json")
    found = json.loads(checked.stdout)
    assert {row["model"] for row in found["models"]} == {"base", "sums", "judge llama_guard"}
    assert found["needs"]["result"] > 0 and found["needs"]["weights_to_fetch"] == 0 == found["needs"]["seconds_to_fetch"]
    told = command("check", "lab.yaml", "--format", "human").stdout
    assert "They fit together" in told and "download: 0.0 MB" in told and "MB/s, which is assumed" in told and " free" in told
    assert len(command("check", "lab.yaml", "-q").stdout.split()) == 3


def test_there_is_nothing_to_calibrate_for_most_methods(lab, working_directory):
    recipe = lab_recipe("x", ("sums",), InFolder(lab), writer=False)
    (working_directory / "r.yaml").write_text(recipe.to_yaml())
    done = command("calibrate", "r.yaml")
    assert done.returncode == 1 and "ties asks for no importance scores" in done.stderr


def test_an_unreachable_hub_is_one_line(working_directory):
    (working_directory / "r.yaml").write_text(lab_recipe("x", ("sums",), OnHub("alice")).to_yaml())
    done = command("check", "r.yaml", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "Can't reach http://127.0.0.1:9" in done.stderr
    assert not (working_directory / "runs" / "x" / "check.json").exists()


def test_the_whole_flow_by_commands(lab, lab_on_hub, repo_name, working_directory):
    """run, push and reproduce against the local Hub, each in a process of its own."""
    from huggingface_hub import HfApi

    recipe = small(lab_recipe("pair", ("sums",), OnHub(lab_on_hub), settings={"max_evaluations": 12}, writer=False))
    (working_directory / "r.yaml").write_text(recipe.to_yaml())
    done = command("run", "r.yaml", "--json")
    assert done.returncode == 0 and set(json.loads(done.stdout)["scores"]) == {"base", "sums", "merged"}
    assert "evaluate: done" in done.stderr and "hfsafemerge push runs/pair" in done.stderr
    pushed = command("push", "runs/pair", f"alice/{repo_name}", "--no-private", "--json")
    assert pushed.returncode == 0 and json.loads(pushed.stdout)["model"].endswith(f"/alice/{repo_name}")
    api = HfApi()
    files = set(api.list_repo_files(f"alice/{repo_name}"))
    assert {
        "README.md",
        "hfsafemerge.lock.json",
        "scores.json",
        "search.jsonl",
        "recipe.yaml",
        "alignment.png",
        "model.safetensors",
    } <= files
    info = api.model_info(f"alice/{repo_name}")
    assert {"base_model:merge:alice/lab-aligned", "license:apache-2.0", f"dataset:alice/{repo_name}-safety"} <= set(info.tags)
    assert api.dataset_info(f"alice/{repo_name}-safety").gated == "manual"
    rebuilt = command("reproduce", f"alice/{repo_name}", "--json", HF_HOME=str(working_directory / "fresh"))
    assert rebuilt.returncode == 0 and json.loads(rebuilt.stdout)["tensors"] == 29
    again = command("push", "runs/pair", f"alice/{repo_name}")
    assert again.returncode == 0 and len(api.list_repo_commits(f"alice/{repo_name}")) == 2
    elsewhere = command("push", "runs/pair", "bob/x")
    assert elsewhere.returncode == 1 and "You are alice and can't write to bob/x" in elsewhere.stderr


def test_weights_that_were_changed_afterwards_are_noticed(lab, lab_on_hub, repo_name, tmp_path):
    from huggingface_hub import HfApi
    from safetensors.torch import load_file, save_file

    from hfsafemerge.errors import NotReproduced
    from hfsafemerge.running import Run, reproduce

    recipe = lab_recipe(
        "uniform",
        ("sums",),
        OnHub(lab_on_hub),
        method="linear",
        strategy="fixed",
        use=(),
        ready={},
        compare=False,
        push=f"alice/{repo_name}",
    )
    run = Run(small(recipe), tmp_path / "run")
    run.do("push")
    assert reproduce(f"alice/{repo_name}").tensors == 29
    weights = load_file(run.directory / "model" / "model.safetensors")
    weights["model.norm.weight"][3] += 1e-6
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    HfApi().upload_file(path_or_fileobj=tmp_path / "model.safetensors", path_in_repo="model.safetensors", repo_id=f"alice/{repo_name}")
    with pytest.raises(NotReproduced, match=r"1 of 29 tensors differ, such as model.norm.weight. The versions are the same, so"):
        reproduce(f"alice/{repo_name}")


def test_a_merge_of_local_folders_says_that_it_can_not_be_rebuilt(lab, repo_name, tmp_path):
    from huggingface_hub import HfApi

    from hfsafemerge.errors import NotReproduced
    from hfsafemerge.running import Run, reproduce
    from hfsafemerge.running.repeating.locking import LOCK

    recipe = lab_recipe("local", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False)
    run = Run(small(recipe), tmp_path / "run")
    run.push(f"alice/{repo_name}", private=True, license="apache-2.0")
    with pytest.raises(NotReproduced, match=r"made from local folders \(base, sums\)"):
        reproduce(f"alice/{repo_name}")
    published = [Path(HfApi().hf_hub_download(f"alice/{repo_name}", name)).read_text() for name in ("README.md", "recipe.yaml", LOCK)]
    assert "can't be rebuilt by others: aligned, sums-expert" in published[0]
    assert not any(str(lab.parent) in text for text in published)  # where things are on this machine is nobody's business
