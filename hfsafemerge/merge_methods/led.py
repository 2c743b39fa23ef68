"""LED-Merging: an expert changes only what matters to its own task, in the base and in itself, and to no other expert's."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from hfsafemerge.merging import Entries, Number, OfTensor, PerExpert, combined, cut, fraction, merge_method

LARGEST = 0x7F7FFFFF  # the bits of the largest finite float32
Keep = Literal["largest", "smallest"]
Pattern = Literal["both", "expert", "base", "neither"]
Disjoint = Literal["symmetric", "safety_priority", "off"]


@dataclass(frozen=True)
class Elected:
    """Which entries of a tensor each expert may change. Eight experts share a byte, so that a search can keep all masks."""

    bits: UInt8[Tensor, "bytes n"]

    def of(self, deltas: Float[Tensor, "experts n"], start: int) -> Float[Tensor, "experts n"]:
        """The deltas with zeros for the entries that an expert may not change; the run begins at index `start`. NaN stays."""
        run = self.bits[:, start : start + deltas.shape[1]]
        masks = torch.stack([(run[i // 8] >> i % 8) & 1 for i in range(len(deltas))])
        return masks.to(deltas.dtype).mul_(deltas)


def elect(
    importance: list[tuple[Entries, Entries]],
    *,
    density: Annotated[PerExpert, fraction(default=0.4, start=0.4, smooth=False)],
    pattern: Pattern = "both",
    disjoint: Disjoint = "symmetric",
    keep: Keep = "largest",
) -> Elected:
    """The masks M_i of a whole tensor: locate, elect, disjoint.

    Args:
        importance: for each expert the scores of the base on that expert's data, and those of the expert on them; at least 0.
        density: r_i, the share of entries that is located in each of the two, in [0, 1]; rounded to whole entries.
        pattern: which located entries are elected: those of "both", or as ablations of the "expert" but not the base, of the "base"
            but not the expert, or of "neither".
        disjoint: what is elected for several experts: "symmetric", for none of them; "safety_priority", for the first expert if it
            is one of them, else for none; "off", for all.
        keep: whether the entries with the largest scores are located, or those with the smallest; the first ones among equals.
    """
    pairs = [[entries if keep == "largest" else _turned(entries) for entries in pair] for pair in importance]
    first = pairs[0][0]
    located = [cut(pair, [round(share * first.numel)] * 2) for pair, share in zip(pairs, density.tolist(), strict=True)]
    bits = torch.zeros(-(-len(pairs) // 8), first.numel, dtype=torch.uint8, device=first.device)
    for runs in zip(*(entries.runs() for pair in pairs for entries in pair), strict=True):
        start, stop, _ = runs[0]
        scores = torch.stack([run for *_, run in runs]).reshape(len(pairs), 2, stop - start)
        tops = [which.keeps(pair, start).bool() for which, pair in zip(located, scores, strict=True)]
        masks = _apart(torch.stack([_matching(top, pattern) for top in tops]), disjoint)
        for number, mask in enumerate(masks.to(torch.uint8)):
            bits[number // 8, start:stop] |= mask << number % 8
    return Elected(bits)


@merge_method("led", paper="arXiv:2502.16770")
def led(
    base: Float[Tensor, "n"],
    deltas: Float[Tensor, "experts n"],
    start: int,
    elected: Annotated[Elected, OfTensor(elect)],
    *,
    weight: Annotated[PerExpert, Number(start=1.0)],
) -> Float[Tensor, "n"]:
    """theta_base + sum_i w_i (M_i * delta_i).

    Location: S(theta) = |theta| * sum_n |grad of -log p(y_n | x_n)| on the expert's own examples, for the base and for the expert;
    N_i is the share `density` of each tensor's entries with the largest S. Election: E_i = N_i(base) and N_i(expert). Disjoint:
    M_i = E_i and not any other E_j. With density 1 and `disjoint: off` this is task arithmetic.

    In the paper the base is the model before any alignment, and the aligned one is an expert, calibrated on refusals. The recipe's
    `calibration` says what the scores are computed from. Variants: `pattern` elects what is in the top share of the `expert` but
    not the base, of the `base` but not the expert, or of `neither`. `disjoint: safety_priority` leaves the first expert all that
    it elects, so list the aligned one first; `off` lets masks overlap. `keep: smallest` locates the entries with the smallest S.

    Reference: Ma et al., arXiv:2502.16770, the steps location, election and disjoint; of the paper only the abstract, the project
    page and the code were at hand.
    Differs from the authors' code: `keep` turns the order of all tensors. Its scripts negate the scores of linear layers and norms
    alone before they take the largest, so run literally they locate the least important entries there, while the text says the
    most important. As there, each tensor is ranked by itself, norms and embeddings too, and what several experts elect goes to
    none of them, which may cost the aligned one much of its share; `safety_priority` is ours. The pattern that looks at the
    expert alone is left out.
    """
    return combined(weight, elected.of(deltas, start), False).add_(base)


def _turned(entries: Entries) -> Entries:
    """Other numbers, in the opposite order: the smallest become the largest, exactly."""

    def run(start: int, stop: int) -> Float[Tensor, "n"]:
        return (LARGEST - entries.run(start, stop).view(torch.int32)).view(torch.float32)  # of numbers from 0 on, bits are in order

    return replace(entries, run=run)


def _matching(located: Bool[Tensor, "2 n"], pattern: Pattern) -> Bool[Tensor, "n"]:
    in_base, in_expert = located
    wanted: Tensor = (in_base == (pattern in ("both", "base"))) & (in_expert == (pattern in ("both", "expert")))
    return wanted


def _apart(elected: Bool[Tensor, "experts n"], disjoint: Disjoint) -> Bool[Tensor, "experts n"]:
    if disjoint == "off":
        return elected
    if disjoint == "symmetric":
        return elected & (elected.sum(0) == 1)
    others = _apart(elected[1:] & ~elected[0], "symmetric")
    return torch.cat([elected[:1], others])
