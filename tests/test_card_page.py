"""The alignment card as a page: nothing that others wrote becomes markup, and a real browser shows all of it."""

import html
import json
import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from urllib.parse import unquote

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_card import CHECKED, HARMFUL, HARMLESS, MODELS, RECIPE, RESULTS, SOURCES, SUMS, card, items, labels, results

from hfsafemerge._markdown import INVISIBLE, code, fenced, safe_markdown
from hfsafemerge.evaluation import Calibration
from hfsafemerge.recipe import Recipe
from hfsafemerge.running.publishing.pushing import draw

ATTACKS = (
    "<script>window.attacked = 1</script>",
    "<img src=x onerror='window.attacked = 1'>",
    "<div onclick=x",
    "<!-- x",
    "x | y | z",
    "\\| y",
    "[click](javascript:alert(1))",
    "![x](http://evil/x.png)",
    "<http://evil>",
    "``` \n\n# heading\n\n```",
    "  ```\n# heading",
    "~~~\n# heading",
    "`code`",
    "**bold** _it_ ~~gone~~",
    "a\n\n---\n\nlicense: mine",
    "\n---\nlicense: mine\n---\n",
    "'\"\\\n: - {a: [b, &c *c !!python/object:os.system x]} # d",
    "1. first",
    "- item",
    "+ item",
    "> quote",
    "# heading",
    "====",
    "|---|---|",
    ": --- :",
    "&lt;b&gt; &#60;i>",
    "$$x$$",
    "\u202egnp.exe\u2066 \u200b \x00 \x85 \u2028",
    "{{ 7 * 7 }}{% include 'x' %}",
    "www.evil.com https://evil.com",
    "[x]: http://evil 'reference'",
    "\\",
)
NASTY = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=30), st.lists(st.sampled_from(ATTACKS), max_size=3).map("".join))


def rendered(text):
    """The page that a reader of the body sees; raw HTML would pass through."""
    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(ModelCard(text).text)


def card_with(words):
    """A card in which these words stand wherever others have a say."""
    source = replace(SOURCES["harmful"], dataset=words, config=words, split=words, left_out={words: 3}, license=words, notes=[words])
    found = results(
        {f"{words} {n}": by for n, by in enumerate(MODELS.values())},
        reference=f"{words} 0",
        pairs=[(f"{words} 2", f"{words} 0")],
        sources={"harmful": source, "sums": SOURCES["sums"]},
        judge_models={"llama_guard": words},
        calibrations={"llama_guard": Calibration(90, 100, 190, 200, words)},
    )
    recipe = RECIPE.model_dump(mode="json", exclude_defaults=True)
    recipe["evaluation"]["benchmarks"]["harmful"]["system"] = words
    models = {role: {"ref": f"{words} {role}", "commit": words, "license": words} for role in CHECKED["models"]}
    recipe = Recipe.model_validate(recipe)
    calibration = {words: {"samples": 3, "data": words}}
    return recipe, card(
        recipe, {"models": models}, results=found, datasets=[words], calibration=calibration, plots={}, private_because=[words]
    )


@pytest.mark.parametrize("nasty", [*ATTACKS, "".join(ATTACKS)])
def test_attacks_change_no_tag_and_no_key(nasty):
    as_with_plain_words(nasty)


@settings(max_examples=30, deadline=None)
@given(NASTY)
def test_the_words_of_others_change_no_tag_and_no_key(nasty):
    as_with_plain_words(nasty)


def as_with_plain_words(nasty):
    """The page has the very tags that it has with plain words, and the front matter the very keys."""
    words = nasty + " é"  # which is no plain word, so that it stands nowhere as code
    recipe, text = card_with(words)
    plain = card_with("plain é")[1]
    tags = [re.findall(r"<[^>]*>", rendered(each)) for each in (text, plain)]
    assert tags[0] == tags[1]
    front = yaml.safe_load(text.split("---\n", 1)[1].split("\n---\n", 1)[0])
    assert list(front) == list(yaml.safe_load(plain.split("---\n", 1)[1].split("\n---\n", 1)[0]))
    assert front["license"] == words and front["datasets"] == [words]
    block = re.search(r'(?s)<pre><code class="language-yaml">(.*?)</code></pre>', rendered(text))[1]
    assert Recipe.model_validate(yaml.safe_load(html.unescape(block))) == recipe


@settings(max_examples=300, deadline=None)
@given(NASTY)
def test_escaped_words_are_read_as_they_are(nasty):
    shown = " ".join(nasty.split())
    shown = "".join(c for c in shown if unicodedata.category(c) not in INVISIBLE).strip()
    page = MarkdownIt("commonmark", {"html": True}).render(safe_markdown(nasty))
    assert page == (f"<p>{html.escape(shown).replace('&#x27;', chr(39))}</p>\n" if shown else "")


