"""One process with all threads against one process for each core: `python -m benchmarks.scaling --train_data_dir PICTURES`.

Stage `base` is trained for a few steps with the same batch in both ways, one after the other. Run it on an idle machine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import accelerate
import torch

from mg_diffusion.recipe import save_json


OUTPUT = Path(__file__).parent / "results" / "scaling.json"
# What each process does: train, then say how much memory it took at most (KiB on Linux).
WORKER = (
    "import os, resource, sys; from mg_diffusion.training.__main__ import main; main(sys.argv[2:]); "
    "open(sys.argv[1] + os.environ.get('RANK', '0'), 'w').write("
    "str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))"
)


def measure(processes: int, threads: int, options: argparse.Namespace, flags: list[str]) -> dict[str, Any]:
    """Samples a second without the first 20 steps, and peak memory of all processes together."""
    with tempfile.TemporaryDirectory() as folder:
        script, peak, output = Path(folder, "worker.py"), Path(folder, "peak"), Path(folder, "run")
        script.write_text(WORKER)
        arguments = ["base", "--output_dir", str(output), "--train_data_dir", options.train_data_dir, *flags]
        arguments += ["--train_batch_size", str(options.batch), "--split_batches"]
        launch = ["--num_processes", str(processes), "--num_machines", "1", "--mixed_precision", "no"]
        launch += ["--dynamo_backend", "no", "--num_cpu_threads_per_process", str(threads)]
        launch += ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else ["--cpu"]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "accelerate.commands.launch", *launch, str(script), str(peak), *arguments]
        subprocess.run(command, env=environment, check=True)
        records = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
        speeds = [record["samples_per_second"] for record in records if "samples_per_second" in record]
        peaks = [int(path.read_text()) / 2**10 for path in Path(folder).glob("peak*")]
        if len(peaks) != processes:
            raise ValueError(f"{processes} processes were asked for, {len(peaks)} ran.")
    return {
        "processes": processes,
        "threads": threads,
        # Each is the mean of 20 steps; the first has the start in it.
        "samples_per_second": sum(speeds[1:] or speeds) / len(speeds[1:] or speeds),
        "peak_memory_mib": round(sum(peaks), 1),
    }


def table(result: dict[str, Any]) -> str:
    lines = ["| processes x threads | samples a second | peak memory, all processes |", "|-|-:|-:|"]
    for run in result["runs"]:
        name = f"{run['processes']} x {run['threads']}"
        lines.append(f"| {name} | {run['samples_per_second']:.1f} | {run['peak_memory_mib']:.0f} MiB |")
    settings = result["settings"]
    where = f"{settings['cores']} CPU cores, stage `base` at {settings['resolution']} px, {settings['batch']} samples a step"
    return f"{where}, {settings['steps']} steps:\n\n" + "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train_data_dir", required=True, help="imagefolder to train on")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=16, help="samples in a step of all processes together")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options, more = parser.parse_known_args(arguments)  # what is left are flags of the training
    flags = ["--max_train_steps", str(options.steps), "--checkpointing_steps", str(options.steps)]
    flags += ["--validation_steps", str(options.steps), "--resolution", str(options.resolution)]
    flags += ["--lr_warmup_steps", "0", *more]
    runs = [measure(processes, options.cores // processes, options, flags) for processes in (1, options.cores)]
    settings = {name: getattr(options, name) for name in ("steps", "batch", "resolution", "cores")}
    settings |= {"torch": torch.__version__, "accelerate": accelerate.__version__, "flags": more}
    result = {"runs": runs, "settings": settings}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_json(result, options.output)
    print(table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
