"""The parts of a recipe, each with what its settings mean. The same sentences stand in the docs, the help and the Space."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # documented, but not in __all__
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hfsafemerge.examples import Kind
from hfsafemerge.language_model import check_address, travels_in_clear

REPO_ID = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
COLLECTION_SLUG, LONGEST_TITLE = re.compile(r"[^/]+/.+-[0-9a-f]{24}"), 60  # of collections on the Hub
REFERENCE = r"^[A-Za-z0-9][\w./-]*$"  # the name of a branch or tag


def _accepted_by_the_hub(repo_id: str) -> str:
    validate_repo_id(repo_id)
    return repo_id


RepoId = Annotated[str, Field(pattern=REPO_ID), AfterValidator(_accepted_by_the_hub)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=96)]


class Part(BaseModel):
    """A part of a recipe: frozen, and without room for keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Ref(Part):
    """Something on the Hub, or in a local folder."""

    repo_id: RepoId | None = None
    """The repository on the Hub, as namespace/name."""
    path: Path | None = None
    """A local folder instead; what is merged from it can't be reproduced elsewhere."""
    revision: str | None = None
    """A branch, tag or commit; the commit it stands for is written down at the first check and kept."""

    @model_validator(mode="after")
    def _one_place(self) -> "Ref":
        places = (self.repo_id is not None) + (self.path is not None)
        if places > 1 or (places == 0 and not self._may_be_left_out()):
            raise ValueError("name either a repo_id or a path")
        return self

    def _may_be_left_out(self) -> bool:
        return False

    def __str__(self) -> str:
        """As it stands in messages and provenance."""
        return f"{self.repo_id or self.path}{f'@{self.revision}' if self.revision else ''}"

    @property
    def short(self) -> str:
        """Its name without what this machine calls the folder around it."""
        return self.repo_id or Path(str(self.path)).name


class EndpointSpec(Part):
    """A server that speaks the chat API of OpenAI: vLLM, SGLang, TGI, `transformers serve`, Inference Providers."""

    url: Annotated[str, Field(pattern=r"^https?://[^\s@?#]+$")]
    """Its base, such as http://localhost:8000/v1. It must hold no key."""
    model: str | None = None
    """What the server calls the model; by default its repo_id."""
    key: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = None
    """The environment variable that holds the key. Never the key itself."""
    parallel: Annotated[int, Field(gt=0)] = 8
    """Requests at a time."""
    timeout: Annotated[float, Field(gt=0)] = 120.0
    """Seconds that one request may take."""
    retries: Annotated[int, Field(ge=0)] = 5
    """How often a request that failed for the moment is sent again, after waits that double, or as long as the server says."""
    requests_per_minute: Annotated[int, Field(gt=0)] | None = None
    """The rate limit to keep to."""
    continues: bool = False
    """Whether the server goes on with a reply that was begun (continue_final_message of vLLM and SGLang)."""
    price_read: Annotated[float, Field(ge=0)] | None = None
    """The price of a million tokens that it reads, in whatever currency; without both prices no cost is told."""
    price_written: Annotated[float, Field(ge=0)] | None = None
    """The price of a million tokens that it writes."""

    @model_validator(mode="after")
    def _key_stays_secret(self) -> "EndpointSpec":
        check_address(self.url)
        if self.key is not None and travels_in_clear(self.url):
            raise ValueError(f"the key in {self.key} would travel to {self.host} unencrypted; use https, or a server on this machine")
        return self

    @property
    def host(self) -> str:
        """The name of its host, without the port."""
        return str(urlsplit(self.url).hostname)


class ModelRef(Ref):
    """A model: safetensors weights with a tokenizer and a chat template."""

    adapter: Ref | None = None
    """A LoRA adapter (peft's format) that is applied to it."""
    endpoint: EndpointSpec | None = None
    """A server that runs it: data are generated and judged there. What is merged is still read from the weights, and a published
    recipe names no server, but the host of a model that is only there."""

    def _may_be_left_out(self) -> bool:
        return self.endpoint is not None and self.endpoint.model is not None  # who has the weights is the server's affair

    @property
    def only_served(self) -> bool:
        """Whether there are no weights to read, only a server that has them."""
        return self.repo_id is None and self.path is None and self.endpoint is not None

    @property
    def served_as(self) -> str | None:
        """What its server calls it; None where it has none, or nothing says."""
        return (self.endpoint.model or (self.repo_id if self.adapter is None else None)) if self.endpoint is not None else None

    def __str__(self) -> str:
        """As it stands in messages and provenance."""
        if self.only_served and self.endpoint is not None:
            return f"{self.endpoint.model}@{self.endpoint.host}"
        return super().__str__() + (f"+{self.adapter}" if self.adapter else "")

    @property
    def short(self) -> str:
        """Its name without what this machine calls the folders around it."""
        if self.only_served:
            return str(self)
        return super().short + (f"+{self.adapter.short}" if self.adapter else "")


class Expert(ModelRef):
    """A model to merge into the base."""

    name: Name | None = None
    """What to call it; by default the last part of its repo_id or path."""
    topic: str = ""
    """The domain it is an expert in, as its question prompt names it."""

    def _may_be_left_out(self) -> bool:
        return self.adapter is not None or super()._may_be_left_out()  # an adapter alone is one of the base

    @property
    def only_served(self) -> bool:
        """Whether there are no weights to read, only a server that has them. An adapter alone is one of the base, which has some."""
        return self.adapter is None and super().only_served

    @property
    def label(self) -> str:
        """The name it goes by in parameters, tables and files."""
        named = self.adapter or self
        return self.name or Path(named.repo_id or str(named.path)).name


