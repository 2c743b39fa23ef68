"""The page: which controls there are, and which action each one calls. No logic."""

from pathlib import Path
from types import SimpleNamespace as Controls
from typing import Any

import gradio as gr
from gradio.events import api as expose

from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES
from space.accounts import can_sign_in
from space.actions import api, checking, models, publishing, running
from space.actions import method as methods
from space.forms import presets

STYLE = Path(__file__).parents[1] / "style.css"
REMEMBERED: dict[str, Any] = {
    "storage_key": "hfsafemerge-job",
    "secret": "job ids need none",
}  # fixed, so that they outlive a restart of the app
ABOUT = """# hfsafemerge

Merge expert language models from the Hugging Face Hub without losing safety alignment, measure the result,
and publish it with all that is needed to rebuild it.
"""
LAB = """The lab is a small invented world with its own language models: an aligned base, experts, a writer of questions and a guard.
They are trained on this machine the first time, in about 2 minutes on two free cores. Then the whole flow runs on them,
as it does on large ones: data, search, merge, evaluation. Nothing is downloaded."""
KEEP_ADDRESS = """(job) => {
  const address = new URL(window.location);
  if (job) address.searchParams.set("job", job); else address.searchParams.delete("job");
  window.history.replaceState(null, "", address);
}"""
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # of the page alone, and too short to show that it works
SHOWN: dict[str, Any] = {"api_visibility": "private"}


def build() -> gr.Blocks:
    """The page and the API."""
    page = gr.Blocks(title="hfsafemerge", analytics_enabled=False)
    with page:
        gr.Markdown(ABOUT, elem_id="about")
        if can_sign_in():
            gr.LoginButton(elem_id="sign-in")
        models = _models()
        watching = _watching()
        results = _results()
        _connect(page, models, watching, results)
        for function in (api.check, api.start, api.status, api.result, api.cancel):
            expose(function, api_name=function.__name__)
        expose(api.push, api_name="push", concurrency_limit=4)
    page.queue(default_concurrency_limit=8)
    return page


def _models() -> Controls:
    """What to merge, and the buttons that check and start it."""
    gr.Markdown("## 1. Choose the models", elem_id="models-heading")
    sources = [("Try it in the lab", "lab"), ("Your models", "own")]
    source = gr.Radio(sources, value="lab", label="What to merge", elem_id="source", interactive=True)
    lab_note = gr.Markdown(LAB, elem_id="lab-note")
    with gr.Column(visible=False, elem_id="own-models") as own:
        base = gr.Textbox("meta-llama/Meta-Llama-3-8B-Instruct", label="Base: the aligned model", elem_id="base", interactive=True)
        experts = gr.Dataframe(
            [["aaditya/Llama3-OpenBioLLM-8B", "biology"], ["", ""], ["", ""]],
            headers=["Repository", "Topic"],
            type="array",
            column_count=2,
            column_widths=["70%", "30%"],
            wrap=True,
            label="Experts: fine-tuned from the same model as the base",
            interactive=True,
            buttons=[],
            elem_id="experts",
        )
        with gr.Row():
            with gr.Column():
                method = gr.Dropdown(MERGE_METHODS.names(), value="ties", label="Merge method", elem_id="method", interactive=True)
                method_help = gr.HTML(methods.explain_method("ties"), elem_id="method-help")
            with gr.Column():
                names = SEARCH_STRATEGIES.names()
                strategy = gr.Dropdown(names, value="cma_es", label="Search strategy", elem_id="strategy", interactive=True)
                strategy_help = gr.HTML(methods.explain_strategy("cma_es"), elem_id="strategy-help")
        fill = gr.Button("Write the recipe from these fields", elem_id="fill")
        recipe = gr.Code(
            presets.shipped_recipe(),
            language="yaml",
            label="Recipe: this is what runs",
            lines=12,
            max_lines=20,
            wrap_lines=True,
            interactive=True,
            buttons=["copy", "download"],
            elem_id="recipe",
        )
    gr.Markdown("## 2. Start", elem_id="start-heading")
    with gr.Row():
        check = gr.Button("Check recipe", visible=False, elem_id="check")
        start = gr.Button("Start", variant="primary", elem_id="start")
    message = gr.HTML(elem_id="message")
    source.change(models.choose, source, [lab_note, own, check], queue=False, **HIDDEN)
    method.change(methods.explain_method, method, method_help, queue=False, **HIDDEN)
    strategy.change(methods.explain_strategy, strategy, strategy_help, queue=False, **HIDDEN)
    fill.click(methods.fill, [base, experts, method, strategy], [recipe, message], **SHOWN)
    check.click(checking.show_check, recipe, message, **SHOWN)
    return Controls(source=source, recipe=recipe, start=start, message=message)


