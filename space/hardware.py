"""What the app runs on, found out and said plainly: a GPU of its own, ZeroGPU in short bursts, or a CPU."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from hfsafemerge.checkpoint import in_words

Kind = Literal["gpu", "zero_gpu", "cpu"]
ZERO_GPU = 48 * 1024**3  # half an RTX Pro 6000, what a call of size "large" gets
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Hardware:
    """The machine below the app. Sizes are in bytes; `gpu_bytes` is the largest GPU's memory, 0 without one."""

    kind: Kind
    name: str
    gpu_bytes: int
    memory_bytes: int
    disk_bytes: int
    cores: int


def detect() -> Hardware:
    """The hardware of this machine; on ZeroGPU no GPU is touched, since it is there only inside a burst."""
    kind: Kind = "cpu"
    name, gpu_bytes = "CPU", 0
    if os.environ.get("SPACES_ZERO_GPU"):
        kind, name, gpu_bytes = "zero_gpu", "ZeroGPU", ZERO_GPU
    else:
        import torch

        if torch.cuda.is_available():
            found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
            largest = max(found, key=lambda gpu: int(gpu.total_memory))
            kind, name, gpu_bytes = "gpu", " and ".join(sorted({gpu.name for gpu in found})), int(largest.total_memory)
    return Hardware(kind, name, gpu_bytes, _memory(), shutil.disk_usage(Path.cwd()).free, _cores())


def said(hardware: Hardware) -> str:
    """One sentence for the page: what this machine has, and what can be done on it."""
    room = f"{hardware.cores} cores, {in_words(hardware.memory_bytes)} of memory, {in_words(hardware.disk_bytes)} of free disk"
    if hardware.kind == "gpu":
        return f"This app has a GPU of its own ({hardware.name}, {in_words(hardware.gpu_bytes)}; {room}): everything runs here."
    if hardware.kind == "zero_gpu":
        return (
            f"This app is on ZeroGPU ({room}): a GPU for a minute or two at a time, enough to chat with models. Checks and the lab run "
            "here; larger runs go to Hugging Face Jobs on your account, or to a copy of this Space with a GPU of its own."
        )
    return (
        f"This app runs on a CPU ({room}): checks and the lab run here. For models of real size, duplicate this Space with a GPU, or send "
        "the run to Hugging Face Jobs on your account."
    )


def _memory() -> int:
    """The memory that this container may use, which is less than what the machine has."""
    total = int(psutil.virtual_memory().total)
    for file in (CGROUP / "memory.max", CGROUP / "memory" / "memory.limit_in_bytes"):
        if file.exists() and (text := file.read_text().strip()).isdigit():
            return min(total, int(text))
    return total


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
