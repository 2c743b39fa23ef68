"""What a search chooses, and what a strategy can ask about it."""

from dataclasses import dataclass
from typing import Literal

Genome = list[float]
Split = Literal["search", "selection"]
BACKWARD = 2.0  # a backward pass costs about two forward passes


@dataclass(frozen=True)
class Gene:
    """One number that a search chooses: which parameter it is, for whom, in which group of tensors, and its bounds."""

    parameter: str
    owner: str
    group: int
    start: float
    low: float
    high: float

    def clamp(self, value: float) -> float:
        """The nearest value within the bounds."""
        return min(max(value, self.low), self.high)


@dataclass(frozen=True)
class Query:
    """What a strategy asks: how fit a genome is, on how much of the data, and whether with the slope of its fitness."""

    genome: Genome
    share: float = 1.0
    """The share of each kind's examples, in (0, 1]."""
    part: int = 0
    """Which share of them, counted round: part 0 and 1 of a share of 1/2 are different halves. The same for equal queries, so
    that candidates can be compared on the same examples."""
    with_slope: bool = False
    """Whether to find the derivative of every term with respect to every gene too."""
    split: Split = "search"
    """Which of the data: those that strategies see, or those that are set aside to choose among the best."""

    @property
    def cost(self) -> float:
        """In evaluations of all data that strategies see: a forward pass is 1, a backward pass 2; what is set aside is not counted."""
        return self.share * (1.0 + BACKWARD * self.with_slope) * (self.split == "search")
