"""Exact selection of the largest entries: the same ones whatever the threads, the device, or the runs a tensor comes in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Bool, Float, Int32, Int64
from numpy.typing import NDArray
from torch import Tensor

from hfsafemerge.merging.inputs import Entries
from hfsafemerge.merging.methods import Number, PerExpert, fraction

SAMPLE, DEVIATIONS = 1 << 17, 3.5  # beyond so many standard deviations, one cut in 2,000, all entries are looked at
MAGNITUDE = 0x7FFFFFFF  # all bits of a float32 but its sign
LOW_BITS = 15  # of the 31 of a magnitude
AT_ONCE = 1 << 24
LONGEST, MANY = 1 << 16, 1 / 16  # entries of a row, share of those that need all bits: beyond that, leading bits tell too little


@dataclass(frozen=True)
class Cut:
    """Which entries are largest in magnitude: those above `threshold`, and of those equal to it the first ones, up to index `last`.

    Both have one entry for each row of what is cut, an expert's delta for instance.
    """

    threshold: Float[Tensor, "rows"]
    last: Int64[Tensor, "rows"]

    def keeps(self, rows: Float[Tensor, "rows n"], start: int) -> Float[Tensor, "rows n"]:
        """1 for each entry that is one of them and 0 for the others, of a run of entries that begins at index `start`."""
        sizes, limit = rows.abs(), self.threshold[:, None]
        if stays_on(rows.device):  # where a look at `last` would wait for all work before it
            return ((sizes > limit) | ((sizes == limit) & self._first(rows, start))).to(rows.dtype)
        kept = torch.ge(sizes, limit, out=torch.empty_like(sizes))  # no bool mask: those are several times slower
        for row, last in enumerate(self.last.tolist()):
            after = max(0, last + 1 - start)
            if after < rows.shape[1]:
                torch.gt(sizes[row, after:], limit[row], out=kept[row, after:])
        return kept

    def trims(self, rows: Float[Tensor, "rows n"], start: int) -> Float[Tensor, "rows n"]:
        """The rows with zeros for the entries that are none of them; the run begins at index `start`."""
        if stays_on(rows.device):
            sizes, limit = rows.abs(), self.threshold[:, None]
            return torch.where((sizes < limit) | ((sizes == limit) & ~self._first(rows, start)), 0.0, rows)  # NaN stays
        kept = torch.empty_like(rows)
        just_below = torch.nextafter(self.threshold, torch.tensor(-torch.inf)).tolist()
        for found, row, equal, above, last in zip(kept, rows, just_below, self.threshold.tolist(), self.last.tolist(), strict=True):
            after = min(max(0, last + 1 - start), len(row))  # before it, entries equal to the threshold stay
            torch.hardshrink(row[:after], equal, out=found[:after])  # what is larger in magnitude stays, and NaN too
            torch.hardshrink(row[after:], above, out=found[after:])
        return kept

    def _first(self, rows: Float[Tensor, "rows n"], start: int) -> Bool[Tensor, "rows n"]:
        """Which entries are among the first ones, that stay when they are equal to the threshold."""
        return torch.arange(rows.shape[1], device=rows.device) <= (self.last - start)[:, None]


@dataclass(frozen=True)
class Band:
    """Which entries are among the largest in magnitude, but not among the very largest: those between two cuts."""

    inside: Cut
    beyond: Cut

    def keeps(self, rows: Float[Tensor, "rows n"], start: int) -> Float[Tensor, "rows n"]:
        """1 for each entry that is one of them and 0 for the others, of a run of entries that begins at index `start`."""
        return self.inside.keeps(rows, start).sub_(self.beyond.keeps(rows, start))

    def trims(self, rows: Float[Tensor, "rows n"], start: int) -> Float[Tensor, "rows n"]:
        """The rows with zeros for the entries that are none of them; the run begins at index `start`."""
        return self.inside.trims(rows, start).sub_(self.beyond.trims(rows, start))


def stays_on(device: torch.device) -> bool:
    """Whether entries are selected by torch on their device, or compiled; else, on a CPU, numpy is several times faster."""
    return device.type != "cpu" or torch.compiler.is_compiling()


def cut(rows: Sequence[Entries], counts: Sequence[int]) -> Cut:
    """The cut that keeps so many entries of each row, the largest in magnitude and the first ones among equals."""
    return cuts(rows, [[count] for count in counts])[0]


def cuts(rows: Sequence[Entries], counts: Sequence[Sequence[int]]) -> list[Cut]:
    """Several cuts of the same rows: `counts` has for each row how many entries each cut keeps of it."""
    find = largest_on_device if stays_on(rows[0].device) else largest
    found = [[find(bits, count) for count in wanted] for bits, wanted in zip(map(magnitudes, rows), counts, strict=True)]
    return [Cut(*(torch.stack(column) for column in zip(*each, strict=True))) for each in zip(*found, strict=True)]


def largest_of_each(each_delta: list[Entries], *, density: Annotated[PerExpert, fraction(default=0.2, start=1.0, smooth=False)]) -> Cut:
    """The share `density` of each delta that is largest in magnitude."""
    return cut(each_delta, _counts(each_delta, density))


def middle_of_each(
    each_delta: list[Entries],
    *,
    density: Annotated[PerExpert, fraction(default=0.9, start=0.9, smooth=False)],
    gamma: Annotated[PerExpert, Number(default=0.01, high=1.0, searched=False)],
) -> Band:
    """The share `density` of each delta that is largest in magnitude once the share `gamma` that is largest of all is left out.

    Where both are more than the whole, less is left out.
    """
    kept, left_out = _counts(each_delta, density), _counts(each_delta, gamma)
    beyond = [min(out, delta.numel - count) for out, count, delta in zip(left_out, kept, each_delta, strict=True)]
    return Band(*cuts(each_delta, [(count + out, out) for count, out in zip(kept, beyond, strict=True)]))


def by_rank(rows: Float[Tensor, "*rows n"], values: Float[Tensor, "n"]) -> Float[Tensor, "*rows n"]:
    """For each entry the value at its rank by magnitude in its row, the smallest first; equal ones rank in their order."""
    if stays_on(rows.device):
        return torch.empty_like(rows).scatter_(-1, rank_on_device(rows), values.expand(rows.shape))
    order = torch.from_numpy(ranks(rows.numpy()))
    return torch.empty_like(rows).scatter_(-1, order, values.expand(rows.shape))


def ranks(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """The indices of the entries of each row from the smallest magnitude to the largest; equal ones in their order.

    Sorted are 32 bits an entry: the leading ones of its magnitude, one that tells whether any of the others is set, and its index.
    Rows where that leaves an order open are sorted again, by all bits; they are few where the models have 16 bits a number.
    """
    rows = np.ascontiguousarray(rows)
    last = (1 << max(1, (rows.shape[-1] - 1).bit_length())) - 1  # the bits of an index
    others = last + 1
    keys = rows.view(np.uint32) << 1  # the sign goes
    cut_off = keys & np.uint32(last + others)
    if last >= LONGEST or np.count_nonzero(cut_off) >= MANY * rows.size:
        return ranks_by_all_bits(rows)
    keys ^= cut_off
    keys |= np.minimum(cut_off, 1, out=cut_off) * np.uint32(others)
    keys |= np.arange(rows.shape[-1], dtype=np.uint32)
    keys.sort(axis=-1)
    found = (keys & np.uint32(last)).astype(np.int64)
    flat = keys.reshape(-1)
    unsure = np.flatnonzero((flat & np.uint32(others)) != 0)
    unsure = unsure[unsure % keys.shape[-1] > 0]  # the first of a row follows none
    alike = unsure[(flat[unsure] ^ flat[unsure - 1]) <= last]
    again = np.unique(alike // keys.shape[-1])
    found.reshape(-1, keys.shape[-1])[again] = ranks_by_all_bits(rows.reshape(-1, keys.shape[-1])[again])
    return found


def ranks_by_all_bits(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """What `ranks` finds, in twice the time."""
    order = (rows.view(np.int32) & MAGNITUDE).astype(np.int64) << 32 | np.arange(rows.shape[-1])
    order.sort(axis=-1)  # one integer each is sorted many times faster than pairs
    order &= 0xFFFFFFFF
    return order


def _counts(rows: Sequence[Entries], shares: PerExpert) -> list[int]:
    return [round(share * row.numel) for row, share in zip(rows, shares.tolist(), strict=True)]


def rank_on_device(rows: Float[Tensor, "*rows n"]) -> Int64[Tensor, "*rows n"]:
    """The indices of the entries of each row from the smallest magnitude to the largest; equal ones in their order."""
    return torch.sort(rows.view(torch.int32) & MAGNITUDE, dim=-1, stable=True).indices


def magnitudes(entries: Entries) -> Int32[Tensor, "n"]:
    """The bits of the entries' magnitudes: seen as integers, they are ordered as the magnitudes are."""
    bits = torch.empty(entries.numel, dtype=torch.int32, device=entries.device)
    for start, stop, run in entries.runs():
        torch.abs(run, out=bits[start:stop].view(torch.float32))
    return bits


