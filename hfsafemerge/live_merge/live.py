"""Candidates in memory: the experts stay loaded, and one running model takes a candidate's weights in a single pass."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from hfsafemerge.checkpoint import Unread, Weights
from hfsafemerge.errors import IncompatibleExperts
from hfsafemerge.language_model import Batch, TransformersModel
from hfsafemerge.live_merge.keeping import Deltas, KeptModels, Memory
from hfsafemerge.merging import Groups, Importance, MergeMethod, MergeParameters, TensorMerger, begin_worker, names_in_scope, pull_back
from hfsafemerge.merging.compiled import can_compile, check_compiler
from hfsafemerge.searching import TermScore

Likelihood = Callable[[Batch], Float[Tensor, "rows"]]
"""What is measured of each row of a batch, larger is better; with a graph where gradients are on."""


class LiveMerge:
    """One model on a device whose weights are set, candidate by candidate, from experts that stay in memory.

    A candidate's weights come from the same kernel, in the same dtype, as the merge that is written in the end.
    """

    def __init__(
        self,
        model: TransformersModel,
        base: Weights,
        experts: Mapping[str, Weights],
        method: MergeMethod,
        groups: Groups,
        seed: int,
        *,
        memory: Memory | Literal["auto"] = "auto",
        deltas: Deltas = "exact",
        compile: bool = False,
        importance: Importance | None = None,
    ) -> None:
        """Load the tensors of the base and the experts.

        Args:
            model: the running model, the base's architecture.
            base: the base's weights.
            experts: those of the experts by name.
            method: the merge method of all candidates.
            groups: which tensors share their numbers.
            seed: of methods that draw random numbers.
            memory: where the experts are kept.
            deltas: "int8" keeps them rounded; candidates are then near what would be written, and `kept.rounding_error` says how.
            compile: make candidates with the compiled kernel, where the method has one and the model is on a CPU. The first takes
                seconds longer, the others a fraction of the time.
            importance: how important the entries are, for a method that asks for it; read from where it is whenever it is needed.

        Raises:
            RecipeError: there is no compiler.
            IncompatibleExperts: the model has weights that the checkpoints lack.
        """
        self.model = model
        self.method = method
        self.groups = groups
        self.models = ["base", *experts]
        self.seed = seed
        self._importance = importance
        self._memory: dict[tuple[str, str], Any] = {}
        self._parameters = dict(model.model.named_parameters())
        if missing := sorted(self._parameters.keys() - base.tensors.keys()):
            unknown = f"{model.name} has {len(missing)} weights that its file does not name, such as {missing[0]}"
            raise IncompatibleExperts(f"{unknown}, so candidates can't be set in memory.")
        place = {name: parameter.device for name, parameter in self._parameters.items()}
        self._on_cpu = all(device.type == "cpu" for device in place.values())
        self._compile = compile and self._on_cpu and can_compile(method)
        if self._compile:
            check_compiler()
        self.kept = KeptModels({"base": base, **experts}, place, memory, deltas)

    def set(self, parameters: MergeParameters) -> None:
        """Write a candidate's weights into the model, several tensors at a time."""
        merger = self._merger(parameters)

        def fill(name: str) -> None:
            for _ in merger.runs(name, *self._tensors(name), self._parameters[name].data.view(-1)):
                pass

        if not self._compile:
            self._with_each(fill)
            return
        if self.method.kernel.before:  # these look through whole tensors, with one thread each
            self._with_each(lambda name: merger.find(name, *self._tensors(name)))
        for name in self._parameters:
            fill(name)

    def set_to(self, model: str) -> None:
        """Write the weights of the base or an expert into the model."""

        def fill(name: str) -> None:
            found = self.kept.tensor(model, name)
            self._parameters[name].data.view(-1).copy_(found[0 : found.numel()].reshape(-1))

        self._with_each(fill)

    @torch.inference_mode()
    def rate(self, data: Mapping[str, Sequence[Batch]], likelihoods: Mapping[str, Likelihood] | None = None) -> dict[str, TermScore]:
        """What the model makes of each kind of data: the mean log-likelihood of its examples (arXiv:2406.14563, eq. 4).

        Args:
            data: batches by term.
            likelihoods: by term what is measured of a batch; the mean log-probability of its answers where there is nothing.
        """
        terms = {}
        for term, batches in data.items():
            measure = (likelihoods or {}).get(term, self.model.answer_likelihood)
            rows = torch.empty(sum(len(batch.rows) for batch in batches))
            for batch in batches:
                rows[batch.rows] = measure(batch).cpu()
            terms[term] = score(rows)
        return terms

    def free(self) -> None:
        """Drop the gradients that a pass which ran out of memory has left."""
        for parameter in self._parameters.values():
            parameter.grad = None

    def rate_with_slopes(
        self,
        parameters: MergeParameters,
        data: Mapping[str, Sequence[Batch]],
        searched: Sequence[str],
        likelihoods: Mapping[str, Likelihood] | None = None,
    ) -> tuple[dict[str, TermScore], dict[str, dict[str, Float64[Tensor, "groups owners"]]]]:
        """The same, and the derivative of each term with respect to the numbers of some parameters.

        Each weight's gradient is pulled back to the numbers as soon as it appears and freed, so only one is there at a time.

        Args:
            parameters: those that the model was set to.
            data: batches by term.
            searched: the parameters by name.
            likelihoods: by term what is measured of a batch; the mean log-probability of its answers where there is nothing.
        """
        terms, slopes = {}, {}
        for term, batches in data.items():
            measure = (likelihoods or {}).get(term, self.model.answer_likelihood)
            count = sum(len(batch.rows) for batch in batches)
            rows = torch.empty(count)
            slopes[term] = self._zeros(searched)
            with self._pulling_back(self._merger(parameters), slopes[term]):
                for batch in batches:
                    with torch.enable_grad():
                        found = measure(batch)
                        torch.autograd.backward(found.sum() / count)
                    rows[batch.rows] = found.detach().cpu()
            terms[term] = score(rows)
        return terms, slopes

    def _merger(self, parameters: MergeParameters) -> TensorMerger:
        """Candidates with NaN are merged too: their fitness tells, and a look at every entry takes long."""
        return TensorMerger(
            self.method,
            parameters,
            self.groups,
            self.models[1:],
            self.seed,
            allow_non_finite=True,
            memory=self._memory,
            compile=self._compile,
            importance=self._importance,
        )

    def _tensors(self, name: str) -> tuple[Tensor | Unread, list[Tensor | Unread]]:
        base, *experts = (self.kept.tensor(model, name) for model in self.models)
        return base, experts

    @torch.no_grad()
    def _with_each(self, work: Callable[[str], None]) -> None:
        """Do something with each parameter, several at a time."""
        if not self._on_cpu:  # one stream keeps a GPU busy, and workers would only wait for each other
            for name in self._parameters:
                work(name)
            return
        threads = torch.get_num_threads()
        try:
            with ThreadPoolExecutor(threads, "set", begin_worker) as pool:
                list(pool.map(work, self._parameters))
        finally:
            torch.set_num_threads(threads)

    def _zeros(self, searched: Sequence[str]) -> dict[str, Float64[Tensor, "groups owners"]]:
        owners = {p.name: len(names_in_scope(p.scope, self.models)) for p in self.method.parameters}
        return {name: torch.zeros(self.groups.count, owners[name], dtype=torch.float64) for name in searched}

    @contextmanager
    def _pulling_back(self, merger: TensorMerger, slopes: Mapping[str, Float64[Tensor, "groups owners"]]) -> Iterator[None]:
        """Every gradient of a weight that appears in the block is pulled back, added to the slopes, and freed."""

        def hook(name: str) -> Callable[[Tensor], None]:
            def pull(parameter: Tensor) -> None:
                gradient, parameter.grad = parameter.grad, None
                if gradient is not None:
                    pull_back(merger, name, *self._tensors(name), gradient, slopes)

            return pull

        handles = [p.register_post_accumulate_grad_hook(hook(name)) for name, p in self._parameters.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def score(likelihoods: Float[Tensor, "examples"]) -> TermScore:
    """The mean over examples, and its standard error."""
    found = likelihoods.double()
    n = len(found)
    return TermScore(float(found.mean()), n, float(found.std() / n**0.5) if n > 1 else 0.0)
