"""What a picture costs by its size, with the embedded model: `python -m benchmarks.sizes`; shown in docs/detail.md.

Each size in a process of its own: one call to warm up, then seconds of a call with the references of before and of one with
new ones (what was remembered is forgotten), by the few steps of the default and by many; and the peak memory of the process.
Three drawn references.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .speed import peak_memory


SIZES = (64, 128, 256, 512, 1024)
STEPS = {"few": 4, "many": 20}
OUTPUT = Path(__file__).parent / "results" / "sizes.json"


def measure(model: str, size: int) -> dict[str, float]:
    """Of this process."""
    from demo.references import reference
    from mg_diffusion import MGPipeline
    from mg_diffusion.loading import load_pipeline

    references = {"color": reference("sea"), "texture": reference("gravel"), "shape": reference("coffee")}
    seconds = {}
    for name, steps in STEPS.items():
        pipe = load_pipeline(MGPipeline, model, many_steps=name == "many")
        pipe.set_progress_bar_config(disable=True)

        options = {"reference_image": references, "height": size, "width": size, "num_inference_steps": steps}

        def call(pipe: Any = pipe, options: dict[str, Any] = options) -> None:
            pipe(**options, generator=torch.Generator().manual_seed(0))

        call()
        seconds[f"{name}, again"] = timed(call)
        for part in (pipe.mg_encoder, pipe.mg_adapter):
            part.remembered.results.clear()
        seconds[name] = timed(call)
    return {**seconds, "memory_mib": peak_memory(torch.device("cpu"))["process"]}


def timed(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return round(time.perf_counter() - start, 2)


def table(found: dict[str, Any]) -> str:
    lines = [
        f"Seconds of a picture on {found['settings']['threads']} threads of a CPU, float32: by the 4 steps of the distilled base and by "
        "the 20 of the one that it learned from, and 6 steps of each octave, of which a whole sketch spares four.",
        "",
        "| size | new references | the same again | microseconds a pixel | 20 steps, new references | peak memory, MiB |",
        "|-:|-:|-:|-:|-:|-:|",
    ]
    for size, row in found["sizes"].items():
        each = 1e6 * row["few"] / int(size) ** 2
        seconds = f"{row['few']} | {row['few, again']} | {each:.0f} | {row['many']}"
        lines.append(f"| {size} | {seconds} | {row['memory_mib']:.0f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_cards/mg-bazaar")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--output", default=str(OUTPUT))
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.model, options.one)))
        return 0
    rows = {}
    for size in options.sizes:
        command = [sys.executable, "-m", "benchmarks.sizes", "--model", options.model, "--one", str(size)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
        rows[str(size)] = json.loads(done.stdout.splitlines()[-1])
        print(size, rows[str(size)], flush=True)
    found = {"settings": {"threads": torch.get_num_threads()}, "sizes": rows}
    Path(options.output).write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
