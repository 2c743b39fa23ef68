import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from hfsafemerge._card_plot import plot_alignment, points_of
from hfsafemerge.card import alignment_card, dataset_card, percent, resolve_license, safe_markdown
from hfsafemerge.errors import RecipeError
from hfsafemerge.recipe import Recipe

RECIPE = Recipe.parse("""
name: pair
base: {repo_id: org/base}
experts: [{repo_id: org/sums-expert, topic: sums}]
merge: {method: ties, parameters: {normalize: false}, layers_per_group: 1}
search: {strategy: cma_es}
judges: {llama_guard: {model: {repo_id: org/guard}}}
data:
  safety: {writer: {repo_id: org/writer}, topics: [S1]}
  domain: {in_context: {sums: {repo_id: org/world, config: sums, split: validation}}}
evaluation:
  benchmarks:
    harmful: {kind: safety, dataset: {repo_id: org/world, config: harmful, split: test}, judges: [llama_guard]}
    sums: {kind: domain, dataset: {repo_id: org/world, config: sums, split: test}, judges: [exact_match]}
""")


def rate(benchmark, metric, value, judge):
    return {
        "benchmark": benchmark, "metric": metric, "judge": judge, "value": value, "n": 200, "ci95": [max(0.0, value - 0.05), min(1.0, value + 0.05)],
        "better": "higher", "degenerate": 0, "unclear": 1, "truncated": 2,
    }  # fmt: skip


def rates(alignment, accuracy):
    return [rate("harmful", "alignment", alignment, "llama_guard"), rate("sums", "accuracy", accuracy, "exact_match")]


RESULTS = {
    "scores": {"base": rates(1.0, 0.5), "sums-expert": rates(0.0, 0.98), "merged": rates(0.975, 0.96)},
    "comparisons": [
        {
            "benchmark": "harmful",
            "metric": "alignment",
            "model": "merged",
            "other": "base",
            "difference": -0.025,
            "ci95": [-0.05, -0.01],
            "p_value": 0.0001,
            "n": 200,
        }
    ],
}
CHECKED = {
    "models": {
        role: {"ref": f"org/{name}", "commit": "c" * 40, "license": "mit"}
        for role, name in [("base", "base"), ("sums-expert", "sums-expert"), ("judge llama_guard", "guard")]
    }
}


def card(recipe=RECIPE, checked=CHECKED, **changes):
    given = dict(
        repo_id="me/pair",
        endpoint="https://hub",
        checked=checked,
        chosen={"search": {"tried": 108}},
        results=RESULTS,
        datasets=["me/pair-safety"],
        plot="alignment.png",
    )
    return alignment_card(recipe, **(given | changes))


def front_matter(text):
    return yaml.safe_load(text.split("---")[1])


def test_the_front_matter_is_what_the_hub_wants():
    found = front_matter(card())
    assert found["base_model"] == ["org/base", "org/sums-expert"] and found["base_model_relation"] == "merge"
    assert found["license"] == "mit" and found["library_name"] == "transformers" and found["datasets"] == ["me/pair-safety"]
    metrics = [metric for result in found["model-index"][0]["results"] for metric in result["metrics"]]
    assert {m["type"]: m["value"] for m in metrics} == {"alignment": 0.975, "accuracy": 0.96}
    assert metrics[0]["args"]["n"] == 200 and metrics[0]["args"]["ci95"] == [0.925, 1.0]


def test_every_number_stands_with_n_and_its_interval():
    text = card()
    assert "97.5 (92.5-100.0)" in text and "n = 200" in text and "-2.5 (-5.0 to -1.0) | < 0.001" in text
    assert "hfsafemerge reproduce me/pair" in text and "![Alignment against domain skill](alignment.png)" in text
    assert "there were\n2 of these, 0 degenerate replies and 4 that were cut off" in text


def test_it_renders_as_tables_and_headings():
    html = MarkdownIt().enable("table").render(card().split("---\n", 2)[2])
    assert html.count("<table>") == 3 and "<h1>pair</h1>" in html
    for row in re.findall(r"<tr>.*?</tr>", html, re.S):
        assert row.count("<t") == row.count("</t")  # no cell has spilt into another


def test_it_never_says_that_a_model_is_safe_or_aligned():
    text = re.sub(r"`[^`]*`|```.*?```|---.*?---", "", card(), count=0, flags=re.S).casefold()
    assert not re.search(r"\b(is|are|now|fully|a) (safe|aligned)\b", text.replace("certifies that it is safe to use", ""))


