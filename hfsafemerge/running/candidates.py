"""What a search works with: its genes and groups, its data, and the evaluators that answer queries about candidates."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hfsafemerge.errors import SearchError
from hfsafemerge.examples import load_examples
from hfsafemerge.language_model import Question
from hfsafemerge.live_merge import Evaluator, LiveMerge, SearchData, genes_of
from hfsafemerge.merging import Groups, LayerGroups, Slices, TensorGroups, chunked
from hfsafemerge.running import calibrating, inputs
from hfsafemerge.searching import DOMAIN, Gene, is_domain, topic_of

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run


def groups_of(run: "Run") -> Groups:
    """How the numbers of the merge are spread over its tensors."""
    recipe = run.recipe
    base = inputs.source(run, "base").weights()
    if recipe.merge.chunks is None:
        return recipe.groups(base.tensors)
    models = {name: inputs.source(run, name).weights() for name in recipe.models}
    run.emit("weighing tensors for their chunks")
    return chunked(models, recipe.merge.chunks.budget, recipe.merge.chunks.kappa)


def stored_groups(stored: Mapping[str, Any]) -> Groups:
    """How numbers are spread over the tensors of a merge, as parameters.json holds it."""
    if "slices" in stored:
        return Slices.stored(stored["slices"])
    return TensorGroups(**stored) if "chunks" in stored else LayerGroups(**stored)


def genes(run: "Run", groups: Groups) -> list[Gene]:
    """What the search chooses."""
    return genes_of(run.recipe.method, run.recipe.models, groups.count, run.recipe.merge.parameters)


def questions(run: "Run") -> dict[str, list[Question]]:
    """The examples of each term of the fitness: those of the domain by topic, where they have one."""
    found: dict[str, list[Question]] = {}
    for kind in run.recipe.search.use:
        for example in load_examples(run.directory / "data" / f"{kind}.parquet"):
            term = f"{DOMAIN}/{example.topic}" if kind == "domain" and example.topic else kind
            found.setdefault(term, []).append(Question(example.prompt, example.answer))
    return found


@contextmanager
def evaluator(
    run: "Run", groups: Groups, *, device: str | None = None, exact: bool = False, tell: Callable[[str], None] | None = None
) -> Iterator[Evaluator]:
    """An evaluator that is there for the block.

    Args:
        run: the run, whose data are generated.
        groups: how numbers are spread over the tensors.
        device: another device than the recipe's.
        exact: keep task vectors as they are, whatever the recipe says.
        tell: told what the user should know; by default the run's listener.
    """
    recipe = run.recipe
    spec = recipe.search
    say = tell or run.emit
    with inputs.loaded_model(run, "base", device=device) as model:
        base, *experts = (inputs.source(run, name).weights() for name in recipe.models)
        live = LiveMerge(
            model,
            base,
            dict(zip(recipe.models[1:], experts, strict=True)),
            recipe.method,
            groups,
            recipe.seed,
            memory=spec.memory,
            deltas="exact" if exact else spec.deltas,
            compile=spec.compile,
            importance=calibrating.importance(run),
        )
        say(str(live.kept))
        if spec.deltas == "int8" and not exact:
            say(f"task vectors are rounded to int8; they are off by {live.kept.rounding_error:.2%} of their length")
        data = SearchData(model, questions(run), recipe.seed, selection=spec.selection, raw=spec.format == "raw")
        try:
            yield Evaluator(
                live,
                data,
                genes(run, groups),
                recipe.merge.parameters,
                measure=recipe.strategy.measure,
                teachers=_teachers(run, data.terms),
                hidden=spec.settings.get("hidden", 1.0),
                tell=say,
            )
        finally:
            live.kept.clear()


def _teachers(run: "Run", terms: Sequence[str]) -> dict[str, str]:
    """For each term the model to imitate: the topic's expert, and the base for what is of no domain."""
    recipe = run.recipe
    found = {}
    for term in terms:
        experts = [expert.label for expert in recipe.experts if expert.topic == topic_of(term)] if is_domain(term) else ["base"]
        if recipe.strategy.measure == "imitation" and len(experts) != 1:
            raise SearchError(
                f"The data of {term} belong to {len(experts)} experts; to imitate each on its own prompts, give every expert a topic "
                "of its own, and every domain example the topic of its expert."
            )
        found[term] = experts[0] if experts else "base"
    return found
