"""The stage push: the datasets, then the model with its card, scores, recipe and lock."""

import hashlib
import json
import platform
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal

from hfsafemerge import __version__, hub
from hfsafemerge._card_plot import plot_alignment, points_of
from hfsafemerge.card import alignment_card, dataset_card, resolve_license
from hfsafemerge.checkpoint import Checkpoint, digests
from hfsafemerge.errors import RunError
from hfsafemerge.examples import load_examples
from hfsafemerge.recipe import Recipe
from hfsafemerge.run import inputs
from hfsafemerge.run.evaluating import SCORES
from hfsafemerge.run.generating import REPORT
from hfsafemerge.run.merging import MERGED_FILES, MODEL, stamp, write_mergekit_config
from hfsafemerge.run.searching import LOG, PARAMETERS
from hfsafemerge.searching import read_candidates

if TYPE_CHECKING:
    from hfsafemerge.run.directory import Run

LOCK = "hfsafemerge.lock.json"
MADE_BY = "hfsafemerge.json"
PACKAGES = ("torch", "transformers", "safetensors", "tokenizers", "huggingface_hub", "cma", "numpy")


def push(run: "Run") -> None:
    """Publish the datasets, then the model with its card, scores, recipe and lock in one commit."""
    target = run.recipe.push
    if target is None:
        raise RunError(
            "The recipe does not say where to push. Add `push: {repo_id: namespace/name}`, or give REPO_ID to `hfsafemerge push`."
        )
    if stamp(run.directory / MODEL) != run.read(MERGED_FILES):
        raise RunError(f"{run.directory / MODEL} was changed after the merge. Delete {run.directory / MERGED_FILES} and merge again.")
    recipe = run.recipe.public()
    checked, chosen, results = _public(recipe, run.read(inputs.CHECKED)), run.read(PARAMETERS), run.read(SCORES)
    kinds: tuple[Literal["safety", "domain"], ...] = ("safety", "domain")
    made = {kind: f"{target.repo_id}-{kind}" for kind in kinds if _was_generated(run.recipe, kind)}
    hub.check_can_write([target.repo_id])
    linked = {}
    for kind, repo_id in made.items():
        linked[kind] = asdict(_push_dataset(run, kind, repo_id, checked))
        run.emit(f"{kind} data at {linked[kind]['url']}", len(linked), len(made) + 1)
    publish = run.work("push")
    panels = points_of(results["scores"])
    plots = [publish / "alignment.png", publish / "alignment.svg"] if panels else []
    if panels:
        plot_alignment(panels, plots)
    steering = ("safety examples", "safety questions", "domain examples", "benign questions")
    taken = [ref.repo_id for role, ref in inputs.dataset_roles(run.recipe).items() if role in steering and ref.repo_id]
    card = alignment_card(
        recipe,
        repo_id=target.repo_id,
        endpoint=hub.api().endpoint,
        checked=checked,
        chosen=chosen,
        candidates=read_candidates(run.directory / LOG),
        results=results,
        datasets=[*made.values(), *dict.fromkeys(taken)],  # one dataset may give both harmful and harmless prompts
        plot=plots[0].name if plots else None,
    )
    (publish / "README.md").write_text(card)
    (publish / "recipe.yaml").write_text(recipe.to_yaml())
    (publish / LOCK).write_text(json.dumps(lock(run, recipe, checked, chosen), indent=2) + "\n")
    write_mergekit_config(run, recipe, chosen, publish)  # in place of the model's own, which names this machine's folders
    (publish / SCORES).write_text(json.dumps(results, indent=2) + "\n")
    shutil.copyfile(run.directory / LOG, publish / LOG)
    files = {path.name: path for folder in (run.directory / MODEL, publish) for path in sorted(folder.iterdir()) if path.is_file()}
    hub.create_repo(target.repo_id, "model", private=target.private, marker=LOCK)
    pushed = hub.push_files(target.repo_id, "model", files, f"{run.recipe.name}, merged by hfsafemerge {__version__}", run.emit)
    run.write("pushed.json", {"model": asdict(pushed), "datasets": linked})
    shutil.copyfile(publish / "README.md", run.directory / "card.md")
    run.emit(f"model at {pushed.url}", len(made) + 1, len(made) + 1)


def _was_generated(recipe: Recipe, kind: str) -> bool:
    spec = recipe.data.safety if kind == "safety" else recipe.data.domain
    return spec is not None and spec.examples is None


def _push_dataset(run: "Run", kind: Literal["safety", "domain"], repo_id: str, checked: Mapping[str, Any]) -> hub.Pushed:
    assert run.recipe.push is not None
    data = run.directory / "data" / f"{kind}.parquet"
    examples = load_examples(data)
    writers = sorted({example.provenance.generator for example in examples})
    responders = Counter(example.provenance.responder for example in examples)
    report = run.read(REPORT)[kind]
    steps = [{"what": "questions", "by": ", ".join(writers), "kept": _questions(report)}]
    steps += [{"what": "answers", "by": responder, "kept": count} for responder, count in sorted(responders.items())]
    license, _ = resolve_license(inputs.licenses(run.recipe, checked, kind), run.recipe.push.license)
    card = dataset_card(
        kind,
        run.recipe,
        license=license,
        topics=dict(sorted(Counter(example.topic for example in examples).items())),
        models=[checked["models"][role]["ref"] for role in run.recipe.models],
        judges=inputs.judge_labels(run, run.recipe.data.judges) if kind == "safety" else [],
        steps=steps,
    )
    work = run.work("push") / kind
    work.mkdir(exist_ok=True)
    (work / "README.md").write_text(card)
    (work / MADE_BY).write_text(json.dumps({"version": __version__, "kind": kind, "generation": report}, indent=2) + "\n")
    hub.create_repo(repo_id, "dataset", private=run.recipe.push.private, marker=MADE_BY, gated=kind == "safety")
    files = {"README.md": work / "README.md", MADE_BY: work / MADE_BY, "data/train.parquet": data}
    return hub.push_files(repo_id, "dataset", files, f"{kind} data of {run.recipe.name}", run.emit)


def _questions(report: Mapping[str, Any]) -> int:
    """How many questions were written and kept, over all writers."""
    counts = [report["questions"]] if "questions" in report else [expert["questions"] for expert in report["experts"].values()]
    return sum(count["kept"] for count in counts)


def _public(recipe: Recipe, checked: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """check.json with the references of a public recipe."""
    roles: dict[str, Mapping[str, object]] = {"models": inputs.model_roles(recipe), "datasets": inputs.dataset_roles(recipe)}
    return {kind: {role: {**checked[kind][role], "ref": str(ref)} for role, ref in refs.items()} for kind, refs in roles.items()}


def lock(run: "Run", recipe: Recipe, checked: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """All that is needed to rebuild the weights, and to see whether anything differs."""
    files = [*sorted((run.directory / "data").glob("*.parquet")), run.directory / LOG]
    return {
        "format": 1,
        "version": __version__,
        "recipe": recipe.model_dump(mode="json", exclude_defaults=True),
        "models": checked["models"],
        "datasets": checked["datasets"],
        "parameters": chosen,
        "tensors": digests(Checkpoint(run.directory / MODEL)),
        "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        "packages": versions(),
    }


def versions() -> dict[str, str]:
    """The versions of what computes."""
    here = {"hfsafemerge": __version__, "python": platform.python_version(), "machine": platform.machine()}
    return here | {package: metadata.version(package) for package in PACKAGES}
