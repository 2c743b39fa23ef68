"""Runs outlive the page, wait for their turn, and are shown to who started them."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from space_server import App, go, open_page, sees, sign_in, visitor

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.usefixtures("lab")


def start(page: "Page") -> str:
    """Start a run of the lab as it is offered; the end of the page's address then, which leads back to it."""
    go(page, "models-next", "check-next", "data-next", "method-next", "start")
    sees(page, "#message", "Started.")
    page.wait_for_url("**/?*job=*")
    return page.url[page.url.index("?") :]


def cancel(page: "Page") -> None:
    go(page, "cancel")
    sees(page, "#stages", "Cancelled")
    sees(page, "#cancel-message", "The run")
    page.locator("#cancel").wait_for(state="hidden")


def test_found_again(chromium: "Browser", space_app: App, lab: Path) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context)
    address = start(page)
    sees(page, "#stages", "Running")
    page.reload()
    sees(page, "#stages", "Running")
    page.close()  # and nobody looks at it
    remembered = open_page(context)
    sees(remembered, "#stages", "Running")
    assert remembered.url.endswith(address)
    elsewhere = visitor(chromium, space_app)
    told = open_page(elsewhere, address)
    sees(told, "#stages", "Running")
    cancel(told)
    sees(remembered, "#stages", "Cancelled")
    sees(remembered, "#start", "Start another run")
    folder = space_app.runs / address.rpartition("=")[2]
    assert (folder / "cancelled").exists() and not (folder / "hf").exists()
    context.close()
    elsewhere.close()


def test_two_visitors_see_their_own_and_the_third_waits(chromium: "Browser", space_app: App) -> None:
    people = {name: visitor(chromium, space_app) for name in ("alice", "bob", "")}
    pages = {name: open_page(context) for name, context in people.items()}
    for name in ("alice", "bob"):
        sign_in(pages[name], name)
    addresses = {name: start(page) for name, page in pages.items()}
    assert len(set(addresses.values())) == 3
    sees(pages["alice"], "#stages", "Running")
    sees(pages["bob"], "#stages", "Running")
    sees(pages[""], "#stages", "number 1 in the queue")

    for name, other in (("bob", "alice"), ("alice", "bob"), ("", "alice")):
        strange = open_page(people[name], addresses[other])
        sees(strange, "#message", "There is no run")
        assert "Running" not in strange.locator("#stages").inner_text() and not strange.locator("#cancel").is_visible()
        strange.close()
    go(pages[""], "cancel")
    sees(pages[""], "#cancel-message", "The run waits no longer.")
    for name in ("alice", "bob"):
        own = open_page(people[name], addresses[name])
        sees(own, "#stages", "Running")
        cancel(own)
    for context in people.values():
        context.close()


def test_a_link_to_no_run_says_so(chromium: "Browser", space_app: App) -> None:
    context = visitor(chromium, space_app)
    page = open_page(context, "?job=<b>x</b>")
    sees(page, "#message", "There is no run '<b>x</b>' here.")
    assert page.locator("#start").is_enabled()
    context.close()
