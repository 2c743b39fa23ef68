"""`python -m space.chat RUN`: what the models of a finished run reply to a prompt, side by side, as far as its guard lets it be seen.

The prompt and the models' names come as JSON on the input, the replies go as JSON to the output, and nothing else of them goes
anywhere. A run without a guard has no chat: nothing would tell a reply that nobody should get.
"""

import json
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from hfsafemerge.errors import HfSafeMergeError, RecipeError
from hfsafemerge.judging import Exchange
from hfsafemerge.language_model import control_tokens, defused, user
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.running import Run, inputs

LONGEST = 2000  # characters of a prompt
TOKENS = 256  # of a reply, or fewer where the recipe's data are shorter
GUARDS = ("qwen3guard", "llama_guard", "wildguard", "granite_guardian", "shieldgemma", "classifier_head")  # judges of any exchange
HIDDEN = "The guard of this run does not call this reply safe, so it is not shown."
REFUSED = "The guard of this run flags this question, so it is not asked."


def guard_of(recipe: Recipe) -> str | None:
    """The judge of a recipe that tells safe replies from unsafe ones whatever was asked, if it has one with a model."""
    return next((name for name in GUARDS if name in recipe.judges), None)


def replies(directory: Path, prompt: str, models: Sequence[str]) -> dict[str, str]:
    """What models of a finished run reply, one after the other, since they may not fit into memory together.

    Args:
        directory: of the run.
        prompt: what to ask, at most 2,000 characters.
        models: "base", experts by name, "merged".

    Returns:
        The reply of each, or why it is not shown. A prompt that the guard flags by itself is not asked.

    Raises:
        RecipeError: the run has no guard, or no such model, or the prompt is empty or too long.
    """
    run = Run.open(directory)
    guard = guard_of(run.recipe)
    if guard is None:
        raise RecipeError("This run has no guard, so nothing would tell an unsafe reply. Choose one in the step Data, then run it again.")
    known = [*run.recipe.models, MERGED]
    if not models or (wrong := [name for name in models if name not in known]):
        what = f"This run has no model {wrong[0][:40]!r}" if models else "No model was named"
        raise RecipeError(f"{what}; choose of {', '.join(known)}.")
    prompt = prompt.strip()
    if not 0 < len(prompt) <= LONGEST:
        raise RecipeError(f"The question has {len(prompt):,} characters; write one of at most {LONGEST:,}.")
    with inputs.judges(run, [guard]) as judges:
        if judges[guard]([Exchange(prompt, "")])[0].label == "unsafe":
            return dict.fromkeys(models, REFUSED)
    said = {name: _reply(run, name, prompt) for name in models}
    with inputs.judges(run, [guard]) as judges:
        verdicts = judges[guard]([Exchange(prompt, reply) for reply in said.values()])
    return {name: reply if verdict.label == "safe" else HIDDEN for (name, reply), verdict in zip(said.items(), verdicts, strict=True)}


def _reply(run: Run, name: str, prompt: str) -> str:
    """What one model replies; the visitor's words can hold none of its control tokens."""
    with inputs.loaded_model(run, name) if name == MERGED else inputs.language_model(run, name) as model:
        asked = user(defused(prompt, control_tokens(model)))
        return model.generate([asked], max_new_tokens=min(TOKENS, run.recipe.data.max_new_tokens))[0].text


def _main() -> None:
    asked = json.loads(sys.stdin.read())
    try:
        with redirect_stdout(sys.stderr):  # libraries may print
            said = replies(Path(sys.argv[1]), asked["prompt"], asked["models"])
    except HfSafeMergeError as error:
        sys.exit(f"Error: {error}")
    except Exception as error:  # its message could hold a model's words
        sys.exit(f"Error: The models could not be asked ({type(error).__name__}). Ask fewer at once, or try again later.")
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    _main()
