"""Synthetic data in the lab: how fast they are made, how many rows are left of what is written, and how many a search needs.

    python benchmarks/generation_results.py --json docs/results/generation.json [--seeds 0 1 2 3 4]
    python benchmarks/generation_results.py --json docs/results/generation.json --tables

- funnel and rows per second: the stage generate of a recipe with the lab's question writer, its aligned model and two experts
  (arXiv:2406.14563, section 4), for K = 1000 of each kind; beside it the same questions asked one by one with plain transformers.
- K: `evomm` over TIES (100 evaluations) on K rows of each kind, drawn from these; 0 stands for the numbers that the search starts
  from, "domain alone" for 1000 rows without safety data. As in table 3b of the paper.
- ready: refusals and answers to as many ready prompts of the world instead, as in table 3a.

Rates are of 300 held-out items of each kind and seed. Takes 5 minutes a seed on one core, and once 2 more to train the lab.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from lab_targets import Lab

from hfsafemerge.checkpoint import Checkpoint
from hfsafemerge.evaluation import wilson
from hfsafemerge.examples import Example, load_examples
from hfsafemerge.generation import QuestionPlan, read_question
from hfsafemerge.lab.publishing import write_world
from hfsafemerge.lab.recipes import InFolder, lab_recipe
from hfsafemerge.language_model import Question
from hfsafemerge.live_merge import Evaluator, LiveMerge, SearchData, genes_of
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, resolve_parameters
from hfsafemerge.running import Run
from hfsafemerge.searching import SEARCH_STRATEGIES, Objective, one_by_one, search

DOMAINS = ("sums", "reverse")
KINDS = ("harmful", "lookalike", *DOMAINS)
COUNT, COUNTS, LAYERS, ASKED = 1000, (50, 200, 500, 1000), 3, 200
GIVEN = {"normalize": False}

Data = Mapping[str, Sequence[Question]]


def generated(lab: Lab, seed: int, folder: Path, count: int, *, writer: bool) -> tuple[dict[str, Any], float, dict[str, list[Example]]]:
    """The report of the stage generate, its seconds, and its rows by kind."""
    recipe = lab_recipe("data", DOMAINS, InFolder(lab.folder), writer=writer, seed=seed).changed({"data.count": count})
    run = Run(recipe, folder, allow_writer=writer)
    run.do("generate")
    data = {kind: load_examples(folder / "data" / f"{kind}.parquet") for kind in ("safety", "domain")}
    return run.read("generation.json"), run.seconds()["generate"], data


def terms(data: Mapping[str, Sequence[Example]], counts: Mapping[str, int]) -> Data:
    """The first rows of each kind; those of the domain by topic, in equal parts."""
    found: dict[str, list[Question]] = {}
    for example in data["safety"][: counts["safety"]]:
        found.setdefault("safety", []).append(Question(example.prompt, example.answer))
    for topic in DOMAINS:
        mine = [example for example in data["domain"] if example.topic == topic]
        found[f"domain/{topic}"] = [Question(e.prompt, e.answer) for e in mine[: counts["domain"] // len(DOMAINS)]]
    return {term: rows for term, rows in found.items() if rows}


def merged(lab: Lab, seed: int, questions: Data | None) -> dict[str, str]:
    """The hits of the merge that evomm finds on these questions, or, without any, of the one that it starts from."""
    method, groups, models = MERGE_METHODS.get("ties"), LayerGroups(LAYERS, 1), ["base", *DOMAINS]
    model = lab.load("aligned")
    experts = {domain: Checkpoint(lab.folder / f"{domain}-expert") for domain in DOMAINS}
    live = LiveMerge(model, Checkpoint(lab.folder / "aligned"), experts, method, groups, seed)
    if questions is None:
        live.set(resolve_parameters(method, {**GIVEN, "weight": 1 / len(models), "density": 1.0}, models, groups.count))
    else:
        genes = genes_of(method, models, groups.count, GIVEN)
        evaluator = Evaluator(live, SearchData(model, questions, seed), genes, GIVEN)
        strategy = SEARCH_STRATEGIES.get("cma_es").make(genes, seed, preset="evomm")
        with tempfile.TemporaryDirectory() as folder:
            search(strategy, one_by_one(evaluator), Objective(), Path(folder) / "search.jsonl")
    return {metric: "".join(map(str, map(int, hits))) for metric, hits in lab.hits(model, KINDS).items()}


def one_by_one_rate(lab: Lab, seed: int) -> float:
    """Questions per second where the writer is asked one prompt after the other, with transformers alone."""
    recipe = lab_recipe("data", DOMAINS, InFolder(lab.folder), seed=seed)
    generator = recipe.generator("safety")
    plan = QuestionPlan(generator, "writer", recipe.data.safety.topics, seed)
    writer = lab.load("question-writer")
    began, kept = time.perf_counter(), set()
    for index in range(ASKED):
        conversation = plan.conversation(plan.row(index))
        text = writer.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True) + generator.prefill
        inputs = writer.tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            out = writer.model.generate(
                **inputs, max_new_tokens=generator.max_new_tokens, do_sample=True, temperature=generator.temperature, top_k=0
            )
        kept.add(
            read_question(generator.prefill + writer.tokenizer.decode(out[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        )
    return ASKED / (time.perf_counter() - began)


def batched_rate(lab: Lab, seed: int) -> float:
    """Questions per second where the same rows are asked for as the stage does."""
    recipe = lab_recipe("data", DOMAINS, InFolder(lab.folder), seed=seed)
    generator = recipe.generator("safety")
    plan = QuestionPlan(generator, "writer", recipe.data.safety.topics, seed)
    writer = lab.load("question-writer")
    began = time.perf_counter()
    for first in range(0, ASKED, 64):
        rows = [plan.row(index) for index in range(first, min(first + 64, ASKED))]
        writer.generate(
            [plan.conversation(row) for row in rows],
            max_new_tokens=generator.max_new_tokens,
            prefill=generator.prefill,
            temperature=generator.temperature,
            seeds=[row.seed for row in rows],
        )
    return ASKED / (time.perf_counter() - began)


def measure(seed: int) -> dict[str, Any]:
    lab = Lab(seed)
    write_world(lab.folder)
    found: dict[str, Any] = {"speed": {"one_by_one": one_by_one_rate(lab, seed), "batched": batched_rate(lab, seed)}}
    with tempfile.TemporaryDirectory() as folder:
        report, seconds, data = generated(lab, seed, Path(folder) / "written", COUNT, writer=True)
        ready_report, _, ready = generated(lab, seed, Path(folder) / "ready", COUNT, writer=False)
    found |= {"funnel": report, "seconds": seconds, "rows": {kind: len(rows) for kind, rows in data.items()}, "ready": ready_report}
    same = min(len(ready["safety"]), len(data["safety"]))
    wanted: dict[str, Data | None] = {"0": None}
    wanted |= {str(k): terms(data, {"safety": k, "domain": k}) for k in COUNTS}
    wanted["domain alone"] = terms(data, {"safety": 0, "domain": COUNT})
    wanted["written prompts"] = terms(data, {"safety": same, "domain": COUNT})
    wanted["ready prompts"] = terms({**data, "safety": ready["safety"]}, {"safety": same, "domain": COUNT})
    found["same"] = same
    found["merges"] = {}
    for name, questions in wanted.items():
        found["merges"][name] = merged(lab, seed, questions)
        print(f"seed {seed} {name}: { {kind: hits.count('1') / len(hits) for kind, hits in found['merges'][name].items()} }", flush=True)
    return found


def tables(results: Mapping[str, Any]) -> str:
    """The merges by K, and the medians of what was timed and counted."""
    lines = ["| rows of each kind | alignment | over-refusal | skill | alignment, by seed | skill, by seed |", "|---" * 6 + "|"]
    for name in next(iter(results.values()))["merges"]:
        each = [found["merges"][name] for found in results.values()]
        skill = ["".join(hits[domain] for domain in DOMAINS) for hits in each]
        cells = [name, *(rate("".join(hits[m] for hits in each)) for m in ("alignment", "over_refusal")), rate("".join(skill))]
        cells += [
            ", ".join(f"{100 * hits.count('1') / len(hits):.0f}" for hits in part) for part in ([h["alignment"] for h in each], skill)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    speed = [found["speed"] for found in results.values()]
    lines += ["", f"Questions per second, medians over the seeds: one by one {statistics.median(s['one_by_one'] for s in speed):.1f}, "]
    lines[-1] += f"batched {statistics.median(s['batched'] for s in speed):.1f}; ratio of each seed "
    lines[-1] += ", ".join(f"{s['batched'] / s['one_by_one']:.1f}" for s in speed) + "."
    made = [sum(found["rows"].values()) / found["seconds"] for found in results.values()]
    lines += ["", f"Rows per second of the whole stage (questions, answers of three models, guard): {statistics.median(made):.1f}."]
    lines += ["", *(f"Seed {seed}: {json.dumps(found['funnel'])}" for seed, found in results.items())]
    return "\n".join(lines)


def rate(hits: str) -> str:
    low, high = wilson(hits.count("1"), len(hits))
    return f"{100 * hits.count('1') / len(hits):.1f} ({100 * low:.1f}-{100 * high:.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tables", action="store_true", help="Only print what was measured before.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
    for seed in [] if arguments.tables else arguments.seeds:
        if str(seed) not in results:
            results[str(seed)] = measure(seed)
            arguments.json.write_text(json.dumps(results) + "\n")
    print(tables(results))


if __name__ == "__main__":
    main()
