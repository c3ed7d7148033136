from .pipeline_mg import MGPipeline