def largest(magnitudes: Int32[Tensor, "n"], count: int) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    """The threshold and the last index of the `count` largest entries, the first ones among equals, from `magnitudes`."""
    if count <= 0 or count >= magnitudes.numel():
        return _none_or_all(magnitudes, count)
    bits = magnitudes.numpy()
    low, high = _bounds(bits, count)
    beyond = bits > high
    above = int(np.count_nonzero(beyond))
    near = np.flatnonzero(np.not_equal(bits >= low, beyond, out=beyond))
    if not above < count <= above + near.size:  # the sample misled
        above, near = 0, np.arange(bits.size)
    among, room = bits[near], count - above
    threshold = np.partition(among, -room)[-room]
    room -= int(np.count_nonzero(among > threshold))
    return torch.tensor(threshold.view(np.float32)), torch.tensor(near[np.flatnonzero(among == threshold)[room - 1]])


def largest_on_device(magnitudes: Int32[Tensor, "n"], count: int) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    """What `largest` finds, without leaving the device, or waiting for it: the threshold's 31 bits in two steps."""
    if count <= 0 or count >= magnitudes.numel():
        return _none_or_all(magnitudes, count)
    room = torch.tensor(count, device=magnitudes.device)
    upper, room = _digit((run >> LOW_BITS for run in torch.split(magnitudes, AT_ONCE)), room)
    beside = 1 << LOW_BITS  # a place for the entries with other upper bits
    lower = (torch.where(run >> LOW_BITS == upper, run & (beside - 1), beside) for run in torch.split(magnitudes, AT_ONCE))
    found, room = _digit(lower, room, beside)
    threshold = ((upper << LOW_BITS) | found).int()
    last = (torch.cumsum(magnitudes == threshold, 0) < room).sum()
    return threshold.view(torch.float32), last


