"""Expert Merging: coefficients that keep the merge near each expert on that expert's own prompts."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from hfsafemerge.searching import Candidate, Gene, Genome, Query, search_strategy
from hfsafemerge.searching.quadratic_models import dot

EDGE = 0.01
BETAS, TINY = (0.9, 0.999), 1e-8  # of AdamW, as torch has them by default
FIRST_PERIOD, LOWEST = 50, 0.1  # of the cosine schedule with warm restarts: steps, and the share of the rate that is left at the end


@search_strategy(
    "expert_merging",
    paper="arXiv:2509.25712",
    needs_slopes=True,
    measure="imitation",
    rule="even",
    ranks=False,
    methods=("task_arithmetic",),
)
class ExpertMerging:
    """AdamW on the coefficients: KL and hidden-state distance to each expert on its own prompts, to the aligned model on harmful ones.

    Minimises sum_k beta_k (L_logit + hidden * L_hid) + regularisation * mean |alpha - start| with alpha = sigmoid(raw). The factors
    beta_k are search.weights. Set merge.per_tensor for the authors' one coefficient a tensor, and merge.chunks for Expert Merging++.

    Reference: Zhang et al., arXiv:2509.25712; its code for AdamW, the schedule and clipping.
    Differs from the authors' code: gradients are exact means over a part of the data that moves on every step, not accumulated over
    single samples; embeddings, norms and the output head are merged too; the coefficients of the last step are taken.
    """

    def __init__(
        self,
        genes: Sequence[Gene],
        seed: int,
        *,
        steps: Annotated[int, Field(ge=1)] = 40,
        share: Annotated[float, Field(gt=0, le=1)] = 0.25,
        rate: Annotated[float, Field(gt=0)] = 0.5,
        start: Annotated[float, Field(gt=0, lt=1)] | None = None,
        regularisation: Annotated[float, Field(ge=0)] = 5.0,
        decay: Annotated[float, Field(ge=0)] = 1e-5,
        clip: Annotated[float, Field(gt=0)] = 1.0,
        hidden: Annotated[float, Field(ge=0)] = 1.0,
    ) -> None:
        """Start at task arithmetic.

        Args:
            genes: the coefficient of each expert in each group of tensors.
            seed: not used; the order of the data has the recipe's.
            steps: updates.
            share: of the data, for each update; the parts follow each other.
            rate: the learning rate at the beginning of a period.
            start: all coefficients at the beginning; None takes 1 / (number of models).
            regularisation: the factor of the mean distance from the start.
            decay: AdamW's weight decay.
            clip: the largest length of a gradient.
            hidden: the factor of the distance between hidden states; what is measured follows it.
        """
        found = np.array([gene.start if start is None else start for gene in genes])
        self._first = np.clip(found, EDGE, 1 - EDGE)  # where a sigmoid begins at 0 or 1 it stays there
        self._raw = np.log(self._first / (1 - self._first))
        self._mean, self._square = np.zeros(len(genes)), np.zeros(len(genes))
        self._share, self._rate, self._pull, self._decay, self._clip = share, rate, regularisation, decay, clip
        self._step = 0
        self.total = steps

    def ask(self) -> list[Query]:
        """The coefficients now, with slopes, on the next part of the data."""
        return [Query(self.recommend(), share=self._share, part=self._step % max(1, round(1 / self._share)), with_slope=True)]

    def tell(self, results: Sequence[Candidate]) -> None:
        """One step of AdamW."""
        (candidate,) = results
        alpha = np.array(candidate.genome)
        slope = -np.array(candidate.slope) + self._pull * np.sign(alpha - self._first) / len(alpha)
        slope *= alpha * (1 - alpha)  # of the sigmoid
        slope *= min(1.0, self._clip / max(math.sqrt(dot(slope, slope)), TINY))
        rate = self._rate * _cosine(self._step)
        self._step += 1
        self._mean = BETAS[0] * self._mean + (1 - BETAS[0]) * slope
        self._square = BETAS[1] * self._square + (1 - BETAS[1]) * slope**2
        mean, square = self._mean / (1 - BETAS[0] ** self._step), self._square / (1 - BETAS[1] ** self._step)
        self._raw = self._raw * (1 - rate * self._decay) - rate * mean / (np.sqrt(square) + TINY)

    def recommend(self) -> Genome:
        """The coefficients of the last step."""
        found: Genome = (1 / (1 + np.exp(-self._raw))).tolist()
        return found

    @property
    def done(self) -> bool:
        """Whether all steps are done."""
        return self._step >= self.total


def _cosine(step: int) -> float:
    """The share of the rate at a step: from 1 down to LOWEST in each period, and every period twice as long as the one before."""
    period = FIRST_PERIOD
    while step >= period:
        step -= period
        period *= 2
    return LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * step / period)) / 2
