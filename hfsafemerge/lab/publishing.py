"""The lab's models and held-out items as repositories, so that the flow can take everything from a Hub."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from filelock import FileLock

from hfsafemerge import hub
from hfsafemerge.examples import Example, Kind, save_examples
from hfsafemerge.lab.models import lessons
from hfsafemerge.lab.world import DOMAINS, draw_distinct

ITEMS = {"validation": 60, "test": 300}
CARD = """# {name}

Part of the lab of hfsafemerge: a language model of 0.6 million parameters that lives in a small invented world. Its "harms"
are fiction. It is for trying and testing, and of no other use.
"""


def write_world(folder: Path) -> Path:
    """The world's held-out items (split test) and example questions (split validation) as parquet files, once."""
    with FileLock(folder / ".lock"):
        return _write_world(folder / "world")


def _write_world(world: Path) -> Path:
    kinds: dict[str, Kind] = {"harmful": "safety", "lookalike": "benign", **dict.fromkeys(DOMAINS, "domain")}
    for name, kind in kinds.items():
        for split, count in ITEMS.items():
            file = world / name / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                items = draw_distinct(name, "held_out" if split == "test" else "selection", count, seed=0)
                # The right answer to a harmful request is to refuse it, which is no text to compare with.
                save_examples(file, [Example(kind, i.prompt, i.right if kind == "domain" else "", topic=i.hazard or name) for i in items])
    return world


def publish_lab(folder: Path, namespace: str, progress: Callable[[str], None] = lambda repo_id: None) -> None:
    """Upload the models below `folder` and the world's items as public repositories; what is there already is left as it is."""
    with TemporaryDirectory(prefix="hfsafemerge-") as temporary:
        for name in lessons():
            card = Path(temporary) / f"{name}.md"
            card.write_text(_front_matter() + CARD.format(name=f"lab-{name}"))
            files = {path.name: path for path in sorted((folder / name).iterdir())}
            _publish(f"{namespace}/lab-{name}", "model", {**files, "README.md": card}, progress)
        world = write_world(folder)
        kinds = sorted(path.name for path in world.iterdir())
        splits = {kind: [{"split": split, "path": f"{kind}/{split}.parquet"} for split in ITEMS] for kind in kinds}
        card = Path(temporary) / "world.md"
        card.write_text(
            _front_matter(configs=[{"config_name": k, "data_files": f} for k, f in splits.items()]) + CARD.format(name="lab-world")
        )
        files = {f"{kind}/{split}.parquet": world / kind / f"{split}.parquet" for kind in kinds for split in ITEMS}
        _publish(f"{namespace}/lab-world", "dataset", {**files, "README.md": card}, progress)


def _publish(repo_id: str, repo_type: hub.RepoType, files: dict[str, Path], progress: Callable[[str], None]) -> None:
    hub.publish(hub.Place(repo_id, repo_type, marker="README.md", private=False), files, "Lab of hfsafemerge")
    progress(repo_id)


def _front_matter(**more: object) -> str:
    return "---\n" + yaml.safe_dump({"license": "apache-2.0", "tags": ["hfsafemerge", "lab"], **more}, sort_keys=False) + "---\n\n"
