"""What a shell, a script and an agent get of the commands: formats, one line when it fails, completion, and `hf`'s extension."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from huggingface_hub.cli._output import OutputFormat
from test_cli_pages import EXAMPLES, call, formats_stay, parse  # noqa: F401 # fixtures
from test_run import small

from hfsafemerge._cli_output import Progress, out
from hfsafemerge.cli import app
from hfsafemerge.lab.recipes import OnHub, lab_recipe
from hfsafemerge.running import Event

# Where the shell finds the command, which need not be installed beside the python that runs the tests.
SCRIPT = "#!{python}\nimport sys\nfrom hfsafemerge.cli import main\nsys.exit(main())\n"


def run(line, **environment):
    """A line of bash; its exit code, what it printed, and what it said."""
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=os.environ | environment, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A PATH on which both console scripts are."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("hfsafemerge", "hf-safemerge"):
        (folder / name).write_text(SCRIPT.format(python=sys.executable))
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


CHEAP = ("list", "init", "check", "pull recipe.yaml --dry-run", "generate recipe.yaml --dry-run")


@pytest.mark.parametrize("line", [line for _, line in EXAMPLES if line.removeprefix("hfsafemerge ").startswith(CHEAP)])
def test_the_cheap_examples_run(line, path, lab, lab_on_hub, working_directory):
    if "recipe.yaml" in line and "init" not in line:
        (working_directory / "recipe.yaml").write_text(lab_recipe("pair", ("sums",), OnHub(lab_on_hub), writer=False).to_yaml())
    code, result, said = run(line, PATH=path)
    assert code == 0 and result, said
    assert "Error" not in result + said and not any(line.startswith(("Hint:", "Warning:")) for line in result.splitlines())
    if "--json" in line:
        json.loads(result)


@pytest.mark.parametrize(
    "arguments",
    ["list", "list suites", "init new.yaml", "check recipe.yaml", "pull recipe.yaml --dry-run", "generate recipe.yaml --dry-run",
     "push runs/uniform me/x --dry-run", "diff runs/uniform runs/uniform", "search runs/uniform", "merge runs/uniform", "jobs ps"],
)  # fmt: skip
def test_a_result_is_all_that_stdout_holds_in_every_format(arguments, call, lab, lab_on_hub, working_directory):  # noqa: F811
    recipe = lab_recipe("pair", ("sums",), OnHub(lab_on_hub), writer=False)
    (working_directory / "recipe.yaml").write_text(recipe.to_yaml())
    if "uniform" in arguments:
        plain = lab_recipe("uniform", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), ready={}, compare=False)
        plain = small(plain)
        (working_directory / "uniform.yaml").write_text(plain.to_yaml())
        assert call("evaluate" if "push" in arguments else "merge", "uniform.yaml", "-q") == (0, "runs/uniform/model\n", "")
    words = arguments.replace("me/x", "alice/not-there").split()
    code, result, said = call(*words, "--json")
    assert code == 0, said
    assert len(result.splitlines()) == 1, "one line, which jq reads"
    json.loads(result)
    Path("new.yaml").unlink(missing_ok=True)
    code, result, said = call(*words, "--quiet")
    assert code == 0 and all(line.startswith("Warning: ") for line in said.splitlines())
    assert not any(mark in result for mark in "{}\t\x1b"), "ids only"
    Path("new.yaml").unlink(missing_ok=True)
    code, result, said = call(*words, "--format", "agent")
    assert code == 0 and "\x1b" not in result + said and "\r" not in said


def test_hints_say_the_next_command(call, lab_on_hub, working_directory):  # noqa: F811
    recipe = lab_recipe("u", ("sums",), OnHub(lab_on_hub), method="linear", strategy="fixed", use=(), ready={}, compare=False)
    Path("u.yaml").write_text(recipe.to_yaml())
    following = {"init": "check", "check u.yaml": "run", "search u.yaml": "merge", "merge u.yaml": "evaluate", "list": "init"}
    for done, then in following.items():
        code, _, said = call(*done.split())
        hints = [line.split("`")[1] for line in said.splitlines() if line.startswith("Hint: ") and "`" in line]
        assert code == 0 and hints and parse(hints[-1]) == then, said


def test_a_reader_that_leaves_early_ends_it_quietly(path):
    read, write = os.pipe()
    os.close(read)  # before it is started, so that it always writes in vain
    done = subprocess.run(["hfsafemerge", "list"], stdout=write, stderr=subprocess.PIPE, text=True, env=os.environ | {"PATH": path})
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


def failing(error):
    def fails(**arguments):
        raise error

    return fails


@pytest.fixture
def with_error(monkeypatch, call, tmp_path):  # noqa: F811
    """Call a command that ends with an error."""

    def called(error, debug=False):
        monkeypatch.setattr(app.commands["list"], "callback", failing(error))
        monkeypatch.setattr("huggingface_hub.constants.HF_DEBUG", debug)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        return call("list", "--json")

    return called


def test_what_nobody_expected_is_one_line_that_says_where_its_traceback_is(with_error, tmp_path):
    code, result, said = with_error(ZeroDivisionError("by nothing,\nwith hf_abcdefghij0123456789"))
    assert code == 1 and result == "" and said.count("\n") == 1
    assert said.startswith("Error: ZeroDivisionError: by nothing, with hf_...") and "HF_DEBUG=1" in said
    (log,) = tmp_path.glob("hfsafemerge-*.log")
    assert str(log) in said and "Traceback" in log.read_text() and "in fails" in log.read_text()
    assert "abcdefghij" not in log.read_text() and log.stat().st_mode & 0o077 == 0
    assert "in fails" in with_error(ZeroDivisionError(), debug=True)[2]


def test_a_traceback_that_can_not_be_written_is_no_second_error(with_error, monkeypatch):
    monkeypatch.setattr("tempfile.NamedTemporaryFile", failing_open)
    code, _, said = with_error(ZeroDivisionError())
    assert code == 1 and said.count("\n") == 1 and "which HF_DEBUG=1 shows" in said


def failing_open(*arguments, **options):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("debug", [False, True])
def test_what_a_user_can_put_right_shows_its_traceback_only_when_asked(with_error, debug):
    from hfsafemerge.errors import RecipeError

    code, result, said = with_error(RecipeError("No merge. Name one."), debug)
    assert code == 1 and result == "" and said.splitlines()[-1] == "Error: No merge. Name one."
    assert ("Traceback" in said) is debug and (said.count("\n") == 1) is not debug


def _kept(stop):
    """As a stage of a run leaves it."""
    stop.add_note("The same command goes on from here.")
    return stop


def test_nothing_of_strangers_steers_the_terminal(with_error, capsys, formats_stay):  # noqa: F811
    from hfsafemerge.errors import HubError

    _, _, said = with_error(HubError("me/x has version \x1b[2J\x9b1m\u202e1.0."))
    assert said == "Error: me/x has version [2J1m1.0.\n"
    out.set_mode(OutputFormat.human)
    out.table([{"what": "a\x1b]0;title\x07b"}])
    assert "a]0;titleb" in capsys.readouterr().out


def test_tokens_of_a_sign_in_are_masked(with_error):
    _, _, said = with_error(ValueError("sent hf_oauth_aB-c.d_e12345"))
    assert "sent hf_...." in said and "c.d" not in said


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "Error: Stopped."),  # of work that keeps nothing
        (click.Abort(), 130, "Error: Stopped."),
        (_kept(KeyboardInterrupt()), 130, "Error: Stopped. The same command goes on from here."),
        (OSError(28, "No space left on device", "model"), 1, "Error: No space left on device (model). Make room, then run the same command again."),
        (PermissionError(13, "Permission denied", "x"), 1, "Error: Permission denied (x). Check the path and who may write there."),
    ],
)  # fmt: skip
def test_other_ends_are_one_line_too(with_error, error, code, line):
    found, result, said = with_error(error)
    assert (found, result) == (code, "") and said.strip() == line


def test_what_is_not_reproduced_has_an_exit_code_of_its_own(with_error):
    from hfsafemerge.errors import NotReproduced

    assert with_error(NotReproduced("me/x: 1 of 29 tensors differ.")) == (3, "", "Error: me/x: 1 of 29 tensors differ.\n")


def test_an_error_of_the_hub_that_nobody_caught_is_one_line(with_error):
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    with pytest.raises(RepositoryNotFoundError) as caught:
        HfApi().model_info("alice/none")
    code, _, said = with_error(caught.value)
    assert code == 1 and said.count("\n") == 1 and "'alice/none' not found" in said and "hf_alice" not in said


def test_only_a_human_s_terminal_is_written_over(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for mode, over in (("human", True), ("agent", False), ("json", False)):
        out.set_mode(type(out.mode)(mode))
        with Progress() as progress:
            progress(Event("merge", "tensors", 1, 4))
        said = capsys.readouterr().err
        assert ("\r" in said) is over and said.endswith("\n") and "merge: tensors 1/4" in said


COMPLETE = """
eval "$(_{variable}_COMPLETE=bash_source {command})"
compopt() {{ :; }}
ask() {{
  COMP_WORDS=("$@"); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
  $(complete -p {command} | sed 's/.*-F \\([^ ]*\\) .*/\\1/') {command}
  echo "${{COMPREPLY[@]}}"
}}
ask {line}
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("me", "merge"),
        ("data p", "push"),
        ("jobs c", "cancel"),
        ("merge --de", "--device"),
        ("merge --device c", "cpu cuda"),
        ("list --no-", "--no-truncate"),
        ("list --format j", "json"),
        ("list b", "benchmarks"),
        ("evaluate x --suite ''", "paper quick standard"),
        ("evaluate x --benchmark jail", "jailbreakbench_benign jailbreakbench_harmful"),
        ("evaluate x --judge qwen", "qwen3guard qwen3guard_loose qwen3guard_refusal"),
        ("--show-completion --vers", "--version"),
    ],
)
@pytest.mark.parametrize("command", ["hfsafemerge", "hf-safemerge"])
def test_bash_completes(command, line, offered, path):
    if command == "hf-safemerge" and line != "me":
        pytest.skip("the other name is tried once")
    variable = command.replace("-", "_").upper()
    code, result, said = run(COMPLETE.format(command=command, variable=variable, line=f"{command} {line}"), PATH=path)
    assert (code, result.strip(), said) == (0, offered, "")


