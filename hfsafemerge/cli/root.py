"""The app: what all commands share, and how they open a run."""

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
from huggingface_hub import constants
from huggingface_hub.cli._framework import Argument, Option
from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined] # exported without being listed

from hfsafemerge import __version__
from hfsafemerge.cli.completion import InstallOpt, ShowOpt
from hfsafemerge.cli.framework import Group
from hfsafemerge.cli.framework import group as make_group

if TYPE_CHECKING:
    from hfsafemerge.running import Run

LEARN = (
    "\nLearn more\n"
    "  Use `hfsafemerge COMMAND --help` for more about a command.\n"
    "  docs/cli.md has all of them, and says what the exit codes mean.\n"
    "  Start with `hfsafemerge demo`, which runs everything offline.\n"
)


def examples(*commands: str) -> str:
    """The end of a command's help."""
    return "Examples\n" + "\n".join(f"  $ {command}" for command in commands) + "\n"


def group(name: str, help: str, *commands: str) -> Group:
    """A group of commands below the app, such as `hfsafemerge data`, with examples."""
    made = make_group(help, examples(*commands))
    app.add_group(made, name=name)
    return made


FLOW = ("init recipe.yaml", "check recipe.yaml", "run recipe.yaml", "push runs/llama3-openbio me/my-merge", "reproduce me/my-merge")
app = make_group(
    "Merge expert language models without losing safety alignment.", examples(*(f"hfsafemerge {step}" for step in FLOW)) + LEARN
)


RecipeArg = Annotated[Path, Argument(help="A recipe (YAML), or the directory of a run.")]
DirectoryOpt = Annotated[Path | None, Option("--directory", "-d", help="Where the run keeps its files; runs/NAME by default.")]
RedoOpt = Annotated[bool, Option("--redo", help="Do stages again whose part of the recipe has changed.")]
AllowWriterOpt = Annotated[
    bool, Option("--allow-writer", help="Let the model of data.safety.writer write harmful questions; datasets do as well.")
]


def _show_version(wanted: bool) -> bool:
    if wanted and not click.get_current_context().resilient_parsing:
        click.echo(__version__)
        raise click.exceptions.Exit
    return wanted


@app.group_callback()
def _root(
    version: Annotated[bool, Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)] = False,
    install_completion: InstallOpt = False,
    show_completion: ShowOpt = False,
) -> None:
    pass


def open_run(recipe: Path, directory: Path | None, allow_writer: bool = False) -> "Run":
    """The run of a recipe or of a directory, with its libraries set up. Raises what reading either does."""
    from hfsafemerge._cli_output import Progress
    from hfsafemerge.running import Run, load_recipe

    gc.freeze()
    quiet_client()
    if recipe.is_dir():
        if directory is not None:
            raise click.UsageError(f"{recipe} is the directory of a run already; leave --directory out, or name a recipe.")
        run = Run.open(recipe, Progress(), allow_writer=allow_writer)
    else:
        loaded = load_recipe(recipe)
        run = Run(loaded, directory or Path("runs") / loaded.name, Progress(), allow_writer=allow_writer)
    if run.recipe.loads_models:  # a plain merge imports neither library, and starts faster
        quiet_libraries()
    if run.recipe.compute.threads is not None:
        import torch

        torch.set_num_threads(run.recipe.compute.threads)
    return run


def quiet_client() -> None:
    """Progress is told by our own events; the bars of the Hub's client would write over them, unless the user asked for them."""
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
        disable_progress_bars()


def quiet_libraries() -> None:
    """Progress is told by our own events; the bars of the libraries would write over them."""
    import datasets
    import transformers

    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()


def do(stage: str, recipe: Path, directory: Path | None, redo: bool) -> "Run":
    """Open a run and do one of its stages."""
    run = open_run(recipe, directory)
    run.do(stage, redo=redo)
    return run
