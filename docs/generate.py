"""Write docs/methods.md from the registries, docs/cli.md from the help pages: `python docs/generate.py`. Tests fail when one is stale."""

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from hfsafemerge import errors
from hfsafemerge.benchmarking import BENCHMARKS, SUITES
from hfsafemerge.cli import app
from hfsafemerge.judging import JUDGES
from hfsafemerge.merging import MERGE_METHODS, MergeMethod, Parameter
from hfsafemerge.searching import SEARCH_STRATEGIES


def cell(text: object) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|")


def describe(parameter: Parameter) -> str:
    """A parameter with its scope, bounds and default."""
    number = parameter.number
    high = "" if number.high == float("inf") else f"{number.high:g}"
    searched = f", searched from {number.start:g}" if number.start is not None else ", searched from 1 / models" if number.searched else ""
    return f"`{parameter.name}`: one for {parameter.scope.value}, [{number.low:g}, {high}], default {number.default:g}{searched}"


def method(found: MergeMethod) -> str:
    """The section of one merge method."""
    low, high = found.experts
    experts = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
    lines = [f"## {found.name}", "", found.description, "", f"Source: {found.paper}. Experts: {experts}.", ""]
    lines += [f"- {describe(parameter)}" for parameter in found.parameters]
    lines += [f"- `{option.name}`: default `{option.default}`" for option in found.options]
    return "\n".join(lines)


def page() -> str:
    """The page of the parts."""
    parts = [
        "# Methods, strategies, judges and benchmarks",
        "Written by `docs/generate.py` from the registered parts.",
        *map(method, MERGE_METHODS),
    ]
    parts += ["# Search strategies", "| name | what it does | settings |\n|---|---|---|"]
    for kind in SEARCH_STRATEGIES:
        settings = ", ".join(
            f"`{name}` = {default}" for name, (_, default) in kind.settings.items() if default is not inspect.Parameter.empty
        )
        parts[-1] += f"\n| `{kind.name}` | {cell(kind.summary)} {kind.paper} | {cell(settings)} |"
    parts += ["# Judges", "| name | what it does | labels |\n|---|---|---|"]
    for judge in JUDGES:
        parts[-1] += f"\n| `{judge.name}` | {cell(judge.summary)} {judge.paper} | {', '.join(judge.says)} |"
    parts += ["# Benchmarks", "| name | rows | licence, access | what its authors report | their decoding |\n|---|---|---|---|---|"]
    for found in BENCHMARKS:
        place, how = found.dataset, found.official
        rows = " ".join(f"`{place[key]}`" for key in ("repo_id", "config", "split") if key in place)
        pinned = f"at `{place['revision'][:8]}`" if "revision" in place else "at the commit that a run is checked with"
        kind = "greedy" if how.temperature == 0 else f"temperature {how.temperature:g}"
        decoding = f"{kind}, {how.max_new_tokens} tokens" + (f", system prompt {how.system!r}" if how.system else "")
        license = f"{found.license}; {found.gate}"
        parts[-1] += f"\n| `{found.name}` ({found.kind}) | {rows} {pinned} | {license} | {cell(found.metric)} {found.paper} | {decoding} |"
    parts += [
        "\n".join(f"- `suite: {name}`: {suite.summary}: {', '.join([*suite.benchmarks, *suite.tasks])}" for name, suite in SUITES.items())
    ]
    return "\n\n".join(parts) + "\n"


def exit_codes() -> str:
    """What a script can tell by the exit code, with the errors that have one of their own."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HfSafeMergeError)]
    meanings = {
        0: "done",
        1: "something failed; the last line that begins with `Error:` says what, and what to do",
        2: "wrong usage: no such command or option, or an argument is missing; nothing was done",
        3: "`reproduce`: something did not come out again as it was published, or can't be had from the Hub alone",
        130: "stopped by Ctrl-C; the same command goes on",
    }
    unknown = {kind.exit_code for kind in kinds} - meanings.keys()
    meanings |= {code: ", ".join(kind.__doc__ or "" for kind in kinds if kind.exit_code == code) for code in unknown}
    return "| exit code | meaning |\n|---|---|\n" + "\n".join(f"| {code} | {meaning} |" for code, meaning in sorted(meanings.items()))


def contexts(ctx: click.Context) -> Iterator[click.Context]:
    """Every command that is no group, below a group and in order."""
    group = ctx.command
    if not isinstance(group, click.Group):
        yield ctx
        return
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if command is not None and not command.hidden:
            yield from contexts(click.Context(command, info_name=name, parent=ctx))


def command(ctx: click.Context) -> str:
    """The section of one command: what its help page says."""
    found = ctx.command
    usage = found.get_usage(ctx).removeprefix("Usage: ")
    parts = [f"## {ctx.command_path}", inspect.cleandoc(found.help or ""), f"```\n{' '.join(usage.split())}\n```"]
    records = [record for param in found.get_params(ctx) if (record := param.get_help_record(ctx)) and "--help" not in record[0]]
    if records:
        rows = "\n".join(f"| `{name}` | {cell(' '.join(text.split()))} |" for name, text in records)
        parts.append(f"| argument or option | what it says |\n|---|---|\n{rows}")
    examples = [line.strip().removeprefix("$ ") for line in (found.epilog or "").splitlines() if line.strip().startswith("$ ")]
    return "\n\n".join([*parts, "```sh\n" + "\n".join(examples) + "\n```"])


def cli_page() -> str:
    """The page of the commands."""
    intro = (Path(__file__).parent / "cli.md.in").read_text().replace("<!-- exit codes -->", exit_codes())
    root = click.Context(app, info_name="hfsafemerge")
    return intro.rstrip() + "\n\n" + "\n\n".join(command(ctx) for ctx in contexts(root)) + "\n"


PAGES = {"methods.md": page, "cli.md": cli_page}

if __name__ == "__main__":
    for name, write in PAGES.items():
        (Path(__file__).parent / name).write_text(write())
