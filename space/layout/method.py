"""The step Method: method, strategy and objective; all else in a panel that is built from what is registered, or in the recipe itself."""

from functools import partial
from typing import Any

import gradio as gr

from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.searching import SEARCH_STRATEGIES
from space.actions import method as actions
from space.forms import parameters, presets, recipes
from space.layout.steps import HIDDEN, Controls, buttons

OBJECTIVES = [
    ("Alignment and skills together, weighed by alpha", "weighted"),
    ("As much skill as leaves alignment where it is", "constrained"),
]


def step() -> Controls:
    """How the weights are merged, and how the numbers for it are found."""
    with gr.Row():
        with gr.Column():
            method = gr.Dropdown(MERGE_METHODS.names(), value="ties", label="Merge method", elem_id="method", interactive=True)
            method_help = gr.HTML(actions.explain_method("ties"), elem_id="method-help")
        with gr.Column():
            strategy = gr.Dropdown(
                SEARCH_STRATEGIES.names(), value="cma_es", label="How its numbers are found", elem_id="strategy", interactive=True
            )
            strategy_help = gr.HTML(actions.explain_strategy("cma_es"), elem_id="strategy-help")
    with gr.Column(elem_id="lab-method") as lab:
        evaluations = gr.Number(
            LabChoices.evaluations,
            precision=0,
            minimum=1,
            maximum=400,
            label="Candidates of the search",
            info="A generation is always finished, so there may be a few more.",
            elem_id="evaluations",
            interactive=True,
        )
    with gr.Column(visible=False, elem_id="own-method") as own:
        with gr.Row():
            objective = gr.Dropdown(OBJECTIVES, value="weighted", label="Objective", elem_id="objective", interactive=True, scale=2)
            alpha = gr.Number(0.3, minimum=0, label="Alpha: the weight of the skills", elem_id="alpha", interactive=True)
        with gr.Accordion("Advanced: every parameter and setting", open=False, elem_id="advanced"):
            advanced = gr.Column(elem_id="advanced-fields")
        with gr.Accordion("The recipe: this is what runs", open=False, elem_id="recipe-section"):
            recipe = gr.Code(
                presets.preset(presets.FIRST),
                language="yaml",
                show_label=False,
                lines=14,
                max_lines=24,
                wrap_lines=True,
                interactive=True,
                buttons=["copy", "download"],
                elem_id="recipe",
            )
    redraw = gr.State(0)
    message = gr.HTML(elem_id="method-message")
    back, onward = buttons("method", "Next: run it")
    method.change(actions.explain_method, method, method_help, queue=False, **HIDDEN)
    strategy.change(actions.explain_strategy, strategy, strategy_help, queue=False, **HIDDEN)
    return Controls(
        method=method, strategy=strategy, lab=lab, evaluations=evaluations, own=own, objective=objective, alpha=alpha, advanced=advanced,
        recipe=recipe, redraw=redraw, message=message, back=back, next=onward,
    )  # fmt: skip


def build_advanced(page: gr.Blocks, step: Controls) -> None:
    """The panel: a field for each parameter and option of the method and each setting of the strategy, from their registrations.

    It is drawn anew when `redraw` changes, and not at each change of the recipe: that would take the focus from who types in it.
    """

    @gr.render(inputs=[step.recipe, step.method, step.strategy], triggers=[page.load, step.redraw.change], show_progress="hidden")  # type: ignore[untyped-decorator] # gradio has no types for it
    def fields(recipe: str, method: str, strategy: str) -> None:
        known = recipes.read(recipe)
        groups = (
            ("Merge method", parameters.fields_of_method(method), known.parameters, partial(actions.set_value, "parameters")),
            ("Search strategy", parameters.fields_of_strategy(strategy), known.settings, partial(actions.set_value, "settings")),
        )
        for heading, of, values, change in groups:
            if of:
                gr.Markdown(f"#### {heading}")
            with gr.Row(elem_classes="fields"):
                for field in map(parameters.as_written, of):
                    control = _control(field, parameters.shown(field, values))
                    control.change(partial(change, field), [step.recipe, control], [step.recipe, step.message], **HIDDEN)


def _control(field: parameters.Field, value: Any) -> Any:
    """The control that a field is edited with."""
    name = f"field-{field.name.strip('_').replace('_', '-')}"
    common: dict[str, Any] = {"label": field.label, "info": field.help, "elem_id": name, "interactive": True, "min_width": 240}
    if field.kind == "flag":
        return gr.Checkbox(bool(value), **common)
    if field.kind == "choice":
        return gr.Dropdown(["", *field.choices] if field.default is None else list(field.choices), value=value or "", **common)
    if field.kind == "text":
        return gr.Textbox(value or "", placeholder="empty", max_lines=1, **common)
    number = value if isinstance(value, (int, float)) else None
    return gr.Number(number, minimum=field.low, maximum=field.high, precision=0 if field.kind == "integer" else None, **common)
