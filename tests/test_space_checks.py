"""What is known before anything is spent: hardware, models found while typing, whether they fit together, and where a run fits."""

from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from hfsafemerge.errors import RunError
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.recipe import Recipe
from space import checks, elsewhere, hardware, hub_search
from space.actions import checking
from space.checks import Found, Place
from space.elsewhere import Flavor
from space.hardware import Hardware

pytestmark = pytest.mark.usefixtures("space_runs")
CPU = Hardware("cpu", "CPU", 0, 16 * 10**9, 50 * 10**9, 2)
GPU = Hardware("gpu", "NVIDIA A100", 80 * 10**9, 140 * 10**9, 500 * 10**9, 12)


def test_the_hardware_is_found_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = hardware.detect()
    assert found.cores >= 1 and found.memory_bytes > 10**9 and found.disk_bytes > 0
    assert (
        "runs on a CPU" in hardware.said(CPU) and "16.0 GB of memory" in hardware.said(CPU) and "duplicate this Space" in hardware.said(CPU)
    )
    assert "NVIDIA A100" in hardware.said(GPU) and "everything runs here" in hardware.said(GPU)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    zero = hardware.detect()
    assert (zero.kind, zero.gpu_bytes) == ("zero_gpu", hardware.ZERO_GPU) and "a minute or two at a time" in hardware.said(zero)


def test_a_container_has_the_memory_that_its_group_may_use(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("4096\n")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert hardware.detect().memory_bytes == 4096
    (tmp_path / "memory.max").write_text("max\n")
    assert hardware.detect().memory_bytes > 4096


def test_models_are_found_while_one_types_and_private_ones_by_who_may_see_them(lab_on_hub: str, repo_name: str) -> None:
    assert "alice/lab-aligned" in hub_search.search_models("lab-align", None)
    assert hub_search.search_models("a", None) == hub_search.search_models("  ", None) == []
    api = HfApi(token="hf_alice")
    name = f"alice/{repo_name}-secret"
    api.create_repo(name, private=True)
    files = {"config.json": b"{}", "model.safetensors": b"x", "README.md": b"---\npipeline_tag: text-generation\n---\n"}
    for file, content in files.items():
        api.upload_file(path_or_fileobj=content, path_in_repo=file, repo_id=name)
    assert hub_search.search_models(f"{repo_name}-secret", "hf_alice") == [name]
    assert hub_search.search_models(f"{repo_name}-secret", "hf_bob") == hub_search.search_models(f"{repo_name}-secret", None) == []


def test_typing_goes_on_where_the_hub_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_search, "HfApi", lambda **settings: HfApi(endpoint="http://127.0.0.1:9", **settings))
    assert hub_search.search_models("llama", None) == []


@pytest.fixture(scope="module")
def recipe(lab_on_hub: str) -> Recipe:
    return lab_recipe("checked", ("sums",), OnHub(lab_on_hub), writer=False)


def test_models_that_fit_together_are_told_with_what_they_take(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Flavor("t4-small", "Nvidia T4", 16 * 10**9, 0.4)]
    monkeypatch.setattr(elsewhere, "flavors", lambda: known)
    found = checks.look(recipe, "hf_alice", CPU)
    assert found.problems == [] and found.license == "apache-2.0"
    assert [row.role for row in found.rows][:2] == ["base", "sums"] and all(len(row.commit) == 12 for row in found.rows)
    size = found.rows[0].bytes
    assert found.gpu_bytes == pytest.approx(3.2 * size, rel=0.01)  # two models, one that runs and what running it takes
    assert [place.fits for place in found.places] == [True, True] and found.places[1].dollars_per_hour == 0.4
    shown = checking.show_found(found)
    assert "The models fit together." in shown and "alice/lab-aligned" in shown and "$0.40 an hour" in shown


