"""What a run emits: measured where a recipe names the country, and told on the card."""

import sys
from contextlib import contextmanager

import pytest

from hfsafemerge.errors import Cancelled, RecipeError
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.running import Run
from hfsafemerge.running.emissions import measured


def test_nothing_is_measured_where_no_country_is_named():
    told = []
    with measured(None, told.append):
        pass
    assert told == []


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "codecarbon", None)
    with (
        pytest.raises(RecipeError, match=r"Install it with pip install 'hfsafemerge\[emissions\]', or leave compute.country out"),
        measured("DEU", print),
    ):
        pass


def test_an_unknown_country_is_not_taken_for_the_world():
    pytest.importorskip("codecarbon")
    with pytest.raises(RecipeError, match=r"compute\.country is 'XXX', which is no country"), measured("XXX", print):
        pass


@pytest.mark.filterwarnings("ignore")  # codecarbon's own
def test_what_was_begun_counts_also_when_it_fails():
    pytest.importorskip("codecarbon")
    told = []
    with pytest.raises(ZeroDivisionError), measured("DEU", told.append):
        sum(number * number for number in range(5_000_000))
        raise ZeroDivisionError
    assert len(told) == 1 and 0 < told[0] < 10


def test_a_run_adds_up_its_stages(lab, tmp_path, monkeypatch):
    recipe = lab_recipe("fixed", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False)
    run = Run(recipe, tmp_path / "run")
    run.do("check")
    assert run.emissions() is None

    monkeypatch.setattr("hfsafemerge.running.doing.measured", one_gram)
    abroad = Run(recipe.changed({"compute.country": "DEU"}), tmp_path / "run")
    abroad.do("merge")
    assert abroad.emissions() is None  # the check was not measured
    again = Run(recipe.changed({"compute.country": "DEU"}), tmp_path / "again")
    again.do("merge")
    assert again.emissions() == 4.0  # check, generate, search, merge


@contextmanager
def one_gram(country, tell):
    assert country == "DEU"
    try:
        yield
    finally:
        tell(1.0)


@pytest.fixture
def abroad(lab, tmp_path, monkeypatch):
    """Opens one run again and again, in a country where each attempt that is measured emits a gram."""
    recipe = lab_recipe("fixed", ("sums",), InFolder(lab), method="linear", strategy="fixed", use=(), ready={}, compare=False)
    monkeypatch.setattr("hfsafemerge.running.doing.measured", one_gram)
    return lambda listener=lambda event: None: Run(recipe.changed({"compute.country": "DEU"}), tmp_path / "run", listener)


def test_every_measured_attempt_counts(abroad):
    run = abroad(lambda event: run.cancel() if event.done == 1 else None)
    with pytest.raises(Cancelled):
        run.do("check")
    again = abroad()
    again.do("check")
    assert again.emissions() == 2.0


def test_with_an_attempt_that_was_killed_nothing_is_known(abroad, monkeypatch):
    @contextmanager
    def killed(country, tell):
        yield  # and nothing is told, as after SIGKILL

    run = abroad(lambda event: run.cancel() if event.done == 1 else None)
    with monkeypatch.context() as patched, pytest.raises(Cancelled):
        patched.setattr("hfsafemerge.running.doing.measured", killed)
        run.do("check")
    again = abroad()
    again.do("check")
    assert again.is_done("check") and again.emissions() is None


def test_a_library_that_was_missing_at_first_spoils_no_figure(abroad, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("hfsafemerge.running.doing.measured", measured)
        patched.setitem(sys.modules, "codecarbon", None)
        with pytest.raises(RecipeError, match="Install it"):
            abroad().do("check")
    again = abroad()
    again.do("check")
    assert again.emissions() == 1.0


def test_of_several_processes_one_alone_is_not_measured(monkeypatch):
    pytest.importorskip("codecarbon")
    monkeypatch.setenv("WORLD_SIZE", "2")
    told = []
    with measured("DEU", told.append):
        pass
    assert told == []
