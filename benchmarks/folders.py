"""A folder by one command against the model alone: `python -m benchmarks.folders`.

200 crops of photographs of scikit-image, 640 x 480 in JPEG, are the shape references of `mg-diffusion generate`. The command
runs in this process. Each call of the pipeline in it is made a second time, in turns before and after, with the same picture
decoded and in memory, and nothing remembered of it: the pure time of the model. So whatever else the machine does slows
both. Rates: pictures a second of the command, with and without its loading of the model (imports are done before), over those
of the model alone, for which the lesser time of the two kinds of calls counts. Writes benchmarks/results/folders.json.
"""

import argparse
import functools
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.cli import main as command
from mg_diffusion.pictures import read_upright
from mg_diffusion.recipe import save_json


OUTPUT = Path(__file__).parent / "results" / "folders.json"
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "retina")
SIDES = (640, 480)


def draw_folder(folder: Path, count: int) -> Path:
    """Crops by seed."""
    from skimage import data

    chance = np.random.default_rng(0)
    for index in range(count):
        photo = PIL.Image.fromarray(getattr(data, PHOTOGRAPHS[index % len(PHOTOGRAPHS)])()).convert("RGB")
        width = chance.integers(photo.width // 2, min(photo.width, photo.height * 4 // 3))
        height = width * 3 // 4
        left, top = (int(chance.integers(0, most + 1)) for most in (photo.width - width, photo.height - height))
        crop = photo.crop((left, top, int(left + width), int(top + height)))
        crop.resize(SIDES, PIL.Image.Resampling.LANCZOS).save(folder / f"{index:03}.jpg", quality=90)
    return folder


class Twice:
    """In place of the pipeline's call: makes it, and once more for its time alone."""

    def __init__(self, name: str):
        self.name = name  # of the granularity whose reference is a file of the folder
        self.calls: list[float] = []  # seconds of the calls of the command
        self.pure: list[float] = []  # of those with decoded pictures
        self.aside = 0.0  # seconds that this benchmark took for itself
        self.first: float | None = None  # when the first call began

    def around(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(pipe: MGPipeline, **given: Any) -> Any:
            self.first = self.first or time.perf_counter()
            memories = [part.remembered for part in (pipe.mg_encoder, pipe.mg_adapter)]
            before = [memory.results.copy() for memory in memories]
            start = time.perf_counter()
            is_first = len(self.calls) % 2 == 0
            if is_first:
                self.pure.append(self.alone(original, pipe, given))
                for memory, results in zip(memories, before, strict=True):
                    memory.results = results.copy()
            self.aside += time.perf_counter() - start
            start = time.perf_counter()
            made = original(pipe, **given)
            self.calls.append(time.perf_counter() - start)
            start = time.perf_counter()
            if not is_first:
                after = [memory.results for memory in memories]
                for memory, results in zip(memories, before, strict=True):
                    memory.results = results
                self.pure.append(self.alone(original, pipe, given))
                for memory, results in zip(memories, after, strict=True):
                    memory.results = results
            self.aside += time.perf_counter() - start
            return made

        return call

    def alone(self, original: Any, pipe: MGPipeline, given: dict[str, Any]) -> float:
        (path,) = given["reference_image"][self.name]
        references = {**given["reference_image"], self.name: [read_upright(path)]}
        generators = [torch.Generator().manual_seed(one.initial_seed()) for one in given["generator"]]
        start = time.perf_counter()
        original(pipe, **{**given, "reference_image": references, "generator": generators})
        return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    twice, original = Twice("shape"), MGPipeline.__call__
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place, "in"), Path(place, "out")
        folder.mkdir()
        draw_folder(folder, options.count)
        flags = ["generate", "--shape", str(folder), "--color", "#0a9396,#e9d8a6,#001219", "--size", str(options.size)]
        MGPipeline.__call__ = twice.around(original)
        start = time.perf_counter()
        try:
            status = command([*flags, "--output-dir", str(out)])
        finally:
            MGPipeline.__call__ = original
        end, made = time.perf_counter(), len(list(out.glob("*.png")))
    if status or made != options.count or len(twice.pure) != options.count:
        raise RuntimeError(f"{made} of {options.count} pictures were made, the status is {status}.")
    pure, whole, loop = sum(twice.pure), end - start - twice.aside, end - twice.first - twice.aside
    seconds = {
        "model_alone": pure,
        "command": whole,
        "without_loading": loop,
        "calls_of_the_command": sum(twice.calls),
    }
    least = min(pure, seconds["calls_of_the_command"])
    return {
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        "rate_over_model_alone": {"command": round(least / whole, 3), "without_loading": round(least / loop, 3)},
        "settings": {
            "pictures": options.count,
            "size": options.size,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folders", description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="of pictures")
    parser.add_argument("--size", type=int, default=64, help="of what is made")
    parser.add_argument("-o", "--output", type=Path, default=OUTPUT)
    options = parser.parse_args(arguments)
    result = measure(options)
    save_json(result, options.output)
    print(result["seconds"], result["rate_over_model_alone"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
