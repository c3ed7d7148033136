"""Crossings of photographs at the sizes that octaves reach: what the model makes, beside what it makes it of.

    python -m benchmarks.octaves --data PHOTOGRAPHS --materials MATERIALS --squeezenet WEIGHTS --pictures FOLDER

References are drawn from the `val` pictures by a seed. Two tracks: photographs crossed at 256 px, and photographs under
materials at 128 px. Rows: the canvas over gray (how well a texture can be found at all), the composition (canvas over sketch,
no network), the base's picture enlarged, the pipeline, the pipeline that assigns colors freely, the shape reference with the
histogram of the color reference, the same optimised for the texture reference (Gatys), and the shape reference as it is.

Judged by `mg_diffusion.evaluation`: own reference nearest of 32, own against each other one (pairwise), texture by Gram
matrices as well; recognition, the same of the shape reference by an independent network's features; sharpness, the mean
gradient of lightness over that of photographs; naturalness, the Frechet distance of those features to photographs that lent
nothing; diversity, their variance over seeds over that between photographs.
Writes `octaves.json` (the model card and docs/detail.md show it) and, in the folder, the pictures and a sheet of each track.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab
from skimage.exposure import match_histograms

from mg_diffusion import MGPipeline
from mg_diffusion.encoder.views import DETAIL_UNIT, lab_to_rgb
from mg_diffusion.evaluation.diversity import diversity
from mg_diffusion.evaluation.metrics import Descriptor, describe, distances
from mg_diffusion.evaluation.quality import frechet_distance
from mg_diffusion.evaluation.squeezenet import load_squeezenet, pooled_features, texture_grams
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.model_card import octaves_table
from mg_diffusion.octaves import compose
from mg_diffusion.training.validation import labeled_grid

from .baselines.gatys import GatysMethod


CANDIDATES = 32
ACROSS, GAP = 12, 24  # crossings of a band of a sheet; pixels between bands
SHOWN = ("composition", "enlarged", "pipeline")  # in the sheet
FREE = "free assignment"
OTHERS = ("histogram matching", "Gatys", "shape reference")  # what no model of ours changes
GRAY = 60.0  # Lab lightness
SEEDS, REPEATED = 2, 12  # seeds of a crossing, and crossings that are painted by all of them, for diversity
OUTPUT = "hub_cards/mg-bazaar/octaves.json"


@dataclass(frozen=True)
class Crossing:
    """Places of the references in their pools."""

    color: int
    texture: int
    shape: int


class Recording(MGPipeline):
    """The pipeline, with what its octaves start from kept."""

    def paint_detail(self, call: Any, image: torch.Tensor) -> torch.Tensor:
        self.layout, self.small = call.conditioning.layout, image
        return super().paint_detail(call, image)


def to_array(rgb: torch.Tensor) -> np.ndarray:
    return rgb[0].permute(1, 2, 0).clamp(0, 1).double().numpy()


def draw_crossings(photos: int, textures: int | None, count: int, seed: int) -> list[Crossing]:
    """Of three different photographs each, or with `textures` of a pool of its own."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        color, texture, shape = map(int, rng.choice(photos, 3, replace=False))
        found.append(Crossing(color, texture if textures is None else int(rng.integers(textures)), shape))
    return found


def paint(pipe: Recording, references: dict[str, np.ndarray], size: int, seed: int) -> dict[str, np.ndarray]:
    """The picture of each of our rows, (size, size, 3) in [0, 1]."""
    made = {name: call(pipe, references, size, seed, name) for name in (FREE, "pipeline")}
    laid = pipe.layout
    composed = compose(pipe.small, laid.canvas, laid.canvas_scale, laid.sketch, laid.sketch_scale) / 2 + 0.5
    gray = F.pad(GRAY + DETAIL_UNIT * laid.canvas, (0, 0, 0, 0, 0, 2))  # Lab, a and b are 0
    small = F.interpolate(pipe.small.float() / 2 + 0.5, (size, size), mode="bicubic", align_corners=False)
    shown = {"canvas over gray": lab_to_rgb(gray), "composition": composed, "enlarged": small}
    return {name: to_array(one.float()) for name, one in shown.items()} | made


def call(pipe: Recording, references: dict[str, np.ndarray], size: int, seed: int, row: str) -> np.ndarray:
    options = {"height": size, "width": size, "generator": torch.Generator().manual_seed(seed), "output_type": "pt"}
    assignment = "free" if row == FREE else "light"
    return to_array(pipe(reference_image=references, assignment=assignment, **options).images.float())


def classical(references: dict[str, np.ndarray], net: Any) -> dict[str, np.ndarray]:
    """What needs no training: the colors' histogram, and with a network that judges, Gatys' optimisation."""
    matched = match_histograms(references["shape"], references["color"], channel_axis=-1).clip(0, 1)
    if net is None:
        return {"histogram matching": matched}
    with torch.enable_grad():
        (optimised,) = GatysMethod(net).generate(seeds=[0], **{name: [one] for name, one in references.items()})
    return {"histogram matching": matched, "Gatys": optimised}


