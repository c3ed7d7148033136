"""What conditioning costs, as ratios measured in one run: `python benchmarks/speed.py`.

Absolute times belong to one machine; ratios of times taken in turns, in one process, carry over better. Every figure
is the median over repeats in which the things compared take turns, so that a slow moment hits all of them alike.
"""

import argparse
import contextlib
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
import torch

from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.recipe import prepare_output, save_json, versions


SIDES = (64, 128, 256, 512)
DEFAULT_OUTPUT = "hub_cards/mg-bazaar/speed.json"


def pictures(side: int) -> dict[str, PIL.Image.Image]:
    """Three different pictures with detail at all scales: noise, summed over octaves."""
    made = {}
    for seed, name in enumerate(GRANULARITIES):
        rng = np.random.default_rng(seed)
        sides = [2**power for power in range(2, side.bit_length())]
        octaves = [PIL.Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)) for n in sides]
        layers = [np.asarray(octave.resize((side, side)), float) for octave in octaves]
        made[name] = PIL.Image.fromarray(np.mean(layers, 0).astype(np.uint8))
    return made


def medians(
    jobs: dict[str, Callable[[], Any]],
    repeats: int,
    device: torch.device,
    around: dict[str, Callable[[], contextlib.AbstractContextManager]] | None = None,
) -> dict[str, float]:
    """Milliseconds of each job: the median of `repeats` rounds in which the jobs take turns, after one round unmeasured.

    Args:
        around: by job, what it runs inside of, unmeasured.
    """
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for index in range(repeats + 1):
        for name, job in jobs.items():
            with (around or {}).get(name, contextlib.nullcontext)():
                wait(device)
                start = time.perf_counter()
                job()
                wait(device)
                taken = 1000 * (time.perf_counter() - start)
            if index:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def step_inputs(unet: Any, side: int, tokens: int = 77) -> dict[str, Any]:
    """Inputs of one UNet call with guidance: two rows, at latents of side x side."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=generator).to(unet.device, unet.dtype)

    inputs = {
        "sample": noise(unet.config.in_channels, side, side),
        "timestep": 500,
        "encoder_hidden_states": noise(tokens, unet.config.cross_attention_dim),
        "return_dict": False,
    }
    if unet.config.addition_embed_type == "text_time":
        time_ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]] * 2, device=unet.device, dtype=unet.dtype)
        inputs["added_cond_kwargs"] = {"text_embeds": noise(1280), "time_ids": time_ids}
    return inputs


@torch.no_grad()
def measure(pipe: Any, repeats: int) -> dict[str, Any]:
    """All times in milliseconds, by name."""
    adapter, encoder, unet = pipe.mg_adapter, pipe.mg_encoder, pipe.unet
    latent_size = (unet.config.sample_size,) * 2
    map_size = adapter.map_size(*latent_size)
    strengths = torch.tensor([[0.0] * 3, [1.0] * 3], device=unet.device)  # unconditional row, conditional row
    tokens = 1 if pipe.tokenizer is None else pipe.tokenizer.model_max_length
    inputs = step_inputs(unet, unet.config.sample_size, tokens)
    features = encoder.encode(pictures(SIDES[0]), size=map_size)
    attention, residuals = adapter.condition(unet, features, strengths, latent_size)

    def conditioned(residual: bool = True, attend: bool = True) -> None:
        # Attaching is part of the cost here, though a pipeline pays it once for all steps.
        with adapter.attach(unet) if attend else contextlib.nullcontext():
            unet(
                **inputs,
                cross_attention_kwargs={"ip_hidden_states": attention} if attend else None,
                down_intrablock_additional_residuals=list(residuals) if residual else None,
            )

    jobs: dict[str, Callable[[], Any]] = {
        "step_stock": lambda: unet(**inputs),
        "step_conditioned": conditioned,
        "step_attention_only": lambda: conditioned(residual=False),
        "step_residuals_only": lambda: conditioned(attend=False),
        "condition_once": lambda: adapter.assemble_conditioning(unet, features, strengths, latent_size),
    }
    for side in SIDES:
        references = pictures(side)
        jobs[f"encode_{side}"] = lambda references=references: encoder.encode(references, size=map_size)
    for name in GRANULARITIES:
        alone = {name: pictures(256)[name]}
        jobs[f"encode_256_{name}"] = lambda alone=alone: encoder.encode(alone, size=map_size)
    return medians(jobs, repeats, unet.device)


def ratios(times: dict[str, float]) -> dict[str, float]:
    """What the times mean: everything in steps of the stock UNet with guidance."""
    stock = times["step_stock"]
    return {name: value / stock for name, value in times.items() if name != "step_stock"}


def peak_memory(device: torch.device) -> dict[str, float]:
    """MiB: of this process, and of the CUDA device where one is used."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    peak = {"process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device.type == "cuda":
        peak["cuda"] = torch.cuda.max_memory_allocated(device) / 2**20
    return {name: round(value, 1) for name, value in peak.items()}


def table(result: dict[str, Any]) -> str:
    lines = [
        f"One step of the stock UNet with guidance (batch 2): {result['milliseconds']['step_stock']:.1f} ms.",
        "",
        "| median of interleaved repeats | ms | steps of the stock UNet |",
        "|---|---:|---:|",
    ]
    for name, ratio in result["ratio_to_stock_step"].items():
        lines.append(f"| {name.replace('_', ' ')} | {result['milliseconds'][name]:.1f} | {ratio:.3f} |")
    memory = ", ".join(f"{name} {value:.0f} MiB" for name, value in result["peak_memory_mib"].items())
    return "\n".join([*lines, "", f"Peak memory: {memory}."])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status: 0, or 2 after an error."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE.json")
    parser.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    parser.add_argument("--repeats", type=int, default=15, help="rounds to take the median of; default: 15")
    parser.add_argument("--device", default="auto", help="auto (CUDA where there is some), cpu, cuda, mps")
    options = parser.parse_args(arguments)
    quiet()
    try:
        from mg_diffusion import MGPipeline  # after `quiet`: transformers reports while it is imported

        if options.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {options.repeats}.")
        output = prepare_output(options.output, ".json")
        pipe = load_pipeline(MGPipeline, options.model, device=options.device)
        pipe.register_modules(mg_detail=None)  # of the base; its octaves: benchmarks.octaves
        times = measure(pipe, options.repeats)
        result = {
            "model": model_name(options.model),
            "milliseconds": times,
            "ratio_to_stock_step": ratios(times),
            "conditioned_step_over_stock_step": times["step_conditioned"] / times["step_stock"],
            "peak_memory_mib": peak_memory(pipe.device),
            "settings": {
                "repeats": options.repeats,
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                "device": pipe.device.type,
                "dtype": str(pipe.unet.dtype),
                "versions": versions(),
            },
        }
        save_json(result, output)
        print(table(result))
        print(output)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
