"""What the help pages, docs/cli.md and the skill for agents say of the commands is so, for all commands that there are."""

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
import yaml

from hfsafemerge._cli_output import out
from hfsafemerge.cli import app, main
from hfsafemerge.cli.framework import FORMAT_OPTIONS

ROOT = Path(__file__).parent.parent
SKILL = (ROOT / ".agents" / "skills" / "hfsafemerge" / "SKILL.md").read_text()


def below(group, path=()):
    """The commands that are no groups, by their names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from below(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(below(app))
EXAMPLES = [
    (name, line.strip().removeprefix("$ "))
    for name, command in COMMANDS.items()
    for line in (command.epilog or "").splitlines()
    if line.strip().startswith("$ ")
]


@pytest.fixture(autouse=True)
def formats_stay():
    """Formats are the process's, in `hf`; a test that sets one leaves it as it was."""
    yield
    out.set_mode()


@pytest.fixture
def call(monkeypatch, capsys):
    """Call the command line in this process: the exit code, what it printed, and what it said."""

    def called(*arguments, name="hfsafemerge"):
        monkeypatch.setattr("gc.set_threshold", lambda *numbers: None)  # the process is not the command's own here
        monkeypatch.setattr("sys.argv", [name, *arguments])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # what was called is no module of a package
        code = main()
        return code, *capsys.readouterr()

    return called


def parse(line):
    """The command that a line calls, with its arguments parsed. Raises what click does."""
    words = shlex.split(line, comments=True)
    assert words[0] == "hfsafemerge"
    ctx, arguments = click.Context(app, info_name="hfsafemerge"), words[1:]
    names = []
    while isinstance(ctx.command, click.Group):
        name, command, arguments = ctx.command.resolve_command(ctx, arguments)
        names.append(name)
        if not isinstance(command, click.Group):
            with command.make_context(name, arguments, parent=ctx):
                return " ".join(names)
        ctx = click.Context(command, info_name=name, parent=ctx)
    raise AssertionError(line)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, call):
    code, page, said = call(*name.split(), "--help")
    assert code == 0 and said == "" and f"Usage: hfsafemerge {name} " in page and f"$ hfsafemerge {name}" in page
    assert "--format [auto|human|agent|json|quiet]" in page and "--no-truncate" in page
    assert 10 < len(COMMANDS[name].get_short_help_str()) < 120
    for param in COMMANDS[name].params:
        assert param.hidden or param.help, param.name


@pytest.mark.parametrize(("name", "line"), EXAMPLES, ids=[line.removeprefix("hfsafemerge ") for _, line in EXAMPLES])
def test_every_example_parses(name, line):
    assert parse(line) == name


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_wrong_usage(name, call):
    code, result, said = call(*name.split(), "--nonsense", "--json")
    assert code == 2 and result == "" and "No such option" in said and "--nonsense" in said


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if any(param.required for param in command.params)])
@pytest.mark.parametrize("format", ["human", "json"])
def test_what_is_missing_is_named(name, format, call):
    first = next(param for param in COMMANDS[name].params if param.required)
    code, result, said = call(*name.split(), "--format", format)
    wanted = first.opts[0] if isinstance(first, click.Option) else first.name.upper()
    assert code == 2 and result == "" and re.search(rf"Missing (argument|option) '{wanted}", said)


@pytest.mark.parametrize("name", COMMANDS)
def test_formats_exclude_one_another(name, call):
    code, result, said = call(*name.split(), "--json", "--quiet")
    assert code == 2 and result == "" and "mutually exclusive" in said


def test_the_lists_show_every_command_in_a_section(call):
    _, page, _ = call("--help")
    assert re.findall(r"^\w+ commands:", page, re.MULTILINE) == ["Main commands:", "Help commands:", "Stage commands:"]
    assert all(f"\n  {name.split()[0]} " in page for name in COMMANDS) and "..." not in page.partition("commands:")[2]
    for group in {name.split()[0] for name in COMMANDS if " " in name}:
        _, page, _ = call(group, "--help")
        assert all(f"\n  {name.split()[1]} " in page for name in COMMANDS if name.startswith(f"{group} "))


@pytest.mark.parametrize(
    ("called", "shown"),
    [
        ("hfsafemerge", "hfsafemerge"),
        ("/usr/bin/hf-safemerge", "hf-safemerge"),
        ("/home/me/.local/share/hf/extensions/hf-safemerge/venv/bin/hf-safemerge", "hf safemerge"),
    ],
)
def test_help_and_hints_name_the_command_as_it_was_called(called, shown, call):
    _, page, _ = call("merge", "--help", name=called)
    assert f"Usage: {shown} merge " in page and f"$ {shown} merge recipe.yaml" in page
    assert f"`{shown} COMMAND --help`" in call("--help", name=called)[1]
    assert f"Hint: `{shown} init recipe.yaml`" in call("list", "suites", name=called)[2]


def generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_the_commands_is_fresh_and_has_all_of_them():
    page = (ROOT / "docs" / "cli.md").read_text()
    assert page == generator().cli_page(), "run: python docs/generate.py"
    assert re.findall(r"^## hfsafemerge (.+)$", page, re.MULTILINE) == sorted(COMMANDS)
    assert all(f"`{option}" in page or f", {option}" in page or f"{option} " in page for c in COMMANDS.values() for p in c.params
               if not p.hidden for option in p.opts if option.startswith("--"))  # fmt: skip


def test_the_exit_codes_are_those_of_the_errors():
    from hfsafemerge import errors

    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.HfSafeMergeError)}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", generator().exit_codes(), re.MULTILINE)}
    assert codes | {0, 2} == listed


def test_the_skill_is_a_skill():
    front = yaml.safe_load(SKILL.split("---")[1])
    assert front.keys() == {"name", "description"} and front["name"] == "hfsafemerge"
    assert "Use when:" in front["description"] and len(front["description"]) <= 1024


def options(command):
    """The options of a command, with those that all have."""
    return {option for param in [*command.params, *FORMAT_OPTIONS] for option in (*param.opts, *param.secondary_opts)}


def test_the_skill_s_commands_exist_with_their_flags():
    lines = [line for block in re.findall(r"```sh\n(.*?)```", SKILL, re.DOTALL) for line in block.splitlines()]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```sh\n.*?```", "", SKILL, flags=re.DOTALL))
    assert len(lines) > 5 and {parse(line) for line in lines} >= {"init", "check", "run", "push", "reproduce"}
    flags = set().union(*map(options, [app, *COMMANDS.values()]))
    named = set()
    for text in inline:
        words = [word for word in text.split() if word != "COMMAND"]
        if words[0] == "hfsafemerge":
            words = words[1:]
        names = [" ".join(words[:2]), words[0] if words else ""]
        name = next((name for name in names if name in COMMANDS), None)
        if text.startswith("hfsafemerge ") and "COMMAND" not in text and not words[0].startswith("-"):
            assert name is not None or words[0] in app.commands, text
        named |= {name}
        known = options(COMMANDS[name]) if name else flags
        told = {word for word in words if word.startswith("-")} - {"--help", "--token"}  # there is none, it says
        assert told <= known, text
    assert not any("--token" in param.opts for command in COMMANDS.values() for param in command.params)
    assert {"generate", "calibrate", "search", "merge", "evaluate", "data push", "demo"} <= named
