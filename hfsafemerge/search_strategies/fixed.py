"""No search: the parameters that the recipe gives."""

from collections.abc import Sequence

from hfsafemerge.searching import Candidate, Gene, Genome, Query, search_strategy


@search_strategy("fixed", needs_data=False, ranks=False)
class Fixed:
    """Takes the recipe's parameters as they are."""

    def __init__(self, genes: Sequence[Gene], seed: int) -> None:
        """Needs neither genes nor a seed; both are accepted so that all strategies are made alike."""
        self.done = True
        self.total = 0

    def ask(self) -> list[Query]:
        """Nothing to evaluate."""
        return []

    def tell(self, results: Sequence[Candidate]) -> None:
        """Nothing to learn."""

    def recommend(self) -> Genome:
        """No genes: the recipe's parameters stand."""
        return []
