"""Low-rank updates of a UNet that stays as it is (LoRA: Hu et al., arXiv 2106.09685), by peft.

For fine-tuning in stage `base`: encoder and adapter are trained whole, as always; of the UNet, updates of its attention
projections and convolutions are. What they add is a small file that any pipeline on the same base can load.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from mg_diffusion.pipelines import MGPipeline

from .models import PARTS
from .trained_parts import checkpoint_trained_parts


TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2")


def add_lora(accelerator: Accelerator, model: torch.nn.Module, rank: int) -> None:
    """Freeze UNet and text encoder of a model, give the UNet updates of `rank`, and keep what is frozen out of checkpoints.

    The updates begin as nothing, so that the model begins as it was. Their scale is 1 (`lora_alpha` is the rank).
    """
    model.unet.requires_grad_(False)
    model.text_encoder.requires_grad_(False)
    model.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS)))
    checkpoint_trained_parts(accelerator)


def export_lora(components: dict[str, Any], folder: str | Path) -> None:
    """Write what was trained: the updates as `load_lora_weights` reads them, `mg_encoder/` and `mg_adapter/`."""
    unet = components["unet"]
    MGPipeline.save_lora_weights(
        folder,
        unet_lora_layers=convert_state_dict_to_diffusers(get_peft_model_state_dict(unet)),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict(),
    )
    for name in PARTS:
        components[name].save_pretrained(Path(folder, name))


def fused(unet: torch.nn.Module) -> torch.nn.Module:
    """A copy of a UNet with its updates added to its weights. (Taken off again they would leave rounding errors.)"""
    whole = copy.deepcopy(unet)
    whole.fuse_lora()
    whole.unload_lora()
    return whole
