"""hfsafemerge: merge expert language models without losing safety alignment.

    import hfsafemerge as hsm

    run = hsm.run("recipe.yaml")
    run.scores
    run.push("me/my-merge")

What is named here is imported when it is first used, so that `import hfsafemerge` takes no time.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hfsafemerge.errors import HfSafeMergeError
    from hfsafemerge.recipe import Recipe
    from hfsafemerge.running.directory import Run
    from hfsafemerge.running.events import Event, silent
    from hfsafemerge.running.notebook.calling import check, diff, evaluate, methods, pull, run, strategies
    from hfsafemerge.running.notebook.progress import Progress
    from hfsafemerge.running.repeating.reproducing import reproduce

__all__ = [
    "Event",
    "HfSafeMergeError",
    "Progress",
    "Recipe",
    "Run",
    "__version__",
    "check",
    "diff",
    "evaluate",
    "methods",
    "pull",
    "reproduce",
    "run",
    "silent",
    "strategies",
]

_PLACES = {
    "errors": ["HfSafeMergeError"],
    "recipe": ["Recipe"],
    "running.notebook.calling": ["check", "diff", "evaluate", "methods", "pull", "run", "strategies"],
    "running.directory": ["Run"],
    "running.events": ["Event", "silent"],
    "running.notebook.progress": ["Progress"],
    "running.repeating.reproducing": ["reproduce"],
}
_MODULES = {name: f"hfsafemerge.{place}" for place, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'hfsafemerge' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
