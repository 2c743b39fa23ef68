"""What is shown, and that every control has an id and the API its names."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from space_cases import SCORES, SMALL, finished_job

from space import layout, views
from space.actions import method, models, publishing, results, running

pytestmark = pytest.mark.usefixtures("space_runs")

ENDPOINTS = {"/check", "/start", "/status", "/result", "/cancel", "/push"}


def test_what_is_shown_is_escaped() -> None:
    shown = views.table(SCORES)
    assert "<b>expert" not in shown and "&lt;b&gt;expert&lt;/b&gt;" in shown
    assert "80.0 (70.0-90.0)" in shown and "alignment ↑" in shown and "n = 200 for each" in shown
    assert 'src="data:image/svg+xml;base64,' in views.plot(SCORES) and "<b>" not in views.plot(SCORES)
    assert views.note("<script>", "bad") == '<p class="note bad" role="status">&lt;script&gt;</p>'
    assert 'href="http://hub/&quot;x"' in views.link("At", 'http://hub/"x')


def test_two_judges_of_one_metric_have_columns_of_their_own() -> None:
    one, other = ({**SCORES["base"][0], "judge": judge} for judge in ("llama_guard", "qwen3guard"))
    shown = views.table({"base": [one, other, SCORES["base"][1]]})
    assert "alignment (llama_guard) ↑" in shown and "alignment (qwen3guard) ↑" in shown and "accuracy ↑" in shown


def test_results_without_benchmarks_or_skill() -> None:
    assert "nothing was measured" in views.table({"merged": []})
    assert views.plot({"merged": [{"benchmark": "harmful", "metric": "alignment", "value": 1.0, "n": 1, "ci95": [0.2, 1.0]}]}) == ""


def test_the_address_leads_back_to_a_run(space_runs: Path) -> None:
    job = finished_job(space_runs)

    def restore(remembered: str, **query: str) -> tuple[str, str]:
        request: Any = SimpleNamespace(query_params=query)
        return running.restore(remembered, request)

    assert restore("", job=job.id) == restore("1" * 32, job=job.id) == restore(job.id) == (job.id, "")
    assert restore("") == restore("1" * 32) == ("", "")  # a run that the browser remembers and nobody else
    assert "There is no run" in restore(job.id, job="../x")[1]


def test_the_page_arranges_itself_by_the_phase(space_runs: Path) -> None:
    job = finished_job(space_runs)
    shown, log, seen = running.watch(job.id)
    assert "Finished" in shown and log == "" and seen == f"{job.id} done"
    assert running.watch("gone") == ("", "", "")
    arranged = {phase: running.arrange(f"{job.id} {phase}") for phase in ("running", "stopping", "cancelled", "failed", "done")}
    arranged[""] = running.arrange("")
    assert len({len(values) for values in arranged.values()}) == 1
    assert [arranged[phase][1].active for phase in ("running", "stopping", "done", "")] == [True, True, False, False]
    assert "<table>" in arranged["done"][5] and "hfsafemerge run recipe.yaml" in arranged["done"][7]
    assert "hfsafemerge init" not in results.command(lab=False)


def test_filling_and_starting_answer_with_messages() -> None:
    assert "Name the base" in method.fill("", [], "ties", "cma_es")[1]
    recipe, said = method.fill("me/base", [["me/law", "law"]], "ties", "cma_es")
    assert "me/law" in recipe and "has no rows for law" in said
    assert "recipe is empty" in running.begin("own", " ", None)[1]
    assert "mrge" in running.begin("own", SMALL.replace("merge:", "mrge:"), None)[1]
    assert [update["visible"] for update in models.choose("own")] == [False, True, True]
    assert "There is no run" in running.stop("x")
    assert "There is no run" in publishing.publish("x", "me/merge", True, "", None)


def test_every_control_has_an_id_and_the_api_has_names() -> None:
    async def build() -> gr.Blocks:
        return layout.build()

    page = asyncio.run(build())  # outside of a loop Gradio makes loops that it never closes
    invisible = (gr.State, gr.BrowserState, gr.Timer, gr.Row, gr.Column)
    found = [block for block in page.blocks.values() if not isinstance(block, invisible) and block.get_block_name() not in ("api", "form")]
    assert len(found) > 25 and [type(block) for block in found if not block.elem_id] == []
    assert len({block.elem_id for block in found}) == len(found)
    assert set(page.get_api_info()["named_endpoints"]) == ENDPOINTS
