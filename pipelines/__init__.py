"""The pipelines: one task a file, one class a file, each file usable alone as a `custom_pipeline`.

Installed as `mg_diffusion.pipelines`.
"""

from .pipeline_mg import MGPipeline
from .pipeline_mg_inpaint import MGInpaintPipeline
from .pipeline_mg_xl import MGXLPipeline
from .pipeline_mg_xl_inpaint import MGXLInpaintPipeline


__all__ = ["MGInpaintPipeline", "MGPipeline", "MGXLInpaintPipeline", "MGXLPipeline"]
