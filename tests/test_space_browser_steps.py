"""Models of one's own in a browser, what each step answers to mistakes, and what stands in the way of nobody."""

from typing import TYPE_CHECKING

import pytest
from space_axe import serious_faults
from space_server import App, fill, go, open_page, sees, sign_in, visitor, write_recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

RECIPE = """name: mine
base: {repo_id: alice/lab-aligned}
experts: [{repo_id: alice/lab-sums-expert, topic: sums}]
merge: {method: linear, parameters: {weight: 0.5}}
search: {strategy: fixed}
"""


def own_models(page: "Page") -> None:
    page.get_by_label("Models from the Hub").click()
    page.locator("#base input").wait_for()


def test_the_hub_is_searched_while_one_types(chromium: "Browser", space_app: App, lab_on_hub: str) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context)
    own_models(page)
    page.locator("#base input").click()
    page.keyboard.type("lab-aligne", delay=150)
    page.get_by_role("option", name=f"{lab_on_hub}/lab-aligned").click()
    assert page.locator("#base input").input_value() == f"{lab_on_hub}/lab-aligned"
    context.close()


def test_models_of_the_hub_are_checked(chromium: "Browser", space_app: App, lab_on_hub: str) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context)
    sign_in(page, "alice")
    own_models(page)
    go(page, "models-next")
    sees(page, "#models-message", "Name the base and at least one expert")
    go(page, "add-expert")
    sees(page, "#models-message", "Name an expert first")
    fill(page, "base", f"{lab_on_hub}/lab-aligned")
    fill(page, "find-expert", f"{lab_on_hub}/lab-nobody")
    fill(page, "expert-topic", "sums")
    go(page, "add-expert")
    sees(page, "#experts", "lab-nobody")
    go(page, "models-next", "check")
    sees(page, "#check-found .bad", "does not exist")

    go(page, "check-next", "data-next")
    write_recipe(page, RECIPE.replace("merge:", "mrge:"))
    sees(page, "#method-message .bad", "mrge")
    assert "mrge" in page.locator("#recipe .cm-content").inner_text()
    go(page, "method-next", "start")
    sees(page, "#message .bad", "mrge")
    go(page, "run-back")
    write_recipe(page, RECIPE)
    sees(page, "#method-help", "theta")
    go(page, "method-back", "data-back", "check-back")
    assert page.locator("#base input").input_value() == f"{lab_on_hub}/lab-aligned"
    sees(page, "#experts", f"{lab_on_hub}/lab-sums-expert")
    fill(page, "base", f"{lab_on_hub}/lab-nothing")
    go(page, "models-next", "check")
    sees(page, "#check-found .bad", "lab-nothing")
    go(page, "check-back")
    fill(page, "base", f"{lab_on_hub}/lab-aligned")
    go(page, "models-next", "check")
    sees(page, "#check-found .good", "The models fit together.")
    assert page.locator("#check-found tbody th").all_inner_texts()[:2] == ["base", "lab-sums-expert"]
    sees(page, "#check-found table", f"{lab_on_hub}/lab-sums-expert")
    sees(page, "#check-found .places", "fits")
    page.locator("#jobs-section > button").click()
    go(page, "jobs-send")
    page.locator("#jobs-message .bad").wait_for()
    context.close()


def test_an_expert_is_given_a_topic_later_and_removed(chromium: "Browser", space_app: App) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context)
    own_models(page)
    fill(page, "base", "alice/lab-aligned")
    for name in ("lab-sums-expert", "lab-nobody"):
        fill(page, "find-expert", f"alice/{name}")
        go(page, "add-expert")
        sees(page, "#experts", name)
    page.get_by_role("button", name="Remove").last.click()
    page.get_by_text("lab-nobody").first.wait_for(state="hidden")
    go(page, "models-next")
    sees(page, "#models-message .bad", "topic")  # which the data of the recipe want of each expert
    page.get_by_label("Topic of alice/lab-sums-expert").click()
    page.get_by_role("option", name="biology").click()
    page.wait_for_timeout(500)
    go(page, "models-next")
    page.locator("#check").wait_for()
    context.close()


def test_a_recipe_that_begins_from_a_preset(chromium: "Browser", space_app: App) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context)
    own_models(page)
    page.locator("#preset input").click()
    page.get_by_role("option", name="The paper's pair").click()
    sees(page, "#experts", "OpenBioLLM")
    assert "Llama-3" in page.locator("#base input").input_value()
    go(page, "models-next", "check-next", "data-next")
    page.locator("#advanced > button").click()
    page.locator("#field-density").wait_for()
    fill(page, "field-density", "0.7")
    page.locator("#recipe-section > button").click()
    page.locator("#recipe .cm-scroller").evaluate("box => box.scrollTop = box.scrollHeight")  # only what is in sight is there
    sees(page, "#recipe", "density: 0.7")
    fill(page, "alpha", "0.5")
    sees(page, "#recipe", "alpha: 0.5")
    context.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_step_is_accessible(chromium: "Browser", space_app: App, dark: bool) -> None:
    context = visitor(chromium, space_app, dark=dark)
    page = open_page(context)
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") is not dark
    faults = serious_faults(page)
    own_models(page)
    faults += serious_faults(page)
    for step in ("models", "check", "data", "method", "run", "results"):
        if step == "models":
            fill(page, "base", "alice/lab-aligned")
            fill(page, "find-expert", "alice/lab-nobody")
            fill(page, "expert-topic", "sums")
            go(page, "add-expert")
            sees(page, "#experts", "lab-nobody")
        if step == "check":
            page.locator("#jobs-section > button").click()
        if step == "method":
            page.locator("#advanced > button").click()
            page.locator("#recipe-section > button").click()
            sees(page, "#recipe", "lab-nobody")
            faults += serious_faults(page)
        go(page, f"{step}-next")
        page.wait_for_timeout(300)
        faults += serious_faults(page)
    assert faults == []
    context.close()


def test_it_works_with_no_token_and_no_hub(chromium: "Browser", own_app: App) -> None:
    context = visitor(chromium, own_app)
    page = open_page(context)
    assert page.locator("#sign-in").count() == 0
    own_models(page)
    fill(page, "base", "alice/lab-aligned")
    fill(page, "find-expert", "alice/lab-sums-expert")
    fill(page, "expert-topic", "biology")
    go(page, "add-expert")
    sees(page, "#experts", "lab-sums-expert")
    go(page, "models-next", "check")
    sees(page, "#check-found .bad", "reach http://127.0.0.1")
    go(page, "check-next", "data-next", "method-next", "run-next")
    sees(page, "#results-empty", "No run of yours has finished yet")
    go(page, "results-next")
    sees(page, "#publish-needed", "hf auth login")
    context.close()
