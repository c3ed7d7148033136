"""What the controls of docs/ achieve, and what they cost: `python -m benchmarks.control_surface --data PICTURES`.

Writes `hub_cards/mg-bazaar/control_surface.json`:

- feature guidance: how often an output is nearer to its own reference than to another picture, for the adapter, for
  feature guidance without an adapter, for both, and for neither. Guidance and bench measure color alike (sliced
  Wasserstein distances in Lab), so color is also judged by histograms in RGB, which share nothing with either;
- regions: how often each half of an output is nearer to the palette of its region than to that of the other;
- strength: the rank correlation of strength and likeness (less distance to the reference), over nine from 0 to 1;
- context: how far the repainted part is in color from its surroundings, with and without `context_scale`;
- times of calls, guided, with regions, schedules and attribution, as ratios of medians in one run.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from benchmarks.speed import medians
from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.evaluation.control import pairwise_control, random_triples, write_json
from mg_diffusion.evaluation.intervals import interval
from mg_diffusion.evaluation.metrics import color_distance, describe, distances
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.loading import load_pipeline, model_name, quiet
from mg_diffusion.mg_bench.methods import Pictures, PipelineMethod
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.recipe import prepare_output, versions


DEFAULT_OUTPUT = "hub_cards/mg-bazaar/control_surface.json"
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
BINS = 6  # of each channel of the RGB histograms


def histogram_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Hellinger distance of joint RGB histograms, in [0, 1]."""
    shares = []
    for picture in (a, b):
        counts, _ = np.histogramdd(np.reshape(picture, (-1, 3)), bins=(BINS,) * 3, range=((0, 1),) * 3)
        shares.append(np.sqrt(counts / counts.sum()))
    return float(np.sqrt(max(0.0, 1 - (shares[0] * shares[1]).sum())))


def batches(make: Callable[[Sequence[int]], list[np.ndarray]], count: int, size: int = 16) -> list[np.ndarray]:
    return [picture for start in range(0, count, size) for picture in make(range(start, min(start + size, count)))]


def feature_guidance(pipe: Any, pool: Sequence[np.ndarray], count: int) -> dict[str, Any]:
    """Shares of pairwise comparisons that the own reference wins, by method and granularity."""
    triples = random_triples(count, len(pool), 0)
    described = [describe(picture) for picture in pool]
    without = MGPipeline(**{**pipe.components, "mg_adapter": None})
    # What makes the pictures, the strength of its references, and the scale of feature guidance.
    kinds = {"neither": (pipe, 0.0, 0.0), "adapter": (pipe, 1.0, 0.0), "guidance": (without, 1.0, 1.0)}
    kinds["both"] = (pipe, 1.0, 1.0)
    result = {}
    for name, (maker, strength, scale) in kinds.items():
        settings = {"feature_guidance_scale": scale, "composed_start": 0.0}
        method = PipelineMethod(maker, maker, settings, dict.fromkeys(GRANULARITIES, strength))
        made = crossed(method, pool, triples)
        result[name] = pairwise_control(made, triples, described)["pairwise"]
        result[name]["color_by_histogram"] = by_histogram(made, triples, pool)
    return result


def crossed(
    method: PipelineMethod, pool: Pictures, triples: Sequence[dict[str, int]], scales: dict[str, float] | None = None
) -> list[np.ndarray]:
    """What a method makes of triples of pictures, each with its place as seed."""

    def make(places: Sequence[int]) -> list[np.ndarray]:
        references = {key: [pool[triples[place][key]] for place in places] for key in GRANULARITIES}
        return method.generate(seeds=list(places), scales=scales, **references)

    return batches(make, len(triples))


def by_histogram(made: Sequence[np.ndarray], triples: Sequence[dict[str, int]], pool: Sequence[np.ndarray]) -> dict:
    """The share of 29 other pictures whose RGB histogram is farther from an output's than its color reference's."""
    rng, shares = np.random.default_rng(1), []
    for picture, triple in zip(made, triples, strict=True):
        own = histogram_distance(picture, pool[triple["color"]])
        others = rng.choice([place for place in range(len(pool)) if place not in triple.values()], 29, replace=False)
        shares.append(np.mean([own < histogram_distance(picture, pool[place]) for place in others]))
    return interval(np.array(shares), list(range(len(shares))), n_boot=1000, seed=0)