def test_what_does_not_fit_together_is_told(recipe: Recipe) -> None:
    other = recipe.to_yaml().replace("alice/lab-sums-expert", "alice/lab-none")
    found = checks.look(Recipe.parse(other), "hf_alice", CPU)
    assert found.rows == [] and "alice/lab-none does not exist" in found.problems[0]
    assert 'class="note bad"' in checking.show_found(found)


def test_the_visitor_s_token_decides_what_is_seen(recipe: Recipe, on_space: None, lab: Path, repo_name: str) -> None:
    api = HfApi(token="hf_alice")
    name = f"alice/{repo_name}"
    api.create_repo(name, private=True)
    api.upload_folder(repo_id=name, folder_path=lab / "sums-expert")
    mine = Recipe.parse(recipe.to_yaml().replace("alice/lab-sums-expert", name))
    assert checks.look(mine, "hf_alice", CPU).problems == []
    for other in ("hf_bob", None):
        said = checks.look(mine, other, CPU).problems[0]
        assert "does not exist" in said and "hf auth login" not in said
        assert ("sign in with the button" in said) is (other is None)


@pytest.mark.parametrize(
    ("gpu_bytes", "disk_bytes", "machine", "fits", "why"),
    [
        (10**9, 10**9, CPU, True, "small enough"),
        (50 * 10**9, 10**9, CPU, False, "it would take days"),
        (10**9, 60 * 10**9, CPU, False, "60.0 GB of disk"),
        (3 * 10**9, 10**9, replace(CPU, memory_bytes=2 * 10**9), False, "3.0 GB of memory"),
        (50 * 10**9, 10**9, GPU, True, "the GPU has 80.0 GB"),
        (90 * 10**9, 10**9, GPU, False, "take turns"),
    ],
)
def test_where_a_run_fits(
    gpu_bytes: int, disk_bytes: int, machine: Hardware, fits: bool, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elsewhere, "flavors", list)
    (here,) = checks.places(gpu_bytes, disk_bytes, machine)
    assert here.fits is fits and why in here.why


def test_the_cheapest_machine_of_jobs_that_is_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [Flavor("small", "S", 16 * 10**9, 0.4), Flavor("large", "L", 80 * 10**9, 2.5), Flavor("huge", "H", 160 * 10**9, None)]
    monkeypatch.setattr(elsewhere, "flavors", lambda: known)
    assert [checks.places(need, 0, CPU)[1].name for need in (10**9, 40 * 10**9, 100 * 10**9)] == [
        "Hugging Face Jobs, small",
        "Hugging Face Jobs, large",
        "Hugging Face Jobs, huge",
    ]
    assert checks.places(10**12, 0, CPU)[1] == Place(
        "Hugging Face Jobs", False, "the run needs about 1000.0 GB on GPUs, and no machine has more than 160.0 GB"
    )


def test_what_jobs_cost_is_what_the_hub_says() -> None:
    known = elsewhere.flavors()
    assert known and all(flavor.gpu_bytes > 0 for flavor in known)
    prices = [flavor.dollars_per_hour for flavor in known]
    assert prices == sorted(prices)


def test_what_is_found_is_escaped() -> None:
    row = checks.Row("<b>", "<i>", "c", "<u>", "F32", 1, "<s>", "public")
    shown = checking.show_found(Found([row], [], ["<note>"], None, 0, 0, 0, None, [Place("<p>", True, "<q>")]))
    assert not any(tag in shown for tag in ("<b>", "<i>", "<u>", "<s>", "<note>", "<p>", "<q>"))
    assert "to be named by you" in shown


def test_a_run_that_does_not_fit_is_not_begun() -> None:
    small = Found([], [], [], None, 0, 0, 0, None, [Place("Here", False, "it would take days"), Place("Hugging Face Jobs, l4", True, "")])
    with pytest.raises(RunError, match=r"^This run does not fit here: it would take days. Hugging Face Jobs, l4 fits.$"):
        checks.refuse_misfit(small)
    checks.refuse_misfit(replace(small, places=[Place("Here", True, "")]))
    checks.refuse_misfit(replace(small, places=[], problems=["no such model"]))
