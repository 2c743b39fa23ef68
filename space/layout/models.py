"""The step Models: the lab, or a base and its experts."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr

from hfsafemerge.lab.choices import IN_WORDS
from space import views
from space.actions import models as actions
from space.forms.fields import TOPICS
from space.forms.presets import PRESETS
from space.layout.steps import HIDDEN, Controls, buttons

LAB = """**The lab** is a small invented world with its own language models: an aligned base, experts, and a guard. They are trained on this
machine the first time, in about two minutes on two free cores. Then the whole flow runs on them as it does on large ones, and
nothing is downloaded. A good way to see what this is, before you spend anything."""


def step() -> Controls:
    """What to merge."""
    sources = [("Try it in the lab", "lab"), ("Models from the Hub", "own")]
    source = gr.Radio(sources, value="lab", label="What do you want to merge?", elem_id="source", interactive=True)
    with gr.Column(elem_id="lab-models") as lab:
        gr.Markdown(LAB, elem_id="lab-note")
        pools = [(says, name) for name, says in IN_WORDS.items()]
        pool = gr.Radio(pools, value="pair", label="Models of the lab", elem_id="pool", interactive=True)
    with gr.Column(visible=False, elem_id="own-models") as own:
        presets = [(says, name) for name, says in PRESETS.items()]
        chosen = gr.Dropdown(
            presets,
            value=None,
            label="Begin with a recipe",
            info="It fills in this step and the next ones. Change what you like.",
            elem_id="preset",
            interactive=True,
        )
        base = _of_hub("Base", "The aligned model. Type to search the Hub, or paste namespace/name; @revision may follow.", "base")
        experts = gr.State([])
        with gr.Column(elem_id="experts"):
            gr.HTML(views.heading("Experts", "Fine-tuned from the same model as the base."), elem_id="experts-about")
            listed = gr.Column(elem_id="experts-list")
            with gr.Row(elem_id="add-row"):
                found = _of_hub("Another expert", "Type to search the Hub, or paste namespace/name.", "find-expert", scale=3, min_width=200)
                topic = gr.Dropdown(
                    ["", *TOPICS],
                    value="",
                    allow_custom_value=True,
                    label="Its topic",
                    info="What it is good at.",
                    elem_id="expert-topic",
                    interactive=True,
                    scale=2,
                    min_width=160,
                )
                add = gr.Button("Add", elem_id="add-expert", scale=0, min_width=96)
    message = gr.HTML(elem_id="models-message")
    _, onward = buttons("models", "Next: check them", back=False)
    return Controls(
        source=source, lab=lab, own=own, pool=pool, preset=chosen, base=base, experts=experts, listed=listed, found=found, topic=topic,
        add=add, message=message, next=onward,
    )  # fmt: skip


def _of_hub(label: str, info: str, elem_id: str, **room: Any) -> gr.Dropdown:
    """A model of the Hub: found while one types, or pasted."""
    return gr.Dropdown(
        [], value=None, allow_custom_value=True, filterable=True, label=label, info=info, elem_id=elem_id, interactive=True, **room
    )


def build_experts(step: Controls, keep: Mapping[str, Any]) -> None:
    """The list of experts: a row each, whose topic can be changed and which can be removed. `keep` writes them into the recipe."""

    @gr.render(inputs=step.experts, show_progress="hidden")  # type: ignore[untyped-decorator] # gradio has no types for it
    def rows(experts: Sequence[Sequence[str]]) -> None:
        if not experts:
            gr.HTML(views.help_text("None yet. Name one below, and add it."), elem_id="experts-none")
        for number, (model, topic) in enumerate(experts):
            with gr.Row(elem_classes="expert", key=f"row-{model}"):
                gr.HTML(views.model(model), elem_id=f"expert-{number}", key=f"model-{model}")
                of = gr.Dropdown(
                    list(dict.fromkeys(["", *TOPICS, topic])),
                    value=topic,
                    allow_custom_value=True,
                    label=f"Topic of {model}",
                    elem_id=f"topic-{number}",
                    key=f"topic-{model}",
                    container=False,
                    interactive=True,
                    scale=0,
                    min_width=150,
                )
                remove = gr.Button("Remove", size="sm", elem_id=f"remove-{number}", key=f"remove-{model}", scale=0, min_width=80)
            of.input(partial(actions.change_topic, model), [step.experts, of], step.experts, **HIDDEN).then(**keep)
            remove.click(partial(actions.remove, model), step.experts, step.experts, **HIDDEN).then(**keep)