def test_a_run_without_benchmarks_has_a_card_too():
    text = card(results={"scores": {}, "comparisons": []}, plot=None)
    assert "Nothing was measured" in text and "model-index" not in front_matter(text)


def test_names_can_not_bring_markup():
    evil = "x|<script>alert(1)</script>[a](http://b)`c`\n# d"
    checked = {"models": {**CHECKED["models"], "base": {"ref": evil, "commit": "f00", "license": "mit"}}}
    html = MarkdownIt().enable("table").render(card(checked=checked).split("### Models Merged")[1].split("##")[0])
    assert "<script" not in html and 'href="http://b"' not in html and "<h1" not in html and "<code>c</code>" not in html


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_escaped_text_stays_text(text):
    html = MarkdownIt("commonmark", {"html": True}).render("x " + safe_markdown(text))
    assert re.fullmatch(r"(?s)<p>[^<]*</p>\n", html)


def test_templates_ask_for_every_value():
    from jinja2 import UndefinedError

    from hfsafemerge.card import cards_folder, render

    with pytest.raises(UndefinedError):
        render(cards_folder(), "safety.md.jinja", {"front_matter": ""})


# Licences


@pytest.mark.parametrize(
    ("licenses", "wanted", "license"),
    [
        (["mit", "mit"], None, "mit"),
        (["llama3", "llama3"], None, "llama3"),
        (["mit", "apache-2.0"], None, "apache-2.0"),
        (["mit", None], "cc-by-nc-4.0", "cc-by-nc-4.0"),
    ],
)
def test_a_licence_follows_or_is_chosen(licenses, wanted, license):
    found, note = resolve_license(dict(enumerate(licenses)) and {f"m{i}": name for i, name in enumerate(licenses)}, wanted)
    assert found == license and note


@pytest.mark.parametrize("licenses", [["mit", None], ["mit", "llama3"], ["cc-by-nc-4.0", "apache-2.0"], [None, None]])
def test_a_licence_that_does_not_follow_is_not_guessed(licenses):
    with pytest.raises(RecipeError, match=r"does not follow from those of the models \(m0: .*; m1: .*\). Read them, then set push.license"):
        resolve_license({f"m{i}": name for i, name in enumerate(licenses)}, None)


# Dataset cards


def data_card(kind):
    steps = [{"what": "questions written", "by": "org/writer@1", "kept": 100}, {"what": "answers", "by": "org/base@1", "kept": 90}]
    judges = ["llama_guard (org/guard@1)", "refusal_phrases"]
    return dataset_card(kind, RECIPE, license="mit", topics={"S1": 60, "S2": 30}, models=["org/base"], judges=judges, steps=steps)


def test_the_safety_card_warns_first_and_asks_who_wants_in():
    text = data_card("safety")
    found = front_matter(text)
    assert found["viewer"] is False and "not-for-all-audiences" in found["tags"] and found["extra_gated_fields"]
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": "data/train.parquet"}] and found["size_categories"] == ["n<1K"]
    body = text.split("---\n", 2)[2]
    assert body.index("Content warning") < body.index("## Purpose") and "no compliant answers" in body
    assert "| S1 | 60 |" in body and "| answers | org/base@1 | 90 |" in body


def test_the_domain_card_is_not_gated():
    found = front_matter(data_card("domain"))
    assert "extra_gated_fields" not in found and "viewer" not in found


def test_every_dataset_card_is_listed_in_its_folder():
    from hfsafemerge.card import cards_folder

    listed = set(re.findall(r"\]\((\S+\.jinja)\)", (cards_folder() / "README.md").read_text()))
    assert listed == {path.name for path in cards_folder().glob("*.jinja")}


# The plot


def test_the_plot_shows_every_model_and_is_the_same_for_the_same_numbers(tmp_path):
    panels = points_of(RESULTS["scores"])
    assert {title: [p.label for p in points] for title, points in panels.items()} == {"sums": ["base", "sums-expert", "merged"]}
    for name in ("one", "two"):
        plot_alignment(panels, [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert "sums-expert" in (tmp_path / "one.svg").read_text() or (tmp_path / "one.svg").stat().st_size > 1000


def test_percent():
    assert percent(rates(0.975, 0.5)[0]) == "97.5 (92.5-100.0)"
