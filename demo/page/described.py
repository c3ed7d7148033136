"""What the API and its tools for agents say of each input, by the name that it has there."""

from demo.edits import ACTIONS
from demo.limits import MAX_JSON_BYTES
from demo.settings import (
    COARSENESS,
    MAX_ADDED,
    MAX_COUNT,
    MAX_FEATHER,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SCALE,
    MAX_STEPS,
    MAX_SWEEP,
)
from demo.uploads import FORMATS, MAX_BYTES, MAX_COLORS, MAX_EDIT_PIXELS, MAX_PIXELS
from mg_diffusion.granularities import GRANULARITIES


FILE = (
    f"as the address of an upload (POST /gradio_api/upload, at most {MAX_BYTES // 2**20} MB) or of a result of this page, "
    f"or as a data URI in a request of at most {MAX_JSON_BYTES // 2**20} MB"
)
PICTURE = f"a {', '.join(FORMATS)} file of at most {MAX_PIXELS // 10**6} million pixels, {FILE}"
ACTS = "; ".join(f"{name} = {what}" for name, (what, _) in ACTIONS.items())

INPUTS = {
    **{f"{name}_picture": f"the picture that lends its {name}, {PICTURE}" for name in GRANULARITIES},
    **{f"{name}_card": f"a {name} card (.safetensors) that make_card wrote, in place of a picture" for name in GRANULARITIES},
    **{f"{name}_scale": f"strength of the {name} reference, 0 (off) to {MAX_SCALE:g}; 1 is as trained" for name in GRANULARITIES},
    "color_palette": f"in place of a color picture, up to {MAX_COLORS} hex colors with weights, such as #ff8800:3, #224466",
    "prompt": f"words, at most {MAX_PROMPT} characters; optional, they do little with the embedded model",
    "seed": "whole number; the same inputs and seed give the same picture",
    "steps": f"of sampling, 1 to {MAX_STEPS}",
    "size": "side in pixels of a square that has the area of the picture",
    "aspect": "width over height of the picture, or that of the shape reference",
    "coarseness": f"of the texture, {COARSENESS[0]:g} to {COARSENESS[1]:g}; 1 is as in the reference",
    "assignment": "light = dark regions get the dark colors, free = the seed decides",
    "guidance": f"how closely references and words are followed, 1 (off) to {MAX_GUIDANCE:g}",
    "keep": "whether results carry their references, so that the page can restore them",
    "model": "which of the models of this page",
    "count": f"how many pictures, 1 to {MAX_COUNT}; their seeds count up",
    "photo": f"the picture to edit, as any other, of at most {MAX_EDIT_PIXELS / 10**6:g} million pixels",
    "mask": "a picture of the same size in black and white; white is repainted, all else comes back unchanged",
    "painted": "layers of the page's own brush; give a mask instead",
    "invert": "whether everything but the mask is repainted",
    "action": f"the edit: {ACTS}",
    "feather": f"width in pixels of a soft edge of the mask, 0 to {MAX_FEATHER}",
    **{side: f"pixels that outpaint adds at the {side}, 0 to {MAX_ADDED}" for side in ("left", "right", "top", "bottom")},
    "across": "the granularity whose strength grows from column to column",
    "columns": f"how many, 2 to {MAX_SWEEP}",
    "down": "the granularity whose strength grows from row to row, or nothing",
    "rows": f"how many, 2 to {MAX_SWEEP}",
    "granularity": f"one of {', '.join(GRANULARITIES)}",
    "first_card": "a card of this granularity",
    "second_card": "another one",
    "share": "of the second card, 0 to 1",
}  # fmt: skip


def documented(doc: str | None, names: list[str]) -> str:
    """A docstring with what is said of the inputs, in the form that gradio reads."""
    lines = [f"    {name}: {INPUTS[name]}" for name in names if name in INPUTS]
    return "\n".join([(doc or "").strip(), "", "Args:", *lines])
