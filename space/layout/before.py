"""The steps Check and Data: what is known before anything is spent, and what steers and measures the merge."""

from collections.abc import Mapping

import gradio as gr

from space.forms.fields import BENIGN, DOMAIN, GUARDS, SAFETY, SUITES
from space.layout.steps import Controls, buttons


def check() -> Controls:
    """Do the models fit together, what do they take, and where."""
    gr.Markdown(
        "Reads configurations and the headers of the weights, and downloads none of them: whether the models fit together, under "
        "which licence a merge would be, what it takes of disk, memory and time, and where it could run.",
        elem_id="check-about",
    )
    go = gr.Button("Check the models", elem_id="check", elem_classes="action")
    found = gr.HTML(elem_id="check-found")
    with gr.Accordion("Run it on Hugging Face Jobs, on your own account", open=False, elem_id="jobs-section"):
        gr.Markdown("The whole run, with its publishing, on a machine that you pay for by the minute. Sign in first.", elem_id="jobs-about")
        with gr.Row():
            flavor = gr.Textbox(label="Machine", placeholder="a100-large", elem_id="jobs-flavor", interactive=True)
            target = gr.Textbox(label="Publish as", placeholder="namespace/name", elem_id="jobs-target", interactive=True)
        send = gr.Button("Send the run to Jobs", elem_id="jobs-send", elem_classes="action")
        sent = gr.HTML(elem_id="jobs-message")
    back, onward = buttons("check", "Next: the data")
    return Controls(go=go, found=found, flavor=flavor, target=target, send=send, sent=sent, back=back, next=onward)


def data() -> Controls:
    """What steers the merge, and what measures it."""
    lab = gr.Markdown(
        "The lab makes its own data: invented harmful requests with refusals, questions of the experts' domains with their answers, and "
        "held-out items to measure on. Nothing to choose here.",
        elem_id="lab-data",
    )
    with gr.Column(visible=False, elem_id="own-data") as own:
        gr.Markdown(
            "Harmful requests are paired with refusals that a guard has checked; a compliant answer is never kept or shown, and neither "
            "are the requests. What is made for the experts' skills is shown after the run.",
            elem_id="data-about",
        )
        safety = _choice("Safety", SAFETY, "beavertails", "safety")
        domain = _choice("The experts' skills", DOMAIN, "shown", "domain")
        benign = _choice("Harmless look-alikes", BENIGN, "none", "benign")
        with gr.Row():
            guard = _choice("Guard", GUARDS, "qwen3guard", "guard")
            count = gr.Number(1000, precision=0, minimum=1, label="Questions of each kind", elem_id="count", interactive=True)
        suite = _choice("Benchmarks to measure on", SUITES, "quick", "suite")
        show = gr.Button("What would be made?", elem_id="estimate-data", elem_classes="action")
        shown = gr.HTML(elem_id="data-estimate")
    message = gr.HTML(elem_id="data-message")
    back, onward = buttons("data", "Next: the method")
    fields = [guard, safety, domain, benign, count, suite]
    return Controls(lab=lab, own=own, fields=fields, show=show, shown=shown, message=message, back=back, next=onward)


def _choice(label: str, says: Mapping[str, str], value: str, elem_id: str) -> gr.Dropdown:
    choices = [(text, name) for name, text in says.items()]
    return gr.Dropdown(choices, value=value, label=label, elem_id=elem_id, interactive=True)
