"""What a step costs at the size of Stable Diffusion 1.5, ours beside diffusers' own: `python -m benchmarks.real_size`.

Three references each (a ControlNet reads one hint), batch 2 as with guidance, one process, the methods taking turns. Peak
memory is that of a process of its own for each method. On a CPU latents of 32 x 32 in float32, on a GPU 64 x 64 in bfloat16.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mg_diffusion.recipe import prepare_output, save_json, versions

from .bases import build_unet, count
from .peers import PEERS, Peer
from .speed import medians, peak_memory, step_inputs, wait


LABELS = {
    "plain": "UNet alone",
    "ours": "ours, three references",
    "t2i_adapter": "T2I-Adapter, three",
    "ip_adapter": "IP-Adapter Plus, three",
    "controlnet": "ControlNet, one hint",
}
DEFAULT_OUTPUT = "benchmarks/results/real_size.json"


def build(names: Sequence[str], options: argparse.Namespace) -> tuple[torch.nn.Module, dict[str, Peer]]:
    """The UNet and the methods on `options.device`."""
    dtype = torch.bfloat16 if options.device == "cuda" else torch.float32
    unet = build_unet("sd15", dtype).to(options.device)
    inputs = step_inputs(unet, options.side)
    torch.manual_seed(0)
    call = torch.compile(unet, fullgraph=True) if options.compile else unet
    return unet, {name: PEERS[name](unet, call, inputs, options.side) for name in names}


@torch.no_grad()
def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Milliseconds of a step and of what is computed once, and parameters, by method."""
    unet, peers = build(options.methods, options)

    if options.compile:  # every kind of call has a graph of its own
        torch._dynamo.config.recompile_limit = 64
    # What installs a method is not timed: pipelines do it once a call, or once for all calls.
    around = {name: peer.around for name, peer in peers.items()}
    times = medians({name: peer.step for name, peer in peers.items()}, options.repeats, unet.device, around)
    once = medians({name: peer.once for name, peer in peers.items()}, max(1, options.repeats // 2), unet.device)
    return {
        name: {"step_ms": times[name], "once_ms": once[name], "parameters": sum(count(part) for part in peer.parts)}
        for name, peer in peers.items()
    }


@torch.no_grad()
def one_run(name: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of this process after building one method alone, its references and two steps."""
    unet, peers = build([name], options)
    peer = peers[name]
    peer.once()
    with peer.around():
        for _ in range(2):
            peer.step()
    wait(unet.device)
    return peak_memory(unet.device)


def peak_in_a_process(name: str, options: argparse.Namespace) -> float:
    """MiB at the peak of a process with one method; of the GPU where one is used."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "peak.json")
        flags = ["--only", name, "--device", options.device, "--side", str(options.side), "-o", str(place)]
        flags += ["--compile"] if options.compile else []
        subprocess.run([sys.executable, "-m", "benchmarks.real_size", *flags], check=True, stdout=subprocess.DEVNULL)
        peak = json.loads(place.read_text(encoding="utf-8"))
    return peak.get("cuda", peak["process"])


def summary(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Everything beside the UNet alone: steps in its steps, memory in its memory."""
    base = found["plain"]
    return {
        name: {
            **one,
            "step_ratio": one["step_ms"] / base["step_ms"],
            "once_in_steps": one["once_ms"] / base["step_ms"],
            "memory_ratio": one["peak_mib"] / base["peak_mib"],
        }
        for name, one in found.items()
    }


def in_order(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """As `LABELS` has them; a file has them by the alphabet."""
    return {name: found[name] for name in LABELS if name in found}


def table(found: dict[str, dict[str, float]]) -> str:
    lines = [
        "| | step, ms | step / UNet alone | once, in steps | parameters, M | peak memory, MiB | memory / UNet alone |",
        "|-|-:|-:|-:|-:|-:|-:|",
    ]
    for name, one in in_order(found).items():
        lines.append(
            f"| {LABELS[name]} | {one['step_ms']:.0f} | {one['step_ratio']:.3f} | {one['once_in_steps']:.2f} | "
            f"{one['parameters'] / 1e6:.1f} | {one['peak_mib']:.0f} | {one['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def plot(found: dict[str, dict[str, float]], path: Path) -> None:
    """Bars of the step and of memory, beside the UNet alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 2.6), layout="constrained", sharey=True)
    found = in_order(found)
    labels = [LABELS[name] for name in found]
    for axis, key, title in (
        (axes[0], "step_ratio", "a step, in steps of the UNet alone"),
        (axes[1], "memory_ratio", "peak memory, in that of the UNet alone"),
    ):
        bars = axis.barh(labels, [one[key] for one in found.values()], color="#4c72b0")
        axis.bar_label(bars, fmt="%.2f", padding=3)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.margins(x=0.15)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT, metavar="FILE.json")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", type=int, help="of the latents; default: 64 on a GPU, 32 on a CPU")
    parser.add_argument("--repeats", type=int, default=7, help="rounds to take the median of; default: 7")
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--compile", action="store_true", help="the UNet by torch.compile(fullgraph=True)")
    parser.add_argument("--only", choices=PEERS, help=argparse.SUPPRESS)  # peak memory of one method
    options = parser.parse_args(arguments)
    options.side = options.side or (64 if options.device == "cuda" else 32)
    if options.side < 8 or options.side % 8:
        parser.error(f"--side must be a multiple of 8, got {options.side}")
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    if "plain" not in options.methods:
        parser.error("--methods must hold plain, which the others are compared with")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; returns the exit status: 0, or 2 after an error."""
    options = parse_arguments(arguments)
    try:
        output = prepare_output(options.output, ".json")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.only:
        output.write_text(json.dumps(one_run(options.only, options)), encoding="utf-8")
        return 0
    # Before this process takes memory of its own.
    peaks = {name: peak_in_a_process(name, options) for name in options.methods}
    found: dict[str, Any] = measure(options)
    found = summary({name: {**one, "peak_mib": peaks[name]} for name, one in found.items()})
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU"
    settings = {"device": device, "side": options.side, "compiled": options.compile, "repeats": options.repeats}
    settings |= {"threads": torch.get_num_threads(), "cores": os.cpu_count(), "versions": versions()}
    settings["dtype"] = "bfloat16" if options.device == "cuda" else "float32"
    save_json({"methods": found, "settings": settings}, output)
    plot(found, output.with_suffix(".png"))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
