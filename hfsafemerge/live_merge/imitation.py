"""Imitation: how near the running model is to each expert on that expert's own prompts, as Expert Merging measures it."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence, Set

import psutil
import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.checkpoint import in_words
from hfsafemerge.errors import SearchError
from hfsafemerge.language_model import IGNORED, Batch
from hfsafemerge.live_merge.live import Likelihood, LiveMerge


class Imitation:
    """Minus the distance to a teacher on the answers: KL(teacher || model) + hidden * mean squared difference of hidden states.

    The teacher of a domain's prompts is its expert, that of harmful and benign ones the aligned model. What teachers give is kept
    in main memory, in bfloat16, (answer tokens) x (vocabulary + layers x width) x 2 bytes an example, up to half of what is free
    there; what was used longest ago goes first, and is made again when it is needed.

    Reference: Expert Merging, arXiv:2509.25712: L_logit at temperature 1 and L_hid.
    Differs from the authors' code: distances are taken on the answers' tokens alone, where merging changes what is said.
    """

    def __init__(self, live: LiveMerge, teachers: Mapping[str, str], hidden: float) -> None:
        """Name the teacher of each term."""
        self._live = live
        self._teachers = teachers
        self._hidden = hidden
        self._known: OrderedDict[int, tuple[Batch, Tensor, Tensor | None]] = OrderedDict()
        self._room = psutil.virtual_memory().available // 2

    def prepare(self, data: Mapping[str, Sequence[Batch]]) -> bool:
        """Run the teachers on batches that they have not seen. Whether any was run, which leaves the model with a teacher's weights.

        Raises:
            SearchError: what they give for these batches does not fit in memory.
        """
        by_teacher: dict[str, list[Batch]] = {}
        for term, batches in data.items():
            for batch in batches:
                if id(batch) in self._known:
                    self._known.move_to_end(id(batch))
                else:
                    by_teacher.setdefault(self._teachers[term], []).append(batch)
        needed = {id(batch) for batches in data.values() for batch in batches}
        for teacher, batches in by_teacher.items():
            self._live.set_to(teacher)
            for batch in batches:
                with torch.no_grad():
                    logits, hidden = self._forward(batch)
                keep = None if hidden is None else hidden.bfloat16().cpu()
                self._known[id(batch)] = (batch, logits.log_softmax(-1).bfloat16().cpu(), keep)
                self._make_room(needed)
        return bool(by_teacher)

    def _make_room(self, needed: Set[int]) -> None:
        while sum(tensor.nbytes for _, *kept in self._known.values() for tensor in kept if tensor is not None) > self._room:
            oldest = next(iter(self._known))
            if oldest in needed:
                raise SearchError(
                    f"What the experts say of one share of the data takes more than {in_words(self._room)} of main memory. Set "
                    "search.settings.hidden to 0, a smaller search.settings.share, or fewer examples with data.count."
                )
            del self._known[oldest]

    def likelihood(self, term: str) -> Likelihood:
        """What is measured of each row of a batch of a term."""
        return self._nearness

    def _nearness(self, batch: Batch) -> Float[Tensor, "rows"]:
        _, theirs, their_hidden = self._known[id(batch)]
        logits, hidden = self._forward(batch)
        answered = batch.labels[:, -batch.answer_tokens :] != IGNORED
        target = theirs.to(logits.device).float().log_softmax(-1)  # bfloat16 rounded it
        distance = (target.exp() * (target - logits.log_softmax(-1))).sum(-1)
        if hidden is not None and their_hidden is not None:
            distance = distance + self._hidden * (hidden - their_hidden.to(hidden.device).float()).square().mean((0, -1))
        return -(distance * answered).sum(1) / answered.sum(1)

    def _forward(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "rows answer_tokens vocabulary"], Float[Tensor, "layers rows answer_tokens width"] | None]:
        """Logits and hidden states of each layer at the positions that predict the answers."""
        model, keep = self._live.model, batch.answer_tokens + 1
        out = model.model(**model.forward_inputs(batch), logits_to_keep=keep, output_hidden_states=self._hidden > 0)
        hidden = torch.stack([h[:, -keep:-1].float() for h in out.hidden_states[1:]]) if self._hidden > 0 else None
        return out.logits[:, :-1].float(), hidden