def _watching() -> Controls:
    """Where a run is, and the button that cancels it."""
    with gr.Column(visible=False, elem_id="watching") as section:
        gr.Markdown("## 3. Watch", elem_id="watch-heading")
        stages = gr.HTML(elem_id="stages")
        cancel = gr.Button("Cancel", variant="stop", elem_id="cancel")
        cancelled = gr.HTML(elem_id="cancel-message")
        with gr.Accordion("Log", open=False, elem_id="log-section"):
            log = gr.Textbox(show_label=False, lines=10, max_lines=10, interactive=False, buttons=["copy"], elem_id="log")
    return Controls(section=section, stages=stages, cancel=cancel, cancelled=cancelled, log=log)


def _results() -> Controls:
    """What came of a run, and the fields for publishing it."""
    with gr.Column(visible=False, elem_id="results") as section:
        gr.Markdown("## 4. Results", elem_id="results-heading")
        table = gr.HTML(elem_id="table")
        plot = gr.HTML(elem_id="plot")
        command = gr.Code(label="Repeat it in a terminal", language="shell", interactive=False, show_line_numbers=False, elem_id="command")
        with gr.Accordion("Recipe of this run", open=False, elem_id="used-recipe-section"):
            used = gr.Code(language="yaml", show_label=False, interactive=False, buttons=["copy", "download"], elem_id="used-recipe")
        gr.Markdown("## 5. Publish", elem_id="publish-heading")
        with gr.Row():
            repo_id = gr.Textbox(label="Repository", placeholder="namespace/name", elem_id="repo-id", interactive=True)
            follows = "empty: as it follows from the models' licences"
            license = gr.Textbox(label="Licence", placeholder=follows, elem_id="license", interactive=True)
        private = gr.Checkbox(True, label="Private", elem_id="private", interactive=True)
        push = gr.Button("Publish the model, its card and its data", variant="primary", elem_id="push")
        pushed = gr.HTML(elem_id="push-message")
    shown = [section, table, plot, command, used, license, pushed]
    return Controls(shown=shown, fields=[repo_id, private, license], push=push, pushed=pushed)


def _connect(page: gr.Blocks, models: Controls, watching: Controls, results: Controls) -> None:
    """The job that all three parts speak of, and the clock that looks at it."""
    job = gr.BrowserState("", **REMEMBERED)
    seen = gr.State("")
    timer = gr.Timer(2, active=False)
    look: dict[str, Any] = {"fn": running.watch, "inputs": job, "outputs": [watching.stages, watching.log, seen], **HIDDEN}
    begun = models.start.click(running.begin, [models.source, models.recipe], [job, models.message], **SHOWN)
    restored = page.load(running.restore, job, [job, models.message], **HIDDEN)
    for found in (begun, restored):
        found.then(None, job, None, js=KEEP_ADDRESS, **HIDDEN).then(**look)
    timer.tick(**look)
    seen.change(running.arrange, seen, [watching.section, timer, watching.cancel, watching.cancelled, *results.shown], **HIDDEN)
    watching.cancel.click(running.stop, job, watching.cancelled, **SHOWN).then(**look)
    results.push.click(publishing.publish, [job, *results.fields], results.pushed, concurrency_limit=4, **SHOWN)


def launch(page: gr.Blocks) -> None:
    """Serve the page; GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where."""
    theme = gr.themes.Default(
        primary_hue="teal", neutral_hue="slate", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    ).set(button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800")
    page.launch(
        theme=theme,
        css_paths=STYLE,
        footer_links=["api"],
        show_error=False,  # what is no message for the user is no business of theirs
        enable_monitoring=False,
        run_history=False,  # it would keep what people type
        ssr_mode=False,
        share=False,
        max_file_size="1mb",
    )
