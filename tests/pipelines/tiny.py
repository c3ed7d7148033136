"""Real components at tiny size: random weights, 16 px pictures from 8 x 8 latents."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from mg_diffusion import AutoencoderHaar, MGAdapter, MGEncoder


SIZE = 16  # native side in pixels of every tiny pipeline


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    entries = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    vocabulary, merges = folder / "vocab.json", folder / "merges.txt"
    vocabulary.write_text(json.dumps({entry: index for index, entry in enumerate(entries)}), encoding="utf-8")
    merges.write_text("#version: 0.2\n", encoding="utf-8")
    return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=12)


def tiny_text_encoder() -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=54,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=12,
        bos_token_id=52,
        eos_token_id=53,
        pad_token_id=53,
    )
    return CLIPTextModel(config).eval()


def tiny_vae(kind: str) -> AutoencoderKL | AutoencoderHaar:
    if kind == "haar":
        return AutoencoderHaar(sample_size=SIZE)
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIZE,
    ).eval()


def tiny_unet(latent_channels: int, is_inpainting: bool) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIZE // 2,
        in_channels=2 * latent_channels + 1 if is_inpainting else latent_channels,
        out_channels=latent_channels,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        attention_head_dim=8,
        norm_num_groups=8,
        cross_attention_dim=32,
    ).eval()


def tiny_encoder() -> MGEncoder:
    backbone = {
        "model_type": "convnextv2",
        "num_channels": 1,
        "patch_size": 2,
        "hidden_sizes": [8, 16],
        "num_stages": 2,
        "depths": [1, 1],
        "out_features": ["stage1", "stage2"],
    }
    return MGEncoder(sample_size=32, color_channels=8, texture_channels=8, shape_backbone=backbone, num_tiles=4).eval()


def tiny_adapter(unet: UNet2DConditionModel, encoder: MGEncoder) -> MGAdapter:
    """An adapter whose branches all have an effect: a fresh one starts at zero."""
    adapter = MGAdapter.from_unet(unet, encoder, num_tokens=2, token_dim=16).eval()
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return adapter


def tiny_components(folder: Path | None = None, is_inpainting: bool = False, vae: str = "kl") -> dict:
    """Components of a pipeline, the same in every call; without a folder for the tokenizer there is no text."""
    torch.manual_seed(0)
    codec, encoder = tiny_vae(vae), tiny_encoder()
    unet = tiny_unet(codec.config.latent_channels, is_inpainting)
    return {
        "vae": codec,
        "text_encoder": None if folder is None else tiny_text_encoder(),
        "tokenizer": None if folder is None else tiny_tokenizer(folder),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "mg_encoder": encoder,
        "mg_adapter": tiny_adapter(unet, encoder),
    }


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(seed: int = 0, height: int = 30, width: int = 44) -> PIL.Image.Image:
    """A picture with regions, detail and color: smooth noise of three scales."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 5, 12):
        noise = PIL.Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize((width, height), PIL.Image.Resampling.BICUBIC))
    return PIL.Image.fromarray((total / 3).astype(np.uint8))


def references(seed: int = 0) -> dict:
    """One reference of each granularity."""
    return {"color": ["#c1121f:2", "#fdf0d5"], "texture": picture(seed + 10), "shape": picture(seed + 20)}
