"""What computes the networks of the embedded default fastest on a CPU: `python -m benchmarks.backends`; docs/few-steps.md.

torch as it is, with channels last, compiled by inductor; ONNX Runtime and OpenVINO, both of the same exported graph. The base
and the detail network with the inputs that a picture of 256 px gives them; whole pictures of the same references again; and
eight pictures in one call. Contestants take turns; all in float32. Seconds are of the CPU, of all threads of the process: on one
thread of an idle machine those of the clock, and on a busy one still what the work takes.
"""

import argparse
import contextlib
import functools
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from demo.references import reference
from mg_diffusion import MGPipeline
from mg_diffusion.loading import load_pipeline, quiet
from mg_diffusion.onnx_runtime import OnnxForward, Run, use_onnx_runtime
from mg_diffusion.recipe import prepare_output, save_json, versions


SIZE = 256
MANY = 8
OUTPUT = Path(__file__).parent / "results" / "backends.json"
REFERENCES = {"color": "sea", "texture": "bricks", "shape": "star"}


def in_openvino(folder: Path) -> Run:
    """A graph as OpenVINO computes it."""
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # who starts the process says where it runs
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(str(folder / "graph.onnx"), "CPU", settings).create_infer_request()
    names = [one.get_any_name() for one in request.model_inputs]
    read = [(name, int(name.removeprefix("input_"))) for name in names]

    def run(tensors: list[torch.Tensor]) -> torch.Tensor:
        request.infer({name: tensors[i].contiguous().numpy() for name, i in read}, share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data.copy())

    return run


def networks(pipe: MGPipeline) -> list[torch.nn.Module]:
    return [pipe.unet, pipe.mg_detail]


def by_openvino(pipe: MGPipeline) -> None:
    for network in networks(pipe):
        network.forward = OnnxForward(network, in_openvino)


def channels_last(pipe: MGPipeline) -> None:
    for network in networks(pipe):
        network.to(memory_format=torch.channels_last)


def compiled(pipe: MGPipeline) -> None:
    for network in networks(pipe):
        network.compile(dynamic=False)


CONTESTANTS: dict[str, Callable[[MGPipeline], Any]] = {
    "torch": lambda pipe: None,
    "torch, channels last": channels_last,
    "torch.compile": compiled,
    "ONNX Runtime": use_onnx_runtime,
    "OpenVINO": by_openvino,
}


def paint(pipe: MGPipeline, count: int = 1) -> torch.Tensor:
    """Pictures (count, 3, H, W) in [0, 1] of three references, which are remembered after the first call."""
    return pipe(
        reference_image={name: reference(one) for name, one in REFERENCES.items()},
        height=SIZE,
        width=SIZE,
        num_images_per_prompt=count,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).images


