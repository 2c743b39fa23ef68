"""The step in which models are chosen."""

from typing import Any

import gradio as gr


def choose(source: str) -> tuple[Any, Any, Any]:
    """Show the fields of the chosen source: the lab's note, the recipe, and the button that checks it."""
    own = source == "own"
    return gr.update(visible=not own), gr.update(visible=own), gr.update(visible=own)
