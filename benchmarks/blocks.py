"""What each block of the UNet does to color, texture and shape: `python -m benchmarks.blocks --data PICTURES`.

Writes `benchmarks/results/blocks.json` and `docs/images/blocks.png`. Each granularity is let into one block alone, the others
are as they are; the figure is how often an output is nearer to its own reference than another picture is (one half is chance).
At 64 px, where the UNet alone paints.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.control_surface import batches
from mg_diffusion import MGPipeline
from mg_diffusion.evaluation.control import pairwise_control, random_triples, write_json
from mg_diffusion.evaluation.metrics import describe
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.recipe import prepare_output, versions


DEFAULT_OUTPUT = "benchmarks/results/blocks.json"
FIGURE = "docs/images/blocks.png"


def blocks_of(adapter: Any) -> dict[str, dict[str, Any]]:
    """By name, what `granularity_scale` says of all blocks, of none and of each alone."""
    found = {"all blocks": {"down": 1.0, "mid": 1.0, "up": 1.0}, "none": {"down": 0.0}}
    found |= {f"down {block}": {"down": {f"block_{block}": 1.0}} for block in range(len(adapter.config.block_strides))}
    layers = [layer["name"].split(".") for layer in adapter.config.attention_layers]
    found |= {"mid": {"mid": 1.0}} if any(words[0] == "mid_block" for words in layers) else {}
    up = sorted({int(words[1]) for words in layers if words[0] == "up_blocks"})
    return found | {f"up {block}": {"up": {f"block_{block}": 1.0}} for block in up}


def measured(pipe: Any, pool: Sequence[Any], count: int) -> dict[str, dict[str, dict[str, float]]]:
    """Pairwise shares of all granularities, by the one that is let in and by block."""
    triples, described = random_triples(count, len(pool), 0), [describe(picture) for picture in pool]
    result: dict[str, dict[str, dict[str, float]]] = {}
    for name in GRANULARITIES:
        result[name] = {}
        for block, scale in blocks_of(pipe.mg_adapter).items():

            def make(places: Sequence[int], name: str = name, scale: Any = scale) -> list[Any]:
                references = {key: [[pool[triples[place][key]]] for place in places] for key in GRANULARITIES}
                generator = [torch.Generator().manual_seed(place) for place in places]
                asked = {"granularity_scale": {name: scale}, "generator": generator, "output_type": "np"}
                return list(pipe(reference_image=references, **asked).images)

            found = pairwise_control(batches(make, count), triples, described)["pairwise"]
            result[name][block] = {key: round(found[key]["mean"], 3) for key in GRANULARITIES}
            print(name, block, result[name][block], flush=True)
    return result


def draw(found: dict[str, dict[str, dict[str, float]]], path: str) -> None:
    """A row for each block and a column for each granularity: its own reference's share where it enters there alone."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    names, blocks = list(found), list(next(iter(found.values())))
    figure, axes = pyplot.subplots(
        1, len(names), figsize=(10, 0.42 * len(blocks) + 1.4), sharey=True, layout="constrained"
    )
    for axis, name in zip(axes, names, strict=True):
        shares = [[found[name][block][key] for key in names] for block in blocks]
        axis.imshow(shares, vmin=0.5, vmax=1.0, cmap="Blues", aspect="auto")
        for row, values in enumerate(shares):
            for column, value in enumerate(values):
                axis.text(
                    column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.8 else "black"
                )
        axis.set(title=f"{name} enters ...", xticks=range(len(names)), xticklabels=names)
        axis.set_yticks(range(len(blocks)), [f"... {block}" for block in blocks])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--model", help="default: the embedded default")
    parser.add_argument("--triples", type=int, default=48)
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT)
    parser.add_argument("--figure", default=FIGURE)
    options = parser.parse_args(arguments)
    output = prepare_output(options.output, ".json")
    quiet()
    warnings.simplefilter("ignore", UserWarning)  # photographs as textures
    pipe = load_pipeline(MGPipeline, options.model)
    alone = MGPipeline(**{**pipe.components, "mg_detail": None})
    alone.set_progress_bar_config(disable=True)
    pool = read_pool(options.data, options.split, alone.default_size(None, None)[0]).pictures
    found = measured(alone, pool, options.triples)
    settings = {
        "model": model_name(options.model),
        "triples": options.triples,
        "pool": len(pool),
        "versions": versions(),
    }
    write_json(output, {"pairwise": found, "settings": settings})
    draw(found, options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
