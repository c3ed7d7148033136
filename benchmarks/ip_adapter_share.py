"""What an IP-Adapter export keeps (docs/ip-adapter.md): `python -m benchmarks.ip_adapter_share --data PICTURES`.

Writes `hub_cards/mg-bazaar/ip_adapter_share.json`. In runs with three references, at steps early, in the middle and
late, the UNet is called on the very same input with all that references give it, with the tokens alone (with and
without fusion), with the residuals alone, and with neither. Of the change that references make to its prediction c, a
part alone changes it by a: `size` is |a| / |c|, and `explained` 1 - |c - a|^2 / |c|^2, which is 1 for all of it and 0 for
nothing. Both are means over the triples.
"""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mg_diffusion.evaluation.control import random_triples, write_json
from mg_diffusion.loading import quiet

from .control_surface import build_parser, read_inputs


STEPS = 20
PLACES = {"early": 2, "middle": 10, "late": 17}
DEFAULT_OUTPUT = "hub_cards/mg-bazaar/ip_adapter_share.json"


def unet_calls(pipe: Any, references: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """What the UNet is given in each step of a run without guidance."""
    calls = []

    def hook(unet: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        residuals = kwargs["down_intrablock_additional_residuals"]  # the UNet empties the list
        calls.append({**kwargs, "sample": args[0], "timestep": args[1], "residuals": list(residuals)})

    handle = pipe.unet.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        pipe(
            reference_image=references,
            num_inference_steps=STEPS,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(seed),
            output_type="latent",
        )
    finally:
        handle.remove()
    return calls


def shares_of_call(pipe: Any, call: dict[str, Any], unfused: Any) -> dict[str, dict[str, float]]:
    """By part, its size and what it explains."""

    def predict(tokens: Any, residuals: list[torch.Tensor] | None) -> torch.Tensor:
        given = None if residuals is None else list(residuals)
        return pipe.unet(
            call["sample"],
            call["timestep"],
            call["encoder_hidden_states"],
            cross_attention_kwargs={"ip_hidden_states": tokens},
            down_intrablock_additional_residuals=given,
        ).sample

    tokens, residuals = call["cross_attention_kwargs"]["ip_hidden_states"], call["residuals"]
    base = predict(None, None)
    whole = predict(tokens, residuals) - base
    return {
        "tokens": compare(predict(tokens, None) - base, whole),
        "tokens_without_fusion": compare(predict(unfused, None) - base, whole),
        "residuals": compare(predict(None, residuals) - base, whole),
    }


@torch.no_grad()
def shares_of_triple(pipe: Any, references: dict[str, Any], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """By place in the run and by part, its size and what it explains."""
    calls, adapter = unet_calls(pipe, references, seed), pipe.mg_adapter
    size = tuple(calls[0]["sample"].shape[2:])
    features = pipe.encode_reference(references)
    unfused, _ = adapter.condition(pipe.unet, features, adapter.strengths(1.0), size, fusion_scale=0.0)
    with adapter.attach(pipe.unet):
        return {place: shares_of_call(pipe, calls[step], unfused) for place, step in PLACES.items()}


def compare(part: torch.Tensor, whole: torch.Tensor) -> dict[str, float]:
    power = whole.square().sum()
    explained = 1 - (whole - part).square().sum() / power
    return {"size": float((part.square().sum() / power).sqrt()), "explained": float(explained)}


def measure(pipe: Any, pool: Sequence[np.ndarray], count: int) -> dict[str, Any]:
    """Means over `count` triples of pictures."""
    found = []
    for seed, triple in enumerate(random_triples(count, len(pool), 0)):
        found.append(shares_of_triple(pipe, {name: pool[place] for name, place in triple.items()}, seed))
    first = found[0]
    return {
        place: {
            part: {key: float(np.mean([one[place][part][key] for one in found])) for key in figures}
            for part, figures in parts.items()
        }
        for place, parts in first.items()
    }


def main(arguments: list[str] | None = None) -> None:
    options = build_parser(__doc__.splitlines()[0], 16, "triples", DEFAULT_OUTPUT).parse_args(arguments)
    quiet()
    try:
        output, pipe, pool, settings = read_inputs(options)
        write_json(output, {"settings": settings, **measure(pipe, pool, options.count)})
        print(output.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
