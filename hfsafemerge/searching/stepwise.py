"""Strategies written as one generator: it yields queries, receives their candidates, and returns the genome it recommends."""

from collections.abc import Generator, Sequence

from hfsafemerge.searching import Candidate, Genome, Query

Steps = Generator[list[Query], Sequence[Candidate], Genome]


class Stepwise:
    """Asks what its generator yields. A generator told the same again yields the same again, so a killed search goes on."""

    def __init__(self, steps: Steps, total: int) -> None:
        """Take the first step.

        Args:
            steps: yields queries, at least one each time and at least once, and returns the genome to recommend.
            total: about how many candidates it will ask for.
        """
        self.total = total
        self.done = False
        self._steps = steps
        self._asked = next(steps)
        self._recommended: Genome = []

    def ask(self) -> list[Query]:
        """The queries of the step that comes next."""
        return self._asked

    def tell(self, results: Sequence[Candidate]) -> None:
        """Take the next step, or end."""
        try:
            self._asked = self._steps.send(results)
        except StopIteration as end:
            self._recommended = end.value
            self.done = True

    def recommend(self) -> Genome:
        """What the generator returned. Raises ValueError before it did."""
        if not self.done:
            raise ValueError(f"{type(self).__name__} was asked to recommend before it had ended.")
        return self._recommended
