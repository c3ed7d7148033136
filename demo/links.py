"""Settings in the address of the page: query parameters, read as carefully as any input.

    ?color=sea&texture=weave&shape=leaf&texture_scale=0.5&seed=3&prompt=a+leaf&tab=explore

`color` is the name of an example palette or hex colors without "#", `023047:2,8ecae6`; `texture` and `shape` are names
of examples. Pictures of a visitor cannot travel in an address.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from demo.references import DRAWN_TEXTURES, PALETTES, SHAPE_COLORS
from demo.settings import (
    ASPECT,
    ASPECTS,
    ASSIGNMENTS,
    COARSENESS,
    MAX_GUIDANCE,
    MAX_SCALE,
    MAX_SEED,
    MAX_STEPS,
    SIZE,
    SIZES,
    Settings,
    choice,
    number,
    start_guidance,
    start_steps,
    whole,
)
from demo.uploads import read_palette
from mg_diffusion.granularities import GRANULARITIES


EXAMPLES = {"color": tuple(PALETTES), "texture": tuple(DRAWN_TEXTURES), "shape": tuple(SHAPE_COLORS)}
START = {"color": "sea", "texture": "weave", "shape": "leaf"}  # what a page without parameters shows
STRENGTHS = tuple(f"{name}_scale" for name in GRANULARITIES)
TABS = ("generate", "compose", "edit", "explore", "cards", "about")


def parse(query: Mapping[str, str], models: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What an address sets, by name, and a sentence for each parameter that says nothing.

    Parameters that are not ours are left alone.
    """
    readers = {
        **dict.fromkeys(STRENGTHS, lambda text: number(read_number(text), "A strength", 0, MAX_SCALE)),
        "texture": lambda text: choice(text, "A texture", EXAMPLES["texture"]),
        "shape": lambda text: choice(text, "A shape", EXAMPLES["shape"]),
        "color": read_color,
        "prompt": lambda text: Settings(dict.fromkeys(GRANULARITIES, 1.0), text).prompt,
        "seed": lambda text: whole(read_number(text), "The seed", 0, MAX_SEED),
        "steps": lambda text: whole(read_number(text), "The number of steps", 1, MAX_STEPS),
        "size": lambda text: choice(text, "The size", tuple(map(str, SIZES))),
        "guidance": lambda text: number(read_number(text), "Guidance", 1, MAX_GUIDANCE),
        "aspect": lambda text: choice(text, "The aspect", tuple(ASPECTS)),
        "coarseness": lambda text: number(read_number(text), "The coarseness of texture", *COARSENESS),
        "assignment": lambda text: choice(text, "The assignment of colors", ASSIGNMENTS),
        "tab": lambda text: choice(text, "A tab", TABS),
        "model": lambda text: choice(text, "A model", tuple(models)),
    }
    found, complaints = {}, []
    for name, read in readers.items():
        if name in query:
            try:
                found[name] = read(query[name])
            except ValueError as error:
                complaints.append(f"In the address, {name} is left out: {error}")
    return found, complaints


def read_number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text  # `number` says what it must be


def read_color(text: str) -> str:
    """The name of an example, or a palette as the page writes it."""
    if text in EXAMPLES["color"]:
        return text
    colors = read_palette(",".join(f"#{entry.strip().lstrip('#')}" for entry in text.split(",")))
    return ", ".join(colors)


def write(values: Mapping[str, Any]) -> str:
    """The query string that `parse` reads back, without what is as it is at the start."""
    plain = {
        **dict.fromkeys(STRENGTHS, 1.0),
        "prompt": "",
        "steps": start_steps(),
        "size": str(SIZE),
        "aspect": ASPECT,
        "coarseness": 1.0,
        "assignment": ASSIGNMENTS[0],
        "tab": "generate",
    }
    plain["guidance"] = start_guidance()
    kept = {name: value for name, value in values.items() if value not in (None, "") and value != plain.get(name)}
    if "color" in kept:
        kept["color"] = kept["color"].replace("#", "").replace(" ", "")
    return "?" + urlencode({n: f"{v:g}" if isinstance(v, float) else v for n, v in kept.items()}, safe=":,")
