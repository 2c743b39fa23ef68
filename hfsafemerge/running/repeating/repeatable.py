"""Of the recipe in a lock, what is repeated; nothing else of it is looked at, since anyone may have written it."""

from hfsafemerge.recipe import DatasetRef, ModelRef, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.candidates import stored_groups
from hfsafemerge.running.repeating.locked import Lock, Made

CHANGES_BITS = ("dtype", "threads", "batch_tokens", "quantization")  # of compute; the rest is this machine's own affair
MOST_THREADS = 4096  # that a lock may ask this machine for
CHANGES_NONE = ("executor", "workers", "memory", "compile")  # of search


def recipe_of(lock: Lock, *, search: bool, evaluate: bool) -> Recipe:
    """The recipe with what is to be repeated: the weights always, the search and the evaluation where they are asked for.

    Models that wrote questions and judges that chose answers are left out, as those are done with.

    Raises:
        ValidationError, ValueError, KeyError, TypeError, AttributeError: what the lock holds is none, or does not fit together.
    """
    held = lock.recipe
    compute = {key: value for key, value in held.get("compute", {}).items() if key in CHANGES_BITS}
    if all(lock.made_on[stage].device.type == "cpu" for stage in repeated(lock, search=search, evaluate=evaluate)):
        compute["device"] = "cpu"  # a GPU that is here rounds otherwise
    if not isinstance(threads := compute.get("threads", 1), int) or threads > MOST_THREADS:
        raise ValueError(f"compute.threads is {threads}")
    kept = {key: held[key] for key in ("name", "seed", "base", "experts", "merge") if key in held} | {"compute": compute}
    whole = Recipe.model_validate(held)
    ready = {kind: {"examples": held["data"][kind]["examples"]} for kind in ("safety", "domain", "benign") if _is_ready(whole, kind)}
    if whole.needs_importance:
        kept["calibration"] = held.get("calibration", {})
        for name in whole.models[1:]:
            if not {"source", "ids", "base", "expert"} <= (lock.calibration or {}).get(name, {}).keys():
                raise ValueError(f"calibration.{name} is not there")
    if search:
        kept["search"] = {key: value for key, value in held.get("search", {}).items() if key not in CHANGES_NONE}
    used = set(whole.search.use) if search and whole.strategy.needs_data else set()
    used |= {note["source"].get("kind") for note in (lock.calibration or {}).values()} if whole.needs_importance else set()
    kept["data"] = {kind: spec for kind, spec in ready.items() if kind in used}
    if evaluate:
        asked = {judge for benchmark in whole.benchmarks for judge in benchmark.judges}
        kept["evaluation"] = held.get("evaluation", {})
        kept["judges"] = {name: spec for name, spec in held.get("judges", {}).items() if name in asked}
    if lock.parameters.method != whole.merge.method or lock.seed != whole.seed:
        raise ValueError("its parameters are not of its recipe")
    stored_groups(lock.parameters.groups)
    return Recipe.model_validate(kept)


def repeated(lock: Lock, *, search: bool, evaluate: bool) -> list[Made]:
    """The stages that are done again."""
    asked: dict[Made, bool] = {"calibrate": lock.calibration is not None, "merge": True, "search": search, "evaluate": evaluate}
    return [stage for stage, wanted in asked.items() if wanted]


def roles_of(recipe: Recipe, *, evaluate: bool) -> tuple[dict[str, ModelRef], dict[str, DatasetRef]]:
    """The models and datasets that are read when such a recipe is repeated, by the part that they play."""
    asked = {judge for benchmark in recipe.benchmarks for judge in benchmark.judges} if evaluate else set()
    wanted = {*recipe.models, *(f"judge {name}" for name in asked)}
    models = {role: ref for role, ref in inputs.model_roles(recipe).items() if role in wanted}
    return models, inputs.dataset_roles(recipe)


def _is_ready(recipe: Recipe, kind: str) -> bool:
    spec = getattr(recipe.data, kind)
    return spec is not None and spec.examples is not None
