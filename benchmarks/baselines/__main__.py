"""Train peers on the frozen base, and measure them with MG-Bench.

python -m benchmarks.baselines train ip_adapter --train_data_dir PICTURES --output_dir runs/ip_adapter
python -m benchmarks.baselines bench ip_adapter --weights runs/ip_adapter --data PICTURES -o ip_adapter.json
python -m benchmarks.baselines bench gatys --features squeezenet1_1.safetensors --data PICTURES -o gatys.json
python -m benchmarks.baselines train mg_adapter ...      our adapter from nothing, with the same budget
mg-diffusion bench --model runs/mg_adapter/weights ...   measures that one
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import torch

from mg_diffusion.evaluation.squeezenet import load_squeezenet
from mg_diffusion.loading import embedded_model
from mg_diffusion.mg_bench.command import run as run_bench
from mg_diffusion.mg_bench.flags import add_bench_flags, whole
from mg_diffusion.mg_bench.methods import Method
from mg_diffusion.recipe import prepare_output
from mg_diffusion.training.arguments import parse_args
from mg_diffusion.training.base import load_components

from .gatys import GatysMethod
from .method import BaselineMethod
from .networks import BASELINES
from .training import OURS, WEIGHTS, build, run


GATYS = "gatys"


def train(method: str, flags: list[str]) -> None:
    """Flags are those of `python -m mg_diffusion.training base`; `--init_from` is the base, by default the embedded one."""
    if not any(flag.startswith("--init_from") for flag in flags):
        flags = [*flags, "--init_from", str(embedded_model())]
    args = parse_args(["base", *flags])
    args.method = method
    run(args)


def bench(options: argparse.Namespace) -> None:
    output = prepare_output(options.output, ".json")
    components = load_components(options.init_from or str(embedded_model()))
    method = gatys(options) if options.method == GATYS else trained(options, components)
    run_bench(options, method, components["vae"], model=options.method, output=output)


def gatys(options: argparse.Namespace) -> Method:
    if options.features is None:
        raise ValueError("Gatys' method needs a network: give the weights of SqueezeNet 1.1 as --features.")
    return GatysMethod(load_squeezenet(options.features))


def trained(options: argparse.Namespace, components: dict[str, Any]) -> Method:
    model = build(options.method, components)
    place = Path(options.weights or "", "weights", WEIGHTS)
    if options.weights is None or not place.is_file():
        raise ValueError(
            f"{options.method} needs the --output_dir of its training as --weights; there is no {str(place)!r}."
        )
    weights = torch.load(place, weights_only=True)
    if weights.keys() != {name for name, value in model.named_parameters() if value.requires_grad}:
        raise ValueError(f"{str(place)!r} holds the weights of another method than {options.method}.")
    model.load_state_dict(weights, strict=False)
    settings = {"num_inference_steps": options.steps, "guidance_scale": options.guidance_scale}
    return BaselineMethod(model.baseline, components, settings)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.baselines", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("train", help="all other flags are those of `mg_diffusion.training base`")
    one.add_argument("method", choices=[OURS, *BASELINES])
    one = commands.add_parser("bench")
    one.add_argument("method", choices=[GATYS, *BASELINES])
    one.add_argument("--weights", help="the --output_dir of its training")
    one.add_argument("--init_from", help="the base it was trained on; default: the embedded model")
    one.add_argument("--steps", type=whole(1), default=20)
    one.add_argument("--guidance_scale", type=float, default=1.5)
    one.add_argument("--seed", type=whole(0), default=0)
    add_bench_flags(one)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command == "bench":
        parser.error(f"unknown flags {rest}")
    try:
        if options.command == "train":
            train(options.method, rest)
        else:
            bench(options)
    except ValueError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
