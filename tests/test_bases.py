"""Encoder and adapter size themselves for the UNets of Stable Diffusion as they are."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

from benchmarks.bases import CONFIGURATIONS, build_unet, count, examine
from mg_diffusion import MGAdapter, MGEncoder


# Working size of the encoder, encoder pixels a latent cell, cross-attention layers.
EXPECTED = {
    "sd15": (128, 2, 16),
    "sd15-inpainting": (128, 2, 16),
    "sd21": (96, 1, 16),
    "sd21-inpainting": (128, 2, 16),
    "sdxl": (128, 1, 70),
    "sdxl-inpainting": (128, 1, 70),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_encoder_and_adapter_size_themselves(name):
    unet = build_unet(name, device="meta")
    encoder = MGEncoder.from_unet(unet)
    adapter = MGAdapter.from_unet(unet, encoder)
    found = encoder.config.sample_size, adapter.config.map_stride, len(adapter.config.attention_layers)
    assert found == EXPECTED[name]
    adapter.check_unet(unet)
    adapter.check_encoder(encoder)
    for layer, keys in zip(adapter.config.attention_layers, adapter.to_k, strict=True):
        attn = unet.get_submodule(layer["name"])
        assert keys["color"].out_features == attn.to_k.out_features and layer["heads"] == attn.heads
    assert len(adapter.config.block_strides) == len(unet.config.down_block_types)


def test_the_adapter_of_stable_diffusion_1_has_at_most_25_million_parameters():
    unet = build_unet("sd15", device="meta")
    encoder = MGEncoder.from_unet(unet)
    trained = count(MGAdapter.from_unet(unet, encoder)) + count(encoder) - count(encoder.branches["shape"].backbone)
    assert trained <= 25e6


def test_a_new_adapter_is_stable_diffusion_1_bit_for_bit_and_takes_little_memory():
    found = examine("sd15", side=8)
    assert found["is_base_bit_for_bit"] and found["changed_adapter_differs"]
    assert found["extra_over_unet"] <= 0.1


def test_other_unets_are_refused(tmp_path):
    encoder = MGEncoder(sample_size=32)
    simple = UNet2DConditionModel(
        block_out_channels=(32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=32,
    )
    with pytest.raises(ValueError, match="needs a UNet with cross-attention and with down blocks .*'SimpleCross"):
        MGAdapter.from_unet(simple, encoder)
    unconditional = UNet2DModel(
        block_out_channels=(32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
    )
    with pytest.raises(ValueError, match="this one has 0 cross-attention layers"):
        MGAdapter.from_unet(unconditional, encoder)


def test_a_unet_without_a_native_size_needs_one_for_the_encoder():
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768)
    assert unet.config.sample_size is None
    with pytest.raises(ValueError, match=r"no sample_size, .* MGEncoder.from_unet\(unet, sample_size=128\)"):
        MGEncoder.from_unet(unet)
    encoder = MGEncoder.from_unet(unet, sample_size=64)
    assert encoder.config.sample_size == 64 and MGAdapter.from_unet(unet, encoder).config.map_stride == 1
    assert MGAdapter.from_unet(unet, encoder, map_stride=2).config.map_stride == 2
