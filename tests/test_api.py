"""`import hfsafemerge as hsm`: what it offers, that it takes no time, and how it is used from a notebook or script."""

import ast
import asyncio
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_run import small

import hfsafemerge as hsm
from hfsafemerge.errors import RecipeError, RunError, UnknownName
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.running.naming import evaluation_of, model_ref
from hfsafemerge.running.notebook.surroundings import threads, without_bars

ROOT = Path(__file__).parent.parent
HEAVY = "{'torch', 'transformers', 'datasets', 'huggingface_hub', 'pydantic', 'yaml', 'matplotlib', 'scipy', 'numpy'}"


def uniform(lab, **changes):
    """The cheapest recipe: nothing is generated or searched, and 40 items of each benchmark are asked."""
    given = dict(method="linear", strategy="fixed", use=(), ready={}, compare=False)
    return small(lab_recipe("uniform", ("sums",), InFolder(lab), **(given | changes)))


def python(code, **environment):
    env = {name: value for name, value in (os.environ | environment).items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)


def test_the_import_loads_nothing_and_names_everything():
    done = python(
        "import sys, hfsafemerge as hsm\n"
        f"print(sorted({HEAVY} & sys.modules.keys()), set(hsm.__all__) <= set(dir(hsm)), 'hfsafemerge.recipe' in sys.modules)\n"
        "hsm.Recipe; print('hfsafemerge.recipe' in sys.modules, 'transformers' in sys.modules)\n"
    )
    assert done.stdout.splitlines() == ["[] True False", "True False"], done.stderr


def test_every_name_is_there_and_no_other():
    assert all(getattr(hsm, name) is not None for name in hsm.__all__)
    modules = {module.name for module in pkgutil.iter_modules(hsm.__path__)}
    assert not modules & set(hsm.__all__)  # a module takes its name's place once it is imported
    assert issubclass(RunError, hsm.HfSafeMergeError) and hsm.run.__module__ == "hfsafemerge.running.notebook.calling"
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = hsm.rum
    from hfsafemerge import hub  # a module of the package is no name of it, and is found as ever

    assert hub.__name__ == "hfsafemerge.hub"


def test_type_checkers_see_the_names_where_they_are_found():
    body = ast.parse((ROOT / "hfsafemerge" / "__init__.py").read_text()).body
    (block,) = [node for node in body if isinstance(node, ast.If)]
    declared = {alias.name: node.module for node in block.body for alias in node.names}
    assert declared == hsm._MODULES and sorted([*declared, "__version__"]) == sorted(hsm.__all__)


