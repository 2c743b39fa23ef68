"""The steps Run, Results and Publish."""

import gradio as gr

from space import views
from space.actions.results import NOTHING
from space.layout.steps import Controls, buttons


def run() -> Controls:
    """Start it, see where it is, and stop it."""
    plan = gr.HTML(elem_id="plan")
    with gr.Row(elem_id="start-row"):
        start = gr.Button("Start the run", variant="primary", elem_id="start", scale=0, min_width=220)
        cancel = gr.Button("Cancel", variant="stop", visible=False, elem_id="cancel", scale=0, min_width=120)
    message = gr.HTML(elem_id="message")
    stages = gr.HTML(elem_id="stages")
    cancelled = gr.HTML(elem_id="cancel-message")
    link = gr.Textbox(
        label="The address of this run",
        info="It goes on when you close this page, and this leads back to it.",
        placeholder=" ",
        interactive=False,
        buttons=["copy"],
        elem_id="run-link",
    )
    search = gr.LinePlot(
        x="candidate",
        y="fitness",
        color="line",
        title="The search: fitness of each candidate",
        x_title="candidate",
        y_title="fitness (nats a token)",
        color_map={"candidate": "#94a3b8", "best so far": "#0f8462"},
        height=260,
        visible=False,
        buttons=["fullscreen"],
        elem_id="search-plot",
    )
    with gr.Accordion("Log", open=False, elem_id="log-section"):
        log = gr.Textbox(
            label="Log",
            show_label=False,
            container=False,
            lines=12,
            max_lines=12,
            interactive=False,
            buttons=["copy"],
            autoscroll=True,
            elem_id="log",
        )
    back, onward = buttons("run", "Next: the results", variant="secondary")
    return Controls(
        plan=plan, start=start, cancel=cancel, message=message, stages=stages, cancelled=cancelled, link=link, search=search, log=log,
        back=back, next=onward,
    )  # fmt: skip


def results() -> Controls:
    """What came of it: table, plots, a chat with all models, and other points of the front."""
    empty = gr.HTML(views.note(NOTHING), elem_id="results-empty")
    with gr.Column(visible=False, elem_id="results") as section:
        table = gr.HTML(elem_id="table")
        plot = gr.HTML(elem_id="plot")
        with gr.Accordion("Other merges that the search found", open=False, elem_id="front-section"):
            gr.Markdown(
                "Each point is a candidate: how likely the merge finds the refusals, against the answers of the experts. None on the "
                "front is beaten in both. Pick another one to have it merged and measured.",
                elem_id="front-about",
            )
            front = gr.ScatterPlot(
                x="domain",
                y="safety",
                color="point",
                tooltip="all",
                x_title="domain (nats a token)",
                y_title="safety (nats a token)",
                color_map={"this merge": "#c2410c", "on the front": "#0f8462", "beaten": "#94a3b8"},
                height=320,
                elem_id="front",
            )
            with gr.Row(elem_id="pick-row"):
                number = gr.Dropdown([], value=None, label="Candidate of the front", elem_id="pick-number", interactive=True)
                pick = gr.Button("Merge and measure it", elem_id="pick", elem_classes="action")
            picked = gr.HTML(elem_id="pick-message")
        with gr.Accordion("Ask the models side by side", open=False, elem_id="chat-section"):
            chat_note = gr.HTML(elem_id="chat-note")
            prompt = gr.Textbox(label="Your question", lines=2, max_length=2000, elem_id="prompt", interactive=True)
            models = gr.CheckboxGroup([], label="Whom to ask", elem_id="chat-models", interactive=True)
            ask = gr.Button("Ask", elem_id="ask", elem_classes="action")
            replies = gr.HTML(elem_id="replies")
        with gr.Accordion("Data that steered it", open=False, elem_id="samples-section"):
            samples = gr.HTML(elem_id="samples")
        with gr.Accordion("Repeat it in a terminal", open=False, elem_id="repeat-section"):
            command = gr.Code(language="shell", show_label=False, interactive=False, show_line_numbers=False, elem_id="command")
            used = gr.Code(language="yaml", label="recipe.yaml", interactive=False, buttons=["copy", "download"], elem_id="used-recipe")
    back, onward = buttons("results", "Next: publish it")
    return Controls(
        empty=empty, section=section, table=table, plot=plot, front=front, number=number, pick=pick, picked=picked, chat_note=chat_note,
        prompt=prompt, models=models, ask=ask, replies=replies, samples=samples, command=command, used=used, back=back, next=onward,
    )  # fmt: skip


def publish() -> Controls:
    """Where it goes, who may see it, and what the card says."""
    needed = gr.HTML(elem_id="publish-needed")
    with gr.Row():
        namespace = gr.Dropdown([], value=None, label="Namespace", allow_custom_value=True, elem_id="namespace", interactive=True)
        name = gr.Textbox(label="Name of the model", placeholder="my-merge", elem_id="repo-name", interactive=True)
        follows = "empty: as it follows from the models'"
        license = gr.Textbox(label="Licence", placeholder=follows, elem_id="license", interactive=True)
    with gr.Row():
        private = gr.Checkbox(True, label="Private", info="You can make it public on the Hub later.", elem_id="private", interactive=True)
        create_pr = gr.Checkbox(
            False, label="As a pull request", info="In a repository that is there already.", elem_id="create-pr", interactive=True
        )
    with gr.Row(elem_id="publish-row"):
        preview = gr.Button("Preview", elem_id="preview", scale=0, min_width=140)
        push = gr.Button("Publish model, card and data", variant="primary", elem_id="push", scale=0, min_width=260)
    pushed = gr.HTML(elem_id="push-message")
    previewed = gr.HTML(elem_id="preview-files")
    with gr.Accordion("The card", open=False, visible=False, elem_id="card-section") as card_section:
        card = gr.Markdown(elem_id="card", sanitize_html=True)
    back, _ = buttons("publish", None)
    return Controls(
        needed=needed, namespace=namespace, name=name, license=license, private=private, create_pr=create_pr, preview=preview, push=push,
        pushed=pushed, previewed=previewed, card_section=card_section, card=card, back=back,
    )  # fmt: skip
