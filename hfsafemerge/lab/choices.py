"""What can be chosen to try the flow in the lab."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hfsafemerge._recipe_settings import first_settings
from hfsafemerge.errors import RecipeError
from hfsafemerge.lab.recipes import POOLS, InFolder, lab_recipe
from hfsafemerge.merging import MERGE_METHODS
from hfsafemerge.recipe import Recipe
from hfsafemerge.searching import SEARCH_STRATEGIES

IN_WORDS: Mapping[str, str] = {
    "pair": "An aligned base and an expert in sums",
    "three": "An aligned base, and experts in sums and in reversing words",
}


@dataclass(frozen=True)
class LabChoices:
    """The models, the merge method, the search, and how many candidates it may evaluate, where it counts them."""

    pool: str = "pair"
    method: str = "ties"
    strategy: str = "cma_es"
    evaluations: int = 200

    def check(self) -> None:
        """Raise HfSafeMergeError for what there is not, or what does not go together."""
        self.recipe(Path("lab"))

    def recipe(self, folder: Path) -> Recipe:
        """The recipe for the lab's models in a folder. Raises HfSafeMergeError."""
        if self.pool not in POOLS:
            raise RecipeError(f"The lab has no pool {self.pool[:40]!r}; choose {' or '.join(POOLS)}.")
        if self.evaluations < 1:
            raise RecipeError(f"A search needs at least one evaluation; {self.evaluations} were asked for.")
        known = SEARCH_STRATEGIES.get(self.strategy)
        settings = first_settings(known.name, MERGE_METHODS.get(self.method), ())
        if "max_evaluations" in known.settings:
            settings["max_evaluations"] = self.evaluations
        return lab_recipe(
            f"lab-{self.pool}",
            POOLS[self.pool],
            InFolder(folder),
            method=self.method,
            strategy=self.strategy,
            settings=settings,
            use=("safety", "domain") if known.needs_data else (),
            writer=False,
        )

    def words(self) -> list[str]:
        """The options of `hfsafemerge init --lab` that say the same."""
        usual = asdict(LabChoices())
        return [word for name, value in asdict(self).items() if value != usual[name] for word in (f"--{name}", str(value))]