def gradient(picture: np.ndarray) -> float:
    return float(np.hypot(*np.gradient(rgb2lab(picture)[..., 0])).mean())


def ranked(own: float, others: Sequence[float]) -> tuple[float, float]:
    """Whether the own reference is the nearest, and in what share of pairs it is nearer."""
    return float(own < min(others)), float(np.mean([own < other for other in others]))


class Judges:
    """Figures of pictures made from crossings. The other candidates are the same for all, so that few are described."""

    def __init__(self, photos: list[np.ndarray], textures: list[np.ndarray], squeezenet: str | None, seed: int):
        self.pools = {"color": photos, "texture": textures, "shape": photos}
        self.found = {}
        rng = np.random.default_rng(seed)
        self.others = {name: rng.permutation(len(pool))[:CANDIDATES] for name, pool in self.pools.items()}
        self.sharpness = float(np.mean([gradient(photo) for photo in photos[:100]]))
        self.net = load_squeezenet(squeezenet) if squeezenet else None

    def _candidates(self, name: str, own: int) -> list[int]:
        """The own reference and 31 others."""
        return [own, *(int(one) for one in self.others[name] if one != own)][:CANDIDATES]

    def _described(self, name: str, place: int) -> Descriptor:
        return self._once((id(self.pools[name]), place), lambda: describe(self.pools[name][place]))

    def _feature(self, place: int) -> np.ndarray:
        return self._once(("feature", place), lambda: pooled_features(self.net, [self.pools["shape"][place]])[0])

    def _gram(self, place: int) -> np.ndarray:
        return self._once(("gram", place), lambda: texture_grams(self.net, [self.pools["texture"][place]])[0])

    def _once(self, key: tuple[Any, int], make: Callable[[], Any]) -> Any:
        if key not in self.found:
            self.found[key] = make()
        return self.found[key]

    def _by_network(
        self, crossings: list[Crossing], made: list[np.ndarray], features: np.ndarray
    ) -> dict[str, list[tuple[float, float]]]:
        """How the own references rank by features of the network."""
        grams = texture_grams(self.net, made)
        return {
            "texture by Gram": [
                self._rank("texture", self._gram, *pair) for pair in zip(crossings, grams, strict=True)
            ],
            "recognition": [
                self._rank("shape", self._feature, *pair) for pair in zip(crossings, features, strict=True)
            ],
        }

    def _rank(
        self, name: str, of: Callable[[int], np.ndarray], crossing: Crossing, found: np.ndarray
    ) -> tuple[float, float]:
        among = np.stack([of(one) for one in self._candidates(name, getattr(crossing, name))])
        own, *others = np.linalg.norm(among - found, axis=1)
        return ranked(own, others)

    def diversity(self, groups: list[list[np.ndarray]]) -> float:
        """Of pictures that differ in their seed alone."""
        real = self.pools["shape"][:200]
        return round(diversity(groups, real, partial(pooled_features, self.net))["mean"], 3)

    def __call__(self, crossings: list[Crossing], made: list[np.ndarray]) -> dict[str, Any]:
        scores, joint = {}, []
        for crossing, picture in zip(crossings, made, strict=True):
            output, hits = describe(picture), []
            for name in self.pools:
                among = [self._described(name, one) for one in self._candidates(name, getattr(crossing, name))]
                found = [distances(output, other)[name] for other in among]
                scores.setdefault(name, []).append(ranked(found[0], found[1:]))
                hits.append(scores[name][-1][0])
            joint.append(min(hits))
        own = np.concatenate([pooled_features(self.net, [one]) for one in made]) if self.net else None
        scores |= self._by_network(crossings, made, own) if self.net else {}
        figures = {
            name: dict(zip(("nearest", "pairwise"), np.mean(values, 0).round(3).tolist(), strict=True))
            for name, values in scores.items()
        }
        figures["all three"] = round(float(np.mean(joint)), 3)
        figures["sharpness"] = round(float(np.mean([gradient(one) for one in made])) / self.sharpness, 3)
        if self.net:
            lent = {getattr(one, name) for one in crossings for name in ("color", "shape")}
            rest = [place for place in range(len(self.pools["shape"])) if place not in lent][:200]
            figures["naturalness"] = round(frechet_distance(own, np.stack([self._feature(one) for one in rest])), 1)
        return figures