def two_palettes(pipe: Any, pool: Sequence[np.ndarray], count: int) -> dict[str, float]:
    """How often a half is nearer to its own palette, with the shapes of photographs."""
    rng = np.random.default_rng(0)
    drawn = [[[f"#{rng.integers(0, 1 << 24):06x}" for _ in range(2)] for _ in range(2)] for _ in range(count)]

    def make(places: Sequence[int]) -> list[np.ndarray]:
        color = [[{"image": drawn[i][0], "region": LEFT}, {"image": drawn[i][1], "region": RIGHT}] for i in places]
        references = {"color": color, "shape": [[pool[place % len(pool)]] for place in places]}
        generator = [torch.Generator().manual_seed(place) for place in places]
        return list(pipe(reference_image=references, generator=generator, output_type="np").images)

    won = []
    for picture, palettes in zip(batches(make, count), drawn, strict=True):
        middle = picture.shape[1] // 2
        first, second = (swatch(palette) for palette in palettes)
        left, right = picture[:, :middle], picture[:, middle:]
        won.append(color_distance(left, first) < color_distance(left, second))
        won.append(color_distance(right, second) < color_distance(right, first))
    return {"share": float(np.mean(won)), "halves": len(won)}


def swatch(palette: Sequence[str]) -> np.ndarray:
    colors = np.array([[int(entry[i : i + 2], 16) / 255 for i in (1, 3, 5)] for entry in palette])
    return np.tile(colors.repeat(16, 0)[:, None], (1, 32, 1))


def strength_response(pipe: Any, pool: Sequence[np.ndarray], count: int) -> dict[str, dict[str, Any]]:
    """By granularity, the mean distance to its reference at nine strengths, the others at 1."""
    triples, strengths = random_triples(count, len(pool), 1), np.linspace(0, 1, 9)
    method, result = PipelineMethod(pipe, pipe, {}, dict.fromkeys(GRANULARITIES, 1.0)), {}
    described = [describe(picture) for picture in pool]
    for name in GRANULARITIES:
        means = []
        for strength in strengths:
            made = zip(crossed(method, pool, triples, {name: float(strength)}), triples, strict=True)
            means.append(np.mean([distances(describe(one), described[triple[name]])[name] for one, triple in made]))
        correlation = float(spearmanr(strengths, means).statistic)
        result[name] = {"distances": [round(float(value), 5) for value in means], "rank_correlation": -correlation}
    return result


