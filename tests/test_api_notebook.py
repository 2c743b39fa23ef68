"""What a notebook or a terminal shows: progress in one place, tables with their intervals, plots; names stay text."""

import io
import sys
import types

import pytest
from test_run import small

import hfsafemerge as hsm
from hfsafemerge.errors import Cancelled, RunError
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.running.notebook.looking import html_of
from hfsafemerge.running.notebook.progress import Display, Lines, Progress, in_notebook
from hfsafemerge.running.notebook.showing import SHOWN, Markdown, Plot, plain_table

HOSTILE = "<script>alert(1)</script>&"
ESCAPED = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;"


@pytest.fixture(scope="module")
def finished(lab, tmp_path_factory):
    recipe = small(lab_recipe("pair", ("sums",), InFolder(lab), settings={"max_evaluations": 12}, writer=False))
    return hsm.run(recipe, tmp_path_factory.mktemp("finished") / "run")


def event(message="tensors merged", done=0, total=0, seconds=2.0, stage="merge"):
    return hsm.Event(stage, message, done, total, seconds)


@pytest.fixture
def shown(monkeypatch):
    """The kernel of a notebook, as far as it matters: every display, and what it was updated with."""
    outputs = []

    class Handle:
        def __init__(self, first):
            outputs.append([first._repr_html_()])
            self._mine = outputs[-1]

        def update(self, value):
            self._mine.append(value._repr_html_())

    def display(value, *, display_id):
        assert display_id is True
        return Handle(value)

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    part = types.ModuleType("IPython.display")
    part.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", part)
    monkeypatch.setattr("hfsafemerge.running.notebook.progress.are_progress_bars_disabled", lambda: False)
    return outputs


def test_a_notebook_has_one_display_with_a_line_for_each_stage(shown, lab, tmp_path):
    recipe = small(lab_recipe("uniform", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False))
    run = hsm.run(recipe, tmp_path / "run", until="merge")
    (output,) = shown
    assert [output[-1].count(f">{stage}<") for stage in ("check", "generate", "search", "merge")] == [1, 1, 1, 1]
    assert output[-1].count("✓") == 4 and " left<" not in output[-1]
    run.do("evaluate")  # another cell, another output
    assert len(shown) == 2 and "evaluate" in shown[1][-1] and "merge" not in shown[1][-1]
    assert hsm.run(recipe, tmp_path / "run", until="merge") and len(shown) == 2  # nothing was left to do, so nothing is shown


def test_a_notebook_shows_the_share_and_the_time_left(shown):
    progress = Progress()
    progress(event(done=5, total=20, seconds=60.0))
    for done in range(6, 20):  # a moment ago
        progress(event(done=done, total=20))
    assert shown[0] == [shown[0][0]]
    assert '<progress value="5" max="20"></progress> 5/20 tensors merged' in shown[0][0] and "3 min left" in shown[0][0]
    progress(event(HOSTILE))
    assert ESCAPED in shown[0][-1] and "<script>" not in shown[0][-1]


@pytest.mark.parametrize(
    ("error", "said"), [(KeyboardInterrupt(), "Stopped. The same call goes on"), (Cancelled("x"), "Stopped."), (OSError(), "✗")]
)
def test_a_notebook_says_how_it_ended(shown, error, said):
    with pytest.raises(type(error)), Progress() as progress:
        progress(event(done=5, total=20))
        raise error
    assert said in shown[0][-1] and " left<" not in shown[0][-1]


def test_progress_outside_of_a_notebook_goes_to_stderr(monkeypatch, capsys):
    assert not in_notebook()
    progress = Progress()
    progress(event())
    assert capsys.readouterr().err == ""  # HF_HUB_DISABLE_PROGRESS_BARS is set in tests
    monkeypatch.setattr("hfsafemerge.running.notebook.progress.are_progress_bars_disabled", lambda: False)
    with Progress() as progress:
        progress(event(done=5, total=20, seconds=60.0))
        progress(event(done=6, total=20))
        progress(event(done=20, total=20))
    told = capsys.readouterr()
    assert told.err == "merge: tensors merged 5/20, 3 min left\nmerge: tensors merged 20/20\n" and told.out == ""
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace()  # IPython in a terminal has no kernel
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not in_notebook()


