"""Commands in the manner of `hf`: its groups and its help, with what a script needs on top."""

from collections.abc import Callable, MutableSequence
from typing import Any

import click

# The layer that huggingface_hub.typer_factory is made of; private there, so requirements.txt bounds its version.
from huggingface_hub import typer_factory
from huggingface_hub.cli._cli_utils import HFCliCommand, HFCliTyperGroup
from huggingface_hub.cli._framework import HfCommand, build_command

from hfsafemerge._cli_output import as_called

# `hf` takes these off the arguments before click sees them; click has to know them where a shell asks what may follow.
FORMAT_OPTIONS = (
    click.Option(["--format"], type=click.Choice(["auto", "human", "agent", "json", "quiet"]), help="Output format."),
    click.Option(["--json"], is_flag=True, help="JSON output."),
    click.Option(["-q", "--quiet"], is_flag=True, help="One id on each line."),
    click.Option(["--no-truncate"], is_flag=True, help="Whole values in tables."),
)


class Command(HFCliCommand("main")):  # type: ignore[misc] # `hf` makes a class for each topic
    """A command of `hf`, but one that is called without what it needs fails, since a script would take help for success."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """The arguments in the context. Raises click.MissingParameter with the name of what is missing."""
        rest = HfCommand.parse_args(self, ctx, args)
        for param in self.params:
            # `hf` gives None as the default of each, which click since 8.3 takes for a value.
            if param.required and not ctx.resilient_parsing and ctx.params.get(param.name or "") in (None, ()):
                raise click.MissingParameter(ctx=ctx, param=param)
        return rest

    def get_short_help_str(self, limit: int = 0) -> str:
        """Its first sentence, whole: lists wrap it, where click would cut it at `limit` characters."""
        return str(super().get_short_help_str(limit=1000))

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """What it takes; the formats too when a shell completes them."""
        params: list[click.Parameter] = super().get_params(ctx)
        return [*params, *FORMAT_OPTIONS] if ctx.resilient_parsing else params

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each on a line of its own however long it is, since lines that are broken can't be copied."""
        formatter.write(f"\n{self.epilog or ''}")

    def get_help(self, ctx: click.Context) -> str:
        """Its help page, with examples as the user can type them."""
        return as_called(super().get_help(ctx))


class Group(HFCliTyperGroup):
    """A group of such commands."""

    def command(  # type: ignore[override] # examples are part of the epilog here
        self, name: str | None = None, *, topic: str = "main", **kwargs: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function as a command; `topic` is the section of the group's help that it stands in."""

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            command = build_command(function, name=name, cls=Command, **kwargs)
            command.topic = topic  # type: ignore[attr-defined] # as `hf` marks its own
            self.add_command(command, command.name)
            return function

        return register

    def resolve_command(self, ctx: click.Context, args: MutableSequence[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that is meant. While a shell completes, what is typed so far need not be valid."""
        if ctx.resilient_parsing:
            return click.Group.resolve_command(self, ctx, list(args))
        return super().resolve_command(ctx, args)  # type: ignore[arg-type] # click says list, typer any sequence

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As of a command."""
        formatter.write(f"\n{self.epilog or ''}")

    def get_help(self, ctx: click.Context) -> str:
        """Its help page, with examples as the user can type them."""
        return as_called(super().get_help(ctx))


def group(help: str, epilog: str) -> Group:
    """A group of commands, set up as `hf` sets up its own."""
    made = typer_factory(help=help, epilog=epilog, cls=Group)
    assert isinstance(made, Group)
    return made
