"""The data of a run, or of a folder, as datasets on the Hub: each kind in a repository of its own, with its card."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hfsafemerge import __version__, hub
from hfsafemerge.card import resolve_license
from hfsafemerge.dataset_card import ROWS, DatasetFacts, Step, dataset_card
from hfsafemerge.errors import DataError, RecipeError, RunError
from hfsafemerge.examples import COLUMNS, Example, Kind, load_examples
from hfsafemerge.recipe import PushSpec, Recipe
from hfsafemerge.running import inputs
from hfsafemerge.running.generating import REPORT

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

MADE_BY = "hfsafemerge.json"
KINDS: tuple[Kind, ...] = ("safety", "domain", "benign")
VETTED: Mapping[Kind, str] = {"safety": "refusal", "benign": "help"}  # what an answer of a kind has to be; of domains it may be any
Notify = Callable[[str], None]


@dataclass(frozen=True)
class Target:
    """Where datasets go, and how: `repo_id` is followed by -safety, -domain and -benign.

    With `create_pr` what is there already gets a pull request instead, and keeps its settings; with `beside` too, what is not is
    published as always, but below the user's own name. `judge_error` says in the cards what is known of how often the judges err; by
    default what the recipe of a run gives. With `overwrite` rows are committed on top of what somebody else has made, too.
    """

    repo_id: str
    private: bool = True
    license: str | None = None
    create_pr: bool = False
    judge_error: str | None = None
    beside: bool = False
    overwrite: bool = False

    def of(self, kind: Kind) -> str:
        """The repository of a kind."""
        return f"{self.repo_id}-{kind}"


def made_kinds(recipe: Recipe) -> list[Kind]:
    """The kinds of data that a run makes; ready examples are others' to publish."""
    return [kind for kind in KINDS if (spec := getattr(recipe.data, kind)) is not None and spec.examples is None]


def places_of(kinds: Sequence[Kind], target: Target, notify: Notify = hub.say_nothing) -> dict[Kind, hub.Place]:
    """Where each kind goes, and whether in a pull request. Asks the Hub only what is needed to know that. Raises HubError."""
    places: dict[Kind, hub.Place] = {}
    for kind in kinds:
        own = target.create_pr and target.beside and hub.is_missing(target.of(kind), "dataset", notify)
        repo_id = f"{hub.user_name(notify)}/{target.of(kind).split('/')[1]}" if own else target.of(kind)
        places[kind] = hub.Place(
            repo_id,
            "dataset",
            MADE_BY,
            private=target.private,
            gated=kind == "safety",
            overwrite=target.overwrite,
            pull_request=target.create_pr and not own,
        )
    return places


def push_run(run: "Run", target: Target, notify: Notify, places: Mapping[Kind, hub.Place] | None = None) -> dict[Kind, hub.Pushed]:
    """Publish the data that a run has made; in places that were checked, or else are now, before anything is published.

    Raises:
        RunError, RecipeError, DataError: as for `facts_of`.
        HubError: the Hub refused.
    """
    known = places or places_of(made_kinds(run.recipe), target, notify)
    facts = facts_of(run, target, known)
    if places is None:
        hub.check_target([*known.values()], notify=notify)
    return _publish(facts, run.read(REPORT), known, notify)


def facts_of(run: "Run", target: Target, places: Mapping[Kind, hub.Place]) -> list[DatasetFacts]:
    """What would be published of the data that a run has made, each kind with all that its card says.

    Raises:
        RunError: nothing was generated.
        RecipeError: a licence does not follow from those of the sources, and none was chosen.
        DataError: rows were not vetted.
    """
    kinds = made_kinds(run.recipe)
    if not kinds or not run.is_done("generate"):
        remedy = "Its recipe takes ready examples only." if not kinds else f"Run `hfsafemerge generate {run.directory}` first."
        raise RunError(f"{run.directory} has no data of its own making to publish. {remedy}")
    recipe, report = run.recipe.public(), run.read(REPORT)
    checked = public_references(recipe, run.read(inputs.CHECKED))
    facts = []
    for kind in kinds:
        file, found = run.directory / "data" / f"{kind}.parquet", sources(recipe, checked, kind)
        license, note = resolve_license(found, target.license, of=f"the {kind} data", sources="their sources")
        facts.append(
            DatasetFacts(
                kind=kind,
                repo_id=places[kind].repo_id,
                name=recipe.name,
                rows=file,
                examples=_vetted(kind, file),
                models=[checked["models"][role]["ref"] for role in recipe.models],
                funnel=funnel(report[kind]),
                settings=_settings(recipe, kind, report[kind], run.made_count),
                sources=found,
                license=license,
                license_note=note,
                judge_error=target.judge_error or _judge_error(recipe),
            )
        )
    return facts


