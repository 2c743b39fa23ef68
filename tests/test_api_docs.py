"""docs/api.md: its blocks are one session, which runs against the lab on the local Hub."""

import contextlib
import io
import re
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from test_run import small

import hfsafemerge as hsm
from hfsafemerge.errors import HubError, RecipeError
from hfsafemerge.lab.recipes import OnHub, lab_recipe

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_session_of_the_page_runs(lab_on_hub, repo_name, working_directory):
    repo_id = f"alice/{repo_name}"
    recipe = small(lab_recipe("pair", ("sums",), OnHub(lab_on_hub), settings={"max_evaluations": 12}, writer=False))
    Path("recipe.yaml").write_text(recipe.to_yaml())
    names: dict = {}
    printed = io.StringIO()
    for block in BLOCKS:
        with contextlib.redirect_stdout(printed):
            exec(compile(block.replace("me/my-merge", repo_id), "api.md", "exec"), names)
    said = printed.getvalue()
    assert "There is no merge method named 'tiess'. Did you mean 'ties'?" in said
    assert f"/{repo_id}" in said and f"{repo_id}-safety" in said
    api, run = HfApi(), names["run"]
    assert api.model_info(repo_id).private and api.list_repo_tree(repo_id)
    assert names["merged"]["harmful"] > 0.9 and len(names["frame"]) == len(run.scores) and Path("refusals.svg").exists()
    assert {row["file"] for row in names["plan"] if row["repository"] == repo_id} == set(api.list_repo_files(repo_id)) - {".gitattributes"}
    assert f"# {run.recipe.name}" in names["plan"].card and "# pair" in run.card and not run.card._repr_markdown_().startswith("---")
    assert names["published"].commit == api.model_info(repo_id).sha and names["published"].url in run._repr_html_()
    assert {row["model"] for row in names["compared"].scores} == {repo_name, "model"}
    assert len({row["value"] for row in names["compared"].scores if row["metric"] == "refusal_rate"}) == 1  # it is the same model

    difference = hsm.diff(run.directory, run.directory)
    assert len(difference) == 0 and "No difference." in difference._repr_html_() and difference.found.same


def test_what_is_pulled_is_told(lab_on_hub, working_directory):
    told = []
    (row,) = hsm.pull(f"{lab_on_hub}/lab-aligned", listener=told.append)
    assert row["repository"] == f"{lab_on_hub}/lab-aligned" and (Path(row["path"]) / "model.safetensors").exists()
    recipe = small(lab_recipe("uniform", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), ready={}, compare=False))
    found = {each["repository"]: each["commit"] for each in hsm.pull(recipe)}
    assert found[row["repository"]] == row["commit"] and f"{lab_on_hub}/lab-sums-expert" in found
    with pytest.raises(RecipeError, match="leave `revision` out"):
        hsm.pull(recipe, revision="main")
    with pytest.raises(HubError, match="does not exist"):
        hsm.pull("alice/no-such-model")


def test_a_preview_changes_nothing(lab_on_hub, repo_name, working_directory):
    recipe = small(lab_recipe("uniform", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), ready={}, compare=False))
    run, api, repo_id = hsm.run(recipe), HfApi(), f"alice/{repo_name}"
    with pytest.raises(HubError, match="no pull request can be opened there"):
        run.preview(repo_id, create_pr=True)
    assert not api.repo_exists(repo_id)
    api.create_repo(repo_id, private=True)
    before = api.model_info(repo_id).sha
    plan = run.preview(repo_id, create_pr=True, commit_message="Better")
    assert plan.preview.create_pr and plan.preview.commit_message == "Better" and "a pull request" in repr(plan)
    assert run.recipe.push is None and api.model_info(repo_id).sha == before and not list(api.get_repo_discussions(repo_id))
    with pytest.raises(RecipeError, match="leave revision out"):
        run.push(f"alice/{repo_name}", create_pr=True, revision="v2")
    with pytest.raises(RecipeError, match="brnch"):
        run.preview(f"alice/{repo_name}", brnch="v2")
