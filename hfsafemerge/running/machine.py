"""What computes here, as far as results may depend on it: versions, the processor or GPU, and threads."""

import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hfsafemerge import __version__

PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "cma", "numpy")


def machine(where: str) -> dict[str, Any]:
    """The device and the versions, as run.json and the lock have them.

    Args:
        where: cpu, cuda or cuda:1.
    """
    return {"device": device(where), "packages": versions()}


def versions() -> dict[str, str]:
    """The versions of what computes."""
    here = {"hfsafemerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return here | {package: metadata.version(package) for package in PACKAGES}


def device(where: str) -> dict[str, Any]:
    """The processor or the GPU, with the threads of torch."""
    on_gpu = where.startswith("cuda")
    return {
        "type": "cuda" if on_gpu else "cpu",
        "name": torch.cuda.get_device_name(where) if on_gpu else _processor(),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(where))) if on_gpu else torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """What the processor calls itself; Linux alone tells more than its architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
