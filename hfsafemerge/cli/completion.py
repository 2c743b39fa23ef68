"""What a shell can complete: `--install-completion` and `--show-completion` as `hf` has them, and the names of registered parts."""

import os
import pkgutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import click
from click.shell_completion import CompletionItem, get_completion_class
from huggingface_hub.cli._framework import Option


class Names(click.ParamType):  # type: ignore[type-arg] # generic since click 8.5 only
    """Any text, of which a shell offers the names that are known."""

    name = "text"

    def __init__(self, known: Callable[[], Iterable[str]]) -> None:
        """`known` is called when a shell asks, and should import nothing heavy."""
        self._known = known

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The known names that begin so."""
        return [CompletionItem(name) for name in sorted(self._known()) if name.startswith(incomplete)]


def benchmarks() -> list[str]:
    """The names of registered benchmarks."""
    from hfsafemerge.benchmarking import BENCHMARKS

    return BENCHMARKS.names()


def suites() -> Iterable[str]:
    """The names of suites of benchmarks."""
    from hfsafemerge.benchmarking import SUITES

    return SUITES


def judges() -> list[str]:
    """The names of judges, as the files on their shelf say; to import these takes a second, and a shell would stand still."""
    return [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent.parent / "judges")])]


def devices() -> tuple[str, ...]:
    """Where models can be."""
    return ("auto", "cpu", "cuda")


def dtypes() -> tuple[str, ...]:
    """What merged weights can be written as."""
    return ("bfloat16", "float16", "float32")


def _called() -> str:
    name = Path(sys.argv[0]).stem
    return name if name == "hf-safemerge" else "hfsafemerge"


def _shell() -> str:
    return Path(os.environ.get("SHELL", "")).name or "bash"


def _variable(command: str) -> str:
    """The environment variable by which a shell asks click, for this command."""
    return f"_{command.replace('-', '_')}_COMPLETE".upper()


def _script(shell: str) -> str:
    from hfsafemerge.cli.root import app

    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"There is no completion for the shell {shell!r}. Set SHELL to bash, zsh or fish.")
    return found(app, {}, _called(), _variable(_called())).source()


def _show(wanted: bool) -> bool:
    if not wanted or click.get_current_context().resilient_parsing:
        return wanted
    click.echo(_script(_shell()))
    raise click.exceptions.Exit


def _install(wanted: bool) -> bool:
    """Write the script for fish, which reads a file for each command; for the others a line that makes it when they start."""
    if not wanted or click.get_current_context().resilient_parsing:
        return wanted
    shell, command = _shell(), _called()
    script = _script(shell)
    if shell == "fish":
        file = Path.home() / ".config" / "fish" / "completions" / f"{command}.fish"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(script)
    else:
        file = Path.home() / f".{shell}rc"
        line = f'eval "$({_variable(command)}={shell}_source {command})"'
        if line not in (file.read_text() if file.exists() else ""):
            with file.open("a") as opened:
                opened.write(f"\n{line}\n")
    click.echo(f"{shell} completion of {command} installed in {file}. Restart your shell for it to take effect.")
    raise click.exceptions.Exit


InstallOpt = Annotated[
    bool, Option("--install-completion", callback=_install, is_eager=True, help="Install completion for the current shell.")
]
ShowOpt = Annotated[bool, Option("--show-completion", callback=_show, is_eager=True, help="Show completion for the current shell.")]
