"""What it takes to start, in processes of their own: `python -m benchmarks.starts`; shown in docs/loading.md.

Seconds of CPU (user and system, of the process) and on the clock, medians of several runs; one after the other, so that all
take turns. Nothing is warmed up but the files, which the first, uncounted run of each reads.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mg_diffusion.recipe import prepare_output, save_json, versions


OUTPUT = Path(__file__).parent / "results" / "starts.json"
ERROR = 2  # the status where what was asked for cannot be
COMMAND = ["-m", "mg_diffusion.cli"]
LOAD = "from mg_diffusion import MGPipeline; from mg_diffusion.loading import load_pipeline, quiet; quiet(); load_pipeline(MGPipeline)"
PICTURE = ["generate", "--color", "#ff8800:3,#224466", "-o", "{folder}/picture.png", "--force"]
STARTS = {  # arguments of Python, by what the table says
    "`import mg_diffusion`": ["-c", "import mg_diffusion"],
    "`mg-diffusion --version`": [*COMMAND, "--version"],
    "`mg-diffusion --help`": [*COMMAND, "--help"],
    "`mg-diffusion generate --help`": [*COMMAND, "generate", "--help"],
    "`mg-diffusion generate --seed x`, an error": [*COMMAND, "generate", "--seed", "x"],
    "`mg-diffusion generate --shape nosuch.png`, an error": [*COMMAND, *PICTURE, "--shape", "nosuch.png"],
    "`import torch`": ["-c", "import torch"],
    "`from diffusers import StableDiffusionPipeline`": ["-c", "from diffusers import StableDiffusionPipeline"],
    "`from mg_diffusion import MGPipeline`": ["-c", "from mg_diffusion import MGPipeline"],
    "the same, and the default model is loaded": ["-c", LOAD],
    "`mg-diffusion generate --size 64 --steps 1`": [*COMMAND, *PICTURE, "--size", "64", "--steps", "1"],
    "`mg-diffusion generate`, 256 px": [*COMMAND, *PICTURE],
}


def start(arguments: list[str], folder: str, expected: int = 0) -> dict[str, float]:
    """One process, from its start to its end; a ValueError if that is not with the status that is expected."""
    command = [sys.executable, *(one.format(folder=folder) for one in arguments)]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expected:  # or an error would pass for a quick start
        raise ValueError(f"`{' '.join(command)}` must end with status {expected}, it ended with {process.returncode}.")
    return {"cpu": used.ru_utime + used.ru_stime, "wall": wall}


def measure(starts: dict[str, list[str]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each start."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in starts}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):
            for name, arguments in starts.items():
                taken = start(arguments, folder, ERROR if name.endswith("an error") else 0)
                if turn:
                    found[name].append(taken)
    return {
        name: {kind: round(statistics.median(one[kind] for one in runs), 2) for kind in ("cpu", "wall")}
        for name, runs in found.items()
    }


def table(found: dict[str, Any]) -> str:
    settings = found["settings"]
    lines = [
        f"Median of {settings['repeats']} processes, {settings['cores']} CPU cores, torch {settings['versions']['torch']}, "
        f"diffusers {settings['versions']['diffusers']}:",
        "",
        "| start | CPU, s | clock, s |",
        "|-|-:|-:|",
    ]
    rows = [(name, found["starts"][name]) for name in STARTS if name in found["starts"]]  # a file sorts them by name
    lines += [f"| {name} | {one['cpu']:.2f} | {one['wall']:.2f} |" for name, one in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.starts", description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", default=str(OUTPUT))
    options = parser.parse_args()
    try:
        if options.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {options.repeats}.")
        output = prepare_output(options.output, ".json")
        starts = measure(STARTS, options.repeats)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    settings = {"repeats": options.repeats, "cores": len(os.sched_getaffinity(0)), "versions": versions()}
    found = {"settings": settings, "starts": starts}
    save_json(found, output)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
