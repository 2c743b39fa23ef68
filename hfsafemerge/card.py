"""The alignment card: what is published about a merge, rendered from a finished run."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCardData

from hfsafemerge._card_license import inherited_terms, resolve_license
from hfsafemerge._card_results import percent, tables, tried_in_words
from hfsafemerge._card_search import calibrated, how_chosen
from hfsafemerge._markdown import render, safe_markdown
from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.benchmarking import BENCHMARKS
from hfsafemerge.evaluation import Results, Score
from hfsafemerge.judging import JUDGES
from hfsafemerge.recipe import MERGED, Recipe
from hfsafemerge.searching import Candidate

__all__ = ["alignment_card", "percent", "render", "resolve_license", "safe_markdown"]


def alignment_card(
    recipe: Recipe,
    *,
    repo_id: str,
    endpoint: str,
    checked: Mapping[str, Any],
    chosen: Mapping[str, Any],
    calibration: Mapping[str, Any],
    candidates: Sequence[Candidate],
    results: Results,
    datasets: Sequence[str],
    plots: Mapping[str, str],
    private_because: Sequence[str] = (),
    emissions: float | None = None,
) -> str:
    """The model card of a merge.

    Args:
        recipe: the recipe.
        repo_id: where the model is published.
        endpoint: the Hub's address.
        checked: check.json.
        chosen: parameters.json.
        calibration: calibration.json; nothing for a method that asks for no importance scores.
        candidates: search.jsonl.
        results: scores.json.
        datasets: the repo ids of the data.
        plots: what each plot shows, by the name of its file beside the card.
        private_because: why the repository was made private, though the recipe may say otherwise.
        emissions: grams of CO2 equivalents that making and measuring it took; None where they were not measured.

    Raises:
        RecipeError: the licence does not follow from those of the models.
    """
    pool = {role: checked["models"][role] for role in recipe.models}
    refs = [recipe.base, *recipe.experts]
    licenses = {m["ref"]: m["license"] for m in pool.values()}
    license, note = resolve_license(licenses, recipe.push.license if recipe.push else None)
    data = ModelCardData(
        base_model=[ref.repo_id for ref in refs if ref.repo_id] or None,
        library_name="transformers",
        license=license,
        pipeline_tag="text-generation",
        tags=["merge", "hfsafemerge", "alignment", "safety"],
        datasets=list(datasets) or None,
        base_model_relation="merge" if any(ref.repo_id for ref in refs) else None,
        co2_eq_emissions=None if emissions is None else _emitted(emissions, recipe),
    )
    front_matter = data.to_dict() | _model_index(recipe.name, results)
    return render(
        Path(__file__).parent / "templates",
        "alignment_card.md.jinja",
        {
            "front_matter": yaml.safe_dump(front_matter, sort_keys=False, allow_unicode=True).rstrip(),
            "name": recipe.name,
            "repo_id": repo_id,
            "endpoint": endpoint,
            "private_because": private_because,
            "base": recipe.base,
            "local": [ref.path for ref in refs if ref.path],
            "method": recipe.method,
            "search": " ".join([*how_chosen(recipe, chosen["search"], candidates), *calibrated(calibration)]),
            "sources": [{"role": role, **model, "license": model["license"] or "none given"} for role, model in pool.items()],
            "measured": tables(results),
            "reference": results.reference,
            "tried": tried_in_words(results.candidates_tried),
            "plots": plots,
            "untested": _untested(recipe, results),
            "recipe": recipe.to_yaml(),
            "license_note": note,
            "terms": inherited_terms(licenses.values()),
            "papers": _papers(recipe, results),
            "emissions": emissions,
        },
    )


def _emitted(grams: float, recipe: Recipe) -> dict[str, Any]:
    """As the Hub has it: grams, who measured, and where."""
    return {"emissions": round(grams, 3), "source": "codecarbon", "geographical_location": recipe.compute.country}


def _model_index(name: str, results: Results) -> dict[str, Any]:
    """The merge's rates as the Hub keeps them, an entry for each benchmark; nothing where none were measured.

    huggingface_hub's EvalResult would put the metrics of two benchmarks on one dataset under the name of the first.
    """
    merged = results.scores.get(MERGED, [])
    entries = [
        {
            "task": {"type": "text-generation"},
            "dataset": _dataset(benchmark, results),
            "metrics": [_metric(score, results) for score in merged if score.benchmark == benchmark],
        }
        for benchmark in results.benchmarks
    ]
    return {"model-index": [{"name": name, "results": entries}]} if merged else {}


def _dataset(benchmark: str, results: Results) -> dict[str, Any]:
    source = results.benchmarks[benchmark].source
    place, _, revision = source.dataset.partition("@")
    on_hub = re.fullmatch(REPO_ID, place) is not None
    named = {"type": place if on_hub or place == "lm-eval" else "local", "name": benchmark}
    wanted = {"config": source.config, "split": source.split, "revision": revision if on_hub else None}
    return named | {key: value for key, value in wanted.items() if value}


def _metric(score: Score, results: Results) -> dict[str, Any]:
    how = results.benchmarks[score.benchmark].decoding
    args: dict[str, Any] = {"n": score.n, "ci95": [round(bound, 4) for bound in score.ci95], "judge": score.judge}
    args |= {"judge_model": score.judge_model} if score.judge_model else {}
    if how is not None:
        decoding = {"max_new_tokens": how.max_new_tokens, "temperature": how.temperature, "samples": how.samples, "seed": how.seed}
        args["decoding"] = decoding | ({"system": how.system} if how.system else {})
    return {"type": score.metric, "name": f"{score.metric} ({score.judge})", "value": round(score.value, 4), "args": args}


def _untested(recipe: Recipe, results: Results) -> list[str]:
    """What the benchmarks leave open."""
    kinds = {setup.kind for setup in results.benchmarks.values()}
    wrapped = any(spec.registered == "template_jailbreaks" for spec in recipe.evaluation.benchmarks.values())
    open_questions = {
        "safety": "how it answers harmful requests",
        "benign": "whether it refuses harmless requests (over-refusal)",
        "domain": "what it knows and can do",
    }
    return [
        *(said for kind, said in open_questions.items() if kind not in kinds),
        f"jailbreaks and other adversarial prompts{' beyond a few fixed wrappers' if wrapped else ''}",
        "languages other than those of the benchmarks",
        "long conversations",
        "tool use",
        "every hazard that the benchmarks do not name",
    ]


def _papers(recipe: Recipe, results: Results) -> list[dict[str, str]]:
    """Where the method, the strategy, the benchmarks and the judges are from."""
    found = [("merge method", recipe.method.name, recipe.method.paper), ("search", recipe.strategy.name, recipe.strategy.paper)]
    for name, spec in recipe.evaluation.benchmarks.items():
        if spec.registered is not None:
            found.append(("benchmark", name, BENCHMARKS.get(spec.registered).paper))
    judges = {judge for setup in results.benchmarks.values() for judge in setup.judges}
    found += [("judge", judge, JUDGES.get(judge).paper) for judge in sorted(judges & set(JUDGES.names()))]
    return [{"what": what, "name": name, "paper": paper} for what, name, paper in found if paper]