def context(pipe: Any, pool: Sequence[np.ndarray], count: int) -> dict[str, float]:
    """Mean color distance of the repainted middle to the ring around it, with and without context."""
    inpaint = MGInpaintPipeline(**pipe.components)
    inpaint.set_progress_bar_config(disable=True)
    side = pool[0].shape[0]
    far = np.abs(np.indices((side, side)) - side / 2 + 0.5).max(0)
    hole, ring = far < side / 5, (far >= side / 5) & (far < side / 3)

    def patch(picture: np.ndarray, where: np.ndarray) -> np.ndarray:
        chosen = picture[where]  # as a picture that is not a line
        return chosen[: len(chosen) // 16 * 16].reshape(16, -1, 3)

    result = {}
    for name, scale in (("with", 1.0), ("without", 0.0)):

        def make(places: Sequence[int], scale: float = scale) -> list[np.ndarray]:
            generator = [torch.Generator().manual_seed(place) for place in places]
            images = [pool[place % len(pool)] for place in places]
            masks = [hole.astype(np.float32)] * len(images)
            options = {"context_scale": scale, "generator": generator, "output_type": "np"}
            return list(inpaint(image=images, mask_image=masks, **options).images)

        made = batches(make, count)
        result[name] = float(np.mean([color_distance(patch(one, hole), patch(one, ring)) for one in made]))
    return result


def costs(pipe: Any, picture: np.ndarray, repeats: int) -> dict[str, float]:
    """Times of a call of twenty steps, the default, with all three references, over that of the plain one."""
    references = dict.fromkeys(GRANULARITIES, picture)
    embeds = pipe.encode_reference(references)
    halves = [{"image": picture, "region": region} for region in (LEFT, RIGHT)]
    regional = pipe.encode_reference({**references, "color": halves})

    def call(**options: Any) -> Callable[[], Any]:
        return lambda: pipe(generator=torch.Generator().manual_seed(0), output_type="latent", **options)

    jobs = {
        "plain": call(reference_embeds=embeds),
        "two_regions": call(reference_embeds=regional),
        "window": call(reference_embeds=embeds, granularity_schedule={"shape": (0.0, 0.6)}),
        "curve": call(reference_embeds=embeds, granularity_schedule={"color": [0.5, 1.0]}),
        "attribution": call(reference_embeds=embeds, return_attribution=True),
        "guided": call(reference_embeds=embeds, feature_guidance_scale=1.0),
        "guided_by_vae": call(reference_embeds=embeds, feature_guidance_scale=1.0, feature_guidance_decoder="vae"),
        "guided_full": call(reference_embeds=embeds, feature_guidance_scale=1.0, feature_guidance_full=True),
    }
    found = medians(jobs, repeats, pipe.device)
    return {name: value / found["plain"] for name, value in found.items()}


SECTIONS: dict[str, Callable[[Any, Sequence[np.ndarray], argparse.Namespace], Any]] = {
    "cost_over_plain_call": lambda pipe, pool, options: costs(pipe, pool[0], options.repeats),
    "two_palettes": lambda pipe, pool, options: two_palettes(pipe, pool, max(options.count // 2, 1)),
    "context_color_distance": lambda pipe, pool, options: context(pipe, pool, max(options.count // 2, 1)),
    "feature_guidance": lambda pipe, pool, options: feature_guidance(pipe, pool, options.count),
    "strength_response": lambda pipe, pool, options: strength_response(pipe, pool, max(options.count // 4, 1)),
}


def build_parser(description: str, count: int, counted: str, output: str) -> argparse.ArgumentParser:
    """The flags of a benchmark that makes pictures of photographs."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="photographs the model was not trained on")
    parser.add_argument("--model", metavar="FOLDER_OR_HUB_ID", help="default: the model that comes with the package")
    parser.add_argument("--count", type=int, default=count, help=f"{counted}; default: {count}")
    parser.add_argument("--output", default=output, metavar="FILE.json")
    return parser


def read_inputs(options: argparse.Namespace) -> tuple[Path, Any, list[np.ndarray], dict[str, Any]]:
    """Of the flags of `build_parser`: the output, the pipeline, the photographs and the settings."""
    output = prepare_output(options.output, ".json")
    pipe = load_pipeline(MGPipeline, options.model)
    pipe.register_modules(mg_detail=None)  # of the base; its octaves: benchmarks.octaves
    pipe.set_progress_bar_config(disable=True)
    pool = read_pool(options.data, None, pipe.unet.config.sample_size * pipe.vae_scale_factor).pictures
    settings = {"count": options.count, "model": model_name(options.model), "versions": versions()}
    return output, pipe, pool, settings


def main(arguments: list[str] | None = None) -> None:
    counted = "triples; regions and edits take half of it"
    parser = build_parser(__doc__.splitlines()[0], 100, counted, DEFAULT_OUTPUT)
    parser.add_argument("--repeats", type=int, default=7, help="of the times; default: 7")
    listed = f"only these: {', '.join(SECTIONS)}"
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, metavar="NAME", help=listed)
    options = parser.parse_args(arguments)
    quiet()
    try:
        output, pipe, pool, settings = read_inputs(options)
        # Sections that are not asked for keep what an earlier run with the same settings wrote.
        earlier = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
        kept = earlier if earlier.get("settings") == settings else {}
        measured = {name: SECTIONS[name](pipe, pool, options) for name in options.sections or SECTIONS}
        result = {**kept, "settings": settings, **measured}
        write_json(output, result)
        print(output.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
