"""The step that checks before anything is spent."""

from hfsafemerge.errors import HfSafeMergeError
from space import views
from space.accounts import on_space
from space.forms.recipes import describe
from space.forms.visitors import parse


def show_check(recipe: str) -> str:
    """The check's answer as a message."""
    try:
        return views.note(describe(parse(recipe, own_machine=not on_space())), "good")
    except HfSafeMergeError as error:
        return views.note(str(error), "bad")
