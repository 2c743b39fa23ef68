"""What each search strategy costs, and what it finds, in the lab.

    python benchmarks/search_cost.py --json FILE [--seeds 0 1 2 3 4] [--methods task_arithmetic ties] [--candidates]

For every seed the lab is trained where it is not in the cache (2 minutes), and for pools of two and of three experts each
strategy searches the weights of a merge. The target is the fitness that `evomm` (CMA-ES with the settings of
arXiv:2406.14563) has after 100 evaluations. Reported, medians over seeds and pools:

- cost_to_target: evaluation-equivalents (one forward pass over the data is 1, a backward pass 2) until a candidate that was
  measured on all data is as fit as the target; null where that never happened within the budget of 100;
- final_fitness: the fitness of what the strategy recommends when its budget of 100 is spent, less the target;
- held_out: rates of the recommended merge on 300 held-out items of each kind, averaged over seeds and pools.

Data of the search: 100 harmful requests with refusals, 100 domain questions with right answers, from the world's training
split; held-out items are of another split.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers
from candidate_speed import candidate_seconds
from lab_targets import Lab

from hfsafemerge.checkpoint import Checkpoint
from hfsafemerge.evaluation import wilson
from hfsafemerge.lab.world import REFUSAL, draw_distinct
from hfsafemerge.language_model import Question
from hfsafemerge.live_merge import Evaluator, LiveMerge, SearchData, genes_of
from hfsafemerge.merging import MERGE_METHODS, LayerGroups
from hfsafemerge.searching import SEARCH_STRATEGIES, Objective, Query, one_by_one, read_candidates, search

POOLS = {"two": ("sums", "reverse"), "three": ("follows", "sums", "reverse")}
EXAMPLES, BUDGET, LAYERS, HELD_OUT = 100, 100, 3, 300
STRATEGIES: dict[str, tuple[str, dict]] = {
    "evomm": ("cma_es", {"preset": "evomm"}),
    "cma_es on quarters": ("cma_es", {"share": 0.25}),
    "random_search": ("random_search", {"max_evaluations": BUDGET, "ranges": {"weight": [0.0, 1.0]}}),
    "surrogate": ("surrogate", {}),
    "gradient": ("gradient", {}),
    "gradient, longer": ("gradient", {"max_cost": BUDGET}),
    "pareto": ("pareto", {}),
    "expert_merging": ("expert_merging", {}),
    "lm_cocktail": ("lm_cocktail", {}),
}


def questions(domains: Sequence[str]) -> dict[str, list[Question]]:
    """The data of the search by term."""
    found = {"safety": [Question(i.prompt, REFUSAL) for i in draw_distinct("harmful", "train", EXAMPLES, seed=2)]}
    for domain in domains:
        items = draw_distinct(domain, "train", EXAMPLES // len(domains), seed=2)
        found[f"domain/{domain}"] = [Question(i.prompt, i.right) for i in items]
    return found


def run(lab: Lab, domains: Sequence[str], method_name: str, strategy_name: str, log: Path, seed: int) -> dict | None:
    """One search: each whole candidate's cost so far and fitness, and the recommended merge's fitness and held-out rates.

    None where the strategy does not search the method. LM-Cocktail's is the linear one, which stands beside task arithmetic.
    """
    name, settings = STRATEGIES[strategy_name]
    kind = SEARCH_STRATEGIES.get(name)
    if kind.methods and method_name != "task_arithmetic":
        return None
    method, groups = MERGE_METHODS.get((kind.methods or (method_name,))[0]), LayerGroups(LAYERS, 0 if name == "lm_cocktail" else 1)
    models = ["base", *domains]
    given = {"normalize": False} if any(option.name == "normalize" for option in method.options) else {}
    genes = genes_of(method, models, groups.count, given)
    model = lab.load("aligned")
    experts = {domain: Checkpoint(lab.folder / f"{domain}-expert") for domain in domains}
    live = LiveMerge(model, Checkpoint(lab.folder / "aligned"), experts, method, groups, seed)
    data, objective = SearchData(model, questions(domains), seed), Objective(kind.rule or "weighted")
    teachers = {"safety": "base", **{f"domain/{domain}": domain for domain in domains}}
    evaluator = Evaluator(live, data, genes, given, measure=kind.measure, teachers=teachers)
    result = search(kind.make(genes, seed, **settings), one_by_one(evaluator), objective, log)
    cost, path = 0.0, []
    for candidate in read_candidates(log):
        cost += candidate.query.cost
        if candidate.whole and not kind.rule:
            path.append((cost, candidate.fitness))
    fitness = Objective().fitness(Evaluator(live, data, genes, given)(Query(result.genome)))
    return {
        "path": path,
        "fitness": fitness,
        "cost": cost,
        "genes": len(genes),
        "held_out": lab.rates(model, ["harmful", "lookalike", *domains]),
    }


def reached(path: Sequence[tuple[float, float]], target: float) -> float | None:
    """The cost at which a whole candidate was first as fit as the target."""
    return next((cost for cost, fitness in path if fitness >= target), None)


def table(found: dict) -> str:
    lines = [
        "| strategy | cost to target, median (values) | final fitness less the target, median | alignment | over-refusal | skill |",
        "|---" * 6 + "|",
    ]
    for name, row in found["strategies"].items():
        costs = row["cost_to_target"]
        values = ", ".join("-" if value is None else f"{value:.1f}" for value in costs["values"])
        median = "never" if costs["median"] is None else f"{costs['median']:.1f}"
        held = row["held_out"]
        rates = " | ".join(
            f"{100 * held[k]['value']:.1f} ({100 * held[k]['ci95'][0]:.1f}-{100 * held[k]['ci95'][1]:.1f})"
            for k in ("alignment", "over_refusal", "skill")
        )
        lines.append(f"| {name} | {median} ({values}) | {row['final_fitness']['median']:+.4f} | {rates} |")
    return "\n".join(lines)


def pooled(rates: Sequence[float], n: int) -> dict:
    """The mean of rates with n items each, with the Wilson interval of all of them together."""
    hits = round(sum(rates) * n)
    return {"value": hits / (len(rates) * n), "n": len(rates) * n, "ci95": list(wilson(hits, len(rates) * n))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=["task_arithmetic", "ties"])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--threads", type=int, default=1, help="The lab is so small that one is as fast as two.")
    parser.add_argument("--candidates", action="store_true", help="Time candidates too, as candidate_speed.py does.")
    parser.add_argument("--mergekit", type=Path, help="For that: the python of an environment with mergekit.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    candidates = None
    if arguments.candidates:
        with tempfile.TemporaryDirectory() as folder:
            candidates = candidate_seconds(Path(folder), 5, arguments.mergekit)
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    results: dict = {}
    for method in arguments.methods:
        rows: dict[str, list[dict]] = {name: [] for name in arguments.strategies}
        for seed in arguments.seeds:
            lab = Lab(seed)
            for pool, domains in POOLS.items():
                for name in arguments.strategies:
                    with tempfile.TemporaryDirectory() as folder:
                        found = run(lab, domains, method, name, Path(folder) / "search.jsonl", seed)
                    if found is None:
                        continue
                    rows[name].append(found | {"seed": seed, "pool": pool})
                    print(f"{method} seed {seed} {pool} {name}: fitness {found['fitness']:.4f} for {found['cost']:.1f}", flush=True)
        targets = [max(fitness for cost, fitness in row["path"] if cost <= BUDGET) for row in rows["evomm"]]
        results[method] = {"target": targets, "strategies": {}}
        for name, each in rows.items():
            if not each:
                continue
            costs = [reached(row["path"], target) for row, target in zip(each, targets, strict=True)]
            ordered = sorted(float("inf") if cost is None else cost for cost in costs)
            median = statistics.median(ordered)
            skills = [rate for row in each for kind, rate in row["held_out"].items() if kind in POOLS["three"]]
            results[method]["strategies"][name] = {
                "cost_to_target": {"median": None if median == float("inf") else median, "values": costs},
                "final_fitness": {
                    "median": statistics.median(row["fitness"] - target for row, target in zip(each, targets, strict=True)),
                    "values": [row["fitness"] for row in each],
                    "cost": [row["cost"] for row in each],
                },
                "held_out": {
                    "alignment": pooled([row["held_out"]["alignment"] for row in each], HELD_OUT),
                    "over_refusal": pooled([row["held_out"]["over_refusal"] for row in each], HELD_OUT),
                    "skill": pooled(skills, HELD_OUT),
                },
            }
        print(f"\n{method}\n\n{table(results[method])}\n", flush=True)
        if arguments.json:  # after every method, for much work has gone into it
            first = next(iter(results.values()))
            arguments.json.write_text(json.dumps({**first, "methods": results, "candidate_s": candidates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
