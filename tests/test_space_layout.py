"""What is shown of each state, that all of it is escaped, and that every control has an id and the API its names and no more."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from space_cases import SCORES, SMALL, finished_job

from hfsafemerge.running import clock
from space import layout, views
from space.actions import checking, method, models
from space.actions.headline import headline
from space.forms.presets import FIRST, preset
from space.progress import Phase, StageState, Status
from space.summary import summary

pytestmark = pytest.mark.usefixtures("space_runs")

ROOT = Path(__file__).parent.parent
ENDPOINTS = {"/check", "/start", "/status", "/result", "/cancel", "/push"}
EVIL = '<img src=x onerror="x">'
RUNNING = Status(
    job="0" * 32,
    phase="running",
    stages=[StageState("lab", "done", 75.0), StageState("search", "running", 9.0), StageState("merge", "waiting", 0.0)],
    stage="search",
    message="candidate",
    done=12,
    total=60,
    eta=95.0,
    error="",
    log="",
)


def compared(difference: float, ci95: Sequence[float], better: str = "higher") -> dict[str, Any]:
    about = {"benchmark": "harmful", "metric": "alignment", "model": "merged", "other": "base", "n": 200, "better": better}
    return {"scores": SCORES, "comparisons": [{**about, "difference": difference, "ci95": list(ci95)}]}


def build() -> gr.Blocks:
    async def built() -> gr.Blocks:
        return layout.build()

    return asyncio.run(built())  # outside of a loop Gradio makes loops that it never closes


def test_what_is_shown_is_escaped() -> None:
    shown = views.table(SCORES)
    assert "<b>expert" not in shown and "&lt;b&gt;expert&lt;/b&gt;" in shown
    assert "80.0 (70.0-90.0)" in shown and "alignment ↑" in shown and "n = 200 for each" in shown
    assert 'src="data:image/svg+xml;base64,' in views.plot(SCORES) and "<b>" not in views.plot(SCORES)
    assert views.note("<script>", "bad") == '<p class="note bad" role="status">&lt;script&gt;</p>' and views.note("") == ""
    assert 'href="http://hub/&quot;x"' in views.link("At", 'http://hub/"x')
    about = {"repo_id": EVIL, "private": True, "new": True, "private_because": [EVIL]}
    files = {"files": [{"repo_id": EVIL, "path": EVIL, "size": 1}]}
    data = {"datasets": [{"rows": 1, "kind": EVIL, "repo_id": EVIL, "private": True, "gated": True}]}
    others = [
        views.watch(replace(RUNNING, message=EVIL, stage="search")),
        views.watch(replace(RUNNING, phase="failed", error=EVIL)),
        views.headline(replace(RUNNING, stage=EVIL)),
        views.side_by_side({EVIL: EVIL}),
        views.samples({EVIL: [(EVIL, EVIL)]}),
        views.preview(about | files | data),
        views.estimate([{EVIL: EVIL}]),
        views.model(EVIL),
        views.help_text(EVIL),
        views.heading(EVIL, EVIL),
        summary({"scores": {"merged": [], "base": []}, "comparisons": [compared(0, (0, 0))["comparisons"][0] | {"benchmark": EVIL}]}),
    ]
    assert ["<img" in shown or "&lt;" not in shown for shown in others] == [False] * len(others)


def test_two_judges_of_one_metric_have_columns_of_their_own() -> None:
    one, other = ({**SCORES["base"][0], "judge": judge} for judge in ("llama_guard", "qwen3guard"))
    shown = views.table({"base": [one, other, SCORES["base"][1]]})
    assert "alignment (llama_guard) ↑" in shown and "alignment (qwen3guard) ↑" in shown and "accuracy ↑" in shown


def test_results_without_benchmarks_or_skill() -> None:
    assert "nothing was measured" in views.table({"merged": []}) and summary({"scores": {}, "comparisons": []}) == ""
    assert views.plot({"merged": [{"benchmark": "harmful", "metric": "alignment", "value": 1.0, "n": 1, "ci95": [0.2, 1.0]}]}) == ""


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (compared(0.01, (-0.02, 0.04)), "+1.0 points (95% interval −2.0 to +4.0), 200 items can't tell that from no difference."),
        (compared(0.05, (0.02, 0.08)), "better than the base by more than chance explains."),
        (compared(-0.05, (-0.08, -0.02)), "worse than the base by more than chance explains."),
        (compared(0.05, (0.02, 0.08), "lower"), "worse than the base by more than chance explains."),
    ],
    ids=["no telling", "better", "worse", "worse as it is higher"],
)
def test_the_numbers_in_plain_words(result: dict[str, Any], said: str) -> None:
    shown = summary(result)
    assert said in shown and "<strong>Alignment on harmful:</strong> 90.0% for the merge, 90.0% for the base;" in shown
    assert "Measured on these prompts alone" in shown
    assert not {"safe", "aligned", "harmless"} & set(shown.lower().replace(".", " ").replace(",", " ").split())


@pytest.mark.parametrize(
    ("phase", "more", "kind", "said"),
    [
        ("queued", {"position": 3}, "plain", "Waiting</strong>: number 3 in the queue"),
        ("running", {}, "plain", "Running</strong>"),
        ("stopping", {"eta": None}, "plain", "Stopping</strong>"),
        ("done", {}, "good", "Finished</strong>"),
        ("cancelled", {}, "plain", "Cancelled</strong>"),
        ("failed", {"error": "The disk is full."}, "bad", "Failed</strong>: The disk is full."),
        ("lost", {"error": "The app was started again."}, "bad", "Lost</strong>: The app was started again."),
    ],
)
def test_each_phase_of_a_run(phase: Phase, more: dict[str, Any], kind: str, said: str) -> None:
    status = replace(RUNNING, phase=phase, **more)
    shown, line = views.watch(status), views.headline(status)
    assert f'<p class="note {kind}" role="status"><strong>{said}' in shown and shown.count("<li") == 3
    assert views.HEADS[phase] in line and ("number 3" in line) == (phase == "queued")
    assert ("The step Results" in line) == (phase == "done") and ("says why" in line) == (phase in ("cancelled", "failed", "lost"))


def test_what_is_being_done_stands_at_its_stage() -> None:
    shown = views.watch(RUNNING)
    assert '<progress max="60" value="12">' in shown and f"candidate 12 of 60, about {clock(95.0)} left" in shown
    assert shown.index("Search the parameters") < shown.index("<progress") < shown.index("Merge the weights")
    assert "<progress" not in views.watch(replace(RUNNING, total=0)) and " left" not in views.watch(replace(RUNNING, eta=None))
    assert "search the parameters, 12 of 60" in views.headline(RUNNING)


def test_the_headline_is_of_a_run_that_there_is(space_runs: Path) -> None:
    assert headline("", None) == headline("1" * 32, None) == ""
    assert "Finished" in headline(finished_job(space_runs).id, None)


def test_experts_are_added_changed_and_removed() -> None:
    rows, *emptied, said = models.add([], " me/law ", "law")
    assert (rows, emptied, said) == ([["me/law", "law"]], [None, ""], "")
    rows = models.add(rows, "me/sums", None)[0]
    assert rows == [["me/law", "law"], ["me/sums", ""]]
    assert "is an expert already" in models.add(rows, "me/law", "")[3] and "Name an expert" in models.add(rows, " ", "law")[3]
    assert models.change_topic("me/sums", rows, "physics") == [["me/law", "law"], ["me/sums", "physics"]]
    assert models.change_topic("me/law", rows, None) == [["me/law", ""], ["me/sums", ""]]
    assert models.remove("me/law", rows) == [["me/sums", ""]]
    assert models.keep(SMALL, "me/base", []) == models.keep(SMALL, None, rows) == SMALL
    named = models.keep(SMALL, "me/base", [["me/sums", "sums"]])
    assert "me/base" in named and "me/sums" in named


def test_what_a_run_would_do_is_said_before_it() -> None:
    lab = checking.plan("lab", "", None, "three", "linear", "cma_es", None)
    assert "note good" in lab and "linear merges sums, reverse" in lab
    assert "note bad" in checking.plan("lab", "", None, "three", "linear", "led", 4)
    own = checking.plan("own", SMALL, None, "three", "linear", "cma_es", None)
    assert "note good" in own and "ties merges" in own
    untouched = preset(FIRST)
    otherwise, _ = method.set_method(untouched, "linear", "cma_es", "weighted", None)
    assert otherwise != untouched
    for recipe in (untouched, otherwise):  # who has changed the method has named no models either
        said = checking.plan("own", recipe, None, "pair", "ties", "cma_es", 4)
        assert "note bad" in said and "Name a base and its experts first" in said
    assert "Name a base and its experts first" in checking.check_models("own", untouched, "", None)
    assert "note good" in checking.plan("own", untouched, "meta-llama/Meta-Llama-3-8B-Instruct", "pair", "ties", "cma_es", 4)
    assert "mrge" in checking.plan("own", SMALL.replace("merge:", "mrge:"), None, "pair", "ties", "cma_es", None)


def test_the_page_is_built_without_what_only_runs_need() -> None:
    heavy = ("transformers", "datasets", "accelerate", "scipy")
    code = f"import sys, app; app.build(); print([name for name in {heavy} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert found.stdout.strip() == "[]", found


def test_every_control_has_an_id_of_its_own() -> None:
    page = build()
    invisible = (gr.State, gr.BrowserState, gr.Timer, gr.Row, gr.Column)
    found = [block for block in page.blocks.values() if not isinstance(block, invisible) and block.get_block_name() not in ("api", "form")]
    assert len(found) > 60 and [type(block) for block in found if not block.elem_id] == []
    assert len({block.elem_id for block in found}) == len(found)
    fields = [block for block in found if isinstance(block, (gr.Textbox, gr.Dropdown, gr.Number, gr.Radio, gr.Checkbox, gr.CheckboxGroup))]
    assert [block.elem_id for block in fields if not block.label] == []
    assert [block.id for block in found if isinstance(block, gr.Tab)] == list(range(7))


def test_the_api_has_its_names_and_the_page_gives_it_no_more() -> None:
    page = build()
    info = page.get_api_info()
    assert set(info["named_endpoints"]) == ENDPOINTS and info["unnamed_endpoints"] == {}
    shown = [function for function in page.fns.values() if function.api_visibility != "private"]
    assert {f"/{function.api_name}" for function in shown if function.renderable is None} == ENDPOINTS
    assert len([function for function in shown if function.renderable is not None]) == 2  # Gradio's own, that draw parts of the page


def test_only_a_space_can_be_duplicated(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not any(isinstance(block, (gr.DuplicateButton, gr.LoginButton)) for block in build().blocks.values())
    monkeypatch.setenv("SYSTEM", "spaces")
    assert [block.elem_id for block in build().blocks.values() if isinstance(block, (gr.DuplicateButton, gr.LoginButton))] == ["duplicate"]
