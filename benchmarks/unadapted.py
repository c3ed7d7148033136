"""What references do on a base without an adapter: `python -m benchmarks.unadapted --data PICTURES`.

Writes `benchmarks/results/unadapted.json`: of triples of photographs, how often each granularity of an output is nearest to
its own reference, for the composition alone, feature guidance alone, a composed start alone at several shares, both, and both
with the adapter; naturalness by the Frechet distance of a network that judges (`--squeezenet`), and seconds a picture. The
defaults of `composed_start` and `feature_guidance_scale` follow from it.

The base is the embedded UNet of many steps without its adapter, or `--base FOLDER`, one that never saw one: that of stage `base
--text_only` is in `-o benchmarks/results/unadapted_text_only.json`. `python -m benchmarks.pages` shows both in
docs/your-checkpoint.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL

from benchmarks.control_surface import batches
from mg_diffusion import MGEncoder, MGPipeline, compose
from mg_diffusion.evaluation.control import pairwise_control, random_triples, write_json
from mg_diffusion.evaluation.metrics import describe
from mg_diffusion.evaluation.quality import frechet_distance, load_features
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.mg_bench.methods import Pictures, PipelineMethod
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.recipe import prepare_output, versions


DEFAULT_OUTPUT = "benchmarks/results/unadapted.json"
STARTS = (0.3, 0.5, 0.7, 0.85)
SIDES = (512, 1024)
SCALES = (1.0, 2.0)


def rows(pipe: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """By name, what makes the pictures, and how."""
    bare = MGPipeline(**{**pipe.components, "mg_adapter": None, "mg_detail": None})
    adapted = MGPipeline(**{**pipe.components, "mg_detail": None})

    def how(start: float | str, scale: float | str) -> dict[str, Any]:
        return {"composed_start": start, "feature_guidance_scale": scale}

    found = {f"guidance {scale:g}": (bare, how(0, scale)) for scale in SCALES}
    found["the defaults"] = bare, how("auto", "auto")
    found |= {f"start {start:g}": (bare, how(start, 0)) for start in STARTS}
    found |= {f"start {start:g}, guidance 1": (bare, how(start, 1.0)) for start in STARTS}
    if pipe.mg_adapter is not None:
        found |= {"adapter": (adapted, how(0, 0)), "adapter, start 0.5, guidance 1": (adapted, how(0.5, 1))}
    return found


def references_of(pool: Pictures, triple: dict[str, int]) -> dict[str, np.ndarray]:
    return {name: pool[triple[name]] for name in GRANULARITIES}


def composition(pool: Pictures, triples: Sequence[dict[str, int]]) -> list[np.ndarray]:
    """What no network paints."""
    made, side = [], len(pool[0])
    for place, triple in enumerate(triples):
        generator = torch.Generator().manual_seed(place)
        (one,) = compose(references_of(pool, triple), side, side, generator=generator)
        made.append(np.asarray(one) / 255)
    return made


def crossed(
    pipe: Any, settings: dict[str, Any], pool: Pictures, triples: Sequence[dict[str, int]]
) -> list[np.ndarray]:
    method = PipelineMethod(pipe, pipe, settings, dict.fromkeys(GRANULARITIES, 1.0))

    def make(places: Sequence[int]) -> list[np.ndarray]:
        asked = {name: [pool[triples[place][name]] for place in places] for name in GRANULARITIES}
        return method.generate(seeds=list(places), **asked)

    return batches(make, len(triples))


def judged(
    made: Sequence[np.ndarray], triples: Sequence[dict[str, int]], described: list, real: Any, extract: Any
) -> dict:
    found = pairwise_control(made, triples, described)
    figures = {kind: {name: found[kind][name]["mean"] for name in GRANULARITIES} for kind in ("pairwise", "top1")}
    figures["joint"] = found["joint"]["mean"]
    if extract is not None:
        figures["frechet"] = float(frechet_distance(extract(list(made)), real))
    return figures


def cost(pool: Pictures) -> dict[str, dict[str, float]]:
    """Seconds that a composed start takes before the first step, by side in pixels: of new references, of the same again, and
    to encode it by a VAE of the size of Stable Diffusion's (random weights)."""
    torch.manual_seed(0)
    sizes = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4}
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae, found = AutoencoderKL(**sizes, **kinds).eval(), {}
    for side in SIDES:
        names = zip(GRANULARITIES, range(3 * SIDES.index(side), 3 * SIDES.index(side) + 3), strict=True)
        references, seconds = {name: pool[place] for name, place in names}, []
        for _ in range(2):
            began = time.perf_counter()
            picture = compose(references, side, side, output_type="pt")
            seconds.append(round(time.perf_counter() - began, 2))
        began = time.perf_counter()
        with torch.no_grad():
            vae.encode(2 * picture - 1)
        encoding = round(time.perf_counter() - began, 2)
        found[str(side)] = {"new": seconds[0], "again": seconds[1], "vae": encoding}
    return found


