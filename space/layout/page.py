"""The page as a whole: seven steps, what their controls call, and the API."""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api as expose

from space import hardware, views
from space.accounts import can_sign_in, on_space
from space.actions import api, checking, data, models, publishing, results, running
from space.actions import headline as headlines
from space.actions import method as methods
from space.layout import after, before, method
from space.layout import models as choosing
from space.layout.steps import CHECK, DATA, HIDDEN, LABELS, METHOD, MODELS, PUBLISH, RESULTS, RUN, SHOWN, Controls, to
from space.sweeping import sweep
from space.theme import theme

STYLE = Path(__file__).parents[1] / "style.css"
REMEMBERED: dict[str, Any] = {
    "storage_key": "hfsafemerge-job",
    "secret": "job ids need none",
}  # fixed, so that they outlive a restart of the app
ABOUT = """# hfsafemerge

Merge expert language models without losing safety alignment, measure what came of it, and publish it with all that is needed to rebuild it.
"""
KEEP_ADDRESS = """(job) => {
  const address = new URL(window.location);
  if (job) address.searchParams.set("job", job); else address.searchParams.delete("job");
  window.history.replaceState(null, "", address);
  return job ? address.href : "";
}"""


def build() -> gr.Blocks:
    """The page and the API."""
    page = gr.Blocks(title="hfsafemerge", analytics_enabled=False, delete_cache=(3600, 3600))
    with page:
        with gr.Row(elem_id="top"):
            gr.Markdown(ABOUT, elem_id="about")
            if can_sign_in():
                gr.LoginButton(elem_id="sign-in", scale=0, min_width=220)
        with gr.Row(elem_id="hardware"):
            gr.HTML(views.help_text(hardware.said(hardware.detect())), elem_id="hardware-about")
            if on_space():
                gr.DuplicateButton("Duplicate this Space", elem_id="duplicate", variant="secondary", size="sm", scale=0, min_width=180)
        headline = gr.HTML(elem_id="headline")
        # No gr.Walkthrough: in that one nobody can go to a step ahead, not even to the results of a run that is done.
        with gr.Tabs(selected=MODELS, overflow_behavior="wrap", elem_id="steps") as steps:
            parts = []
            for number, (label, part) in enumerate(zip(LABELS, _parts(), strict=True)):
                with gr.Tab(label, id=number, elem_id=f"step-{label.lower()}", render_children=True):
                    parts.append(part())
        _connect(page, steps, headline, *parts)
        for function in (api.start, api.status, api.result, api.cancel):
            expose(function, api_name=function.__name__)
        expose(api.check, api_name="check", concurrency_limit=4)  # it and the next start processes
        expose(api.push, api_name="push", concurrency_limit=4)
    page.queue(max_size=200, default_concurrency_limit=8)
    return page


def _parts() -> tuple[Any, ...]:
    return choosing.step, before.check, before.data, method.step, after.run, after.results, after.publish


