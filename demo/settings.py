"""What someone asks for, apart from pictures: checked numbers and words."""

import html
import os
from dataclasses import dataclass, field
from typing import Any

from mg_diffusion.granularities import GRANULARITIES


MAX_SCALE, MAX_STEPS, MAX_COUNT, MAX_PROMPT, MAX_SEED = 2.0, 50, 16, 300, 2**31 - 1
MAX_SWEEP, MAX_FEATHER, MAX_ADDED, MAX_GUIDANCE = 7, 64, 512, 15.0
SIZES = (64, 128, 256, 512)  # sides of a square with the area of the picture
ASPECTS = {"as the shape": None, "1:1": 1.0, "3:2": 1.5, "2:3": 2 / 3, "2:1": 2.0, "1:2": 0.5}  # width over height
SIZE, ASPECT = 256, "as the shape"
COARSENESS = (0.25, 4.0)  # of texture, 1 is as in the reference
ASSIGNMENTS = ("light", "free")  # which region gets which color: dark ones the dark, or as the seed has it
GUIDANCE = 1.5  # as the pipelines have it
DRAFT_SIZE, DRAFT_STEPS = (
    128,
    8,
)  # of pictures while a strength is moved, and with how many steps at most there are such
MAX_PHASE = 2**31 - 1
FEW_STEPS, MANY_STEPS = 4, 20  # of the model that comes with the package, which is distilled; of others


def shown(value: Any, length: int = 20) -> str:
    """The start of a value as messages quote it: the page takes them for HTML, and half a character cannot be sent."""
    try:
        text = str(value)[:length]
    except (RecursionError, ValueError):  # nested too deep; a number of too many digits
        text = type(value).__name__
    return html.escape(repr(text)[1:-1], quote=False)


def number(value: Any, name: str, low: float, high: float) -> float:
    """A number of a range, or a `ValueError` that says which."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # nor is NaN
        said = f"the text '{shown(value)}'" if isinstance(value, str) else shown(value)
        raise ValueError(f"{name} must be a number from {low:.10g} to {high:.10g}, got {said}.")
    return float(value)


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number of a range."""
    if not number(value, name, low, high).is_integer():
        raise ValueError(f"{name} must be a whole number, got {value!r}.")
    return int(value)


def choice(value: Any, name: str, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got '{shown(value, 30)}'.")
    return value


@dataclass(frozen=True)
class Settings:
    """How pictures are made from references.

    Raises:
        ValueError: for a value out of its range.
    """

    scales: dict[str, float]  # strength of each granularity: 0 is off, 1 as trained
    prompt: str = ""
    seed: int = 0
    steps: int = field(default_factory=lambda: start_steps())
    count: int = 1
    keep: bool = True  # whether references travel in the results
    guidance: float = GUIDANCE  # 1 is off
    size: int = SIZE  # of pictures of models with a detail network
    aspect: str = ASPECT
    coarseness: float = 1.0  # of texture
    assignment: str = ASSIGNMENTS[0]  # of colors to regions

    def __post_init__(self):
        if not isinstance(self.scales, dict) or set(self.scales) != set(GRANULARITIES):
            raise ValueError(f"There must be a strength for each of {', '.join(GRANULARITIES)}.")
        scales = {name: number(self.scales[name], f"The strength of {name}", 0, MAX_SCALE) for name in GRANULARITIES}
        object.__setattr__(self, "scales", scales)
        if not isinstance(self.prompt, str) or len(self.prompt) > MAX_PROMPT:
            came = f"{len(self.prompt)} characters" if isinstance(self.prompt, str) else type(self.prompt).__name__
            raise ValueError(f"The prompt must be a text of at most {MAX_PROMPT} characters, got {came}.")
        if any("\ud800" <= character <= "\udfff" for character in self.prompt):  # JSON may hold such; no file can
            raise ValueError("The prompt holds half a character. Type it anew.")
        object.__setattr__(self, "seed", whole(self.seed, "The seed", 0, MAX_SEED - MAX_COUNT))
        object.__setattr__(self, "steps", whole(self.steps, "The number of steps", 1, MAX_STEPS))
        object.__setattr__(self, "guidance", number(self.guidance, "Guidance", 1, MAX_GUIDANCE))
        if whole(self.size, "The size", min(SIZES), max(SIZES)) not in SIZES:
            raise ValueError(f"The size must be one of {', '.join(map(str, SIZES))}, got {self.size}.")
        object.__setattr__(self, "size", int(self.size))
        choice(self.aspect, "The aspect", tuple(ASPECTS))
        object.__setattr__(self, "coarseness", number(self.coarseness, "The coarseness of texture", *COARSENESS))
        choice(self.assignment, "The assignment of colors", ASSIGNMENTS)
        object.__setattr__(self, "count", whole(self.count, "The number of pictures", 1, MAX_COUNT))

    @property
    def recipe(self) -> dict[str, Any]:
        return {
            "granularity_scale": self.scales,
            "prompt": self.prompt,
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
            "size": self.size,
            "aspect": self.aspect,
            "texture_scale": self.coarseness,
            "assignment": self.assignment,
        }


def start_guidance() -> float:
    """The guidance of a new page: MG_GUIDANCE, for bases that follow words only with more of it.

    Raises:
        ValueError: if it is no number of the range.
    """
    said = os.environ.get("MG_GUIDANCE") or str(GUIDANCE)
    try:
        return number(float(said), "MG_GUIDANCE", 1, MAX_GUIDANCE)
    except ValueError as error:
        raise ValueError(f"MG_GUIDANCE must be a number from 1 to {MAX_GUIDANCE:g}, got {said!r}.") from error


def start_steps() -> int:
    """The steps of a new page: MG_STEPS, or as many as the model wants that it is opened for.

    Raises:
        ValueError: if it is no whole number of the range.
    """
    said = os.environ.get("MG_STEPS")
    if not said:
        return MANY_STEPS if os.environ.get("MG_MODEL") else FEW_STEPS
    try:
        return whole(float(said), "MG_STEPS", 1, MAX_STEPS)
    except ValueError as error:
        raise ValueError(f"MG_STEPS must be a whole number from 1 to {MAX_STEPS}, got {said!r}.") from error
