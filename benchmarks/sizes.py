"""What a picture costs by its size, with the embedded model: `python -m benchmarks.sizes`; shown in docs/detail.md.

Each size in a process of its own: one call to warm up, then seconds of references to features and of a whole call, and the
peak memory of the process. Three drawn references, the steps of the defaults.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from .speed import peak_memory


SIZES = (64, 128, 256, 512, 1024)
OUTPUT = Path(__file__).parent / "results" / "sizes.json"


def measure(model: str, size: int) -> dict[str, float]:
    """Of this process."""
    from demo.references import reference
    from mg_diffusion import MGPipeline

    pipe = MGPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    references = {"color": reference("sea"), "texture": reference("gravel"), "shape": reference("coffee")}

    def call() -> None:
        pipe(reference_image=references, height=size, width=size, generator=torch.Generator().manual_seed(0))

    call()
    seconds = {}
    for name, part in {"encode": lambda: pipe.encode_reference(references, size, size), "picture": call}.items():
        start = time.perf_counter()
        part()
        seconds[name] = round(time.perf_counter() - start, 2)
    return {**seconds, "memory_mib": peak_memory(torch.device("cpu"))["process"]}


def table(found: dict[str, Any]) -> str:
    lines = [
        f"{found['settings']['threads']} threads of a CPU, float32, 20 steps of the base and 6 of each octave, of which a whole sketch spares four.",
        "",
        "| size | references, s | whole picture, s | microseconds a pixel | peak memory, MiB |",
        "|-:|-:|-:|-:|-:|",
    ]
    for size, row in found["sizes"].items():
        each = 1e6 * row["picture"] / int(size) ** 2
        lines.append(f"| {size} | {row['encode']} | {row['picture']} | {each:.0f} | {row['memory_mib']:.0f} |")
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
