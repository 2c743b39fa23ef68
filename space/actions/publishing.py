"""The step in which a merge is published."""

import gradio as gr

from hfsafemerge.errors import HfSafeMergeError
from space import jobs, views
from space.accounts import can_sign_in, how_to_sign_in, token_of, write_token
from space.job import Job, find

LAB_LICENSE = "apache-2.0"  # under which the lab's models are published


def publishing(job: Job) -> str:
    """Where a job was published, or what is needed to publish it."""
    if job.published:
        kept = views.note(" ".join(["It was made private.", *job.kept_private]), "bad") if job.kept_private else ""
        return views.link("Published at", job.published) + kept
    return views.note("" if can_sign_in() or token_of(None) else how_to_sign_in())


def publish(job: str, repo_id: str, private: bool, license: str, visitor: gr.OAuthToken | None) -> str:
    """Publish the job, and say where it is or why it is not."""
    try:
        jobs.push(job, repo_id.strip(), private, write_token(visitor), license.strip())
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
    return publishing(find(job))
