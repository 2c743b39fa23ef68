"""The hardware of Spaces and jobs, as the Hub lists it; the prices are examples."""

from collections.abc import Collection
from typing import Any

FREE = "cpu-basic"
# name: what it is called, its processors, memory and disk, its accelerator with its memory in GB, and millionths of a dollar a minute
TABLE: dict[str, tuple[str, str, str, str, tuple[str, int] | None, int]] = {
    FREE: ("CPU Basic", "2 vCPU", "16 GB", "20 GB", None, 167),
    "cpu-upgrade": ("CPU Upgrade", "8 vCPU", "32 GB", "50 GB", None, 500),
    "zero-a10g": ("ZeroGPU", "8 vCPU", "70 GB", "50 GB", ("H200", 70), 0),
    "t4-small": ("Nvidia T4 - small", "4 vCPU", "15 GB", "50 GB", ("T4", 16), 6667),
    "t4-medium": ("Nvidia T4 - medium", "8 vCPU", "30 GB", "100 GB", ("T4", 16), 10000),
    "l4x1": ("1x Nvidia L4", "8 vCPU", "30 GB", "380 GB", ("L4", 24), 13333),
    "l40sx1": ("1x Nvidia L40S", "8 vCPU", "62 GB", "380 GB", ("L40S", 48), 30000),
    "a10g-small": ("Nvidia A10G - small", "4 vCPU", "15 GB", "110 GB", ("A10G", 24), 16667),
    "a10g-large": ("Nvidia A10G - large", "12 vCPU", "46 GB", "200 GB", ("A10G", 24), 25000),
    "a100-large": ("Nvidia A100 - large", "12 vCPU", "142 GB", "1000 GB", ("A100", 80), 41667),
    "h200": ("Nvidia H200", "23 vCPU", "256 GB", "3000 GB", ("H200", 141), 83333),
}
HARDWARE = tuple(name for name in TABLE if name != "h200")
"""What a Space can have."""
FLAVORS = tuple(name for name in TABLE if name != "zero-a10g")
"""What a job can have."""


def described(names: Collection[str]) -> list[dict[str, Any]]:
    """Hardware as the Hub lists it."""
    return [
        {
            "name": name, "prettyName": pretty, "cpu": cpu, "ram": ram, "ephemeralStorage": disk, "unitLabel": "minute",
            "unitCostMicroUSD": price, "unitCostUSD": price / 1e6,
            "accelerator": accelerator and {
                "type": "gpu", "model": accelerator[0], "quantity": "1", "vram": f"{accelerator[1]} GB", "manufacturer": "Nvidia",
            },
        }
        for name, (pretty, cpu, ram, disk, accelerator, price) in TABLE.items()
        if name in names
    ]  # fmt: skip
