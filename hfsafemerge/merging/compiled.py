"""Merge methods compiled: all that happens to a run of entries, from the dtypes of the files to that of the result, in one loop.

Operation by operation, each of a kernel's steps goes through memory or the processor's cache. Compiled, an entry is read once from
each model, and written once. It is the kernel itself that is compiled, so there is no second implementation of a method; and each
operation is rounded as before, so the bits are the same.
"""

import inspect
import os
import shutil
import sys
import sysconfig
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from hfsafemerge.errors import RecipeError
from hfsafemerge.merging.methods import MergeMethod

RUN = 1 << 22
"""How many entries are merged with one call: enough for a call to take long beside its beginning, and to share among threads."""
WORTHWHILE = 1 << 12
"""Fewer entries are not worth a call; and lengths such as 0 and 1 would each be compiled anew."""
FUSED: dict[
    str, str | int | bool | Callable[..., Any]
] = {  # an entry of a stack is chosen from the entries of its rows, which are computed there and then and never stored
    "realize_reads_threshold": 1 << 30,
    "realize_opcount_threshold": 1 << 30,
    "realize_acc_reads_threshold": 1 << 30,
}

CompiledRun = Callable[..., None]
"""Writes the merged run to its first argument. The others are `base` and `experts`, the runs of the models in their own dtypes;
`start`; and the kernel's own arguments: numbers, and what steps have found."""


def can_compile(method: MergeMethod) -> bool:
    """Whether a method's kernel treats each entry by itself, so that it can be one loop.

    Not where masks of a whole tensor are cut, nor where random numbers are drawn: those take longer than what is left to gain.
    """
    return method.over == "entries" and not method.kernel.all_inputs & {"importance", "chance"}


def check_compiler() -> None:
    """Raise RecipeError where torch would find no compiler of C++, or not what it includes."""
    wanted = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which(wanted) is None:
        raise RecipeError(f"Compiled merging needs a compiler of C++, and there is no {wanted}. Install g++, or set CXX to another one.")
    if not header.exists():
        raise RecipeError(f"Compiled merging needs {header}, which is not there. Install Python's headers (python3-dev).")


def compiled(method: MergeMethod, options: Mapping[str, Any]) -> CompiledRun:
    """A method's kernel with these options as one loop. It is compiled when it is first called, and again for other dtypes."""
    return _compiled(method.kernel.function, method.kernel.inputs, tuple(sorted(options.items())))


@cache
def _compiled(kernel: Callable[..., Tensor], inputs: tuple[str, ...], options: tuple[tuple[str, Any], ...]) -> CompiledRun:
    bare, given = inspect.unwrap(kernel), dict(options)

    def merge(
        merged: Tensor,
        base: Tensor,
        experts: Sequence[Tensor],
        start: Int64[Tensor, ""],
        **found: Any,
    ) -> None:
        asked: dict[str, Any] = {}
        first = base.float()
        for name in inputs:
            if name == "base":
                asked[name] = first
            elif name == "models":
                asked[name] = _stack([first, *(expert.float() for expert in experts)])
            elif name == "deltas":
                asked[name] = _stack([expert.float() - first for expert in experts])
            else:
                asked[name] = start
        merged.copy_(bare(**asked, **found, **given))

    plain = inspect.unwrap(merge)
    own = FunctionType(  # torch keeps what it has compiled by code, so each kernel needs one of its own
        plain.__code__.replace(co_name=f"merge_{bare.__name__}"), plain.__globals__, closure=plain.__closure__
    )
    return torch.compile(own, dynamic=True, fullgraph=True, options=FUSED)


def _stack(rows: Sequence[Float[Tensor, "n"]]) -> Float[Tensor, "rows n"]:
    """The rows as a choice by their number. What torch.stack makes would be stored."""
    if not rows:
        return torch.empty(0, 0)
    number = torch.arange(len(rows))[:, None]
    found = rows[-1].expand(len(rows), -1)
    for at in reversed(range(len(rows) - 1)):
        found = torch.where(number == at, rows[at], found)
    return found
