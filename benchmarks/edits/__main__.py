"""python -m benchmarks.edits --data PHOTOGRAPHS --materials MATERIALS [--parts PART ...]

Writes `results/edits.json`, part by part; parts that are not asked for keep their figures. `python -m benchmarks.pages` shows
them in docs/edits.md.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from mg_diffusion import MGPipeline
from mg_diffusion.evaluation.squeezenet import load_squeezenet
from mg_diffusion.mg_bench.pools import read_pool

from . import clear, filling, moving, restoring


PARTS = ("filling", "small_filling", "clear_areas", "recoloring", "retexturing", "restoring")
OUTPUT = Path(__file__).parents[1] / "results" / "edits.json"
SIDE, MATERIAL_SIDE, SMALL_SIDE = 256, 128, 64
FEW = 12  # pictures that slow peers are given


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edits", description=__doc__)
    parser.add_argument("--data", required=True, help="folder of photographs, `val` of it is read")
    parser.add_argument("--materials", required=True, help="folder of materials, the same")
    parser.add_argument("--squeezenet", help="weights, to judge textures by Gram matrices as well")
    parser.add_argument("--model", default="hub_cards/mg-bazaar")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    photos, small, smallest, materials = (
        [(255 * one).round().astype(np.uint8) for one in read_pool(folder, None, side).pictures]
        for folder, side in (
            (options.data, SIDE),
            (options.data, MATERIAL_SIDE),
            (options.data, SMALL_SIDE),
            (options.materials, MATERIAL_SIDE),
        )
    )
    order = np.random.default_rng(options.seed).permutation(len(photos))
    drawn, small, smallest = ([some[place] for place in order[: options.count]] for some in (photos, small, smallest))
    pipe = MGPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    net = load_squeezenet(options.squeezenet) if options.squeezenet else None
    measured = {
        "filling": lambda: filling.measure(drawn, options.seed, FEW),
        "small_filling": lambda: filling.measure(smallest, options.seed, len(smallest)),
        "clear_areas": lambda: clear.measure([photos[place] for place in order]),
        "recoloring": lambda: moving.recoloring(pipe, drawn, options.seed, len(drawn)),
        "retexturing": lambda: moving.retexturing(pipe, small, materials, options.seed, len(drawn), net),
        "restoring": lambda: restoring.measure(pipe.mg_detail.float(), drawn[:FEW], options.seed),
    }
    for part in options.parts:
        found = json.loads(options.output.read_text(encoding="utf-8")) if options.output.exists() else {}
        found[part] = measured[part]()
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(found[part], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
