"""Seconds for a candidate on a GPU, at the shape of Llama-3-8B with random weights in bfloat16 and two experts.

    python benchmarks/search_gpu.py [--json FILE] [--device cuda] [--layers 32] [--width 4096] [--repeats 5]

Needs a GPU with 80 GB at the full size; without one it says so and ends. Nothing is downloaded. Medians are reported:

- set_s: LiveMerge.set for each method; bandwidth_floor_s: reading three models and writing one at the speed of a plain copy
  on this device;
- rate_s: the log-likelihood of 64 answers, 128 tokens each; slope_s: the same with the derivative for every gene;
  flop_floor_s: 2 (or 6) operations a weight and token at the speed of a large bfloat16 matrix product on this device.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hfsafemerge.checkpoint import TensorInfo
from hfsafemerge.language_model import Batch, TransformersModel
from hfsafemerge.live_merge import LiveMerge
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, resolve_parameters

MODELS = ("base", "a", "b")
ROWS, TOKENS, ANSWER = 64, 128, 48
TIMED = ("linear", "task_arithmetic", "dare_ties", "ties")


class RandomWeights:
    """A checkpoint whose tensors are drawn on the device when they are read: the base's, and a tenth of their spread of noise."""

    def __init__(self, shapes: dict[str, torch.Size], seed: int, device: str) -> None:
        self.tensors = {name: TensorInfo("BF16", tuple(shape)) for name, shape in shapes.items()}
        self.seed, self.device = seed, device

    def read(self, name: str) -> torch.Tensor:
        number = list(self.tensors).index(name)
        base = self._noise(number)
        return (base if self.seed == 0 else base + 0.1 * self._noise(number + 1_000_000 * self.seed)).bfloat16()

    def _noise(self, number: int) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(number)
        return 0.02 * torch.randn(self.shape_of(number), generator=generator, device=self.device)

    def shape_of(self, number: int) -> tuple[int, ...]:
        return list(self.tensors.values())[number % 1_000_000].shape


def seconds(device: str, repeats: int, work: Callable[[], object]) -> float:
    """The median time of some repetitions, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def measure(device: str, layers: int, width: int, repeats: int) -> dict:
    """All times."""
    vocabulary = 128256 if width == 4096 else 1024
    config = LlamaConfig(hidden_size=width, intermediate_size=int(width * 3.5), num_hidden_layers=layers, num_attention_heads=max(1, width // 128),
                         num_key_value_heads=max(1, width // 512), vocab_size=vocabulary, tie_word_embeddings=False)  # fmt: skip
    with torch.device(device):
        model = LlamaForCausalLM._from_config(config, dtype=torch.bfloat16)
    running = TransformersModel.__new__(TransformersModel)  # it is given tokens, so it needs no tokenizer
    running.model, running.name = model.eval(), "base"
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    weights = sum(shape.numel() for shape in shapes.values())
    base, *experts = (RandomWeights(shapes, seed, device) for seed in range(3))
    found: dict = {"device": torch.cuda.get_device_name() if device != "cpu" else "cpu", "weights": weights, "set_s": {}}
    groups = LayerGroups(layers, 1)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (ROWS, TOKENS), generator=generator).to(device)
    labels = torch.full_like(ids, -100)
    labels[:, -ANSWER:] = ids[:, -ANSWER:]
    batch = Batch(list(range(ROWS)), ids[0, :0], ids, torch.ones_like(ids), labels, ANSWER)
    for name in TIMED:
        method = MERGE_METHODS.get(name)
        live = LiveMerge(running, base, dict(zip(MODELS[1:], experts, strict=True)), method, groups, 0, memory="device")
        given = {"density": 0.5} if name in ("dare_ties", "ties") else {}
        numbers = iter(range(1000))

        def candidate(method=method, live=live, given=given, numbers=numbers) -> None:
            live.set(resolve_parameters(method, {**given, "weight": 0.3 + 0.001 * next(numbers)}, list(MODELS), groups.count))

        found["set_s"][name] = seconds(device, repeats, candidate)
        if name == "task_arithmetic":
            parameters = resolve_parameters(method, {"weight": 0.3}, list(MODELS), groups.count)
            found["rate_s"] = seconds(device, repeats, lambda live=live: live.rate({"safety": [batch]}))
            found["slope_s"] = seconds(
                device, repeats, lambda live=live, p=parameters: live.rate_with_slopes(p, {"safety": [batch]}, ["weight"])
            )
        del live
        if device != "cpu":
            torch.cuda.empty_cache()
    size = 1 << (28 if device != "cpu" else 24)
    source = torch.empty(size, dtype=torch.bfloat16, device=device)
    target = torch.empty_like(source)
    bytes_a_second = 4 * size / seconds(device, repeats, lambda: target.copy_(source))
    side = 8192 if device != "cpu" else 512
    square = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    operations_a_second = 2 * side**3 / seconds(device, repeats, lambda: square @ square)
    found["bandwidth_floor_s"] = 2 * weights * 4 / bytes_a_second
    found["flop_floor_s"] = {
        "rate": 2 * weights * ROWS * TOKENS / operations_a_second,
        "slope": 6 * weights * ROWS * TOKENS / operations_a_second,
    }
    found["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9 if device != "cpu" else None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("Skipped: this machine has no GPU.")
        return
    found = measure(arguments.device, arguments.layers, arguments.width, arguments.repeats)
    print(json.dumps(found, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