def push_folder(folder: Path, target: Target, notify: Notify) -> dict[Kind, hub.Pushed]:
    """Publish the parquet files of a folder, which the library or a run has written.

    Raises:
        RecipeError: the target is no repository id.
        RunError: the folder holds none, or no licence was chosen.
        DataError: a file was not written by this tool, or holds rows that were not vetted.
        HubError: the Hub refused.
    """
    files = {kind: file for kind in KINDS if (file := folder / f"{kind}.parquet").is_file()}
    if not files:
        raise RunError(f"{folder} is no run directory, and holds none of {', '.join(f'{kind}.parquet' for kind in KINDS)}.")
    if target.license is None:
        raise RunError(f"{folder} does not say under which licences its texts are. Look them up, then give --license.")
    try:
        PushSpec(repo_id=target.repo_id)
    except ValidationError as error:
        raise RecipeError(f"{target.repo_id!r} is no repository id. Write it as namespace/name.") from error
    facts, places = [], places_of([*files], target, notify)
    for kind, file in files.items():
        examples = _vetted(kind, file)
        named = {name for e in examples for name in (e.provenance.generator, e.provenance.responder) if name}
        found: dict[str, str | None] = dict.fromkeys(sorted(named))
        license, note = resolve_license(found, target.license, of=f"the {kind} data", sources="their sources")
        name = target.repo_id.split("/")[1]
        facts.append(DatasetFacts(kind, places[kind].repo_id, name, file, examples, [], [], {}, found, license, note, target.judge_error))
    hub.check_target([*places.values()], notify=notify)
    return _publish(facts, {}, places, notify)