def test_a_terminal_s_line_is_overwritten(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr("hfsafemerge.running.notebook.progress.OFTEN", 0.0)
    lines = Lines(overwrite=True)
    lines.show(event(done=5, total=20))
    lines.show(event("done"))
    lines.show(event(done=1, total=20))
    lines.end("stopped")
    assert stream.getvalue() == (
        "\r\033[Kmerge: tensors merged 5/20, 6 s left\r\033[Kmerge: done\n\r\033[Kmerge: tensors merged 1/20, 38 s left"
        "\nStopped. The same call goes on from here.\n"
    )


def test_a_display_has_words_where_no_html_is_shown():
    display = Display()
    display._handle = types.SimpleNamespace(update=lambda value: None)
    display.show(event(done=5, total=20))
    display.end("stopped")
    assert repr(display) == "merge: tensors merged 5/20, 6 s left\nStopped. The same call goes on from here."


def test_scores_are_a_table_with_n_and_intervals(finished):
    scores = finished.scores
    stored = finished.read("scores.json")["scores"]
    assert len(scores) == sum(map(len, stored.values())) and {row["model"] for row in scores} == {"base", "sums", "merged"}
    first = stored["merged"][0]
    row = next(row for row in scores if row["model"] == "merged")
    assert (row["value"], [row["low"], row["high"]], row["n"]) == (first["value"], first["ci95"], 40)
    assert "100.0 (91.2-100.0)" in repr(scores) and "23 candidates were tried" in repr(scores)
    assert "<td" in scores._repr_html_() and scores.results.headlines("base")[0].metric == "alignment"
    frame = scores.to_pandas()
    assert list(frame.columns) == list(scores[0]) and len(frame) == len(scores)


def test_without_pandas_the_rows_are_still_there(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(RunError, match=r"pip install pandas.*\.rows"):
        finished.scores.to_pandas()


def test_parameters_and_candidates_are_tables(finished):
    held = finished.read("parameters.json")
    rows = {(row["parameter"], row["group"], row["model"]): row["value"] for row in finished.parameters}
    assert rows["weight", 2, "sums"] == held["numbers"]["weight"][2][0] and rows["lambda_", 0, "all"] == held["numbers"]["lambda_"][0][0]
    assert "normalize: False" in repr(finished.parameters)
    lines = (finished.directory / "search.jsonl").read_text().splitlines()
    candidates, front = finished.candidates, finished.front
    assert len(candidates) == len(lines) and candidates[0]["fitness"] == max(row["fitness"] for row in candidates if row["whole"])
    assert [row["candidate"] for row in front] == [point["number"] for point in finished.read("front.json")]
    assert f"Candidate {held['search']['number']} is merged" in repr(front)
    assert '<img alt="The search" src="data:image/png;base64,' in candidates._repr_html_()


def test_plots_are_shown_and_saved(finished, tmp_path):
    for name in ("alignment", "refusals", "search"):
        plot = finished.plot(name)
        assert plot._repr_png_().startswith(b"\x89PNG") and "<svg" in plot.svg
    assert finished.plot().title == "Alignment against domain skill"
    assert plot.save(tmp_path / "a.svg").read_text() == plot.svg and plot.save(str(tmp_path / "a.png")).read_bytes() == plot.png
    with pytest.raises(RunError, match="Did you mean 'search'"):
        finished.plot("serch")
    with pytest.raises(RunError, match=r"can't be saved as a\.pdf"):
        plot.save(tmp_path / "a.pdf")


def test_a_run_shows_itself(finished):
    assert repr(finished) == f"Run('pair', '{finished.directory}', done: check, generate, search, merge, evaluate)"
    shown = finished._repr_html_()
    assert "<b>pair</b>" in shown and shown.count("<tr><td>") == 5 and "100.0 (91.2-100.0)" in shown and "Published" not in shown


def test_what_others_named_stays_text(finished, tmp_path):
    table = plain_table(HOSTILE, [{HOSTILE: HOSTILE, "two\nlines": 0.123456}, {"more": None}, {"more": True}], [HOSTILE])
    table = type(table)(table.title, table.rows, table.head, table.cells, table.notes, lambda: Plot(HOSTILE + '"', b"", ""))
    shown = table._repr_html_()
    assert shown.count(ESCAPED) == 5 and "<script>" not in shown and "0.1235" in shown and '<td style="text-align: left">yes</td>' in shown
    assert 'alt="' + ESCAPED + "&quot;" in shown
    url = 'http://x/"' + HOSTILE
    pushed = {"url": url, "repo_id": HOSTILE, "commit": "1", "tag": None, "pull_request": None}
    fake = types.SimpleNamespace(
        recipe=finished.recipe,
        directory=tmp_path / HOSTILE,
        seconds=lambda: {HOSTILE: 1.0},
        is_done=lambda stage: stage == "push",
        read=lambda file: {"model": pushed, "datasets": {HOSTILE: pushed}, "collection": None, "private_because": [HOSTILE]},
    )
    shown = html_of(fake)
    assert "<script>" not in shown and shown.count("&lt;script&gt;") == 8 and 'x/"' not in shown


def test_long_tables_are_cut_where_they_are_shown():
    table = plain_table("t", [{"n": number} for number in range(SHOWN + 7)])
    assert len(table) == SHOWN + 7 and table._repr_html_().count("<td") == SHOWN and f"The first {SHOWN} of {SHOWN + 7} rows" in repr(table)
    assert table[-1] == {"n": SHOWN + 6} and len(table[2:4]) == 2 and "t" in repr(plain_table("t", []))


def test_a_card_is_rendered_without_its_front_matter():
    assert Markdown("---\nlicense: x\n---\n\n# A\n---\n")._repr_markdown_() == "\n# A\n---\n"
    assert Markdown("# A\n---\nb")._repr_markdown_() == "# A\n---\nb" and isinstance(Markdown("a"), str)


def test_nothing_searched_or_published_says_so(lab, tmp_path):
    recipe = small(lab_recipe("uniform", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False))
    run = hsm.run(recipe, tmp_path / "run", until="search")
    for name, match in (
        ("candidates", "nothing was searched"),
        ("front", "fixed searches nothing"),
        ("card", "push is not done"),
        ("model_path", "merge is not done"),
    ):
        with pytest.raises(RunError, match=match):
            getattr(run, name)
    with pytest.raises(RunError, match="nothing to plot"):
        run.plot()
    assert run.parameters[0]["value"] == 1.0
