"""What a job on Hugging Face is asked to do: a recipe that can be run anywhere, the command that runs it, and for how long.

The recipe travels in an environment variable of the job, which everyone in its namespace can read: it holds no secret, and what
only this machine has is refused. The token travels as a secret of the job, and is no part of the request.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from hfsafemerge import __version__
from hfsafemerge._recipe_parts import EndpointSpec, Part
from hfsafemerge.errors import RecipeError
from hfsafemerge.hub.redacting import without_token
from hfsafemerge.recipe import Recipe, Ref

# The image in which the Hub runs Python scripts by default. torch's wheels bring CUDA along and the machine its driver, so none
# with CUDA is needed; beside Python 3.12 and uv it has git, for a package from a repository, and a compiler, for search.compile.
IMAGE = "ghcr.io/astral-sh/uv:python3.12-bookworm"
VARIABLE = "HFSAFEMERGE_RECIPE"
LONGEST = 65536  # characters of that variable; Linux takes none above 131072
SCRIPT = f'cd "$(mktemp -d)" && printf %s "${VARIABLE}" | base64 -d > recipe.yaml && exec uvx --from "$@"'
MADE_BY = {"made-by": "hfsafemerge"}
TIMEOUT = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*(\[[\w,.-]+\])?((===?|>=|<=|~=|!=|<|>)[\w.,*+!<>=~-]+| ?@ ?(git\+)?https://\S+)?")
ADDRESS = re.compile(r"(git\+)?https://\S+")


@dataclass(frozen=True)
class JobRequest:
    """A job as it is submitted, without the token."""

    name: str
    repo_id: str
    image: str
    command: list[str]
    environment: dict[str, str]
    flavor: str
    timeout: int
    labels: dict[str, str]


def job_request(
    recipe: Recipe,
    flavor: str,
    timeout: str,
    *,
    image: str = IMAGE,
    package: str | None = None,
    labels: Mapping[str, str] | None = None,
    allow_writer: bool = False,
) -> JobRequest:
    """The job that does all of a recipe and publishes the result.

    Args:
        recipe: what to do; it must say where to push.
        flavor: the hardware.
        timeout: the longest it may run: a number of seconds, or one followed by s, m, h or d.
        image: a Docker image with bash, base64 and uv.
        package: what `uvx --from` installs; by default this version, with the extras that the recipe needs.
        labels: more labels of the job.
        allow_writer: whether a model may write harmful questions.

    Raises:
        RecipeError: the recipe can't be run elsewhere, or something else can't be asked for.
    """
    if recipe.push is None:
        raise RecipeError("A job publishes its result, or it would be lost. Say where with --push-to NAMESPACE/NAME, or push.repo_id.")
    if faults := list(only_here(recipe)):
        raise RecipeError(f"The recipe can't be run elsewhere: {'; '.join(faults)}.")
    if recipe.data.safety is not None and recipe.data.safety.writer is not None and not allow_writer:
        raise RecipeError("data.safety.writer lets a model write harmful questions. Use ready prompts, or give --allow-writer, too.")
    text = base64.b64encode(recipe.to_yaml().encode()).decode()
    if len(text) > LONGEST:
        raise RecipeError(f"The recipe takes {len(text):,} characters of a job's environment; it may take {LONGEST:,}. Shorten it.")
    installed = _checked_package(package) if package else f"hfsafemerge{_extras(recipe)}=={__version__}"
    own = {**MADE_BY, "recipe": re.sub(r"[^A-Za-z0-9_-]", "-", recipe.name)}  # a label is a tag too, in which no other character may be
    if taken := sorted(own.keys() & (labels or {}).keys()):
        raise RecipeError(f"The label {taken[0]} is set by hfsafemerge. Choose another name.")
    if any(holds_token(text) for text in [image, installed, *(labels or {}).keys(), *(labels or {}).values(), recipe.to_yaml()]):
        raise RecipeError("Your token stands in the recipe, the package, the image or a label, which others can read. Take it out.")
    run = ["hfsafemerge", "run", "recipe.yaml", *(["--allow-writer"] if allow_writer else [])]
    return JobRequest(
        name=f"hfsafemerge-{own['recipe']}",
        repo_id=recipe.push.repo_id,
        image=image,
        command=["bash", "-c", SCRIPT, "hfsafemerge-job", installed, *run],
        environment={VARIABLE: text},
        flavor=flavor,
        timeout=_seconds(timeout),
        labels={**(labels or {}), **own},
    )


def only_here(recipe: Recipe) -> Iterator[str]:
    """What a recipe names that another machine does not have: local folders, servers on this machine, keys in its environment."""
    for place, part in _parts(recipe, ""):
        if isinstance(part, Ref) and part.path is not None:
            yield f"{place} is the local folder {part.path}; publish it, and name it by repo_id"
        if isinstance(part, EndpointSpec) and _on_this_machine(part.host):
            yield f"{place} is a server on this machine; leave it out, and the job loads the model itself"
        elif isinstance(part, EndpointSpec) and part.key is not None:
            yield f"{place} needs the key in {part.key}, which a job does not get; leave it out, and the job loads the model itself"


def holds_token(text: str) -> bool:
    """Whether the user's token stands in a text."""
    return without_token(text) != text


def _parts(value: Any, place: str) -> Iterator[tuple[str, Part]]:
    """All parts within a recipe, each with the place where it stands."""
    if isinstance(value, Part):
        yield place, value
        inner: Any = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, tuple | list):
        inner = dict(enumerate(value))
    else:
        inner = value
    if isinstance(inner, Mapping):
        for name, found in inner.items():
            yield from _parts(found, f"{place}.{name}" if place else str(name))


def _on_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _extras(recipe: Recipe) -> str:
    """The extras of the package that a recipe needs, as they stand behind its name."""
    needed = {"emissions": recipe.compute.country, "lm-eval": recipe.evaluation.tasks, "ray": recipe.search.executor == "ray"}
    found = [name for name, need in needed.items() if need]
    return f"[{','.join(found)}]" if found else ""


def _checked_package(package: str) -> str:
    """What is to be installed. Raises RecipeError for what is only here, or would show a password."""
    if re.search(r"https://[^/]*@", package):
        raise RecipeError("--package holds a name or password before the host, which others could read. Use an address without.")
    if not (ADDRESS.fullmatch(package) or REQUIREMENT.fullmatch(package)):
        raise RecipeError(
            f"--package {package!r} is nothing that a job can install. Name a release such as hfsafemerge==1.0, git+https://..., "
            "or the https address of a wheel."
        )
    return package


def _seconds(timeout: str) -> int:
    found = TIMEOUT.fullmatch(timeout.strip())
    seconds = int(float(found[1]) * SECONDS[found[2]]) if found else 0
    if seconds < 1:
        raise RecipeError(f"--timeout {timeout!r} is no length of time. Write seconds, or a number with s, m, h or d, such as 4h.")
    return seconds
