"""Where else a run can be done: Hugging Face Jobs on the visitor's account, and what they cost."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # the one import that is right in every version

from hfsafemerge._recipe_parts import REPO_ID
from hfsafemerge.errors import HubError
from space.commands import answer

FLAVOR = r"[a-z0-9][a-z0-9-]{0,60}"
HOURS_PER = {"second": 1 / 3600, "minute": 1 / 60, "hour": 1.0, "day": 24.0}


@dataclass(frozen=True)
class Flavor:
    """A kind of machine that Jobs run on: its largest memory of one kind of GPU together, in bytes, and US dollars an hour."""

    name: str
    says: str
    gpu_bytes: int
    dollars_per_hour: float | None


def flavors() -> list[Flavor]:
    """The machines of Hugging Face Jobs that have a GPU, the cheapest first; none where the Hub does not tell."""
    try:
        found = HfApi(library_name="hfsafemerge").list_jobs_hardware(token=False)
    except (HfHubHTTPError, httpx.HTTPError, OfflineModeIsEnabled, OSError):
        return []
    known = []
    for each in found:
        if each.accelerator is not None and each.accelerator.type == "gpu":
            count = int(each.accelerator.quantity or 1)
            hours = HOURS_PER.get(each.unit_label)
            price = each.unit_cost_usd / hours if hours else None
            known.append(Flavor(each.name, each.pretty_name, count * _gigabytes(each.accelerator.vram), price))
    return sorted(known, key=lambda flavor: (flavor.dollars_per_hour is None, flavor.dollars_per_hour or 0.0))


def smallest(known: Sequence[Flavor], gpu_bytes: int) -> Flavor | None:
    """The cheapest with so much memory; None where none has it."""
    return next((flavor for flavor in known if flavor.gpu_bytes >= gpu_bytes), None)


def require_scope(scope: str, command: str) -> None:
    """Raise HubError where a sign-in does not let this app start jobs.

    Args:
        scope: what the visitor agreed to, names with spaces between them; empty where that is not known.
        command: which does the same in a terminal.
    """
    if scope and "jobs" not in scope.split():
        raise HubError(
            "Your sign-in does not let this app start jobs on your account: it asks for no right to spend your credits. Do it in a "
            f"terminal, with the recipe of the step Method in recipe.yaml: `{command}`. Or duplicate this Space, and add `jobs` to "
            "hf_oauth_scopes in its README.md."
        )


def command(flavor: str, repo_id: str) -> str:
    """What to type to send a run to Jobs from a terminal."""
    return f"hfsafemerge jobs run recipe.yaml --flavor {flavor} --push-to {repo_id}"


def submit(recipe: str, flavor: str, repo_id: str, token: str) -> str:
    """Send a run to Hugging Face Jobs on the account of whoever's token it is, and return the address of the job.

    Args:
        recipe: YAML.
        flavor: the machine.
        repo_id: where the job publishes the merge.
        token: with the scope `jobs`, of an account with credits.

    Raises:
        HubError: it was not submitted; the message says why.
    """
    if not re.fullmatch(FLAVOR, flavor):
        raise HubError("Name the machine as Hugging Face Jobs does, such as a100-large.")
    if not re.fullmatch(REPO_ID, repo_id):
        raise HubError(f"{repo_id[:80]!r} is no repository id. Write where to publish the merge as namespace/name.")
    with TemporaryDirectory(prefix="hfsafemerge-") as folder:
        file = Path(folder) / "recipe.yaml"
        file.write_text(recipe)
        made = answer(Path(folder), token, "jobs", "run", file, "--flavor", flavor, "--push-to", repo_id, "--detach")
    return str(made["url"])


def _gigabytes(text: str | None) -> int:
    """Bytes of a size such as 80 GB; 0 for what is none."""
    found = re.match(r"\s*([\d.]+)\s*GB", text or "")
    return int(float(found.group(1)) * 1e9) if found else 0
