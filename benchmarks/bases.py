"""The UNets of Stable Diffusion as they are, with random weights: `python -m benchmarks.bases`.

Shows that encoder and adapter size themselves for each of them, that a new adapter changes nothing, bit for bit, and what
they add in parameters and memory. (Weights do not matter for any of this, and nothing is downloaded.)
"""

import argparse
import gc
import json
import sys
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.recipe import prepare_output, save_json, versions

from .speed import step_inputs


SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {"sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20]}
SD21 |= {"use_linear_projection": True, "upcast_attention": True}
SDXL = {
    "sample_size": 128,
    "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
# Configurations of the released checkpoints; what is not named is the default of `UNet2DConditionModel`.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "sd15": SD15,
    "sd15-inpainting": {**SD15, "in_channels": 9},
    "sd21": SD21,
    "sd21-inpainting": {**SD21, "sample_size": 64, "in_channels": 9, "upcast_attention": False},
    "sdxl": SDXL,
    "sdxl-inpainting": {**SDXL, "in_channels": 9},
}
DEFAULT_OUTPUT = "benchmarks/results/bases.json"


def build_unet(name: str, dtype: torch.dtype = torch.bfloat16, device: str = "cpu") -> UNet2DConditionModel:
    """A UNet of random weights; on the device "meta" only its shapes."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**CONFIGURATIONS[name]).to(dtype)
    if device == "meta":
        return unet
    unet = unet.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for module in unet.modules():
        for key, parameter in module.named_parameters(recurse=False):
            if isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
                nn.init.constant_(parameter, float(key == "weight"))
            else:
                nn.init.normal_(parameter, std=0.02, generator=generator)
    return unet.eval().requires_grad_(False)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def size(tensors: Any) -> int:
    """Bytes of all tensors in nested containers."""
    if isinstance(tensors, torch.Tensor):
        return tensors.nbytes
    return sum(size(one) for one in (tensors.values() if isinstance(tensors, dict) else tensors))


@torch.no_grad()
def examine(name: str, side: int) -> dict[str, Any]:
    """Whether a new adapter is the base bit for bit, whether a changed one is not, and what it adds."""
    unet = build_unet(name)
    torch.manual_seed(0)
    encoder = MGEncoder.from_unet(unet).eval()
    adapter = MGAdapter.from_unet(unet, encoder).eval()
    backbone = count(encoder.branches["shape"].backbone)
    inputs = step_inputs(unet, side)
    picture = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    references = dict.fromkeys(GRANULARITIES, picture)

    def predict(latents: int, is_changed: bool) -> tuple[torch.Tensor | None, int]:
        """The prediction at latents of the size of `inputs`, and the bytes of its conditioning."""
        features = encoder.encode(references, size=adapter.map_size(latents, latents))
        if is_changed:
            for parameter in adapter.parameters():
                if not parameter.any():
                    nn.init.normal_(parameter, std=0.05)
        folded, residuals = adapter.condition(unet, features, torch.ones(2, len(GRANULARITIES)), (latents, latents))
        residuals = [residual.to(unet.dtype) for residual in residuals]
        taken = size(folded) + size(residuals)
        if latents != side:
            return None, taken
        with adapter.attach(unet):
            made = unet(
                **inputs,
                cross_attention_kwargs={"ip_hidden_states": folded},
                down_intrablock_additional_residuals=residuals,
            )
        return made[0], taken

    stock = unet(**inputs)[0]
    new, _ = predict(side, False)
    changed, _ = predict(side, True)
    _, taken = predict(unet.config.sample_size, False)
    weights = 2 * (count(adapter) + count(encoder))  # in half precision, as the UNet's
    return {
        "is_base_bit_for_bit": bool(torch.equal(new, stock)),
        "changed_adapter_differs": bool((changed - stock).abs().max() > 0),
        "unet_parameters": count(unet),
        "trainable_parameters": count(adapter) + count(encoder) - backbone,
        "backbone_parameters": backbone,
        "encoder_size": encoder.config.sample_size,
        "map_stride": adapter.config.map_stride,
        "attention_layers": len(adapter.config.attention_layers),
        "extra_mib": (weights + taken) / 2**20,
        "extra_over_unet": (weights + taken) / (2 * count(unet)),
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| base | UNet, M | trainable, M | attention layers | encoder reads | a new adapter is the base | extra memory |",
        "|-|-:|-:|-:|-:|-|-:|",
    ]
    for name, one in found.items():
        lines.append(
            f"| {name} | {one['unet_parameters'] / 1e6:.0f} | {one['trainable_parameters'] / 1e6:.1f} | "
            f"{one['attention_layers']} | {one['encoder_size']} px | "
            f"{'bit for bit' if one['is_base_bit_for_bit'] else 'NO'} | {100 * one['extra_over_unet']:.1f} % |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE.json")
    parser.add_argument("--bases", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--side", type=int, default=16, help="of the latents that predictions are compared at")
    options = parser.parse_args(arguments)
    try:
        output = prepare_output(options.output, ".json")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = {}
    for name in options.bases:
        found[name] = examine(name, options.side)
        gc.collect()
        print(name, json.dumps(found[name]), flush=True)
    result = {"bases": found, "settings": {"side": options.side, "dtype": "bfloat16", "versions": versions()}}
    save_json(result, output)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
