"""What the README, the docs and the packaging say is so."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PACKAGE = ROOT / "hfsafemerge"
NEVER = {  # what the glossary has another word for
    "donor", "pretrained", "ptm", "anchor_model", "ft_model", "drop_rate", "sparsity", "saliency", "phenotype", "grader", "asr", "false_refusal",
}  # fmt: skip


def tree():
    """The paths of the README's tree, with the phrase beside each."""
    block = re.search(r"<!-- tree.*?```\n(.*?)```", README, re.DOTALL)[1]
    found, above = {}, []
    for line in block.splitlines():
        name, _, phrase = line.strip().partition(" ")
        above = [*above[: (len(line) - len(line.lstrip())) // 2], name]
        found["".join(above)] = phrase.strip()
    return found


def test_the_readme_s_tree_is_the_folder():
    listed = tree()
    missing = [path for path in listed if not (ROOT / path).exists()]
    assert not missing and all(listed[path] for path in listed if path != "hfsafemerge/")
    there = {
        f"hfsafemerge/{path.name}{'/' * path.is_dir()}"
        for path in PACKAGE.iterdir()
        if path.name not in ("__pycache__", "__init__.py", "__main__.py", "py.typed")
    }
    for package in (
        "checkpoint",
        "cli",
        "evaluation",
        "generation",
        "hub",
        "language_model",
        "live_merge",
        "merging",
        "running",
        "searching",
    ):
        inside = [path for path in (PACKAGE / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
        there |= {f"hfsafemerge/{package}/{path.name}{'/' * path.is_dir()}" for path in inside if path.name != "__init__.py"}
    assert {path for path in listed if path.startswith("hfsafemerge/")} - {"hfsafemerge/"} == there
    for shelf in ("merge_methods", "search_strategies", "judges", "generators", "benchmarks"):
        files = {path.stem for path in (PACKAGE / shelf).glob("*.py")} - {"__init__"}
        assert set(listed[f"hfsafemerge/{shelf}/"].split()) == files


def test_the_readme_s_commands_exist():
    from hfsafemerge.cli import app

    named = set(
        re.findall(r"hfsafemerge (init|check|pull|generate|search|merge|evaluate|run|push|reproduce|diff|jobs|space|list|demo)\b", README)
    )
    assert named <= set(app.commands) and {"demo", "init", "check", "run", "push", "reproduce", "list"} <= named
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in re.findall(r"^make (\w+)", README, re.MULTILINE))


def test_the_readme_s_code_runs(lab, working_directory, capsys):
    from test_run import small

    from hfsafemerge.lab.recipes import InFolder, lab_recipe

    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), settings={"max_evaluations": 12}, writer=False, compare=False))
    (working_directory / "recipe.yaml").write_text(recipe.to_yaml())
    exec(compile(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1], "README", "exec"), {})
    assert "alignment" in capsys.readouterr().out and (working_directory / "runs" / "pair" / "model").is_dir()


