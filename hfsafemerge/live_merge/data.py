"""The data that candidates are measured on: split once, tokenized once, and cut into the shares that strategies ask for."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from hfsafemerge.errors import SearchError
from hfsafemerge.language_model import Batch, Question, Tokens, TransformersModel
from hfsafemerge.searching import Query, Split


class SearchData:
    """Tokenized questions by term, in an order that follows from the seed; equal queries get equal examples."""

    def __init__(
        self, model: TransformersModel, questions: Mapping[str, Sequence[Question]], seed: int, *, selection: float = 0.0, raw: bool = False
    ) -> None:
        """Tokenize everything and set the selection split aside.

        Args:
            model: whose tokenizer and chat template to use.
            questions: prompts and answers of each term.
            seed: of the order.
            selection: the share of each term's questions that is set aside, in [0, 1).
            raw: without the chat template.

        Raises:
            SearchError: a term has no questions, or too few to set some aside.
        """
        self._model = model
        self._splits: dict[Split, dict[str, list[Tokens]]] = {"search": {}, "selection": {}}
        self._batches: dict[tuple[str, Split, int, int], list[Batch]] = {}
        for term, found in questions.items():
            aside = max(1, round(selection * len(found))) if selection else 0
            if len(found) <= aside:
                raise SearchError(f"{term} has {len(found)} examples; a search that sets {selection:g} of them aside needs more.")
            tokens = model.tokenized(found, raw=raw)
            shuffled = [tokens[i] for i in _order(seed, term, len(found))]
            self._splits["selection"][term], self._splits["search"][term] = shuffled[:aside], shuffled[aside:]

    @property
    def terms(self) -> list[str]:
        """The names of the terms."""
        return list(self._splits["search"])

    def count(self, split: Split, term: str) -> int:
        """The number of examples."""
        return len(self._splits[split][term])

    def batches(self, term: str, query: Query) -> list[Batch]:
        """The examples that a query asks for."""
        found = self._splits[query.split][term]
        size = max(1, round(query.share * len(found)))
        first = query.part * size % len(found)
        key = (term, query.split, size, first)
        if key not in self._batches:
            self._batches[key] = self._model.batched([found[(first + i) % len(found)] for i in range(size)])
        return self._batches[key]


def _order(seed: int, term: str, count: int) -> list[int]:
    digest = hashlib.sha256(f"{seed}\0{term}".encode()).digest()
    found: list[int] = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little"))).permutation(count).tolist()
    return found
