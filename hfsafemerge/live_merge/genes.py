"""Genes: which numbers of a merge a search chooses, and the parameters that a genome stands for."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from hfsafemerge.errors import RecipeError
from hfsafemerge.merging import MergeMethod, MergeParameters, Scope, names_in_scope, resolve_parameters
from hfsafemerge.searching import Gene, Genome


def genes_of(method: MergeMethod, models: Sequence[str], groups: int, given: Mapping[str, Any]) -> list[Gene]:
    """One gene for each number a search may choose: those that the recipe does not give.

    Args:
        method: the merge method.
        models: the names of the base and the experts.
        groups: the number of groups of tensors; each has genes of its own.
        given: what the recipe fixes.

    Raises:
        RecipeError: a number that can have no effect, or none that is left to search.
    """
    if not any(p.number.searched for p in method.parameters):
        raise RecipeError(f"{method.name} has no number that a search could choose; use the strategy fixed.")
    searched = [p for p in method.parameters if p.name not in given and p.number.searched]
    if not searched:
        raise RecipeError(
            f"The recipe gives every parameter of {method.name}, so nothing is left to search. Leave one out, or use the strategy fixed."
        )
    options = {option.name: given.get(option.name, option.default) for option in method.options}
    for parameter in searched:
        if parameter.scope is Scope.PER_EXPERT and parameter.name == "weight" and options.get("normalize") is True and len(models) == 2:
            raise RecipeError(
                f"With one expert, `normalize: true` divides the weight of {method.name} out again, so searching it is pointless. "
                "Set merge.parameters.normalize to false."
            )
    return [
        Gene(p.name, owner, group, p.number.start if p.number.start is not None else 1 / len(models), p.number.low, p.number.high)
        for group in range(groups)
        for p in searched
        for owner in names_in_scope(p.scope, models)
    ]


def decode(
    method: MergeMethod, genes: Sequence[Gene], genome: Genome, models: Sequence[str], groups: int, given: Mapping[str, Any]
) -> MergeParameters:
    """The parameters that a genome stands for, together with those that the recipe gives."""
    chosen: dict[str, list[list[float]]] = {}
    for gene, value in zip(genes, genome, strict=True):
        rows = chosen.setdefault(gene.parameter, [[] for _ in range(groups)])
        rows[gene.group].append(value)
    return resolve_parameters(method, {**given, **chosen}, models, groups)


def slopes_by_gene(method: MergeMethod, genes: Sequence[Gene], models: Sequence[str], slopes: Mapping[str, Tensor]) -> tuple[float, ...]:
    """The derivatives for each gene, from those for each number: (groups, owners) by parameter."""
    owners = {p.name: names_in_scope(p.scope, models) for p in method.parameters}
    return tuple(float(slopes[gene.parameter][gene.group, owners[gene.parameter].index(gene.owner)]) for gene in genes)