def _digit(runs: Iterable[Int32[Tensor, "n"]], room: Int64[Tensor, ""], most: int = 1 << 16) -> tuple[Int64[Tensor, ""], Int64[Tensor, ""]]:
    """The digit, below `most`, of the `room`-th largest number, and how many of those with that digit are among the largest."""
    counts = torch.zeros(most + 1, dtype=torch.int64, device=room.device)
    for run in runs:
        counts.scatter_add_(0, run.long(), torch.ones((), dtype=torch.int64, device=room.device).expand(run.shape))
    counts = counts[:most]
    at_least = counts.flip(0).cumsum(0).flip(0)
    digit = (at_least >= room).sum() - 1
    return digit, room - (at_least - counts)[digit]


def _none_or_all(magnitudes: Int32[Tensor, "n"], count: int) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    threshold, last = (torch.inf, -1) if count <= 0 else (0.0, magnitudes.numel())
    return torch.tensor(threshold, device=magnitudes.device), torch.tensor(last, device=magnitudes.device)


def _bounds(bits: NDArray[np.int32], count: int) -> tuple[int, int]:
    """Two values between which the `count`-th largest very probably lies, from a sample."""
    sample = bits[:: max(1, bits.size // SAMPLE)]
    share = count / bits.size
    at, deviation = sample.size * (1 - share), (sample.size * share * (1 - share)) ** 0.5
    margin = DEVIATIONS * deviation + 1
    low, high = max(0, int(at - margin)), min(sample.size - 1, int(at + margin))
    upper = np.partition(sample, low)[low:]
    return int(upper[0]), int(np.partition(upper, high - low)[high - low])
