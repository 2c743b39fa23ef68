"""The recipes that one can begin with."""

from collections.abc import Mapping
from pathlib import Path

import hfsafemerge
from hfsafemerge.errors import RecipeError

FIRST = "evomm"
"""The one that the page's recipe is before anything is chosen."""
SHIPPED = Path(hfsafemerge.__file__).parent / "recipes"
PRESETS: Mapping[str, str] = {
    "evomm": "The paper's pair: Llama 3 8B Instruct and OpenBioLLM 8B, EvoMM over TIES",
    "led": "LED-Merging: entries that matter to safety are kept apart",
}


def preset(name: str) -> str:
    """A shipped recipe as YAML. Raises RecipeError when there is none of that name."""
    if name not in PRESETS:
        raise RecipeError(f"There is no preset {name[:40]!r}; choose {' or '.join(PRESETS)}.")
    return (SHIPPED / f"{name}.yaml").read_text()
