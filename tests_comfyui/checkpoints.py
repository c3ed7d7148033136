"""A checkpoint that ComfyUI knows, as small as its detection allows, of random weights."""

from pathlib import Path

import torch
from safetensors.torch import save_file


# What ComfyUI tells Stable Diffusion 1 by: 320 channels, and attention to texts of 768. The depth is free.
UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "transformer_depth": [1, 0],
    "transformer_depth_output": [1, 1, 0, 0],
    "transformer_depth_middle": -1,
    "context_dim": 768,
    "num_heads": 8,
    "use_spatial_transformer": True,
    "legacy": False,
}


def random_weights(model: torch.nn.Module, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """ComfyUI leaves weights as memory has them until a file is loaded."""
    made = {}
    for name, one in model.state_dict().items():
        if one.ndim > 1:
            made[name] = torch.randn(one.shape, generator=generator) / one[0].numel() ** 0.5
        else:
            made[name] = torch.ones(one.shape) if name.endswith(("weight", "scale")) else torch.zeros(one.shape)
    return made


def save_tiny_checkpoint(path: Path) -> None:
    """UNet and a VAE of the kind of TAESD; no text encoder, conditionings are given by the tests."""
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    from comfy.taesd.taesd import TAESD

    generator = torch.Generator().manual_seed(0)
    parts = {"model.diffusion_model.": UNetModel(**UNET), "first_stage_model.": TAESD()}
    weights = {
        prefix + name: one for prefix, model in parts.items() for name, one in random_weights(model, generator).items()
    }
    save_file(weights, path)
