"""The demo: the whole flow in the lab, ending in a table shaped like tables 1 and 2 of arXiv:2406.14563."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hfsafemerge._card_plot import Point, plot_alignment
from hfsafemerge.card import percent
from hfsafemerge.lab.models import lab_folder
from hfsafemerge.lab.publishing import publish_lab
from hfsafemerge.lab.recipes import GRID, POOLS, OnHub, lab_recipe
from hfsafemerge.running import Event, Listener, Run, reproduce
from hfsafemerge.running.events import silent

DOMAIN, BOTH = "D_expert", "D_expert + D_safety"


@dataclass(frozen=True)
class Variant:
    """One row of the table: how its merge is made."""

    method: str
    search: str
    data: str
    settings: Mapping[str, Any] | None = None

    @property
    def use(self) -> tuple[str, ...]:
        """The data that the fitness sees."""
        return {DOMAIN: ("domain",), BOTH: ("safety", "domain")}.get(self.data, ())

    @property
    def slug(self) -> str:
        """A short name for recipes and folders."""
        return "-".join([self.method, self.search, {DOMAIN: "domain", BOTH: "safe"}.get(self.data, "")]).strip("-").replace("_", "-")


def variants(experts: int, full: bool) -> list[Variant]:
    """The merges that are compared, the uniform one first."""
    methods = ["ties"]
    if full:
        methods += ["dare_ties", "task_arithmetic", *(["slerp"] if experts == 1 else [])]
    rows = [Variant("linear", "fixed", "none")]
    for method in methods:
        weights = {"weight": GRID[experts]}
        values = (
            {"t": [n / 10 for n in range(1, 11)]}
            if method == "slerp"
            else weights
            if method == "task_arithmetic"
            else {"density": GRID[1], **weights}
        )
        rows += [Variant(method, "grid", DOMAIN, {"values": values}), Variant(method, "cma_es", DOMAIN), Variant(method, "cma_es", BOTH)]
    rows += [Variant("task_arithmetic", "gradient", data) for data in (DOMAIN, BOTH) if full]
    return [*rows, Variant("linear", "lm_cocktail", DOMAIN), Variant("linear", "lm_cocktail", BOTH)]


HEADLINE = Variant("ties", "cma_es", BOTH)
PUSHED_POOL = "pair"


@dataclass
class Demo:
    """A demo that is under way: where it works, for whom, and who is told."""

    directory: Path
    namespace: str
    seed: int
    full: bool
    listener: Listener
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> dict[str, Any]:
        """Train or fetch the lab, publish it, run every merge, publish and rebuild one. What is done is not done again."""
        folder = self._timed("lab", self._train)
        self._timed("upload", lambda: publish_lab(folder, self.namespace, lambda repo_id: self._say(f"uploaded {repo_id}")))
        rows = [row for pool in POOLS for row in self._pool(pool)]
        headline = Run.open(self._directory(PUSHED_POOL, HEADLINE))
        rebuilt = self._timed("reproduce", lambda: reproduce(self._pushed, listener=silent))
        self._plot(rows)
        (self.directory / "table.md").write_text(table(rows))
        result = {
            "rows": rows,
            "pushed": headline.read("pushed.json")["model"]["url"],
            "reproduced": rebuilt.tensors > 0,
            "seconds": {stage: round(seconds, 1) for stage, seconds in self.seconds.items()},
        }
        (self.directory / "results.json").write_text(json.dumps(result, indent=2) + "\n")
        return result

    @property
    def _pushed(self) -> str:
        return f"{self.namespace}/lab-{PUSHED_POOL}-merge"

    def _pool(self, pool: str) -> list[dict[str, Any]]:
        """The rows of one pool of models. The headline merge generates the data that the others use too."""
        domains = POOLS[pool]
        publish = pool == PUSHED_POOL
        headline = self._do(pool, HEADLINE, "push" if publish else "evaluate", push=self._pushed if publish else None)
        ready = {kind: headline.directory / "data" / f"{kind}.parquet" for kind in ("safety", "domain")}
        runs = [(v, headline if v == HEADLINE else self._do(pool, v, "evaluate", ready=ready)) for v in variants(len(domains), self.full)]
        return expert_rows(headline, domains) + [merge_row(run, variant, domains) for variant, run in runs]

    def _train(self) -> Path:
        return lab_folder(
            self.seed, progress=lambda model, done, total: self._say(f"training {model}", done, total) if done % 20 == 0 else None
        )

    def _directory(self, pool: str, variant: Variant) -> Path:
        return self.directory / "runs" / f"{pool}-{variant.slug}"

    def _do(self, pool: str, variant: Variant, stage: str, **more: Any) -> Run:
        recipe = lab_recipe(
            f"lab-{pool}-{variant.slug}",
            POOLS[pool],
            OnHub(self.namespace),
            method=variant.method,
            layers_per_group=1 if variant.search in ("cma_es", "gradient") else 0,
            strategy=variant.search,
            settings=variant.settings,
            use=variant.use,
            compare=variant == HEADLINE,
            seed=self.seed,
            **more,
        )
        directory = self._directory(pool, variant)

        def tell(event: Event) -> None:
            self.listener(replace(event, stage=f"{directory.name}: {event.stage}"))

        run = Run(recipe, directory, tell, allow_writer=True)  # the lab's harms are fiction
        run.do(stage)
        for done, seconds in run.seconds().items():
            self.seconds[done] = self.seconds.get(done, 0.0) + seconds
        return run

    def _timed(self, name: str, work: Callable[[], Any]) -> Any:
        began = time.monotonic()
        value = work()
        self.seconds[name] = time.monotonic() - began
        return value

    def _say(self, message: str, done: int = 0, total: int = 0) -> None:
        self.listener(Event("lab", message, done, total))

    def _plot(self, rows: Sequence[Mapping[str, Any]]) -> None:
        panels: dict[str, list[Point]] = {}
        for row in rows:
            for domain, score in row["domains"].items():
                label = " ".join(
                    part for part in (row["method"] or row["experts"][0], row["search"], row["data"]) if part and part != "none"
                )
                panels.setdefault(f"{row['pool']}: {domain}", []).append(Point(label, row["alignment"], score))
        plot_alignment(panels, [self.directory / "alignment.png", self.directory / "alignment.svg"])


def expert_rows(run: Run, domains: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of the models that are merged."""
    scores = run.read("scores.json")["scores"]
    return [_row(run, [name], "", "", "", scores[name], domains) for name in run.recipe.models]


