"""What the Hub reads of this repository when it becomes a Space: the front matter of README.md, and requirements.txt."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import httpx
import yaml
from huggingface_hub import SpaceHardware
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FRONT: dict[str, Any] = yaml.safe_load(README.split("---\n")[1])


def _lines(file: str) -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / file).read_text().splitlines() if line and not line.startswith("#")]


REQUIRED = _lines("requirements.txt")
REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")

NOT_ASKED_FOR = {  # what is imported and not required, and why
    "codecarbon": "the extra emissions",
    "pycountry": "comes with codecarbon",
    "lm-eval": "the extra lm-eval",
    "ray": "the extra ray",
    "spaces": "Hugging Face installs it on its Spaces; elsewhere it is not needed",
}
NOT_IMPORTED = {"bitsandbytes": "transformers imports it, to quantize"}


def test_the_hub_takes_the_card(hub_url: str) -> None:
    def ask(content: str) -> httpx.Response:
        return httpx.post(f"{hub_url}/api/validate-yaml", json={"repoType": "space", "content": content})

    answer = ask(README)
    assert (answer.status_code, answer.json()) == (200, {"errors": [], "warnings": []})
    assert ask(README.replace("sdk: gradio\n", "sdk: flutter\n")).status_code == 400


def test_the_machine() -> None:
    assert FRONT["sdk"] == "gradio" and [f"=={FRONT['sdk_version']}"] == [
        str(each.specifier) for each in _lines("constraints.txt") if each.name == "gradio"
    ]
    assert FRONT["python_version"] in ("3.12", "3.12.12")  # 3.10 unless it is said, and no other of these two is on ZeroGPU
    assert (ROOT / FRONT["app_file"]).is_file()
    assert SpaceHardware(FRONT["suggested_hardware"])


def test_what_a_person_reads() -> None:
    assert 0 < len(FRONT["short_description"]) <= 60
    assert FRONT["license"] == "apache-2.0" and FRONT["title"] and len(FRONT["emoji"]) <= 2
    assert len(FRONT["tags"]) == len(set(FRONT["tags"])) > 0


def test_sign_in_asks_for_no_more_than_is_used() -> None:
    from space.jobs import HOURS

    assert FRONT["hf_oauth"] is True
    # Repositories that this app made, those that the visitor was let into, and runs on machines that the visitor pays.
    assert set(FRONT["hf_oauth_scopes"]) <= {"contribute-repos", "gated-repos", "jobs"}
    assert 60 * HOURS <= FRONT["hf_oauth_expiration_minutes"] <= 43200  # a run is published after it, with the sign-in of before it


def test_the_models_and_datasets_are_those_that_the_page_offers() -> None:
    from hfsafemerge.judges.qwen3guard import MODEL
    from space.forms.presets import PRESETS, preset
    from space.forms.recipes import read

    fields = [read(preset(name)) for name in PRESETS]
    models = {model.partition("@")[0] for each in fields for model in (each.base, *(expert.model for expert in each.experts))}
    offered = {found for name in PRESETS for found in re.findall(r"repo_id: ([\w./-]+)", preset(name))}
    assert models <= set(FRONT["models"])
    assert {"PKU-Alignment/BeaverTails", "cais/mmlu"} <= set(FRONT["datasets"])
    named = [*FRONT["models"], *FRONT["datasets"]]
    assert all(REPO_ID.fullmatch(name) for name in named) and len(set(named)) == len(named)
    assert set(named) <= offered | {MODEL}, "neither in a preset nor the guard of the page"


def test_requirements_are_what_is_imported() -> None:
    imported = {name: places for name, places in _imported().items() if name not in NOT_ASKED_FOR}
    required = {canonicalize_name(each.name) for each in REQUIRED}
    assert {name: places for name, places in imported.items() if name not in required} == {}
    assert required - set(imported) - set(NOT_IMPORTED) == set()


def test_requirements_allow_what_was_tested_and_what_spaces_offer() -> None:
    tested = _lines("constraints.txt")
    for each in REQUIRED:
        pins = [pin for pinned in tested if canonicalize_name(pinned.name) == canonicalize_name(each.name) for pin in pinned.specifier]
        assert pins and all(pin.operator == "==" and pin.version in each.specifier for pin in pins), each
        assert not each.url and not any(part.operator in ("==", "===") for part in each.specifier), each
    torch = next(each for each in REQUIRED if each.name == "torch")
    assert all(version in torch.specifier for version in ("2.8.0", "2.11.0"))  # the oldest and newest on ZeroGPU
    gradio = next(each for each in REQUIRED if each.name == "gradio")
    assert FRONT["sdk_version"] in gradio.specifier and "oauth" in gradio.extras


def _imported() -> dict[str, list[str]]:
    """By distribution that is not Python's or ours, the files of the Space that import it."""
    known, found = packages_distributions(), dict[str, list[str]]()
    for file in [ROOT / "app.py", *(ROOT / "space").rglob("*.py"), *(ROOT / "hfsafemerge").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names = [node.module]
            for module in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"space", "hfsafemerge"}:
                found.setdefault(canonicalize_name(known.get(module, [module])[0]), []).append(str(file.relative_to(ROOT)))
    return found