def test_a_client_is_checked_by_mypy(tmp_path):
    client = tmp_path / "client.py"
    client.write_text(
        "import hfsafemerge as hsm\n"
        "run = hsm.run('recipe.yaml', until='merge', listener=hsm.silent)\n"
        "reveal_type(run)\n"
        "reveal_type(hsm.run({'name': 'x'}).scores[0])\n"
        "reveal_type(run.scores.results.headlines('merged')[0].ci95)\n"
        "reveal_type(run.plot('search').save('a.png'))\n"
        "reveal_type(hsm.Recipe.load('recipe.yaml'))\n"
        "hsm.run('recipe.yaml', until='lunch')\n"
        "hsm.evaluate(3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--config-file", str(ROOT / "pyproject.toml"), str(client)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    mine = [line.partition("client.py:")[2] for line in told if "client.py:" in line]
    types = [line.partition('Revealed type is "')[2].rstrip('"') for line in mine if "Revealed" in line]
    assert [text.replace("builtins.", "") for text in types] == [
        "hfsafemerge.running.directory.Run",
        "typing.Mapping[str, Any]",
        "tuple[float, float]",
        "pathlib.Path",
        "hfsafemerge.recipe.Recipe",
    ]
    assert [line.split(":")[0] for line in mine if "error" in line] == ["8", "9"]


def test_a_recipe_is_taken_as_it_comes(lab, working_directory):
    recipe = uniform(lab)
    run = hsm.run(recipe, until="check")
    assert run.directory == Path("runs") / "uniform" and run.is_done("check") and not run.is_done("merge")
    Path("r.yaml").write_text(recipe.to_yaml())
    as_dict = recipe.model_dump(mode="json", exclude_defaults=True)
    for given in ("r.yaml", Path("r.yaml"), as_dict, "runs/uniform"):
        assert hsm.run(given, until="check").recipe == recipe
    assert hsm.Recipe.load("r.yaml") == recipe and recipe.to_yaml() in recipe._repr_markdown_()
    assert hsm.run("r.yaml", "elsewhere", until="check").directory == Path("elsewhere")


def test_a_mergekit_recipe_is_run_too(lab, working_directory):
    models = "".join(f"  - model: {lab / name}\n    parameters: {{weight: 0.5}}\n" for name in ("aligned", "sums-expert"))
    Path("mergekit.yml").write_text(f"merge_method: linear\nmodels:\n{models}dtype: float32\n")
    assert (hsm.run("mergekit.yml", until="merge").model_path / "model.safetensors").exists()


def test_what_can_be_put_right_is_an_error_that_says_so(lab, working_directory):
    found = uniform(lab).model_dump(mode="json", exclude_defaults=True)
    with pytest.raises(RecipeError, match=r"merge\.method"):
        hsm.run({**found, "merge": {"method": 3}})
    with pytest.raises(UnknownName, match="Did you mean 'linear'"):
        hsm.run({**found, "merge": {"method": "liner"}})
    with pytest.raises(RecipeError, match="Can't read the recipe none"):
        hsm.run("none.yaml")
    run = hsm.run(found, until="check")
    with pytest.raises(RunError, match="leave `directory` out"):
        hsm.run(run.directory, "elsewhere")
    with pytest.raises(RunError, match="Did you mean 'merge'"):
        run.do("merged")
    with pytest.raises(RunError, match=r"evaluate is not done .*run.do\('evaluate'\)"):
        _ = run.scores
    assert not Path("elsewhere").exists()


def test_a_run_that_was_interrupted_goes_on(lab, working_directory):
    recipe, told = uniform(lab), []

    def interrupt(event):
        if event.stage == "evaluate":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hsm.run(recipe, listener=interrupt)
    run = hsm.run(recipe, listener=told.append)
    assert {event.stage for event in told} == {"evaluate"} and len(run.scores) > 0
    assert hsm.run(recipe, listener=told.append).is_done("evaluate") and told[-1].message == "done"


def test_it_works_inside_a_running_event_loop(lab, working_directory):
    """As a cell of a notebook does: the kernel's loop is running while the cell is."""

    async def cell():
        return hsm.run(uniform(lab), until="merge").model_path

    assert (asyncio.run(cell()) / "model.safetensors").exists()


def test_check_is_a_table_of_the_models(lab, working_directory):
    table = hsm.check(uniform(lab))
    assert [row["model"] for row in table][:2] == ["base", "sums"] and table[0]["architecture"] == "LlamaForCausalLM"
    assert table[0]["bytes"] == (lab / "aligned" / "model.safetensors").stat().st_size
    assert "0.0 MB of weights to download (about 0 s at 50 MB/s)" in repr(table) and " to write." in repr(table)
    assert not list(Path("runs").rglob("*.safetensors"))


def test_models_are_measured_without_a_merge(lab, working_directory):
    harmful = {"kind": "safety", "dataset": InFolder(lab).rows("harmful", "test"), "judges": ["refusal_phrases"], "max_new_tokens": 16}
    run = hsm.evaluate([lab / "aligned", str(lab / "sums-expert")], benchmarks={"harmful": harmful}, limit=8, device="cpu")
    assert [(row["model"], row["metric"], row["value"], row["n"]) for row in run.scores] == [
        ("aligned", "refusal_rate", 1.0, 8),
        ("sums-expert", "refusal_rate", 0.0, 8),
    ]
    assert run.directory == Path("runs") / "comparison"
    assert run.plot().title == "Rates by category"
    with pytest.raises(RecipeError, match="Say what to measure models on"):
        hsm.evaluate(lab / "aligned")


def test_models_as_short_texts(tmp_path):
    assert model_ref("me/x@v1").model_dump(exclude_defaults=True) == {"repo_id": "me/x", "revision": "v1"}
    assert model_ref(tmp_path).path == tmp_path and model_ref(model_ref("me/x")).repo_id == "me/x"
    for text in ("nowhere", "", "a/b/c", "me/x@", "../x"):
        with pytest.raises(RecipeError, match="is no folder, and no repository"):
            model_ref(text)


def test_benchmarks_as_short_texts():
    assert evaluation_of(None, ["xstest"], ["gsm8k"], 5) == {"benchmarks": {"xstest": {"limit": 5}}, "tasks": {"gsm8k": {"limit": 5}}}
    from hfsafemerge.benchmarking import SUITES

    whole = evaluation_of("quick", {"mine": {"kind": "domain"}}, [], None)
    assert whole["suite"] == "quick" and list(whole["benchmarks"]) == [*SUITES["quick"].benchmarks, "mine"]
    assert evaluation_of("qick", [], [], None) == {"benchmarks": {}, "tasks": {}, "suite": "qick"}  # which the recipe refuses


def test_parts_are_listed():
    assert {"ties", "led"} <= {row["name"] for row in hsm.methods()} and "cma_es" in repr(hsm.strategies())


def test_the_process_is_left_as_it_was():
    import datasets
    import torch

    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), threads(before + 1):
        assert torch.get_num_threads() == before + 1
        _ = 1 / 0
    with threads(None):
        assert torch.get_num_threads() == before
    with pytest.raises(ZeroDivisionError), without_bars():
        _ = 1 / 0
    assert datasets.are_progress_bars_disabled()  # as the environment says


def test_no_bar_of_a_library_is_shown_meanwhile():
    done = python(
        "import datasets, transformers\n"
        "from hfsafemerge.running.notebook.surroundings import without_bars\n"
        "from transformers.utils.logging import tqdm\n"
        "with without_bars():\n"
        "    print(len(list(tqdm(range(3), 'hidden'))), datasets.are_progress_bars_disabled())\n"
        "print(len(list(tqdm(range(3), 'shown'))), datasets.are_progress_bars_disabled())\n",
        HF_HUB_DISABLE_PROGRESS_BARS=None,
        HF_DATASETS_DISABLE_PROGRESS_BARS=None,
    )
    assert done.stdout.splitlines() == ["3 True", "3 False"] and "shown" in done.stderr and "hidden" not in done.stderr
