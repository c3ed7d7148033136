"""MG-Diffusion: steer a diffusion UNet by the color, the texture and the shape of reference images."""

# `ModelMixin` must be visible here: diffusers looks it up in the module that `model_index.json` names.
from diffusers import ModelMixin

from .modeling_autoencoder_haar import AutoencoderHaar
from .modeling_mg_adapter import MGAdapter
from .modeling_mg_encoder import MGEncoder

__version__ = "0.1.0"
__all__ = ["AutoencoderHaar", "MGAdapter", "MGEncoder", "ModelMixin"]
