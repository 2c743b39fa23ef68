"""The whole flow in a browser: from the first click in the lab, signed out, to the repository on the Hub, signed in."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import HfApi
from space_axe import serious_faults
from space_server import App, fill, go, open_page, sees, sign_in, visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RUN_TIME = 400_000  # milliseconds that a run of a few candidates may take beside other work
STEPS = ["Models", "Check", "Data", "Method", "Run", "Results", "Publish"]
FEW = "4"  # candidates of the search


@pytest.fixture(scope="module")
def finished(chromium: "Browser", space_app: App, lab: Path) -> Iterator[str]:
    """The address of a run in the lab that somebody who is signed out has started and seen through, step by step."""
    context = visitor(chromium, space_app)
    page = open_page(context)
    assert [name for name in STEPS if page.get_by_text(name, exact=True).first.is_visible()] == STEPS
    go(page, "models-next", "check")
    sees(page, "#check-found", "Nothing to check")
    go(page, "check-next")
    sees(page, "#lab-data", "The lab makes its own data")
    go(page, "data-next")
    sees(page, "#method-help", "Source: arXiv:2306.01708")
    fill(page, "evaluations", FEW)
    go(page, "method-next", "start")
    sees(page, "#stages", "Running")
    sees(page, "#cancel", "Cancel")
    assert page.locator("#stages li").count() == 6
    sees(page, "#stages", "Finished", patience=RUN_TIME)
    page.locator("#search-plot").wait_for()
    page.locator("#cancel").wait_for(state="hidden")
    page.locator("#log-section > button").click()
    page.locator("#log textarea").wait_for()
    assert "evaluate: done" in page.locator("#log textarea").input_value()
    yield page.url.removeprefix(space_app.url + "/")
    context.close()


def test_what_came_of_it(chromium: "Browser", space_app: App, finished: str) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context, finished)
    sees(page, "#table", "Rates in percent with their 95% intervals")
    rows = page.locator("#table tbody tr")
    assert rows.locator("th").all_inner_texts() == ["base", "sums", "merged"]
    assert all(re.fullmatch(r"[\d.]+ \([\d.]+-[\d.]+\)", cell) for cell in rows.locator("td").all_inner_texts())
    assert "alignment" in page.locator("#table thead").inner_text()
    assert "merged" in (page.locator("#plot img").get_attribute("alt") or "")

    page.locator("#repeat-section > button").click()
    sees(page, "#command", f"hfsafemerge init recipe.yaml --lab --evaluations {FEW}")
    page.locator("#samples-section > button").click()
    sees(page, "#samples", "what is")
    page.locator("#chat-section > button").click()
    go(page, "ask")
    sees(page, "#replies", "Write a question")
    fill(page, "prompt", "blick plus modi")
    go(page, "ask")
    sees(page, "#replies h4 >> nth=2", "merged")
    page.locator("#front-section > button").click()
    go(page, "pick")
    sees(page, "#pick-message .bad", "front")
    page.wait_for_timeout(1000)
    assert page.locator("#table").is_visible()
    context.close()


def test_published_after_every_mistake(chromium: "Browser", space_app: App, finished: str, repo_name: str) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context, finished)
    sees(page, "#table", "merged")
    go(page, "results-next")
    sees(page, "#publish-needed", "Sign in with the button at the top")
    fill(page, "repo-name", repo_name)
    for button, answer in (("push", "#push-message"), ("preview", "#preview-files")):
        go(page, button)
        sees(page, answer, "Publishing needs a Hugging Face account. Sign in with the button at the top")

    sign_in(page, "alice")
    sees(page, "#table", "merged")  # the run is found again, though the way led over another site
    go(page, "results-next")
    for namespace, name, said in (
        ("alice", "", "name"),
        ("alice", "not a name", "not a name"),
        ("bob", repo_name, "bob"),
    ):
        fill(page, "namespace", namespace)
        fill(page, "repo-name", name)
        go(page, "push")
        sees(page, "#push-message .bad", said)
        assert page.locator("#repo-name input, #repo-name textarea").input_value() == name
    assert not HfApi(token="hf_bob").repo_exists(f"bob/{repo_name}")

    fill(page, "namespace", "alice")
    go(page, "preview")
    sees(page, "#preview-files", f"A new private repository alice/{repo_name}, in one commit.")
    sees(page, "#card", "Alignment and skill")
    assert "base_model" not in page.locator("#card").inner_text()  # of the metadata above it
    go(page, "push")
    sees(page, "#push-message .good", "Published at")
    assert page.locator("#push-message a").get_attribute("href") == f"{HfApi().endpoint}/alice/{repo_name}"
    found = HfApi(token="hf_alice").model_info(f"alice/{repo_name}")
    assert found.private and "model.safetensors" in {file.rfilename for file in found.siblings or []}
    assert found.card_data is not None and found.card_data.license == "apache-2.0"
    assert not HfApi(token="hf_bob").repo_exists(f"alice/{repo_name}")
    page.reload()
    sees(page, "#table", "merged")
    go(page, "results-next")
    sees(page, "#push-message", f"alice/{repo_name}")
    context.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_results_are_accessible(chromium: "Browser", space_app: App, finished: str, dark: bool) -> None:
    context = visitor(chromium, space_app, dark=dark)
    page = open_page(context, finished)
    sees(page, "#table", "merged")
    for section in ("front", "chat", "samples", "repeat"):
        page.locator(f"#{section}-section > button").click()
    sees(page, "#command", "hfsafemerge")
    assert serious_faults(page) == []
    go(page, "results-back")
    page.locator("#log-section > button").click()
    sees(page, "#stages", "Finished")
    assert serious_faults(page) == []
    context.close()
