"""Turn an adapter into IP-Adapters, one a granularity, for stock pipelines: docs/ip-adapter.md.

python -m mg_diffusion.ip_adapter SOURCE TARGET [--cross-attention-dim 768] [--dtype float16]

Tokens, keys and values of an `MGAdapter` have the form of IP-Adapter FaceID (Ye et al., arXiv 2308.06721): a small MLP
of one vector gives tokens, each attention layer its keys and values. The files hold the same functions in that layout.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save

from .features import Features
from .modeling_mg_adapter import MGAdapter, TokenProjection
from .modeling_mg_encoder import MGEncoder
from .recipe import check_free, replacing


FLAG = 8.0  # GELU leaves it as it is, and dividing by it is exact


def weight_name(granularity: str) -> str:
    """The file of one granularity: the `weight_name` of `load_ip_adapter`."""
    return f"ip_adapter_{granularity}.safetensors"


@torch.no_grad()
def _image_projection(tokens: TokenProjection, width: int) -> dict[str, torch.Tensor]:
    """Weights of an `IPAdapterFaceIDImageProjection` that gives `tokens` in the first channels of `width`.

    It reads what `image_embeds` makes: the normalised vector and a 1, or zeros where a granularity is absent. Biases of
    the hidden layer are weights of that 1, so that zeros stay zeros up to the last layer.

    Stock normalises over the full width. Centered tokens, longer by the root of the widths' ratio and with zeros in
    the other channels, come out of that as of a norm over their own channels. Where there is room, an absent
    granularity has a second block of channels that takes back in the values what the norm's bias puts in the first.
    """
    norm, first, _, last = tokens.net
    (count, dim), size, hidden = tokens.shape, first.in_features, first.out_features
    inner = (size + 1) * math.ceil((hidden + 1) / (size + 1))  # stock knows multiples of the input only
    ratio = math.sqrt(width / dim)

    enter = torch.zeros(inner, size + 1)
    enter[:hidden, :size] = first.weight * norm.weight
    enter[:hidden, size] = first.bias + first.weight @ norm.bias
    enter[hidden, size] = FLAG

    leave, start = torch.zeros(count, width, inner), torch.zeros(count, width)
    weight, bias = last.weight.unflatten(0, tokens.shape), last.bias.unflatten(0, tokens.shape)
    leave[:, :dim, :hidden] = ratio * (weight - weight.mean(1, keepdim=True))
    leave[:, :dim, hidden] = ratio * (bias - bias.mean(1, keepdim=True)) / FLAG

    gain, shift = torch.zeros(width), torch.zeros(width)
    gain[:dim], shift[:dim] = tokens.norm.weight / ratio, tokens.norm.bias
    if width >= 2 * dim:
        second = slice(dim, 2 * dim)
        start[:, second] = 1
        leave[:, second, hidden] = -1 / FLAG
        absent = F.layer_norm(start[0], (width,), eps=tokens.norm.eps)
        gain[second] = -(shift[:dim] + gain[:dim] * absent[:dim]) / absent[second]
    return {
        "proj.0.weight": enter,
        "proj.0.bias": torch.zeros(inner),
        "proj.2.weight": leave.flatten(0, 1),
        "proj.2.bias": start.flatten(),
        "norm.weight": gain,
        "norm.bias": shift,
    }


@torch.no_grad()
def to_ip_adapters(adapter: MGAdapter, cross_attention_dim: int) -> dict[str, dict[str, torch.Tensor]]:
    """State dicts of IP-Adapters, by granularity in the adapter's order; float32.

    Args:
        adapter: trained for a UNet with this `cross_attention_dim`. Its fusion and residuals have no place in an
            IP-Adapter and are left out.

    Raises:
        ValueError: if the tokens are wider than what the UNet's attention reads.
    """
    dim = adapter.config.token_dim
    if not isinstance(cross_attention_dim, int) or cross_attention_dim < dim:
        raise ValueError(
            f"An IP-Adapter's tokens are as wide as the UNet's cross_attention_dim: an integer of at least "
            f"{dim}, the token_dim of this MGAdapter, was expected, got {cross_attention_dim!r}. Export an adapter with "
            f"narrower tokens, MGAdapter.from_unet(unet, encoder, token_dim=...)."
        )
    exported = {}
    for name, tokens in adapter.tokens.items():
        layers = {}
        # Stock numbers all attention layers, of which every second one reads the text.
        for place, (to_k, to_v) in enumerate(zip(adapter.to_k, adapter.to_v, strict=True)):
            keys, values = torch.zeros(2, to_k[name].out_features, cross_attention_dim)
            keys[:, :dim] = to_k[name].weight
            values[:, :dim] = to_v[name].weight
            if cross_attention_dim >= 2 * dim:
                values[:, dim : 2 * dim] = to_v[name].weight
            layers[f"{2 * place + 1}.to_k_ip.weight"] = keys
            layers[f"{2 * place + 1}.to_v_ip.weight"] = values
        exported[name] = {"image_proj": _image_projection(tokens, cross_attention_dim), "ip_adapter": layers}
    return {name: exported[name] for name in adapter.config.granularities}


def image_embeds(
    encoder: MGEncoder,
    references: dict[str, Any],
    size: tuple[int, int],
    guidance: bool = True,
    granularities: Sequence[str] | None = None,
) -> list[torch.Tensor]:
    """References as the `ip_adapter_image_embeds` of a stock pipeline that has the exported IP-Adapters loaded.

    Args:
        encoder: the `MGEncoder` of the adapter that was exported.
        references: as `MGEncoder.encode` takes them, without regions, the same for all prompts: stock pipelines repeat
            them for each.
        size: (height, width) as `MGEncoder.encode` takes it: `MGAdapter.map_size(latent height, latent width)`.
        guidance: whether the pipeline is called with guidance, `guidance_scale` above 1: then an unconditional row goes
            first.
        granularities: those of the loaded IP-Adapters, in their order; by default all, in the order of the export.

    Returns:
        for each loaded IP-Adapter a tensor (2 or 1, 1, length), zeros where a granularity is absent; of the type and on
        the device of the encoder.

    Raises:
        ValueError: for what `MGEncoder.encode` refuses, for references with regions, and for a granularity that is not
            among `granularities`.
    """
    names = tuple(encoder.vector_sizes) if granularities is None else tuple(granularities)
    features = encoder.encode(references, size=size)
    unknown = [name for name in features if name not in names]
    if unknown:
        raise ValueError(
            f"A reference for {unknown[0]!r}, of which no IP-Adapter is loaded: `granularities` are {names}."
        )
    rows = [{}, features] if guidance else [features]
    return [torch.cat([_embed(encoder, name, row) for row in rows]) for name in names]


def _embed(encoder: MGEncoder, name: str, features: Features) -> torch.Tensor:
    """(1, 1, size + 1): the normalised vector and a 1, or zeros."""
    size = encoder.vector_sizes[name]
    if name not in features:
        return torch.zeros(1, 1, size + 1, dtype=encoder.dtype, device=encoder.device)
    parts = features[name][0]
    if "region" in parts:
        raise ValueError(
            f"A {name} reference has a region, which an embed cannot say. Leave it out, and give the pipeline a mask: "
            f'cross_attention_kwargs={{"ip_adapter_masks": [...]}}.'
        )
    vector = F.layer_norm(parts["vector"], (size,))
    return F.pad(vector, (0, 1), value=1.0).unsqueeze(1)


def export(
    source: str | Path,
    target: str | Path,
    cross_attention_dim: int | None = None,
    dtype: torch.dtype = torch.float16,
    force: bool = False,
) -> list[Path]:
    """Write the adapter of a saved pipeline as IP-Adapters, one safetensors file a granularity.

    Args:
        source: a folder with `mg_adapter/` and, unless `cross_attention_dim` is given, `unet/`.
        target: a folder; made if it is not there.
        cross_attention_dim: of the UNet; 768 in Stable Diffusion 1.5.
        force: whether files that are there already are overwritten.

    Returns:
        the files, in the order of the adapter's granularities.

    Raises:
        ValueError: if `source` holds no adapter, nothing says how wide the UNet's text is, or IP-Adapters cannot be
            loaded into its UNet, or one of the files is there already; see also `to_ip_adapters`.
    """
    adapter = MGAdapter.from_pretrained(source, subfolder="mg_adapter", dtype=torch.float32)
    if cross_attention_dim is None:
        config = Path(source, "unet", "config.json")
        if not config.is_file():
            raise ValueError(
                f"{str(source)!r} holds no unet/config.json. Give the cross_attention_dim of the UNet the adapter was "
                f"trained for, for example 768 for Stable Diffusion 1.5."
            )
        unet = json.loads(config.read_text(encoding="utf-8"))
        only = unet.get("only_cross_attention", False)
        if any(only) if isinstance(only, list) else only:
            raise ValueError(
                f"This UNet has only_cross_attention={only}: its self-attention reads the text as well, and stock hands it "
                f"text and tokens in one, which it cannot read. Export an adapter of a UNet without such blocks, as that "
                f"of Stable Diffusion."
            )
        cross_attention_dim = unet["cross_attention_dim"]
    for name in adapter.tokens:
        check_free(Path(target, weight_name(name)), force)
    exported = to_ip_adapters(adapter, cross_attention_dim)
    Path(target).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, parts in exported.items():
        weights = {f"{part}.{key}": value.to(dtype) for part, row in parts.items() for key, value in row.items()}
        paths.append(Path(target, weight_name(name)))
        with replacing(paths[-1]) as part:
            part.write_bytes(save(weights, {"format": "pt"}))  # by Python, see `granularity_cards.write_card`
    return paths


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a saved pipeline")
    parser.add_argument("target", help="folder to write to")
    parser.add_argument("--cross-attention-dim", type=int, metavar="N", help="of the UNet, where source has none")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--force", action="store_true", help="overwrite what is there already")
    args = parser.parse_args(arguments)
    try:
        paths = export(args.source, args.target, args.cross_attention_dim, getattr(torch, args.dtype), args.force)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
