"""Seconds to set a candidate's weights: in memory here, by way of the disk, and in mergekit's memory.

    python benchmarks/candidate_speed.py --json FILE [--mergekit PYTHON] [--folder DIR] [--repeats 5]

Three Llama experts of 300M parameters in bfloat16 and their base (as merge_speed.py makes them). Medians are reported:

- stream_s: reading the bytes of all four models once through main memory, with two threads;
- live_s: LiveMerge.set, which writes a candidate into the running model, each time with other numbers;
- live_compiled_s: the same with the compiled kernel, where the method has one; compile_s is what the first candidate takes longer;
- plain_s: merging to the disk and loading the result with transformers;
- mergekit_s: mergekit's in-memory path (its planner and executor, as mergekit-evolve calls them; 0.1.5's own wrapper does not start), which yields the tensors.

What is measured of a candidate afterwards costs the same in all of them, and is left out.
"""

import argparse
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import transformers
from merge_speed import EXPERTS, LAYERS, METHODS, MODELS, make_models, recipe, shapes
from transformers import AutoModelForCausalLM

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter
from hfsafemerge.language_model import TransformersModel
from hfsafemerge.live_merge import LiveMerge
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, MergeParameters, TensorMerger, merge_checkpoints, resolve_parameters
from hfsafemerge.merging.compiled import can_compile

TIMED = ("linear", "task_arithmetic", "dare_ties", "ties")
THREADS = 2
IN_MERGEKIT = """
import json, sys, time, torch, yaml
from mergekit.architecture import arch_info_for_config
from mergekit.config import MergeConfiguration
from mergekit.graph import Executor
from mergekit.options import MergeOptions
from mergekit.plan import MergePlanner
torch.set_num_threads(2)
with open(sys.argv[1]) as file:
    config = MergeConfiguration.model_validate(yaml.safe_load(file))
of_models = config.referenced_models()[0].config()
found = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    planner = MergePlanner(config, arch_info_for_config(of_models), MergeOptions(), of_models)
    planner._plan()  # plan_in_memory wraps these tasks in another one, which today's pydantic refuses to make
    for _ in Executor([task for _, task in planner._tensors], math_device="cpu", storage_device="cpu").run(quiet=True):
        pass
    found.append(time.perf_counter() - began)
print(json.dumps(found))
"""


def median_of(repeats: int, work: Callable[[int], object]) -> float:
    """The median time of some repetitions, after one that does not count."""
    times = []
    for number in range(repeats + 1):
        began = time.perf_counter()
        work(number)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def stream(tensors: list[torch.Tensor]) -> None:
    """Read every byte once."""
    with ThreadPoolExecutor(THREADS, initializer=lambda: torch.set_num_threads(1)) as pool:
        list(pool.map(lambda tensor: tensor.view(torch.int64).sum(), tensors))


def measure(folder: Path, name: str, repeats: int) -> dict[str, float]:
    """The times of one method."""
    method, groups = MERGE_METHODS.get(name), LayerGroups(LAYERS)
    checkpoints = {model: Checkpoint(folder / model) for model in MODELS}
    base, *experts = checkpoints.values()
    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    of_experts = dict(zip(EXPERTS, experts, strict=True))
    live = LiveMerge(_bare(model), base, of_experts, method, groups, 0)
    given = {key: value for key, value in METHODS[name][1].items() if any(p.name == key for p in method.parameters)}

    def parameters(number: int) -> MergeParameters:
        return resolve_parameters(method, {**given, "weight": 0.3 + 0.01 * number}, list(MODELS), groups.count)

    def plain(number: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            writer = CheckpointWriter(Path(target), base.tensors)
            merge_checkpoints(TensorMerger(method, parameters(number), groups, EXPERTS, 0), checkpoints, writer)
            (Path(target) / "config.json").write_bytes((folder / "base" / "config.json").read_bytes())
            AutoModelForCausalLM.from_pretrained(target, dtype=torch.bfloat16)

    compiled: dict[str, float] = {}
    if can_compile(method):
        quick = LiveMerge(_bare(model), base, of_experts, method, groups, 0, memory="disk", compile=True)
        quick.kept = live.kept  # one copy in memory is enough
        began = time.perf_counter()
        quick.set(parameters(0))
        first = time.perf_counter() - began
        compiled["live_compiled_s"] = median_of(repeats, lambda number: quick.set(parameters(number)))
        compiled["compile_s"] = first - compiled["live_compiled_s"]
    kept = [live.kept.tensor(model, name) for model in MODELS for name in dict(model_parameters(live))]
    return {
        "stream_s": median_of(repeats, lambda number: stream(kept)),
        "live_s": median_of(repeats, lambda number: live.set(parameters(number))),
        **compiled,
        "plain_s": median_of(max(1, repeats // 2), plain),
    }


def model_parameters(live: LiveMerge) -> list[tuple[str, torch.Tensor]]:
    return list(live.model.model.named_parameters())


def _bare(model: transformers.PreTrainedModel) -> TransformersModel:
    """A model whose weights are set and that is asked nothing, so that it needs no tokenizer of its own."""
    found = TransformersModel.__new__(TransformersModel)
    found.model, found.name = model, "base"
    return found


def in_mergekit(python: Path, folder: Path, name: str) -> float:
    """mergekit's own time for the same candidate, the median of three."""
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / "merge.yml"
        written.write_text(recipe(folder, name))
        (Path(scratch) / "script.py").write_text(IN_MERGEKIT)
        count = "1" if name == "ties" else "3"
        done = subprocess.run([python, Path(scratch) / "script.py", written, count], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"mergekit could not merge in memory:\n{done.stderr[-2000:]}")
    return statistics.median(json.loads(done.stdout.splitlines()[-1]))


def candidate_seconds(folder: Path, repeats: int, mergekit: Path | None) -> dict[str, dict[str, float | None]]:
    """The times of all methods."""
    torch.set_num_threads(THREADS)
    if not (folder / "base").exists():
        make_models(folder, shapes(LAYERS), LAYERS)
    found: dict[str, dict[str, float | None]] = {}
    for name in TIMED:
        found[name] = {**measure(folder, name, repeats), "mergekit_s": in_mergekit(mergekit, folder, name) if mergekit else None}
        print(name, {key: value and round(value, 2) for key, value in found[name].items()}, flush=True)
    return found


def table(found: dict[str, dict[str, float | None]]) -> str:
    lines = [
        "| method | streaming the bytes, s | in memory, s | compiled, s | over streaming | compiling once, s | by the disk, s | mergekit in memory, s |",
        "|---" * 8 + "|",
    ]
    for name, row in found.items():
        theirs = "" if row["mergekit_s"] is None else f"{row['mergekit_s']:.1f}"
        quick = f"{row['live_compiled_s']:.2f}" if "live_compiled_s" in row else ""
        once = f"{row['compile_s']:.0f}" if "compile_s" in row else ""
        over = min(row["live_s"], row.get("live_compiled_s", row["live_s"])) / row["stream_s"]
        lines.append(
            f"| {name} | {row['stream_s']:.2f} | {row['live_s']:.2f} | {quick} | {over:.1f} | {once} | {row['plain_s']:.2f} | {theirs} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--mergekit", type=Path, help="The python of an environment with mergekit.")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = candidate_seconds(arguments.folder or Path(temporary), arguments.repeats, arguments.mergekit)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