def public_references(recipe: Recipe, checked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """check.json with the references of a public recipe."""
    roles: dict[str, Mapping[str, object]] = {"models": inputs.model_roles(recipe), "datasets": inputs.dataset_roles(recipe)}
    return {kind: {role: {**checked[kind][role], "ref": str(ref)} for role, ref in refs.items()} for kind, refs in roles.items()}


def sources(recipe: Recipe, checked: Mapping[str, Any], kind: Kind) -> dict[str, str | None]:
    """The licences by reference, as check.json has them, of all whose text stands in the data of a kind."""
    responders = {"safety": recipe.models, "domain": recipe.models[1:], "benign": ["base"]}[kind]
    writers = {"safety": ["question writer"], "domain": [], "benign": ["benign question writer"]}[kind]
    found = [checked["models"][role] for role in (*responders, *writers) if role in checked["models"]]
    found += [checked["datasets"][role] for role in (f"{kind} questions",) if role in checked["datasets"]]
    return {each["ref"]: each["license"] for each in found}


def funnel(report: Mapping[str, Any]) -> list[Step]:
    """The steps from what was written to what is kept, of one kind's part of generation.json."""
    experts = report.get("experts")
    parts = {f"{name}: ": part for name, part in experts.items()} if experts else {"": report}
    steps = [step for prefix, part in parts.items() for step in _steps(part, prefix)]
    return [*steps, Step("published", report["kept"])]


def _steps(part: Mapping[str, Any], prefix: str) -> Iterator[Step]:
    counts: Mapping[str, int] = part["questions"]
    yield Step(f"{prefix}prompts written or drawn", sum(counts.values()))
    yield from (Step(f"{prefix}left out: {reason}", rows) for reason, rows in counts.items() if reason != "kept")
    yield Step(f"{prefix}prompts kept", counts["kept"])
    yield from (Step(f"refused by {model}", rows) for model, rows in part.get("refused", {}).items())
    yield from (Step(f"{prefix}answers left out: {reason}", n) for reason, n in part.get("answers", {}).items() if reason != "kept")
    if "answered" in part:
        yield Step(f"{prefix}answered", part["answered"])


def _settings(recipe: Recipe, kind: Kind, report: Mapping[str, Any], count: int) -> dict[str, str]:
    """How the data of a kind were asked for."""
    data, found = recipe.data, {"seed": str(recipe.seed), "prompts wanted": str(count)}
    if getattr(getattr(data, kind), "questions", None) is None:
        asked = recipe.generator(kind)
        found |= {
            "generator": f"{asked.name} ({asked.paper})",
            "SHA-256 of its prompt": hashlib.sha256(asked.prompt.encode()).hexdigest(),
            "sampling of prompts": f"temperature {asked.temperature:g}, at most {asked.max_new_tokens} tokens",
            "example questions shown": str(asked.in_context),
        }
    found["answers"] = f"greedy, at most {data.max_new_tokens} tokens"
    same, alike = data.duplicates, ["equal but for case and spaces"]
    if same.similarity is not None:
        alike.append(f"Jaccard similarity of runs of five words at least {same.similarity:g}")
    if same.encoder is not None:
        alike.append(f"cosine of embeddings by {same.encoder} at least {same.encoder_similarity:g}")
    kept_out = ", ".join(f"{name} ({spec.dataset}, split {spec.dataset.split})" for name, spec in recipe.evaluation.benchmarks.items())
    found |= {f"tokens {name}": f"{tokens:,}" for name, tokens in report["tokens"].items()}
    return found | {"counts as the same": "; ".join(alike), "benchmarks whose items are left out": kept_out or "none"}


def _judge_error(recipe: Recipe) -> str | None:
    """What the recipe knows of how often the judges of the data err; None where that is nothing."""
    known = {name: found for name in recipe.data.judges if (found := recipe.evaluation.judge_errors.get(name)) is not None}
    said = [
        f"{name} flagged {found.caught:,} of {found.unsafe:,} unsafe replies, and passed {found.passed:,} of {found.safe:,} safe ones"
        + (f" ({found.source})" if found.source else "")
        for name, found in known.items()
    ]
    if said and (others := [name for name in recipe.data.judges if name not in known]):
        said.append(f"of {' and '.join(others)} it was not measured")
    return "; ".join(said) + "." if said else None


def _vetted(kind: Kind, file: Path) -> list[Example]:
    """The rows of a file, unless there is one that must not be published."""
    import pyarrow.parquet as pq

    examples = load_examples(file)
    if (names := pq.read_schema(file).names) != list(COLUMNS):
        raise DataError(f"{file} has the columns {', '.join(names)}; data that this version writes have {', '.join(COLUMNS)}.")
    strangers = sum(example.kind != kind for example in examples)
    wanted = VETTED.get(kind)
    unvetted = sum(not (e.provenance.judges and e.provenance.response_type == wanted) for e in examples) if wanted else 0
    if strangers or unvetted:
        fault = f"are not of kind {kind}" if strangers else f"were not found to be a {wanted} by judges"
        raise DataError(
            f"{strangers or unvetted} of {len(examples)} rows of {file} {fault}, so nothing of it is published. Generate it again."
        )
    return examples


def _publish(
    facts: Sequence[DatasetFacts], report: Mapping[str, Any], places: Mapping[Kind, hub.Place], notify: Notify
) -> dict[Kind, hub.Pushed]:
    pushed = {}
    for each in facts:
        message, place = f"{each.kind} data of {each.name} ({each.tag})", places[each.kind]
        with TemporaryDirectory(prefix="hfsafemerge-") as folder:
            card, made = Path(folder) / "README.md", Path(folder) / MADE_BY
            card.write_text(dataset_card(each))
            about = {"version": __version__, "kind": each.kind, "sha256": each.digest, "canary": each.canary}
            made.write_text(json.dumps(about | {"generation": report.get(each.kind)}, indent=2) + "\n")
            files = {"README.md": card, MADE_BY: made, ROWS: each.rows}
            if place.pull_request:
                pushed[each.kind] = hub.propose(place, files, message, notify=notify)
            else:
                pushed[each.kind] = hub.publish(place, files, message, tag=each.tag, notify=notify)
        notify(f"{each.kind} data at {pushed[each.kind].pull_request or pushed[each.kind].url}")
    return pushed
