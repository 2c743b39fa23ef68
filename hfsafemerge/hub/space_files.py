"""The files of this tool's Space, and what its README.md says of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import SpaceCard

from hfsafemerge.errors import HubError
from hfsafemerge.hub import client

NEEDED = ("README.md", "app.py", "requirements.txt")
FOLDERS = ("hfsafemerge", "space", "datasets_cards")


def space_files(root: Path | None = None) -> dict[str, Path]:
    """The Space's files by their paths in its repository. Raises HubError where only the package is installed."""
    root = root or Path(__file__).resolve().parents[2]
    if missing := [name for name in (*NEEDED, *FOLDERS) if not (root / name).exists()]:
        raise HubError(
            f"The Space's files are not with this installation ({root} has no {missing[0]}). Clone the repository of hfsafemerge, "
            "`pip install -e` it, and deploy from there."
        )
    found = {name: root / name for name in (*NEEDED, "LICENSE") if (root / name).exists()}
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            parts = path.relative_to(root).parts
            wanted = path.is_file() and not path.is_symlink() and path.suffix != ".pyc"
            if wanted and not any(part == "__pycache__" or part.startswith(".") for part in parts):
                found["/".join(parts)] = path
    return found


def front_matter(files: Mapping[str, Path]) -> dict[str, Any]:
    """What the README.md says of the Space. Raises HubError for what could not be served."""
    try:
        found: dict[str, Any] = SpaceCard(files["README.md"].read_text(encoding="utf-8")).data.to_dict()
    except (ValueError, OSError, yaml.YAMLError) as error:
        raise HubError(f"The front matter of {files['README.md']} can't be read: {client.first_line(error)}") from error
    if found.get("sdk") != "gradio" or found.get("app_file") not in files:
        raise HubError(
            f"The front matter of {files['README.md']} says sdk: {found.get('sdk')} and app_file: {found.get('app_file')}. It must say "
            "gradio, and name a file that is there."
        )
    return found
