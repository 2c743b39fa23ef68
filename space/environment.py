"""The variables of a job's processes, and texts without what is secret in them."""

import os
import re
from pathlib import Path

from space.accounts import on_space
from space.job import CACHE, Job

PACKAGE_PARENT = Path(__file__).resolve().parents[1]
# What visitors' jobs get of a Space's own variables. All else may be its owner's secrets.
ALLOWED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TZ|TMPDIR|LANG|LC_\w+|LD_LIBRARY_PATH|VIRTUAL_ENV|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|(?i:https?|no|all)_proxy"
    r"|SYSTEM|CUDA_\w+|NVIDIA_\w+|OMP_NUM_THREADS|MKL_NUM_THREADS|HF_ENDPOINT|HF_HUB_DISABLE_\w+|HF_XET_\w+|HFSAFEMERGE_CACHE|MPLCONFIGDIR|XDG_CACHE_HOME"
)
SECRETS = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OAUTH_CLIENT_SECRET"})
TOKENS = re.compile(r"hf_(?:oauth_)?[A-Za-z0-9_.-]{16,}|eyJ[\w-]+\.[\w-]+\.[\w-]+")


def variables(job: Job, token: str | None = None, *, offline: bool = False) -> dict[str, str]:
    """The variables of a process.

    Args:
        job: whose process it is. On a Space it has a cache of its own: one that is shared gives whoever asks what another
            visitor's token has fetched.
        token: what it reads or writes the Hub with; it is in these variables and nowhere else.
        offline: have the Hub's clients take what is on the disk only.
    """
    kept = {name: value for name, value in os.environ.items() if _may_pass(name)}
    search_path = os.pathsep.join(filter(None, (str(PACKAGE_PARENT), os.environ.get("PYTHONPATH"))))
    mine = {"PYTHONPATH": search_path, "NO_COLOR": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if on_space():
        mine["HF_HOME"] = str(job.directory / CACHE)
    if token is not None:
        mine["HF_TOKEN"] = token
    if offline:
        mine["HF_HUB_OFFLINE"] = "1"
    return kept | mine


def _may_pass(name: str) -> bool:
    if on_space():
        return ALLOWED.fullmatch(name) is not None
    return name not in SECRETS


def without_secrets(text: str, token: str | None = None) -> str:
    """A text in which nothing stands that is or looks like a token: some faults of HTTP clients quote what was sent."""
    return TOKENS.sub("<token>", text.replace(token, "<token>") if token else text)


def for_visitors(text: str, directory: Path) -> str:
    """A text in which a Space's visitors are told where they sign in, and nothing of where its folders are."""
    if not on_space():
        return text
    shorter = text.replace(f"{directory}/", "")
    return shorter.replace("run `hf auth login` or set HF_TOKEN", "sign in with the button at the top of the page")
