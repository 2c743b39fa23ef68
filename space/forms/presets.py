"""The recipes that one can begin with."""

from pathlib import Path

import hfsafemerge

SHIPPED = Path(hfsafemerge.__file__).parent / "recipes" / "evomm.yaml"


def shipped_recipe() -> str:
    """The recipe that the editor starts with."""
    return SHIPPED.read_text()
