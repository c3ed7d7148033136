"""MG-Diffusion: steer a diffusion UNet by the color, the texture and the shape of reference images."""

from typing import Any

# `ModelMixin` must be visible here: diffusers looks it up in the module that `model_index.json` names.
from diffusers import ModelMixin

from . import bundling  # noqa: F401 (what saves a class of ours looks for it, see `shipping`)
from .modeling_autoencoder_haar import AutoencoderHaar
from .modeling_mg_adapter import MGAdapter
from .modeling_mg_encoder import MGEncoder


__version__ = "0.1.0"
_PIPELINES = ("MGInpaintPipeline", "MGPipeline", "MGXLInpaintPipeline", "MGXLPipeline")
__all__ = [
    "AutoencoderHaar",
    "MGAdapter",
    "MGEncoder",
    "MGInpaintPipeline",
    "MGPipeline",
    "MGXLInpaintPipeline",
    "MGXLPipeline",
    "ModelMixin",
]


def __getattr__(name: str) -> Any:
    """The pipelines, on first use: `mg_diffusion.pipelines` is there only where the package is installed."""
    if name in _PIPELINES:
        from . import pipelines

        return getattr(pipelines, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
