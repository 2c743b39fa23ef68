"""The small files of a merged model, which steer what it says as much as its weights: configuration, tokenizer, chat template."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hfsafemerge import hub
from hfsafemerge.checkpoint import INDEX
from hfsafemerge.running.repeating.agreeing import other_settings

NAMED = 8  # settings that are named; of the rest only the number is told
READ = (".json", ".jinja", ".model", ".tiktoken", ".py", ".bin", ".pt", ".pth", ".pkl", ".safetensors")  # that loaders look for
READ_BY_NAME = ("vocab.txt", "merges.txt")
BESIDE = ("scores.json", "labels.json", "hfsafemerge.lock.json", INDEX)  # of those, what is no part of the model, or compared as weights


def small_digests(folder: Path) -> dict[str, str]:
    """By name the SHA-256 of each of a model's small files."""
    files = {file for pattern in hub.SMALL_FILES for file in folder.glob(pattern) if file.is_file()}
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def unmade(published: Iterable[str], weights: Iterable[str], made: Iterable[str]) -> list[str]:
    """Files of a repository that loaders of models look for, and that the merge did not make."""
    known = {*BESIDE, *weights, *made}
    return sorted(
        file
        for file in published
        if file not in known
        and (("/" not in file and (file.endswith(READ) or file in READ_BY_NAME)) or file.startswith("additional_chat_templates/"))
    )


def other_file(name: str, there: Path, here: Path) -> str:
    """How a small file differs, in words."""
    files = [folder / name for folder in (there, here)]
    if not all(file.exists() for file in files):
        return f"{name} is {'published' if files[0].exists() else 'made here'} alone"
    if name.endswith(".json"):
        a, b = (_read(file) for file in files)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            other = other_settings(a, b)
            told = [f"{key}: {_short(x)} there, {_short(y)} here" for key, (x, y) in list(other.items())[:NAMED]]
            more = [f"and {len(other) - NAMED} more"] if len(other) > NAMED else []
            return f"{name} ({'; '.join([*told, *more]) or 'written otherwise'})"
    return f"{name} holds another text"


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
