"""What hundreds of calls leave behind: `python -m benchmarks.soak`.

Writes `benchmarks/results/soak.json`: for each of the four pipelines, calls with changing references, sizes and strengths, every
fifth of which is an error of the caller's or of a callback; resident memory after the first hundred calls and at the end; open
files, threads, hooks and attention processors before and after. Components are real and tiny, with random weights; what they
remember of references is bounded to 1 MiB in place of 32, so that it is full within the first hundred calls.
"""

import argparse
import gc
import random
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from mg_diffusion.evaluation.control import write_json
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline, MGXLInpaintPipeline, MGXLPipeline
from mg_diffusion.recipe import prepare_output, versions
from tests.pipelines.tiny import tiny_components
from tests.pipelines.tiny_xl import tiny_components_xl


DEFAULT_OUTPUT = "benchmarks/results/soak.json"
KINDS = (MGPipeline, MGInpaintPipeline, MGXLPipeline, MGXLInpaintPipeline)
SIDES = (16, 24, 32, 48)
FIRST = 100  # calls after which memory is first looked at: by then every cache is full, since
CACHE = 1 << 20  # bytes are all that encoder and adapter remember here, in place of 32 MiB each


class Stopped(Exception):
    """What a callback raises."""


def resident() -> int:
    """Bytes of this process in memory, after a collection."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def picture(rng: random.Random, side: int) -> PIL.Image.Image:
    noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return PIL.Image.fromarray(noise).resize((side, side), PIL.Image.Resampling.BICUBIC)


def asked(rng: random.Random, is_edit: bool) -> dict[str, Any]:
    """Arguments of a call, never the same twice."""
    side = rng.choice(SIDES)
    given = {name: picture(rng, rng.randrange(32, 96)) for name in ("color", "texture", "shape") if rng.random() < 0.7}
    options: dict[str, Any] = {
        "height": side,
        "width": rng.choice(SIDES),
        "num_inference_steps": 1,
        "output_type": "np",
    }
    options |= {"reference_image": given or None, "generator": torch.Generator().manual_seed(rng.randrange(1 << 30))}
    options |= {
        "granularity_scale": rng.choice((1.0, 0.5, 0.0)),
        "composed_start": rng.choice((0.0, 0.5)) if given else 0.0,
    }
    options |= {"feature_guidance_scale": 1.0 if given and rng.random() < 0.2 else 0.0}
    if is_edit:
        mask = np.zeros((side, side), np.uint8)
        mask[2:9, 2:9] = 255
        options |= {"image": picture(rng, side), "mask_image": mask, "width": side}
    return options


def wrong(rng: random.Random, options: dict[str, Any]) -> dict[str, Any]:
    """The same with a mistake, or with a callback that raises."""

    def stop(*_: Any) -> dict[str, Any]:
        raise Stopped

    mistakes = ({"height": 17}, {"granularity_scale": float("nan")}, {"reference_image": {"color": 5}})
    return {**options, **rng.choice((*mistakes, {"callback_on_step_end": stop}))}


def left_behind(pipe: Any) -> dict[str, int]:
    """What a call must take with it."""
    modules = list(pipe.unet.modules())
    hooks = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in modules)
    processors = sum(type(one).__module__.startswith("mg_diffusion") for one in pipe.unet.attn_processors.values())
    files = len(list(Path("/proc/self/fd").iterdir()))
    return {"hooks": hooks, "processors": processors, "files": files, "threads": threading.active_count()}


def soak(kind: type, calls: int, folder: Path) -> dict[str, Any]:
    parts = tiny_components_xl(folder) if "XL" in kind.__name__ else tiny_components(folder)
    pipe, rng, errors = kind(**parts), random.Random(0), 0
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.mg_encoder, pipe.mg_adapter):
        part.remembered.most_bytes = CACHE
    pipe(
        "a", **asked(rng, "Inpaint" in kind.__name__)
    )  # progress bars keep a thread of their own from the first one on
    before, first = left_behind(pipe), 0
    for number in range(1, calls + 1):
        options = asked(rng, "Inpaint" in kind.__name__)
        try:
            pipe("a", **(wrong(rng, options) if number % 5 == 0 else options))
        except (ValueError, Stopped):
            errors += 1
        if number == min(FIRST, calls):
            first = resident()
    last, after = resident(), left_behind(pipe)
    return {
        "calls": calls,
        "errors": errors,
        "memory_mib": {"first": round(first / 2**20, 1), "last": round(last / 2**20, 1)},
        "growth": round(last / first - 1, 4),
        "left": {name: after[name] - before[name] for name in after},
    }


def table(found: dict[str, Any]) -> str:
    lines = [
        "| pipeline | calls, of them errors | MiB after 100 calls | at the end | growth | left behind |",
        "|-|-:|-:|-:|-:|-|",
    ]
    for name, one in found["pipelines"].items():
        memory = one["memory_mib"]
        left = ", ".join(f"{count} {what}" for what, count in one["left"].items() if count) or "nothing"
        lines.append(
            f"| `{name}` | {one['calls']}, {one['errors']} | {memory['first']:.0f} | {memory['last']:.0f} | "
            f"{100 * one['growth']:.1f} % | {left} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT)
    options = parser.parse_args(arguments)
    output = prepare_output(options.output, ".json")
    found = {}
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found[kind.__name__] = soak(kind, options.calls, Path(folder))
        print(kind.__name__, found[kind.__name__], flush=True)
    write_json(output, {"pipelines": found, "versions": versions()})
    return 0


if __name__ == "__main__":
    sys.exit(main())
