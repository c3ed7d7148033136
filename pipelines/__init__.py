"""The pipelines: one task a file, one class a file, put together from the modules beside them.

Installed as `mg_diffusion.pipelines`.
"""

import os

from ..importing import swiftly


with swiftly():
    from diffusers import DiffusionPipeline

    from .pipeline_mg import MGPipeline
    from .pipeline_mg_inpaint import MGInpaintPipeline
    from .pipeline_mg_xl import MGXLPipeline
    from .pipeline_mg_xl_inpaint import MGXLInpaintPipeline


__all__ = ["MGInpaintPipeline", "MGPipeline", "MGXLInpaintPipeline", "MGXLPipeline"]


def pipeline_class(place: str | os.PathLike) -> type:
    """`MGXLPipeline` for a folder or Hub id of SDXL, `MGPipeline` for any other Stable Diffusion.

    Raises:
        OSError: if it holds no pipeline.
    """
    return MGXLPipeline if "tokenizer_2" in DiffusionPipeline.load_config(place) else MGPipeline
