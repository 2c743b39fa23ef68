"""Imitation: how near the running model is to each expert on that expert's own prompts, as Expert Merging measures it."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hfsafemerge.language_model import IGNORED, Batch
from hfsafemerge.live_merge.live import Likelihood, LiveMerge


class Imitation:
    """Minus the distance to a teacher on the answers: KL(teacher || model) + hidden * mean squared difference of hidden states.

    The teacher of a domain's prompts is its expert, that of harmful and benign ones the aligned model. What teachers give is kept
    in main memory, in bfloat16; it takes (answer tokens) x (vocabulary + layers x width) x 2 bytes.

    Reference: Expert Merging, arXiv:2509.25712: L_logit at temperature 1 and L_hid.
    Differs from the authors' code: distances are taken on the answers' tokens alone, where merging changes what is said.
    """

    def __init__(self, live: LiveMerge, teachers: Mapping[str, str], hidden: float) -> None:
        """Name the teacher of each term."""
        self._live = live
        self._teachers = teachers
        self._hidden = hidden
        self._known: dict[int, tuple[Batch, Tensor, Tensor | None]] = {}

    def prepare(self, data: Mapping[str, Sequence[Batch]]) -> bool:
        """Run the teachers on batches that they have not seen. Whether any was run, which leaves the model with a teacher's weights."""
        by_teacher: dict[str, list[Batch]] = {}
        for term, batches in data.items():
            by_teacher.setdefault(self._teachers[term], []).extend(batch for batch in batches if id(batch) not in self._known)
        for teacher, batches in by_teacher.items():
            if batches:
                self._live.set_to(teacher)
            for batch in batches:
                with torch.no_grad():
                    logits, hidden = self._forward(batch)
                keep = None if hidden is None else hidden.bfloat16().cpu()
                self._known[id(batch)] = (batch, logits.log_softmax(-1).bfloat16().cpu(), keep)
        return any(by_teacher.values())

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
