"""The pipelines: one task a file, one class a file, each file usable alone as a `custom_pipeline`.

Installed as `mg_diffusion.pipelines`.
"""

from .pipeline_mg import MGPipeline


__all__ = ["MGPipeline"]
