"""Recipes from files: our own, and mergekit's."""

from pathlib import Path

from hfsafemerge.mergekit import from_mergekit, is_mergekit
from hfsafemerge.recipe import Recipe, read_text


def load_recipe(path: Path) -> Recipe:
    """The recipe in a YAML file, which may be mergekit's. Raises RecipeError naming every fault found."""
    text = read_text(path)
    return from_mergekit(text, path.name) if is_mergekit(text) else Recipe.parse(text, str(path))
