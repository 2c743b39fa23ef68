"""The step that checks before anything is spent."""

from html import escape
from pathlib import Path

import gradio as gr

from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import HfSafeMergeError
from hfsafemerge.lab.choices import LabChoices
from hfsafemerge.running import clock
from space import elsewhere, views
from space.accounts import on_space, token_of, write_token
from space.actions.models import refuse_unnamed
from space.checks import Found, look
from space.forms.recipes import describe
from space.forms.visitors import parse
from space.hardware import detect

HEADS = ("", "model", "commit", "architecture", "dtype", "weights", "licence", "access")


def show_check(recipe: str) -> str:
    """Whether a recipe is in order in itself, as a message."""
    try:
        return views.note(describe(parse(recipe, own_machine=not on_space())), "good")
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")


def plan(source: str, recipe: str, base: str | None, pool: str, method: str, strategy: str, evaluations: float | None) -> str:
    """What a run would do as things stand, as a message."""
    choices = LabChoices(pool, method, strategy, int(evaluations or LabChoices.evaluations))
    try:
        refuse_unnamed(source, recipe, base)
        if source != "lab":
            return show_check(recipe)
        return views.note(describe(choices.recipe(Path("lab"))), "good")
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")


def check_models(source: str, recipe: str, base: str | None, visitor: gr.OAuthToken | None) -> str:
    """What is found of the models of a recipe, and where it could be run, as HTML."""
    if source == "lab":
        return views.note("The lab's models are made on this machine, fit together, and take a few megabytes. Nothing to check.", "good")
    try:
        refuse_unnamed(source, recipe, base)
        found = look(parse(recipe, own_machine=not on_space()), token_of(visitor), detect())
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
    return show_found(found)


def show_found(found: Found) -> str:
    """What was found, as HTML: problems first."""
    if found.problems:
        return "".join(views.note(problem, "bad") for problem in found.problems)
    rows = "".join(
        f'<tr><th scope="row">{escape(row.role)}</th><td>{escape(row.ref)}</td><td>{escape(row.commit)}</td>'
        f"<td>{escape(row.architecture)}</td><td>{escape(row.dtypes)}</td><td>{in_words(row.bytes)}</td>"
        f"<td>{escape(row.license)}</td><td>{escape(row.access)}</td></tr>"
        for row in found.rows
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in HEADS)
    time = f", about {clock(found.seconds)}" if found.seconds else ""
    facts = [
        ("Download", in_words(found.download_bytes) + time),
        ("Disk", in_words(found.disk_bytes)),
        ("Memory of the device", "about " + in_words(found.gpu_bytes)),
        ("Licence of the merge", found.license or "to be named by you"),
    ]
    said = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    places = "".join(
        f'<li class="{"fits" if place.fits else "misses"}"><strong>{escape(place.name)}</strong> '
        f"<span>{'fits' if place.fits else 'does not fit'}</span>: {escape(place.why)}"
        f"{f'; ${place.dollars_per_hour:.2f} an hour' if place.dollars_per_hour is not None else ''}</li>"
        for place in found.places
    )
    notes = "".join(views.note(note) for note in found.notes)
    return (
        f"{views.note('The models fit together.', 'good')}"
        f'<div class="scroll names"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<dl class="facts">{said}</dl><ul class="places">{places}</ul>{notes}'
    )


def send_away(recipe: str, flavor: str, repo_id: str, visitor: gr.OAuthToken | None) -> str:
    """Send the run to Hugging Face Jobs, and say where it is."""
    try:
        parse(recipe, own_machine=not on_space())
        flavor, repo_id, token = flavor.strip(), repo_id.strip(), write_token(visitor)
        elsewhere.require_scope(visitor.scope if visitor else "", elsewhere.command(flavor, repo_id))
        address = elsewhere.submit(recipe, flavor, repo_id, token)
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
    return views.link("It runs on your account, and publishes the merge itself. Follow it at", address)
