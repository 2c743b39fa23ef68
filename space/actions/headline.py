"""The line that says on every step how the run is doing."""

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import views
from space.accounts import owner_of
from space.job import find
from space.progress import status


def headline(job: str, visitor: gr.OAuthToken | None) -> str:
    """How the job is doing in one line; nothing where there is none."""
    try:
        return views.headline(status(find(job, owner_of(visitor))))
    except HfSafeMergeError:
        return ""
