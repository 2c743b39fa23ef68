"""Rebuild a published merge from its lock alone, and compare every tensor."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from hfsafemerge import hub
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import HubError, NotReproduced
from hfsafemerge.recipe import ModelRef, Recipe
from hfsafemerge.run import inputs
from hfsafemerge.run.merging import write_merge
from hfsafemerge.run.publishing import LOCK, versions
from hfsafemerge.run.sources import Source


@dataclass(frozen=True)
class Reproduction:
    """A published model that was rebuilt bit for bit."""

    repo_id: str
    commit: str
    tensors: int


def reproduce(repo_id: str, revision: str | None = None, progress: Callable[[int, int], None] = lambda done, total: None) -> Reproduction:
    """Rebuild a published model from its lock, and compare every tensor with the published one.

    Raises:
        HubError: the model or something it was made of can't be fetched.
        NotReproduced: a tensor differs; says which, and which versions do.
    """
    file, commit = hub.fetch(repo_id, LOCK, revision)
    try:
        held = json.loads(file.read_text())
        recipe = Recipe.model_validate({key: value for key, value in held["recipe"].items() if key != "compute"})  # here is another machine
        refs = inputs.model_roles(recipe)
        commits = {role: (held["models"][role]["commit"], held["models"][role]["adapter_commit"]) for role in recipe.models}
        parameters, packages = dict(held["parameters"]), dict(held["packages"])
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise HubError(
            f"{repo_id} has a {LOCK} that can't be read: {str(error).splitlines()[0]}. It needs another version of hfsafemerge."
        ) from error
    if local := [role for role in recipe.models if any(ref and ref.path for ref in (refs[role], refs[role].adapter))]:
        raise NotReproduced(f"{repo_id} was made from local folders ({', '.join(local)}), so it can't be rebuilt from the Hub.")
    if recipe.needs_importance:
        raise NotReproduced(
            f"{repo_id} was merged by {recipe.merge.method} with importance scores, which can't be computed from a lock. Run its recipe."
        )
    sources = {role: Source.pulled(refs[role], *commits[role]) for role in recipe.models}
    published = Checkpoint(hub.pull(ModelRef(repo_id=repo_id), commit))
    with tempfile.TemporaryDirectory(prefix="hfsafemerge-") as target:
        write_merge(recipe, parameters, sources, Path(target), progress)
        rebuilt = digests(Checkpoint(Path(target)))
    there = digests(published)
    differing = sorted(name for name in there.keys() | rebuilt.keys() if there.get(name) != rebuilt.get(name))
    if differing:
        changed = [f"{name} {packages.get(name)} there, {here} here" for name, here in versions().items() if packages.get(name) != here]
        why = (
            f"Versions differ: {'; '.join(changed)}"
            if changed
            else "The versions are the same, so the weights were changed after the merge, or the processor rounds otherwise"
        )
        raise NotReproduced(f"{repo_id}: {len(differing)} of {len(there)} tensors differ, such as {differing[0]}. {why}.")
    return Reproduction(repo_id, commit, len(rebuilt))
