"""What the form's fields hold, and the choices that they offer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OWN = "own"  # what the recipe says itself, which no choice of the form describes
NONE = "none"

GUARDS: Mapping[str, str] = {
    "qwen3guard": "Qwen3Guard: open to everyone",
    "llama_guard": "Llama Guard 2: the paper's, gated",
}
SAFETY: Mapping[str, str] = {
    "beavertails": "Ready-made prompts of BeaverTails (cc-by-nc-4.0): as good as written ones in the paper",
    NONE: "None: nothing then keeps the merge aligned",
    OWN: "As the recipe says",
}
DOMAIN: Mapping[str, str] = {
    "shown": "Experts write questions after examples of their topic, and answer them",
    "magpie": "Experts write questions from their chat template alone, and answer them",
    NONE: "None: nothing then keeps the experts' skills",
    OWN: "As the recipe says",
}
BENIGN: Mapping[str, str] = {
    "written": "The base writes harmless requests that look harmful, and answers them: against over-refusal",
    NONE: "None",
    OWN: "As the recipe says",
}
SUITES: Mapping[str, str] = {
    "quick": "Quick: minutes on a GPU",
    "standard": "Standard: what a sceptic asks for",
    "paper": "The paper's",
    OWN: "As the recipe says",
}
TOPICS: Mapping[str, str] = {  # by topic, the validation rows of MMLU that are shown to an expert who writes questions
    "biology": "college_biology",
    "chemistry": "college_chemistry",
    "computer science": "college_computer_science",
    "law": "professional_law",
    "mathematics": "college_mathematics",
    "medicine": "professional_medicine",
    "physics": "college_physics",
    "psychology": "professional_psychology",
}
MMLU = "cais/mmlu"


@dataclass(frozen=True)
class ExpertField:
    """One expert: a repository (namespace/name, with @revision where wanted) or a folder, and its topic."""

    model: str
    topic: str = ""


@dataclass(frozen=True)
class Fields:
    """All that the form asks for. What a recipe says beyond it stays in the recipe."""

    base: str
    experts: tuple[ExpertField, ...]
    guard: str = "qwen3guard"
    safety: str = "beavertails"
    domain: str = "shown"
    benign: str = NONE
    count: int = 1000
    method: str = "ties"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    layers_per_group: int = 1
    strategy: str = "cma_es"
    settings: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "weighted"
    alpha: float = 0.3
    suite: str = "quick"
