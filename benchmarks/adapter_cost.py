"""What training an adapter for a released checkpoint takes, counted on shapes alone: `python -m benchmarks.adapter_cost`.

Writes `benchmarks/results/adapter_cost.json`. Operations of a step are counted by torch on the device "meta", and so are the
tensors that the backward pass needs; nothing is run. Hours follow from what a GPU sustains, which is assumed.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.evaluation.control import write_json
from mg_diffusion.recipe import prepare_output, versions

from .bases import build_unet, count
from .speed import step_inputs


DEFAULT_OUTPUT = "benchmarks/results/adapter_cost.json"
BASES = ("sd15", "sdxl")
SAMPLES = 1_000_000
# Sustained in bfloat16, about two fifths of what the makers say of dense products.
GPUS = {"24 GB (as an RTX 4090)": 65e12, "80 GB (as an A100)": 125e12}
ROWS = 2  # of `step_inputs`
STATES = 5 * 4  # bytes of each trained number: weights, gradient, two moments, average


class Saved:
    """Bytes of what a forward pass keeps for the backward pass, each tensor once."""

    def __init__(self) -> None:
        self.bytes, self.seen = 0, set()

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in self.seen and not isinstance(tensor, torch.nn.Parameter):
            self.seen.add(id(tensor))
            self.bytes += tensor.nbytes
        return tensor


def examine(name: str) -> dict[str, Any]:
    """One sample at the native size of a base that is frozen: gradients go through it to what the adapter adds."""
    unet = build_unet(name, device="meta").requires_grad_(False).train()
    encoder = MGEncoder.from_unet(unet)
    trained = count(MGAdapter.from_unet(unet, encoder)) + count(encoder) - count(encoder.branches["shape"].backbone)
    saved, operations = {}, {}
    for is_checkpointed in (True, False):
        (unet.enable_gradient_checkpointing if is_checkpointed else unet.disable_gradient_checkpointing)()
        counter, kept = FlopCounterMode(display=False), Saved()
        with counter, torch.autograd.graph.saved_tensors_hooks(kept.keep, lambda tensor: tensor):
            inputs = step_inputs(unet, unet.config.sample_size)
            inputs["sample"].requires_grad_(True)  # as what the adapter adds to the first block
            unet(**inputs)[0].sum().backward()
        saved[is_checkpointed] = kept.bytes / ROWS
        operations[is_checkpointed] = counter.get_total_flops() / ROWS
    step = operations[True]
    return {
        "operations_a_sample": step,
        "trained": trained,
        "unet_gb": count(unet) * 2 / 1e9,
        "trained_gb": trained * STATES / 1e9,
        "activations_gb": {"checkpointed": saved[True] / 1e9, "whole": saved[False] / 1e9},
        "hours": {gpu: SAMPLES * step / sustained / 3600 for gpu, sustained in GPUS.items()},
    }


def table(found: dict[str, Any]) -> str:
    heads = [f"hours, {gpu}" for gpu in GPUS]
    lines = [
        "| base | trained, M | UNet, GB | trained state, GB | activations a sample, GB | T operations a sample | "
        + " | ".join(heads)
        + " |",
        "|-|" + "-:|" * (5 + len(heads)),
    ]
    for name, one in found["bases"].items():
        cells = [f"{one['trained'] / 1e6:.1f}", f"{one['unet_gb']:.1f}", f"{one['trained_gb']:.2f}"]
        cells += [
            f"{one['activations_gb']['checkpointed']:.2f} ({one['activations_gb']['whole']:.1f} without checkpointing)"
        ]
        cells += [f"{one['operations_a_sample'] / 1e12:.1f}", *(f"{one['hours'][gpu]:.0f}" for gpu in GPUS)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT)
    output = prepare_output(parser.parse_args(arguments).output, ".json")
    found = {"bases": {name: examine(name) for name in BASES}, "samples": SAMPLES, "versions": versions()}
    write_json(output, found)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