def test_the_front_matter_is_valid_for_a_space():
    found = yaml.safe_load(README.split("---")[1])
    pinned = dict(re.findall(r"^(\w+)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert found["sdk"] == "gradio" and found["sdk_version"] == pinned["gradio"] and found["app_file"] == "app.py"
    assert len(found["short_description"]) <= 60 and found["license"] == "apache-2.0"


def test_every_requirement_is_pinned_and_meets_its_bound():
    from packaging.requirements import Requirement

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            pinned.setdefault(requirement.name.lower().replace("_", "-"), []).append(next(iter(requirement.specifier)).version)
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            versions = pinned[requirement.name.lower().replace("_", "-")]
            assert all(requirement.specifier.contains(version) for version in versions), line


def test_the_docs_of_the_parts_are_fresh():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "methods.md").read_text() == module.page(), "run: python docs/generate.py"


@pytest.mark.parametrize("number", range(5))
def test_the_examples_of_new_parts_work(number, tmp_path):
    """Each code block of docs/extending.md registers a part; it is looked up and then forgotten again."""
    from hfsafemerge.benchmarking import BENCHMARKS
    from hfsafemerge.generation import GENERATORS
    from hfsafemerge.judging import JUDGES, Exchange
    from hfsafemerge.merging import MERGE_METHODS
    from hfsafemerge.searching import SEARCH_STRATEGIES, Gene, Objective, TermScore, one_by_one, search

    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    registry, name = [
        (MERGE_METHODS, "largest_delta"),
        (SEARCH_STRATEGIES, "random_walk"),
        (JUDGES, "short_answers"),
        (GENERATORS, "exam_questions"),
        (BENCHMARKS, "polite_requests"),
    ][number]
    registry.names()
    try:
        exec(compile(blocks[number], "extending.md", "exec"), {})
        part = registry.get(name)
        if registry is MERGE_METHODS:
            import torch

            base, deltas = torch.zeros(2), torch.tensor([[1.0, -0.5], [0.5, -2.0]])
            assert part.kernel.function(base=base, deltas=deltas, weight=torch.ones(2)).tolist() == [1.0, -2.0]
        elif registry is SEARCH_STRATEGIES:
            strategy = part.make([Gene("weight", "a", 0, 0.5, 0.0, 1.0)], 0, steps=3)
            evaluate = one_by_one(lambda query: {"safety": TermScore(-query.genome[0], 1)})
            assert 0 <= search(strategy, evaluate, Objective(), tmp_path / "search.jsonl").genome[0] <= 1
        elif registry is JUDGES:
            assert [v.label for v in part.bind(None)([Exchange("q", "it is 4", "4"), Exchange("q", "no", "4")])] == ["correct", "wrong"]
        else:
            assert part.kind == ("domain" if registry is GENERATORS else "benign")
    finally:
        registry._parts.pop(name, None)


def test_the_wheel_carries_recipes_templates_and_cards(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    wanted = [
        "recipes/evomm.yaml",
        "templates/alignment_card.md.jinja",
        "datasets_cards/safety.md.jinja",
        "datasets_cards/domain.md.jinja",
        "datasets_cards/benign.md.jinja",
        "datasets_cards/parts.md.jinja",
        "py.typed",
    ]
    modules = [str(path.relative_to(ROOT)) for path in PACKAGE.rglob("*.py")]
    assert {*modules, *(f"hfsafemerge/{name}" for name in wanted)} <= names
    assert not any(name.startswith(("tests/", "space/")) for name in names)


def identifiers(path):
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("name", "id", "arg", "attr"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield value


def test_names_are_those_of_the_glossary():
    found = {(path.name, name) for path in PACKAGE.rglob("*.py") for name in identifiers(path) if name.casefold() in NEVER}
    assert not found


def test_nothing_is_done_at_import():
    """Importing every module of the package touches neither the network nor the file system nor the environment."""
    code = (
        "import sys, pkgutil, importlib, socket, builtins\n"
        "import torch, transformers, datasets, huggingface_hub, cma, scipy.stats, matplotlib, fastapi, uvicorn\n"
        "def no(*a, **k): raise AssertionError('touched at import')\n"
        "socket.socket.connect = no\n"
        "import hfsafemerge\n"
        "for m in pkgutil.walk_packages(hfsafemerge.__path__, 'hfsafemerge.'):\n"
        "    if not m.name.endswith('__main__'): importlib.import_module(m.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_file_names_a_path_that_users_do_not_have():
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".jinja", ".css", "") and path.is_file():
            text = path.read_text(errors="ignore")
            assert not re.search(r"\.\./shared|/work/main|/root/", text) or name == "tests/test_project.py", name


def test_no_name_is_undefined():
    """The linter's check for it is off, since jaxtyping writes shapes as strings; what it finds elsewhere is a fault."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "--output-format", "json", "hfsafemerge", "space"]
    found = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout)
    assert found, "the linter did not run"
    lines = [(fault["filename"], fault["location"]["row"]) for fault in found]
    shapes = re.compile(r"""\[(Tensor|torch\.Tensor|NDArray).*["']""")
    assert not [(file, row) for file, row in lines if not shapes.search(Path(file).read_text().splitlines()[row - 1])]
