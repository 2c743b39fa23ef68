"""What axe-core finds wrong with a page for who uses a keyboard or a screen reader."""

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

# What is found in Gradio's own elements, by the rule and a part of the element; nothing of ours can cure it.
NOT_OURS = {
    "scrollable-region-focusable": {
        "cm-scroller": "the editor's text is contenteditable and takes the keyboard, which axe-core does not count"
    },
}
RUN = "axe.run(document, {resultTypes: ['violations']}).then(found => found.violations)"


def serious_faults(page: "Page") -> list[str]:
    """The serious and critical faults of what the page shows now, each with the elements that have it."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text())
    page.wait_for_timeout(400)  # colours that fade in have less contrast on the way
    found = []
    for rule in page.evaluate(RUN):
        if rule["impact"] in ("serious", "critical"):
            known = NOT_OURS.get(rule["id"], {})
            nodes = [node for node in rule["nodes"] if not any(part in " ".join(map(str, node["target"])) + node["html"] for part in known)]
            found += [
                f"{rule['id']}: {' '.join(map(str, node['target']))}: {node['html'][:200]}: {node['failureSummary']}" for node in nodes
            ]
    return found