class DatasetRef(Ref):
    """Rows of a dataset: on the Hub, or a local parquet file or folder."""

    config: str | None = None
    """The dataset's configuration."""
    split: str = "train"
    """The split."""
    columns: dict[Literal["prompt", "answer", "topic", "cluster"], str] = {}
    """Under which names the dataset keeps these columns, where they differ."""
    where: dict[str, bool | int | str] = {}
    """Only rows that have these values in these columns."""


class JudgeSpec(Part):
    """What a judge judges with."""

    model: ModelRef | None = None
    """The model that it judges with; by default the one that it is made for, unless that one is gated. Rules have none."""


class SearchSpec(Part):
    """How parameters are chosen from data."""

    strategy: str = "fixed"
    """The search strategy; `hfsafemerge list strategies` shows all."""
    settings: dict[str, Any] = {}
    """Settings of the strategy."""
    use: tuple[Kind, ...] = ("safety", "domain")
    """The data that the fitness sees: safety and domain for a safety-aware merge, benign too against over-refusal."""
    objective: Literal["weighted", "constrained"] = "weighted"
    """weighted: L_safety + alpha * L_expert + beta * L_benign. constrained: L_expert alone, while safety and benign lose no more
    than epsilon against the base."""
    alpha: Annotated[float, Field(ge=0)] = 0.3
    """The factor of the domain term. It can't be negative."""
    beta: Annotated[float, Field(ge=0)] = 0.3
    """The factor of the benign term."""
    epsilon: Annotated[float, Field(ge=0)] = 0.05
    """For the objective constrained: the largest loss of safety, in nats a token of the refusals."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = {}
    """Factors of the domains by topic; by default all domain examples weigh alike."""
    selection: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """The share of the data that no candidate sees; the fittest few are compared on it, and the best of them is merged. With 0
    what the strategy recommends is taken as it is."""
    pick: Annotated[int, Field(gt=0)] | None = None
    """Merge with this candidate of search.jsonl instead of the recommended one: another point of the front, say."""
    format: Literal["chat", "raw"] = "chat"
    """Whether prompts go through the chat template, or stand as raw text before their answers as in LM-Cocktail's code."""
    memory: Literal["auto", "device", "host", "disk"] = "auto"
    """Where the experts are kept while candidates are made; auto takes the fastest that has room."""
    deltas: Literal["exact", "int8"] = "exact"
    """int8 keeps task vectors rounded, in half the memory of bfloat16; what is chosen is then scored again exactly."""
    compile: bool = False
    """Make candidates on a CPU with kernels compiled by torch, which takes a C++ compiler and some seconds for the first one; the
    others take a fraction of the time, and not one bit changes."""
    executor: Literal["local", "ray"] = "local"
    """Who evaluates candidates: this process, or the actors of a Ray cluster."""
    workers: Annotated[int, Field(gt=0)] | None = None
    """How many candidates are evaluated at once, each with a model of its own; by default one on each GPU."""

    @model_validator(mode="after")
    def _something_to_use(self) -> "SearchSpec":
        if not self.use:
            raise ValueError("use names no data; choose safety, domain or both")
        if len(set(self.use)) < len(self.use):
            raise ValueError("use names a kind of data twice")
        if self.objective == "constrained" and ("domain" not in self.use or len(self.use) == 1):
            raise ValueError("the objective constrained needs domain data to maximise and safety or benign data to keep")
        return self


class PushSpec(Part):
    """Where the result goes on the Hub, and how. What is said of one push alone, such as a commit's message, stands in no recipe."""

    repo_id: RepoId
    """The repository of the merged model; the datasets take its name with -safety and -domain."""
    private: bool = True
    """Whether the repositories are private. One that is public already is refused then."""
    license: str | None = None
    """The licence, where it does not follow from those of the models."""
    max_attack_success: Annotated[float, Field(ge=0, le=1)] | None = None
    """The repository is made private where the attack success rate may be higher than this: the upper end of its 95% interval."""
    revision: Annotated[str, Field(pattern=REFERENCE)] | None = None
    """A branch of the model's repository, started at main where it is missing; by default main."""
    collection: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The title (60 characters at most) or slug of a collection that is to hold the model, its datasets and its Space; by default none."""
    space: RepoId | None = None
    """A Space that shows the model, for the collection."""

    @model_validator(mode="after")
    def _collection_can_be_called_that(self) -> "PushSpec":
        if self.collection is not None and len(self.collection) > LONGEST_TITLE and not COLLECTION_SLUG.fullmatch(self.collection):
            raise ValueError(f"collection has {len(self.collection)} characters; the Hub takes titles of {LONGEST_TITLE}, or a slug")
        return self

    @model_validator(mode="after")
    def _space_has_a_collection(self) -> "PushSpec":
        if self.space is not None and self.collection is None:
            raise ValueError("space is for the collection; name one, or leave space out")
        return self


class ComputeSpec(Part):
    """What it runs on."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:1, ..."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The dtype models run in; auto is that of their weights."""
    quantization: Literal["none", "8bit", "4bit"] = "none"
    """bitsandbytes for the writer and for judges that chat; never for classifiers, nor for what is merged."""
    batch_tokens: Annotated[int, Field(gt=0)] = 8192
    """Padded tokens of one forward pass."""
    threads: Annotated[int, Field(gt=0)] | None = None
    """CPU threads of torch; sums of floats, and so results, may depend on it. A merge is the same with any number."""
    country: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    """Where it runs, such as DEU: emissions are then measured with codecarbon (`pip install 'hfsafemerge[emissions]'`)."""
    max_memory: Annotated[int, Field(gt=0)] | None = None
    """Bytes that the tensors in work while merging may take together."""
