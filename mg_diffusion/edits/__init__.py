"""Named edits: what people ask for, each one call with an `MGInpaintPipeline`.

    from mg_diffusion import MGInpaintPipeline
    from mg_diffusion.edits import recolor

    pipe = MGInpaintPipeline.from_pretrained("path/to/exported/repository")
    (recolored,) = recolor(pipe, image, ["#1d3557", "#f1faee"])

Every one takes a PIL image, a path or an array of 8 or 16 bits, and returns a list of its kind in which no pixel outside
the mask differs: gray, 16 bits and an alpha come back as they were (`edits.sources`), masks may have any form
(`edits.read_mask`).
`reshape` and `variation` paint with the pipeline, and pass what else they are given on to it (`num_inference_steps`,
`feature_guidance_scale`, ...); all others paint nothing and work at the picture's own resolution.
"""

from ..sides import SIDES
from .checks import check_edit
from .filled import outpaint, remove
from .inputs import is_one_color
from .masks import read_mask
from .named import NATIVE, is_drawn, named_edit
from .native import recolor, retexture
from .painted import reshape, variation
from .restored import denoise, enhance, enlarge


__all__ = [
    "NATIVE",
    "SIDES",
    "check_edit",
    "denoise",
    "enhance",
    "enlarge",
    "is_drawn",
    "is_one_color",
    "named_edit",
    "outpaint",
    "read_mask",
    "recolor",
    "remove",
    "reshape",
    "retexture",
    "variation",
]
