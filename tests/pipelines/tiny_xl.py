"""Real components of SDXL's kinds at tiny size: random weights, 16 px pictures from 8 x 8 latents."""

from pathlib import Path

import torch
from diffusers import EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .tiny import SIZE, tiny_adapter, tiny_encoder, tiny_tokenizer, tiny_vae


POOLED = 24  # numbers of pooled text
TIME_DIM = 8  # numbers for each of the six sizes


def tiny_text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Two that differ, 16 and 32 wide."""
    common = {"vocab_size": 54, "intermediate_size": 37, "max_position_embeddings": 12, "num_attention_heads": 4}
    common |= {"bos_token_id": 52, "eos_token_id": 53, "pad_token_id": 53}
    first = CLIPTextConfig(hidden_size=16, num_hidden_layers=3, **common)
    second = CLIPTextConfig(hidden_size=32, num_hidden_layers=4, projection_dim=POOLED, **common)
    return CLIPTextModel(first).eval(), CLIPTextModelWithProjection(second).eval()


def tiny_unet_xl(latent_channels: int = 4, is_inpainting: bool = False, **config) -> UNet2DConditionModel:
    """Blocks in the order of SDXL: no attention in the first, then one that is deeper with each."""
    arguments = {
        "sample_size": SIZE // 2,
        "in_channels": 2 * latent_channels + 1 if is_inpainting else latent_channels,
        "out_channels": latent_channels,
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 3),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4, 4),  # number of heads, as in SDXL's configuration
        "use_linear_projection": True,
        "norm_num_groups": 8,
        "cross_attention_dim": 48,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": TIME_DIM,
        "projection_class_embeddings_input_dim": 6 * TIME_DIM + POOLED,
    }
    return UNet2DConditionModel(**{**arguments, **config}).eval()


def tiny_components_xl(folder: Path | None = None, is_inpainting: bool = False, vae: str = "kl") -> dict:
    """Components of a pipeline, the same in every call; without a folder for the tokenizers there is no text."""
    torch.manual_seed(0)
    codec, encoder, text_encoders = tiny_vae(vae), tiny_encoder(), tiny_text_encoders()
    unet = tiny_unet_xl(codec.config.latent_channels, is_inpainting)
    has_text = folder is not None
    return {
        "vae": codec,
        "text_encoder": text_encoders[0] if has_text else None,
        "text_encoder_2": text_encoders[1] if has_text else None,
        "tokenizer": tiny_tokenizer(folder) if has_text else None,
        "tokenizer_2": tiny_tokenizer(folder) if has_text else None,
        "unet": unet,
        "scheduler": EulerDiscreteScheduler(beta_schedule="scaled_linear", steps_offset=1),
        "mg_encoder": encoder,
        "mg_adapter": tiny_adapter(unet, encoder),
    }