def test_code_is_for_plain_words_and_fences_are_longer_than_what_they_hold():
    assert code("org/x@0123abc") == "`org/x@0123abc`" and code("a`b") == "a\\`b" and code("a|b") == "a\\|b" and code("") == ""
    assert fenced("a\n````\nb\n", "yaml") == "`````yaml\na\n````\nb\n`````" and fenced("a", "sh") == "```sh\na\n```"


# In a browser

LOOK = """
addEventListener("load", () => {
  const all = (where) => [...document.querySelectorAll(where)];
  const seen = {
    attacked: "attacked" in window,
    tables: all("table").map((table) => [...table.rows].map((row) => row.cells.length)),
    headings: all("h1, h2, h3").map((heading) => heading.textContent),
    images: all("img").map((image) => [image.getAttribute("src"), image.naturalWidth, image.naturalHeight]),
    links: all("a").map((link) => link.getAttribute("href")),
    foreign: all("script:not(#look), iframe, object, embed, form, input, svg, style:not(#page)").length,
    empty: all("td, th").filter((cell) => cell.offsetHeight === 0).length,
    text: document.body.innerText,
  };
  const found = document.createElement("template");
  found.id = "seen";
  found.setAttribute("data-seen", encodeURIComponent(JSON.stringify(seen)));
  document.body.append(found);
});
"""
PAGE = """<!doctype html><meta charset="utf-8"><title>card</title>
<style id="page">body {{ max-width: 60em; font-family: sans-serif }} td, th {{ border: 1px solid }} img {{ max-width: 100% }}</style>
<script id="look">{look}</script><body>{body}</body>"""


@pytest.fixture(scope="module")
def browser():
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no browser here")
    return found


def look_at(browser, text, folder, *, picture=None):
    """What a browser makes of the card's page, whose files stand beside it."""
    page = folder / "card.html"
    page.write_text(PAGE.format(look=LOOK, body=rendered(text)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", "--window-size=1200,5200"]
    options += [f"--screenshot={picture}"] if picture else ["--dump-dom"]
    done = subprocess.run([browser, *options, page.as_uri()], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return None if picture else json.loads(unquote(re.search(r'data-seen="([^"]*)"', done.stdout)[1]))


def with_all_plots():
    found = {
        name: {**by, "harmless": items(HARMLESS, labels("complied", 190, "refused"))}
        | {"harmful": [replace(item, category=f"S{number % 3}") for number, item in enumerate(by["harmful"])]}
        for name, by in MODELS.items()
    }
    return results(found, (HARMFUL, SUMS, HARMLESS))


def test_a_browser_shows_the_card(browser, tmp_path):
    found = with_all_plots()
    plots = draw(found, tmp_path)
    assert list(plots) == ["alignment.png", "refusals.png", "categories.png"]
    seen = look_at(browser, card(results=found, plots=plots, private_because=["The rate may be as high as 5.7%."]), tmp_path)
    assert not seen["attacked"] and seen["foreign"] == 0 and seen["empty"] == 0
    # models; rates and faults by 3 models; comparisons; judges; benchmarks. Each with its heading row.
    assert [(rows[0], len(rows)) for rows in seen["tables"]] == [(4, 3), (7, 4), (11, 7), (5, 4), (6, 4), (8, 4)]
    assert all(len(set(rows)) == 1 for rows in seen["tables"])
    assert [name for name, width, height in seen["images"] if width > 400 and height > 300] == list(plots)
    assert seen["headings"] == [
        "pair", "Why this repository was made private", "Merge Details", "Merge Method", "Models Merged", "Alignment and skill",
        "Against the models it is made of", "Judges and their errors", "Benchmarks", "What was not tested", "Reproduce", "Configuration",
        "Licences", "Citation",
    ]  # fmt: skip
    assert "97.5 (94.3-98.9)" in seen["text"] and "over refusal (lower is better)" in seen["text"]
    assert all((tmp_path / name).with_suffix(".svg").exists() for name in plots)


def test_a_browser_finds_no_attack_in_a_card_full_of_them(browser, tmp_path):
    seen = look_at(browser, card_with(" ".join(ATTACKS))[1], tmp_path)
    assert not seen["attacked"] and seen["foreign"] == 0 and seen["images"] == []
    assert set(seen["links"]) == {"https://github.com/hfsafemerge/hfsafemerge", "https://hub/org/base"}
    assert all(len(set(rows)) == 1 for rows in seen["tables"]) and "window.attacked = 1" in seen["text"]


def test_nothing_is_drawn_of_nothing(tmp_path):
    assert draw(replace(RESULTS, scores={}), tmp_path) == {} and not list(tmp_path.iterdir())
