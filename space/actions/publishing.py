"""The step in which a merge is published."""

import re
from pathlib import Path
from typing import Any

import gradio as gr
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version

from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.errors import HfSafeMergeError, HubError
from hfsafemerge.running.repeating.locked import LOCK
from space import jobs, views
from space.accounts import how_to_sign_in, namespaces, owner_of, token_of, write_token
from space.commands import answer
from space.job import Job, find


def offer(visitor: gr.OAuthToken | None) -> tuple[Any, str]:
    """Where the visitor may publish, for the field, and what is needed where that is nowhere."""
    try:
        known = namespaces(visitor)
    except HfSafeMergeError as error:
        return gr.update(choices=[], value=None), views.note(str(error), "bad")
    return gr.update(choices=known, value=known[0] if known else None), "" if known else views.note(how_to_sign_in())


def repository(namespace: str | None, name: str) -> str:
    """The repository that is meant: a name in the namespace, or a whole id. Raises HubError for what is none."""
    name, namespace = name.strip(), (namespace or "").strip()
    if not name:
        raise HubError("Give the model a name.")
    repo_id = name if "/" in name or not namespace else f"{namespace}/{name}"
    if not re.fullmatch(REPO_ID, repo_id):
        raise HubError(f"{repo_id!r} is no repository id. Choose a namespace, and give the model a name of letters, digits and hyphens.")
    return repo_id


def preview(
    job_id: str, namespace: str | None, name: str, private: bool, license: str, create_pr: bool, visitor: gr.OAuthToken | None
) -> tuple[str, str, Any]:
    """What publishing would do, and the card that would be published, which is then shown; nothing is uploaded."""
    try:
        owner = owner_of(visitor)
        jobs.result(job_id, owner)
        job, token, repo_id = find(job_id, owner), write_token(visitor), repository(namespace, name)
        _refuse_others(repo_id, create_pr, visitor)
        options = ["--private" if private else "--no-private", *([f"--license={license.strip()}"] if license.strip() else [])]
        found = answer(job.directory, token, "push", job.run, repo_id, "--dry-run", *options, *["--create-pr"] * create_pr)
    except HfSafeMergeError as error:
        return views.note(str(error), "bad"), "", gr.update(visible=False)
    return views.preview(found), _without_front_matter(Path(found["card"]).read_text()), gr.update(visible=True, open=True)


def _refuse_others(repo_id: str, create_pr: bool, visitor: gr.OAuthToken | None) -> None:
    """Raise HubError where the visitor can't publish, as publishing itself would: better known before."""
    namespace, known = repo_id.split("/")[0], namespaces(visitor)
    if not create_pr and namespace not in known:
        raise HubError(f"You can't write to {namespace}/. Choose {' or '.join(known)}, or propose the merge as a pull request.")
    try:
        held = set(HfApi(library_name="hfsafemerge").list_repo_files(repo_id, token=token_of(visitor) or False))
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403, 404):
            raise HubError("The Hub does not say what is in that repository. Try again in a minute.") from error
        held = set()
        if create_pr:
            raise HubError(f"{repo_id} is not there, or not for you to see, so nothing can be proposed there.") from error
    except (httpx.HTTPError, OSError) as error:
        raise HubError("The Hub can't be reached. Try again in a minute.") from error
    if held - {".gitattributes"} and LOCK not in held and not create_pr:
        raise HubError(f"{repo_id} exists and was not made by hfsafemerge. Choose another name, or propose the merge as a pull request.")


def _without_front_matter(card: str) -> str:
    """The card as the Hub shows it, without the metadata above it; its pictures stand beside it there, and not here."""
    text = card.split("\n---\n", 1)[1] if card.startswith("---\n") and "\n---\n" in card else card
    return re.sub(r"!\[([^\]]*)\]\((?!https?:)[^)]*\)", r"*\1: a picture that is published beside the card.*", text)


def publishing(job: Job) -> str:
    """Where a job was published or proposed; nothing where it was not."""
    if job.proposed:
        return views.link("Proposed at", job.proposed)
    if job.published:
        kept = views.note(" ".join(["It was made private.", *job.kept_private]), "bad") if job.kept_private else ""
        return views.link("Published at", job.published) + kept
    return ""


def publish(
    job_id: str, namespace: str | None, name: str, private: bool, license: str, create_pr: bool, visitor: gr.OAuthToken | None
) -> str:
    """Publish the job, and say where it is or why it is not."""
    try:
        owner, token = owner_of(visitor), write_token(visitor)
        jobs.push(job_id, owner, repository(namespace, name), private, token, license.strip(), create_pr=create_pr)
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
    return publishing(find(job_id, owner))
