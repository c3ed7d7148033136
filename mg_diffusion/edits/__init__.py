"""Named edits: what people ask for, each one call with an `MGInpaintPipeline`.

    from mg_diffusion import MGInpaintPipeline
    from mg_diffusion.edits import recolor

    pipe = MGInpaintPipeline.from_pretrained("path/to/exported/repository")
    (recolored,) = recolor(pipe, image, ["#1d3557", "#f1faee"])

Every one returns a list of PIL images in which no pixel outside the mask differs, and takes a PIL image or a path.
`reshape` and `variation` paint with the pipeline, and pass what else they are given on to it (`num_inference_steps`,
`feature_guidance_scale`, ...); all others paint nothing and work at the picture's own resolution.
"""

from ..sides import SIDES
from .named import NATIVE, named_edit
from .native import outpaint, recolor, remove, retexture
from .painted import reshape, variation
from .restored import denoise, enhance, enlarge


__all__ = [
    "NATIVE",
    "SIDES",
    "denoise",
    "enhance",
    "enlarge",
    "named_edit",
    "outpaint",
    "recolor",
    "remove",
    "reshape",
    "retexture",
    "variation",
]