def merge_row(run: Run, variant: Variant, domains: Sequence[str]) -> dict[str, Any]:
    """The row of a merge."""
    return _row(run, run.recipe.models, variant.method, variant.search, variant.data, run.read("scores.json")["scores"]["merged"], domains)


def _row(
    run: Run, experts: Sequence[str], method: str, search: str, data: str, scores: Sequence[Mapping[str, Any]], domains: Sequence[str]
) -> dict[str, Any]:
    by = {(s["benchmark"], s["metric"]): {key: s[key] for key in ("metric", "value", "n", "ci95")} for s in reversed(scores)}
    return {
        "run": run.directory.name,
        "pool": next(pool for pool, found in POOLS.items() if tuple(domains) == found),
        "experts": list(experts),
        "method": method,
        "search": search,
        "data": data,
        "alignment": by["harmful", "alignment"],
        "refusal_rate": by["harmful", "refusal_rate"],
        "over_refusal": by["lookalike", "over_refusal"],
        "domains": {domain: by[domain, "accuracy"] for domain in domains},
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown, one table for each pool of models; rates in percent with their 95% intervals."""
    parts = []
    for pool in dict.fromkeys(row["pool"] for row in rows):
        found = [row for row in rows if row["pool"] == pool]
        domains = list(found[0]["domains"])
        n = found[0]["alignment"]["n"]
        heads = ["models", "method", "search", "data", "alignment", "over-refusal", *domains]
        lines = [f"**{pool}** (n = {n} for each rate)", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in found:
            rates = [row["alignment"], row["over_refusal"], *(row["domains"][d] for d in domains)]
            cells = [", ".join(row["experts"]), row["method"], row["search"], row["data"], *map(percent, rates)]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)