def table(found: dict[str, Any]) -> str:
    """The rows as markdown."""
    lines = [
        "| | color | texture | shape | all three | texture, pairs | Frechet distance | s a picture |",
        "|-|-:|-:|-:|-:|-:|-:|-:|",
    ]
    kinds = ("composition", "guidance", "start", "the defaults", "adapter")
    places = {name: [name.startswith(kind) for kind in kinds].index(True) for name in found["rows"]}
    for name, row in sorted(found["rows"].items(), key=lambda one: (places[one[0]], one[0])):
        shares = [100 * row["top1"][kind] for kind in GRANULARITIES] + [
            100 * row["joint"],
            100 * row["pairwise"]["texture"],
        ]
        ends = [
            f"{row['frechet']:.0f}" if "frechet" in row else "-",
            f"{row['seconds']:.2f}" if "seconds" in row else "-",
        ]
        lines.append(f"| {name} | " + " | ".join([f"{one:.0f}" for one in shares] + ends) + " |")
    return "\n".join(lines)


def cost_table(found: dict[str, Any]) -> str:
    lines = ["| px | composed, new references, s | the same again, s | encoded by the VAE, s |", "|-:|-:|-:|-:|"]
    lines += [
        f"| {side} | {one['new']:.2f} | {one['again']:.2f} | {one['vae']:.2f} |" for side, one in found["cost"].items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument(
        "--base", help="a pipeline's folder; default: the embedded UNet of many steps, without its adapter"
    )
    parser.add_argument("--triples", type=int, default=100)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--squeezenet", help="weights of the network that judges naturalness")
    parser.add_argument(
        "--only-cost", action="store_true", help="measure that anew, on an idle machine; the rest stays"
    )
    parser.add_argument("-o", "--output", default=DEFAULT_OUTPUT)
    options = parser.parse_args(arguments)
    output = prepare_output(options.output, ".json")
    quiet()
    if options.only_cost:
        big = read_pool(options.data, options.split, SIDES[0]).pictures
        found = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {}
        write_json(output, {**found, "cost": cost(big), "cost_threads": torch.get_num_threads()})
        return 0
    pipe = load_pipeline(MGPipeline, options.base, many_steps=options.base is None)
    if pipe.mg_encoder is None:  # of `base --text_only`: of a new one only the views are used
        pipe.register_modules(mg_encoder=MGEncoder.from_unet(pipe.unet))
    pool = read_pool(options.data, options.split, options.size).pictures
    triples, described = random_triples(options.triples, len(pool), 0), [describe(one) for one in pool]
    extract = None if options.squeezenet is None else load_features(options.squeezenet)
    real = None if extract is None else extract(pool)
    result: dict[str, Any] = {
        "rows": {"composition": judged(composition(pool, triples), triples, described, real, extract)}
    }
    for name, (maker, settings) in rows(pipe).items():
        began = time.perf_counter()
        made = crossed(maker, settings, pool, triples)
        seconds = (time.perf_counter() - began) / len(made)
        result["rows"][name] = {**judged(made, triples, described, real, extract), "seconds": round(seconds, 3)}
        print(name, result["rows"][name], flush=True)
    settings = {"base": model_name(options.base), "triples": len(triples), "pool": len(pool), "size": options.size}
    settings |= {"threads": torch.get_num_threads(), "versions": versions()}
    write_json(output, {**result, "settings": settings})
    return 0


if __name__ == "__main__":
    sys.exit(main())
