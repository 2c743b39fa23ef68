"""What all steps of the page have: their numbers, their buttons, and how events of the page alone are shown."""

from collections.abc import Callable
from types import SimpleNamespace as Controls
from typing import Any, Literal

import gradio as gr

MODELS, CHECK, DATA, METHOD, RUN, RESULTS, PUBLISH = range(7)
LABELS = ("Models", "Check", "Data", "Method", "Run", "Results", "Publish")
HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}  # too short to show that it works
SHOWN: dict[str, Any] = {"api_visibility": "private"}

__all__ = ["CHECK", "DATA", "HIDDEN", "LABELS", "METHOD", "MODELS", "PUBLISH", "RESULTS", "RUN", "SHOWN", "Controls", "buttons", "to"]


def to(step: int) -> Callable[[], Any]:
    """An action that shows a step."""
    return lambda: gr.Tabs(selected=step)


def buttons(
    name: str, onward: str | None, *, back: bool = True, variant: Literal["primary", "secondary"] = "primary"
) -> tuple[gr.Button | None, gr.Button | None]:
    """Back on the left where there is something before it, and onward on the right where there is something after it."""
    with gr.Row(elem_classes="steps-row"):
        behind = gr.Button("Back", elem_id=f"{name}-back", scale=0, min_width=96) if back else None
        ahead = gr.Button(onward, variant=variant, elem_id=f"{name}-next", scale=0, min_width=200) if onward else None
    return behind, ahead
