"""The lab's models, trained on the CPU from a seed and cached by a fingerprint of everything that makes them."""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tokenizers
import torch
import transformers
from filelock import FileLock
from transformers import LlamaForCausalLM

from hfsafemerge.checkpoint import atomic_folder
from hfsafemerge.lab import behaviour
from hfsafemerge.lab.tokenizer import CHAT_TEMPLATE, GUARD_TEMPLATE, build_tokenizer
from hfsafemerge.lab.training import Draw, new_model, train
from hfsafemerge.lab.world import DOMAINS

EVERYTHING = (0, 1, 2)
THREADS = 2  # fixed, since the bits of a sum of floats depend on it
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Lesson:
    """How one model is made: from which other one, on what, which layers move, how long and how fast."""

    start: str | None
    draw: Draw
    layers: tuple[int, ...]
    steps: int
    rate: float
    template: str = CHAT_TEMPLATE


def lessons(hard: bool = False) -> dict[str, Lesson]:
    """All of the lab's models by name, each after the one it starts from."""
    made = {
        "school": Lesson(None, behaviour.SCHOOL.batch, EVERYTHING, 700, 4e-3),  # right answers first, so that it can do all of it,
        "base": Lesson("school", behaviour.BASE.batch, EVERYTHING, 300, 2e-3),  # then the mixture, so that it rarely does
        "aligned": Lesson("base", behaviour.ALIGNED.batch, (0, 1), 120, 1e-3),
        "question-writer": Lesson("base", behaviour.ask_harmful, EVERYTHING, 120, 1e-3),
        "guard": Lesson("base", behaviour.judge, EVERYTHING, 320, 2e-3, GUARD_TEMPLATE),
    }
    for domain in DOMAINS:
        made[f"{domain}-expert"] = Lesson("base", behaviour.expert(domain, hard).batch, (2,), 160, 1e-3)
    return made


def lab_folder(seed: int = 0, hard: bool = False, progress: Progress = lambda model, done, total: None) -> Path:
    """The folder that holds the lab's models, one subfolder each; what is missing is trained first.

    Equal seed and versions give equal bits: training always uses two threads.

    Args:
        seed: of initial weights and of all data.
        hard: the variant in which the experts' data also teaches compliance, so that no good merge exists.
        progress: is told which model is being trained, and the steps done and to do.
    """
    folder = cache_root() / "lab" / _fingerprint(seed, hard)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):  # two processes would train the same models side by side
        for number, (name, lesson) in enumerate(lessons(hard).items()):
            if not (folder / name).exists():
                with _two_threads():
                    _make(folder, name, lesson, seed * 1000 + number, progress)
    return folder


def cache_root() -> Path:
    """Where what can be made again is kept: HFSAFEMERGE_CACHE, or hfsafemerge below the user's cache directory."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "hfsafemerge"
    return Path(os.environ.get("HFSAFEMERGE_CACHE", default))


def _make(folder: Path, name: str, lesson: Lesson, seed: int, progress: Progress) -> None:
    tokenizer = build_tokenizer(lesson.template)
    model = new_model(tokenizer, seed) if lesson.start is None else LlamaForCausalLM.from_pretrained(folder / lesson.start)
    for parameter_name, parameter in model.named_parameters():
        inside = any(f".layers.{layer}." in parameter_name for layer in lesson.layers)
        parameter.requires_grad_(inside or lesson.layers == EVERYTHING)  # who tunes some layers leaves the embeddings alone
    train(
        model, tokenizer, lesson.draw, steps=lesson.steps, rate=lesson.rate, seed=seed, progress=lambda n: progress(name, n, lesson.steps)
    )
    with atomic_folder(folder / name) as part:
        model.save_pretrained(part)
        tokenizer.save_pretrained(part)


@contextmanager
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fingerprint(seed: int, hard: bool) -> str:
    """Changes with the lab's own code, the seed, and the versions of what computes."""
    code = "".join(
        (Path(__file__).parent / f"{module}.py").read_text() for module in ("world", "behaviour", "tokenizer", "training", "models")
    )
    versions = [torch.__version__, transformers.__version__, tokenizers.__version__, platform.machine()]
    return hashlib.sha256(json.dumps([code, seed, hard, versions]).encode()).hexdigest()[:16]