def _connect(
    page: gr.Blocks,
    steps: gr.Tabs,
    headline: gr.HTML,
    choose: Controls,
    check: Controls,
    data_: Controls,
    how: Controls,
    run: Controls,
    found: Controls,
    out: Controls,
) -> None:
    """What each control calls."""
    recipe = how.recipe
    shown = [choose.lab, choose.own, data_.lab, data_.own, how.lab, how.own]
    choose.source.change(models.choose, choose.source, shown, queue=False, **HIDDEN)
    fields = [choose.base, choose.experts, *data_.fields, how.method, how.strategy, how.objective, how.alpha]
    redraw: dict[str, Any] = {"fn": lambda count: count + 1, "inputs": how.redraw, "outputs": how.redraw, **HIDDEN}
    sync: dict[str, Any] = {"fn": methods.sync, "inputs": recipe, "outputs": [*fields, how.message], **HIDDEN}

    for box in (choose.base, choose.found):
        box.key_up(models.search, None, box, queue=False, trigger_mode="always_last", **HIDDEN)
    choose.preset.change(models.use_preset, [choose.preset, recipe], [recipe, choose.message], **HIDDEN).then(**sync).then(**redraw)
    keep: dict[str, Any] = {"fn": models.keep, "inputs": [recipe, choose.base, choose.experts], "outputs": recipe, **HIDDEN}
    choose.add.click(
        models.add, [choose.experts, choose.found, choose.topic], [choose.experts, choose.found, choose.topic, choose.message], **HIDDEN
    ).then(**keep)
    choose.base.change(**keep)
    with choose.listed:
        choosing.build_experts(choose, keep)
    choose.next.click(models.onward, [choose.source, recipe, choose.base, choose.experts], [recipe, choose.message, steps], **SHOWN)

    check.go.click(checking.check_models, [choose.source, recipe, choose.base], check.found, concurrency_limit=4, **SHOWN)
    check.send.click(checking.send_away, [recipe, check.flavor, check.target], check.sent, concurrency_limit=2, **SHOWN)

    for field in data_.fields:
        field.input(data.set_data, [recipe, *data_.fields], [recipe, data_.message], **HIDDEN)
    data_.show.click(data.estimate, recipe, data_.shown, concurrency_limit=2, **SHOWN)

    chosen = [how.method, how.strategy, how.objective, how.alpha]
    for field in chosen:
        field.input(methods.set_method, [recipe, *chosen], [recipe, how.message], **HIDDEN).then(**redraw)
    recipe.blur(**sync).then(**redraw)
    with how.advanced:
        method.build_advanced(page, how)

    planned = [choose.source, recipe, choose.base, choose.pool, how.method, how.strategy, how.evaluations]
    steps.change(checking.plan, planned, run.plan, **HIDDEN)
    ways = ((check, DATA, MODELS), (data_, METHOD, CHECK), (how, RUN, DATA), (run, RESULTS, METHOD), (found, PUBLISH, RUN))
    for part, onward, backward in (*ways, (out, None, RESULTS)):
        part.back.click(to(backward), None, steps, queue=False, **HIDDEN)
        if onward is not None:
            part.next.click(to(onward), None, steps, queue=False, **HIDDEN)
    _follow(page, steps, headline, choose, how, run, found, out)


def _follow(
    page: gr.Blocks, steps: gr.Tabs, headline: gr.HTML, choose: Controls, how: Controls, run: Controls, found: Controls, out: Controls
) -> None:
    """The job that the last three steps speak of, and the clock that looks at it."""
    job = gr.BrowserState("", **REMEMBERED)
    seen = gr.State("")
    timer = gr.Timer(2, active=False)
    look: dict[str, Any] = {"fn": running.watch, "inputs": job, "outputs": [run.stages, run.log, run.search, seen], **HIDDEN}
    lab = [choose.pool, how.method, how.strategy, how.evaluations]
    begun = run.start.click(running.begin, [choose.source, how.recipe, choose.base, *lab], [job, run.message], **SHOWN)
    restored = page.load(running.restore, job, [job, run.message, steps], **HIDDEN)
    picked = found.pick.click(results.pick, [job, found.number], [job, found.picked, steps], **SHOWN)
    for event in (begun, restored, picked):
        event.then(None, job, run.link, js=KEEP_ADDRESS, **HIDDEN).then(**look)
    timer.tick(**look)
    run.stages.change(headlines.headline, job, headline, **HIDDEN)
    seen.change(running.arrange, seen, [timer, run.start, run.cancel, run.cancelled], **HIDDEN)
    shown = [
        found.empty, found.section, found.table, found.plot, found.front, found.number, found.chat_note, found.models, found.samples,
        found.command, found.used, out.license, out.pushed,
    ]  # fmt: skip
    seen.change(results.arrange, seen, shown, **HIDDEN)
    run.cancel.click(running.stop, job, run.cancelled, **SHOWN).then(**look)
    found.ask.click(results.ask, [job, found.prompt, found.models], found.replies, concurrency_limit=1, **SHOWN)

    page.load(publishing.offer, None, [out.namespace, out.needed], **HIDDEN)
    where = [job, out.namespace, out.name, out.private, out.license]
    out.preview.click(
        publishing.preview, [*where, out.create_pr], [out.previewed, out.card, out.card_section], concurrency_limit=2, **SHOWN
    )
    out.push.click(publishing.publish, [*where, out.create_pr], out.pushed, concurrency_limit=4, **SHOWN)


def launch(page: gr.Blocks) -> None:
    """Serve the page; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where. What died while it was away is put in order first."""
    sweep()
    page.launch(
        theme=theme(),
        css_paths=STYLE,
        footer_links=["api"],
        mcp_server=api.has_mcp(),
        show_error=False,  # what is no message for the user is no business of theirs
        enable_monitoring=False,
        run_history=False,  # it would keep what people type
        ssr_mode=False,
        share=False,
        max_file_size="1mb",
        strict_cors=True,
    )
