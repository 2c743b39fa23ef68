"""Cards: the YAML that heads a README.md, and what the Hub would object to in it."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

import yaml
from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

router = APIRouter()

FRONT_MATTER = re.compile(r"\s*---[ \t]*\r?\n(?:(.*?)\r?\n)?---[ \t]*(?:\r?\n|$)", re.DOTALL)
REPO_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
SDKS = ("docker", "gradio", "static")
COLORS = ("blue", "gray", "green", "indigo", "pink", "purple", "red", "yellow")
LONGEST_SHORT_DESCRIPTION = 60
RELATIONS = ("adapter", "finetune", "merge", "quantized")
LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0 bigscience-openrail-m bsd
bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0
cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0
cc0-1.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0
etalab-2.0 eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl
odc-by ofl-1.1 openmdw-1.0 openmdw-1.1 openrail openrail++ osl-3.0 other pddl postgresql unknown unlicense wtfpl zlib
"""


class Card(NamedTuple):
    """A README.md in its two halves."""

    front_matter: str
    body: str


def split_card(text: str) -> Card:
    """The YAML at the head, without its fences, and the rest."""
    if match := FRONT_MATTER.match(text):
        return Card(match[1] or "", text[match.end() :])
    return Card("", text)


def card_data(text: str) -> dict[str, Any]:
    """What the front matter says; nothing, when it is absent or broken."""
    try:
        data = yaml.safe_load(split_card(text).front_matter)
    except yaml.YAMLError:
        return {}
    return data if isinstance(data, dict) else {}


def as_list(value: Any) -> list[Any]:
    """A value of the front matter that may stand alone, in a list, or not at all."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


class _CardToCheck(BaseModel):
    content: str
    repo_type: Annotated[Literal["model", "dataset", "space"], Field(alias="repoType")]


@router.post("/api/validate-yaml")
def validate_yaml(card: _CardToCheck) -> JSONResponse:
    """What the clients ask before they upload a README.md: 400 and all errors, or the warnings alone."""
    front_matter = split_card(card.content).front_matter
    errors, warnings = [], []
    if not front_matter.strip():
        warnings.append("empty or missing yaml metadata in repo card")
    else:
        try:
            data = yaml.safe_load(front_matter)
        except yaml.YAMLError as error:
            errors.append(f"The YAML can't be parsed: {error}")
        else:
            errors += _errors(data, card.repo_type)
            if not errors and data.get("license") == "other" and not data.get("license_name"):
                warnings.append('"license_name" should be set when "license" is other')
    answer: dict[str, Any] = {name: [{"message": text} for text in texts] for name, texts in (("errors", errors), ("warnings", warnings))}
    if errors:
        answer["error"] = "; ".join(errors)
    return JSONResponse(answer, 400 if errors else 200)


def _errors(data: Any, repo_type: str) -> Iterator[str]:
    if not isinstance(data, dict):
        yield f"The metadata must be a mapping of names to values, not {type(data).__name__}"
        return
    for name in as_list(data.get("license")):
        if not (isinstance(name, str) and name in LICENSES.split()):
            yield f'"license" is {name!r}, which is no license id of the Hub. Use "other" with "license_name" and "license_link"'
    if data.get("base_model_relation") not in (None, *RELATIONS):
        yield f'"base_model_relation" is {data["base_model_relation"]!r}, not one of {", ".join(RELATIONS)}'
    for field in ("base_model", "datasets") if repo_type == "model" else ():
        for repo_id in as_list(data.get(field)):
            if not (isinstance(repo_id, str) and REPO_ID.fullmatch(repo_id)):
                yield f'"{field}" has {repo_id!r}, which is no repository id'
    if repo_type == "space":
        yield from _space_errors(data)
    yield from _model_index_errors(data.get("model-index"))
    for number, config in enumerate(as_list(data.get("configs"))):
        if not (isinstance(config, dict) and isinstance(config.get("config_name"), str)):
            yield f'"configs[{number}].config_name" is required'


def _space_errors(data: dict[str, Any]) -> Iterator[str]:
    if data.get("sdk") not in SDKS:
        yield f'"sdk" is {data.get("sdk")!r}, not one of {", ".join(SDKS)}'
    for field in ("colorFrom", "colorTo"):
        if data.get(field) not in (None, *COLORS):
            yield f'"{field}" is {data[field]!r}, not one of {", ".join(COLORS)}'
    if len(str(data.get("short_description") or "")) > LONGEST_SHORT_DESCRIPTION:
        yield f'"short_description" has more than {LONGEST_SHORT_DESCRIPTION} characters'


def _model_index_errors(models: Any) -> Iterator[str]:
    for number, model in enumerate(as_list(models)):
        place = f"model-index[{number}]"
        if not (isinstance(model, dict) and model.get("name")):
            yield f'"{place}.name" is required'
            continue
        for index, result in enumerate(as_list(model.get("results"))):
            for field in ("task", "dataset", "metrics"):
                if not (isinstance(result, dict) and field in result):
                    yield f'"{place}.results[{index}].{field}" is required'