def inputs_of(pipe: MGPipeline) -> dict[str, tuple[int, tuple, dict[str, Any]]]:
    """What a picture calls its networks with, by what the table says: which network, and the arguments of its last call."""
    found: dict[str, tuple[int, tuple, dict[str, Any]]] = {}

    def note(which: int, network: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        name = f"{('base', 'detail')[which]}, {' x '.join(map(str, args[0].shape[2:]))} cells"
        found[name] = which, args, fresh(kwargs)

    with contextlib.ExitStack() as stack:
        for which, network in enumerate(networks(pipe)):
            hook = network.register_forward_pre_hook(functools.partial(note, which), with_kwargs=True)
            stack.callback(hook.remove)
        paint(pipe)
    return found


def fresh(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments with lists of their own: the UNet empties those that it gets."""
    return {name: list(one) if isinstance(one, list) else one for name, one in kwargs.items()}


@torch.no_grad()
def predict(pipe: MGPipeline, which: int, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    with pipe.mg_adapter.attach(pipe.unet):
        return networks(pipe)[which](*args, **{**fresh(kwargs), "return_dict": False})[0]


def compare(jobs: dict[str, Callable[[], torch.Tensor]], repeats: int, scale: float = 1.0) -> dict[str, Any]:
    """Milliseconds of each, times as fast as the first, and how far what it gives lies from what the first gives."""
    made = {name: job() for name, job in jobs.items()}  # and warms all up
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            taken[name].append(1000 * (time.process_time() - start))
    times = {name: statistics.median(one) for name, one in taken.items()}
    first = next(iter(jobs))
    return {
        name: {
            "milliseconds": round(times[name], 2),
            "times_as_fast": round(times[first] / times[name], 3),
            "largest_difference": scale * float((made[name] - made[first]).abs().max()),
        }
        for name in jobs
    }


def measure(names: list[str], repeats: int, few: int) -> dict[str, Any]:
    pipes, starts = {}, {}
    for name in names:
        pipe = pipes[name] = load_pipeline(MGPipeline, device="cpu")
        pipe.set_progress_bar_config(disable=True)
        CONTESTANTS[name](pipe)
        start = time.process_time()
        paint(pipe)
        starts[name] = round(time.process_time() - start, 1)
        print(f"{name}: first picture after {starts[name]} s", flush=True)
    found: dict[str, Any] = {"first_picture_seconds": starts, "networks": {}}
    for place, given in inputs_of(pipes[names[0]]).items():
        jobs = {name: functools.partial(predict, pipe, *given) for name, pipe in pipes.items()}
        found["networks"][place] = compare(jobs, repeats)
        print(place, found["networks"][place], flush=True)
    for key, count, turns in (("picture", 1, repeats), ("pictures", MANY, few)):
        jobs = {name: functools.partial(paint, pipe, count) for name, pipe in pipes.items()}
        found[key] = compare(jobs, turns, 255.0)
        print(key, found[key], flush=True)
    return found


def table(found: dict[str, Any]) -> str:
    """The table of docs/few-steps.md."""
    settings, places = found["settings"], list(found["networks"])
    threads = f"{settings['threads']} thread" + ("s" if settings["threads"] > 1 else "")
    made = ", ".join(f"{name} {one}" for name, one in settings["versions"].items() if name != "mg_diffusion")
    lines = [
        f"{threads} of a CPU, float32, {SIZE} px, the same references again; medians of {settings['repeats']} turns "
        f"({settings['few']} of {MANY} pictures at once); {made}. Seconds of CPU. The first picture of a process finds graphs that an earlier one compiled or exported.",
        "",
        "| | "
        + " | ".join(f"{place}, ms" for place in places)
        + f" | a picture, s | times as fast | each of {MANY} at once, s | times as fast | largest difference of a picture, of 255 | first picture, s |",
        "|-|" + "-:|" * (len(places) + 6),
    ]
    for name in (one for one in CONTESTANTS if one in found["picture"]):
        one, many = found["picture"][name], found["pictures"][name]
        cells = [f"{found['networks'][place][name]['milliseconds']:.0f}" for place in places]
        cells += [f"{one['milliseconds'] / 1000:.2f}", f"{one['times_as_fast']:.2f}"]
        cells += [f"{many['milliseconds'] / 1000 / MANY:.2f}", f"{many['times_as_fast']:.2f}"]
        cells += [f"{one['largest_difference']:.4f}", f"{found['first_picture_seconds'][name]:.1f}"]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backends", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--few", type=int, default=3, help=f"turns of {MANY} pictures at once")
    parser.add_argument("--output", default=str(OUTPUT), metavar="FILE.json")
    options = parser.parse_args()
    quiet()
    try:
        if min(options.repeats, options.few) < 1:
            raise ValueError("--repeats and --few must be at least 1.")
        output = prepare_output(options.output, ".json")
        found = measure(list(dict.fromkeys(["torch", *options.only])), options.repeats, options.few)
        used = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
        runtimes = {name: version(package) for name, package in used.items() if name in options.only}
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found["settings"] = {
        "repeats": options.repeats,
        "few": options.few,
        "threads": torch.get_num_threads(),
        "versions": {**versions(), **runtimes},
    }
    save_json(found, output)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
