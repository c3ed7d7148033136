"""A Stable Diffusion checkpoint as one file with the names of its first implementation, of any size.

The inverse of what diffusers' `from_single_file` does, for a UNet with an attention layer after each residual layer of
some blocks, a VAE and a CLIP text encoder.
"""

import re
from pathlib import Path

from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, layers: int, attending: set[str]) -> str:
    """The first implementation's name of a parameter of a UNet with `layers` residual layers per block.

    Args:
        attending: up blocks with attention, by their names; their upsampler is the third part of an output block.
    """
    for ours, theirs in UNET_ENDS.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    where, block, kind, layer, rest = re.fullmatch(
        r"(down_blocks|mid_block|up_blocks)(?:\.(\d+))?\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)",
        name,
    ).groups()
    layer = int(layer)
    if kind == "resnets":
        part = re.match(r"\w+", rest)[0]
        rest = RESNET[part] + rest.removeprefix(part)
    if where == "mid_block":
        return f"middle_block.{1 if kind == 'attentions' else 2 * layer}.{rest}"
    index = int(block) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{index + layers + 1}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{index + layers}.{2 if f'up_blocks.{block}' in attending else 1}.{rest}"
    side, index = ("input_blocks", index + 1 + layer) if where == "down_blocks" else ("output_blocks", index + layer)
    return f"{side}.{index}.{int(kind == 'attentions')}.{rest}"


def vae_name(name: str, blocks: int) -> str:
    """The first implementation's name of a parameter of a VAE with `blocks` levels."""
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{blocks - 1 - int(m[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if "mid_block.attentions.0." in name:
        head, _, part = name.partition("mid_block.attentions.0.")
        layer, _, kind = part.rpartition(".")
        name = f"{head}mid.attn_1.{VAE_ATTENTION[layer]}.{kind}"
    return name


def save_single_file(pipe: StableDiffusionPipeline, path: Path) -> None:
    unet, vae = pipe.unet.state_dict(), pipe.vae.state_dict()
    attending = {
        re.match(r"up_blocks\.\d+", name)[0] for name in unet if re.match(r"up_blocks\.\d+\.attentions", name)
    }
    layers, blocks = pipe.unet.config.layers_per_block, len(pipe.vae.config.block_out_channels)
    weights = {f"model.diffusion_model.{unet_name(name, layers, attending)}": x for name, x in unet.items()}
    for name, x in vae.items():
        is_attention = ".attentions." in name and "group_norm" not in name and x.ndim == 2
        weights[f"first_stage_model.{vae_name(name, blocks)}"] = x[:, :, None, None] if is_attention else x
    for name, x in pipe.text_encoder.state_dict().items():
        weights[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = x
    assert len(weights) == len(unet) + len(vae) + len(pipe.text_encoder.state_dict())
    save_file({name: x.contiguous().clone() for name, x in weights.items()}, path)
