"""A composed start and guidance at the size of Stable Diffusion 1.5, with random weights: `python -m benchmarks.real_start`.

Writes `benchmarks/results/real_start.json`: seconds and peak memory of one call of two steps at 512 and 1,024 px, each in a
process of its own: of the base alone, with a composed start (which leaves one of the two steps), and with feature guidance
beside it. (Weights do not matter for any of this, and nothing is downloaded.)
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler

from mg_diffusion import MGEncoder, MGPipeline
from mg_diffusion.evaluation.control import write_json
from mg_diffusion.recipe import prepare_output, versions

from .bases import build_unet


DEFAULT_OUTPUT = "benchmarks/results/real_start.json"
SIDES = (512, 1024)
STEPS = 2
ROWS = {
    "base alone": None,
    "composed start": {"composed_start": 0.5, "feature_guidance_scale": 0},
    "composed start and guidance": {"composed_start": 0.5},
}


def build_pipeline() -> MGPipeline:
    torch.manual_seed(0)
    unet = build_unet("sd15", torch.float32)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    ).eval()
    parts = {"text_encoder": None, "tokenizer": None, "mg_adapter": None}
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False)
    pipe = MGPipeline(vae=vae, unet=unet, scheduler=scheduler, mg_encoder=MGEncoder.from_unet(unet), **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def measure(name: str, side: int) -> dict[str, float]:
    pipe, generator = build_pipeline(), torch.Generator().manual_seed(0)
    references = {
        "reference_image": dict.fromkeys(("color", "texture", "shape"), torch.rand(3, 256, 256, generator=generator))
    }
    asked = {} if ROWS[name] is None else {**references, **ROWS[name]}
    began = time.perf_counter()
    pipe(height=side, width=side, num_inference_steps=STEPS, guidance_scale=1.0, generator=generator, **asked)
    seconds = time.perf_counter() - began
    return {"seconds": round(seconds, 1), "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def table(found: dict[str, Any]) -> str:
    lines = ["| px | " + " | ".join(ROWS) + " |", "|-:|" + "-:|" * len(ROWS)]
    for side in SIDES:
        cells = [found["calls"][f"{name}, {side}"] for name in ROWS]
        lines.append(
            f"| {side} | " + " | ".join(f"{one['seconds']:.0f} s, {one['peak_mib']} MiB" for one in cells) + " |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SIDE"), help="measure that here, and print it")
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT)
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return 0
    output, calls = prepare_output(options.output, ".json"), {}
    for side in SIDES:
        for name in ROWS:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.real_start", "--one", name, str(side)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            calls[f"{name}, {side}"] = json.loads(printed.strip().splitlines()[-1])
            print(name, side, calls[f"{name}, {side}"], flush=True)
    write_json(output, {"calls": calls, "threads": torch.get_num_threads(), "versions": versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