def test_what_is_completed_are_the_registered_names():
    from hfsafemerge.cli.completion import benchmarks, judges, suites
    from hfsafemerge.cli.parts import kinds
    from hfsafemerge.judging import JUDGES

    assert sorted(judges()) == JUDGES.names() and "xstest_safe" in benchmarks() and "quick" in suites() and "methods" in kinds()


def test_completing_loads_nothing_heavy(path):
    words = {"COMP_WORDS": "hfsafemerge evaluate x --judge q", "COMP_CWORD": "4", "_HFSAFEMERGE_COMPLETE": "bash_complete"}
    code = (
        "import sys\nsys.argv = ['hfsafemerge']\nfrom hfsafemerge.cli import main\ntry: main()\nfinally: print(sorted({'torch', 'transformers', "
        "'datasets', 'gradio', 'pydantic', 'numpy'} & sys.modules.keys()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | words)
    assert "plain,qwen3guard" in done.stdout and done.stdout.endswith("[]\n"), done.stderr


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bashrc"), ("zsh", ".zshrc"), ("fish", ".config/fish/completions/hfsafemerge.fish")])
def test_completion_is_installed_once(shell, file, path, tmp_path):
    environment = {"PATH": path, "SHELL": f"/usr/bin/{shell}", "HOME": str(tmp_path)}
    for _ in range(2):
        code, result, said = run("hfsafemerge --install-completion", **environment)
        assert code == 0 and f"{shell} completion of hfsafemerge installed in {tmp_path / file}" in result, said
    assert (tmp_path / file).read_text().count(f"_HFSAFEMERGE_COMPLETE={shell}_") == 1
    code, script, _ = run("hfsafemerge --show-completion", **environment)
    assert code == 0 and f"_HFSAFEMERGE_COMPLETE={shell}_complete" in script


def test_a_shell_without_completion_says_so(path, tmp_path):
    for option in ("--install-completion", "--show-completion"):
        code, result, said = run(f"hfsafemerge {option}", PATH=path, SHELL="/bin/tcsh", HOME=str(tmp_path))
        assert code == 1 and result == "" and "no completion for the shell 'tcsh'" in said and not any(tmp_path.iterdir())


def test_hf_runs_it_as_an_extension(path, tmp_path):
    """The real `hf`, with the extension where `hf extensions install` puts it."""
    folder = tmp_path / ".local/share/hf/extensions/hf-safemerge"
    script = folder / "venv" / "bin" / "hf-safemerge"
    script.parent.mkdir(parents=True)
    shutil.copy(Path(path.split(":")[0]) / "hf-safemerge", script)
    manifest = {
        "owner": "me",
        "repo": "hf-safemerge",
        "repo_id": "me/hf-safemerge",
        "short_name": "safemerge",
        "executable_path": str(script),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | {"type": "python", "installed_at": "2026-01-01T00:00:00+00:00"}))
    (folder / ".latest_commit").write_text("")  # asked a moment ago: `hf` need not ask GitHub for updates
    hf = f"{Path(sys.executable).parent}/hf"
    code, result, said = run(f"{hf} safemerge list suites -q", HOME=str(tmp_path))
    assert code == 0 and result.split() == ["quick", "standard", "paper"], said
    code, result, said = run(f"{hf} safemerge merge", HOME=str(tmp_path))
    assert code == 2 and "Usage: hf safemerge merge " in said and "Missing argument 'RECIPE'" in said