def sheet(columns: dict[str, list[np.ndarray]]) -> PIL.Image.Image:
    """All crossings in bands of `ACROSS`, at half the size."""
    count, bands = len(columns["color"]), []
    for start in range(0, count, ACROSS):
        rows = {
            n: [(one * 255).round().astype(np.uint8) for one in row[start:][:ACROSS]] for n, row in columns.items()
        }
        grid = labeled_grid(rows)
        bands.append(grid.resize((grid.width // 2, grid.height // 2), PIL.Image.Resampling.LANCZOS))
    made = PIL.Image.new("RGB", (bands[0].width, sum(band.height + GAP for band in bands) - GAP), "white")
    for number, band in enumerate(bands):
        made.paste(band, (0, number * (bands[0].height + GAP)))
    return made


def run_track(
    pipe: Recording,
    args: argparse.Namespace,
    size: int,
    materials: bool,
    folder: Path,
    others: dict[str, Any] | None,
) -> tuple[dict[str, Any], PIL.Image.Image]:
    """Figures by method, and the sheet; what the pipeline makes is written to a folder.

    `others` are the figures of `OTHERS`, measured if not given.
    """
    photos = read_pool(args.data, None, size).pictures
    textures = read_pool(args.materials, None, size).pictures if materials else photos
    crossings = draw_crossings(len(photos), len(textures) if materials else None, args.count, args.seed)
    given = [
        {"color": photos[one.color], "texture": textures[one.texture], "shape": photos[one.shape]} for one in crossings
    ]
    judges = Judges(photos, textures, args.squeezenet, args.seed)
    made = rows_of([paint(pipe, references, size, seed) for seed, references in enumerate(given)])
    shown = rows_of(given) | {name: made[name] for name in SHOWN}
    for number, picture in enumerate(made["pipeline"]):
        PIL.Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / f"{number:02d}.png")
    if others is None:
        made |= rows_of([classical(references, judges.net) for references in given])
        made["shape reference"] = shown["shape"]
    figures = {name: judges(crossings, pictures) for name, pictures in made.items()} | (others or {})
    for row in ("pipeline", FREE) if judges.net else ():
        again = [
            [made[row][number], *(call(pipe, one, size, args.count + seed, row) for seed in range(1, SEEDS))]
            for number, one in enumerate(given[:REPEATED])
        ]
        figures[row]["diversity"] = judges.diversity(again)
    return {"size": size, "methods": figures}, sheet(shown)


def kept_rows(args: argparse.Namespace, settings: dict[str, int]) -> dict[str, dict[str, Any]]:
    """The rows of `OTHERS` by track, of the file that is to be written anew."""
    found = json.loads(Path(args.output).read_text(encoding="utf-8")) if Path(args.output).is_file() else {}
    if found.get("settings") != settings or not set(args.tracks) <= set(found.get("tracks", ())):
        raise SystemExit(f"error: {args.output} has no rows of {settings} to keep; leave --keep_others out")
    rows = {name: found["tracks"][name]["methods"] for name in args.tracks}
    return {name: {one: row[one] for one in OTHERS if one in row} for name, row in rows.items()}


def rows_of(pictures: list[dict[str, np.ndarray]]) -> dict[str, list[np.ndarray]]:
    return {name: [one[name] for one in pictures] for name in pictures[0]}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.octaves", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of photographs with val/")
    parser.add_argument("--materials", required=True, help="folder of materials with val/")
    parser.add_argument("--model", default="hub_cards/mg-bazaar", help="MGPipeline with a detail network")
    parser.add_argument("--output", default=OUTPUT, metavar="FILE.json")
    parser.add_argument("--pictures", required=True, metavar="FOLDER", help="where to put the sheets")
    parser.add_argument(
        "--tracks", nargs="+", choices=("photographs", "materials"), default=["photographs", "materials"]
    )
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    purpose = "take the rows that are not ours from --output, where they were measured for the same count and seed"
    parser.add_argument("--keep_others", action="store_true", help=purpose)
    parser.add_argument("--squeezenet", help="weights, for recognition and naturalness")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    args = parse_args()
    folder = Path(args.pictures)
    folder.mkdir(parents=True, exist_ok=True)
    pipe = Recording(**MGPipeline.from_pretrained(args.model, dtype=torch.float32).components)
    pipe.set_progress_bar_config(disable=True)
    settings = {key: getattr(args, key) for key in ("count", "seed")}
    kept = kept_rows(args, settings) if args.keep_others else {}
    tracks = {}
    for name in args.tracks:
        size = 2 * pipe.mg_detail.config.sample_size
        (folder / name).mkdir(exist_ok=True)
        is_small = name == "materials"
        track_size = size // 2 if is_small else size
        tracks[name], shown = run_track(pipe, args, track_size, is_small, folder / name, kept.get(name))
        shown.save(folder / f"crossings-{name}.webp", quality=80, method=6)
        text = json.dumps({"settings": settings, "tracks": tracks}, indent=2) + "\n"
        Path(args.output).write_text(text, encoding="utf-8")
    print(octaves_table(json.loads(text)))


if __name__ == "__main__":
    main()
