"""Ways to condition a UNet on three references, as diffusers has them and as ours, ready to be timed.

Weights are random: what a step costs does not depend on them. Sizes are those of the released models for Stable Diffusion
1.5: IP-Adapter Plus with CLIP ViT-H, T2I-Adapter's full adapters, a ControlNet.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import IPAdapterPlusImageProjection, MultiIPAdapterImageProjection
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.granularities import GRANULARITIES

from .speed import pictures


IP_TOKENS = 16  # of IP-Adapter Plus
VIT_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
VIT_H |= {"patch_size": 14, "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu"}


@dataclass
class Peer:
    """One way of conditioning.

    Args:
        parts: what it adds to the UNet.
        once: what is computed once for all steps, for three references.
        step: one step, batch 2; runs inside `around`.
        around: changes the UNet for the length of a `with` block.
    """

    parts: list[nn.Module]
    once: Callable[[], Any]
    step: Callable[[], Any]
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext


def plain(unet: UNet2DConditionModel, call: Callable[..., Any], inputs: dict[str, Any], side: int) -> Peer:
    return Peer([], lambda: None, lambda: call(**inputs))


def ours(unet: UNet2DConditionModel, call: Callable[..., Any], inputs: dict[str, Any], side: int) -> Peer:
    encoder = MGEncoder.from_unet(unet).to(unet.device, unet.dtype).eval()
    adapter = MGAdapter.from_unet(unet, encoder).to(unet.device, unet.dtype).eval()
    references = pictures(512)
    # As in a pipeline: references in the conditional row, nothing in the unconditional one.
    strengths = torch.tensor([[0.0] * 3, [1.0] * 3], device=unet.device)

    def once() -> Any:
        features = encoder.encode(references, size=adapter.map_size(side, side))
        return adapter.assemble_conditioning(unet, features, strengths, (side, side)).at_step()

    folded, residuals = once()

    def step() -> Any:
        kwargs = {"cross_attention_kwargs": {"ip_hidden_states": folded}}
        return call(**inputs, **kwargs, down_intrablock_additional_residuals=list(residuals))

    return Peer([encoder, adapter], once, step, lambda: adapter.attach(unet))


def ip_adapter(unet: UNet2DConditionModel, call: Callable[..., Any], inputs: dict[str, Any], side: int) -> Peer:
    width = unet.config.cross_attention_dim
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**VIT_H)).to(unet.device, unet.dtype).eval()
    projection = MultiIPAdapterImageProjection(
        [
            IPAdapterPlusImageProjection(VIT_H["hidden_size"], width, width, 4, 64, 12, num_queries=IP_TOKENS)
            for _ in GRANULARITIES
        ]
    ).to(unet.device, unet.dtype)
    processors = {}
    for name, processor in unet.attn_processors.items():
        attn = unet.get_submodule(name.removesuffix(".processor"))
        if attn.is_cross_attention:
            processor = IPAdapterAttnProcessor2_0(attn.inner_dim, width, (IP_TOKENS,) * 3).to(unet.device, unet.dtype)
        processors[name] = processor
    pixels = torch.rand(1, 3, 224, 224, device=unet.device, dtype=unet.dtype)

    def once() -> Any:
        # As the stock pipeline: each picture, and a black one for the unconditional row.
        states = [
            vision(one, output_hidden_states=True).hidden_states[-2]
            for _ in GRANULARITIES
            for one in (torch.zeros_like(pixels), pixels)
        ]
        return [torch.stack(states[place : place + 2]) for place in (0, 2, 4)]

    embeds = once()

    def step() -> Any:
        return call(**inputs, added_cond_kwargs={"image_embeds": embeds})

    @contextlib.contextmanager
    def around() -> Iterator[None]:
        before = unet.attn_processors
        unet.set_attn_processor(dict(processors))
        unet.encoder_hid_proj = projection
        unet.config.encoder_hid_dim_type = "ip_image_proj"
        try:
            yield
        finally:
            unet.encoder_hid_proj = None  # first: its layers have processors, too
            unet.config.encoder_hid_dim_type = None
            unet.set_attn_processor(before)

    own = [one for one in processors.values() if isinstance(one, IPAdapterAttnProcessor2_0)]
    return Peer([vision, projection, *own], once, step, around)


def t2i_adapter(unet: UNet2DConditionModel, call: Callable[..., Any], inputs: dict[str, Any], side: int) -> Peer:
    widths = list(unet.config.block_out_channels)
    adapters = [
        T2IAdapter(3, widths, num_res_blocks=2, downscale_factor=8, adapter_type="full_adapter")
        .to(unet.device, unet.dtype)
        .eval()
        for _ in GRANULARITIES
    ]
    pixels = torch.rand(1, 3, 8 * side, 8 * side, device=unet.device, dtype=unet.dtype)

    def once() -> Any:
        return [sum(same).repeat(2, 1, 1, 1) for same in zip(*(one(pixels) for one in adapters), strict=True)]

    residuals = once()

    def step() -> Any:
        return call(**inputs, down_intrablock_additional_residuals=list(residuals))

    return Peer(adapters, once, step)


def controlnet(unet: UNet2DConditionModel, call: Callable[..., Any], inputs: dict[str, Any], side: int) -> Peer:
    net = ControlNetModel.from_unet(unet, load_weights_from_unet=False).to(unet.device, unet.dtype).eval()
    hint = torch.rand(2, 3, 8 * side, 8 * side, device=unet.device, dtype=unet.dtype)
    own = {name: inputs[name] for name in ("sample", "timestep", "encoder_hidden_states", "return_dict")}

    def step() -> Any:
        down, middle = net(**own, controlnet_cond=hint)
        return call(**inputs, down_block_additional_residuals=down, mid_block_additional_residual=middle)

    return Peer([net], lambda: None, step)


PEERS = {"plain": plain, "ours": ours, "t2i_adapter": t2i_adapter, "ip_adapter": ip_adapter, "controlnet": controlnet}
