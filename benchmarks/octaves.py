"""Crossings of photographs at the sizes that octaves reach: what the model makes, beside what it makes it of.

    python -m benchmarks.octaves --data PHOTOGRAPHS --materials MATERIALS --squeezenet WEIGHTS --pictures FOLDER

References are drawn from the `val` pictures by a seed. Two tracks: photographs crossed at 256 px, and photographs under
materials at 128 px. Three rows: the composition alone (canvas over sketch, no network), the base's picture enlarged, and
the pipeline. Judged by `mg_diffusion.evaluation`: own reference nearest of 32, own against each other one (pairwise);
recognition, the same of the shape reference by an independent network's features; sharpness, the mean gradient of lightness
over that of photographs; naturalness, the Frechet distance of those features to photographs that lent nothing.
Writes `octaves.json` (the model card and docs/detail.md show it) and, in the folder, the pictures and a sheet of each track.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from skimage.color import rgb2lab

from mg_diffusion import MGPipeline
from mg_diffusion.encoder.views import lab_to_rgb, rgb_to_lab
from mg_diffusion.evaluation.metrics import Descriptor, describe, distances
from mg_diffusion.evaluation.quality import frechet_distance
from mg_diffusion.evaluation.squeezenet import load_squeezenet, pooled_features
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.model_card import octaves_table
from mg_diffusion.training.validation import labeled_grid


CANDIDATES = 32
ACROSS, GAP = 12, 24  # crossings of a band of a sheet; pixels between bands
METHODS = ("composition", "enlarged", "pipeline")
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
    """The picture of each method, (size, size, 3) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    made = pipe(reference_image=references, height=size, width=size, generator=generator, output_type="pt").images
    lab = rgb_to_lab(pipe.layout.sketch.float() / 2 + 0.5)
    lab[:, :1] += 10 * pipe.layout.canvas.float()
    small = F.interpolate(pipe.small.float() / 2 + 0.5, (size, size), mode="bicubic", align_corners=False)
    return {name: to_array(rgb.float()) for name, rgb in zip(METHODS, (lab_to_rgb(lab), small, made), strict=True)}


def gradient(picture: np.ndarray) -> float:
    return float(np.hypot(*np.gradient(rgb2lab(picture)[..., 0])).mean())


def ranked(own: float, others: Sequence[float]) -> tuple[float, float]:
    """Whether the own reference is the nearest, and in what share of pairs it is nearer."""
    return float(own < min(others)), float(np.mean([own < other for other in others]))


class Judges:
    """Figures of pictures made from crossings. The other candidates are the same for all, so that few are described."""

    def __init__(self, photos: list[np.ndarray], textures: list[np.ndarray], squeezenet: str | None, seed: int):
        self.pools = {"color": photos, "texture": textures, "shape": photos}
        self.described, self.features = {}, {}
        rng = np.random.default_rng(seed)
        self.others = {name: rng.permutation(len(pool))[:CANDIDATES] for name, pool in self.pools.items()}
        self.sharpness = float(np.mean([gradient(photo) for photo in photos[:100]]))
        self.net = load_squeezenet(squeezenet) if squeezenet else None

    def _candidates(self, name: str, own: int) -> list[int]:
        """The own reference and 31 others."""
        return [own, *(int(one) for one in self.others[name] if one != own)][:CANDIDATES]

    def _described(self, name: str, place: int) -> Descriptor:
        key = id(self.pools[name]), place
        if key not in self.described:
            self.described[key] = describe(self.pools[name][place])
        return self.described[key]

    def _feature(self, place: int) -> np.ndarray:
        if place not in self.features:
            (self.features[place],) = pooled_features(self.net, [self.pools["shape"][place]])
        return self.features[place]

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
        own = np.concatenate([pooled_features(self.net, [one]) for one in made]) if self.net else []
        for crossing, feature in zip(crossings, own, strict=bool(self.net)):
            among = np.stack([self._feature(one) for one in self._candidates("shape", crossing.shape)])
            found = np.linalg.norm(among - feature, axis=1)
            scores.setdefault("recognition", []).append(ranked(found[0], found[1:]))
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
    pipe: Recording, args: argparse.Namespace, size: int, materials: bool, folder: Path
) -> tuple[dict[str, Any], PIL.Image.Image]:
    """Figures by method, and the sheet; what the pipeline makes is written to a folder."""
    photos = read_pool(args.data, None, size).pictures
    textures = read_pool(args.materials, None, size).pictures if materials else photos
    crossings = draw_crossings(len(photos), len(textures) if materials else None, args.count, args.seed)
    made, start = {name: [] for name in METHODS}, time.process_time()
    for number, one in enumerate(crossings):
        references = {"color": photos[one.color], "texture": textures[one.texture], "shape": photos[one.shape]}
        for name, picture in paint(pipe, references, size, number).items():
            made[name].append(picture)
    seconds = round((time.process_time() - start) / args.count, 2)
    judges = Judges(photos, textures, args.squeezenet, args.seed)
    given = {
        "color": [photos[one.color] for one in crossings],
        "texture": [textures[one.texture] for one in crossings],
        "shape": [photos[one.shape] for one in crossings],
    }
    for number, picture in enumerate(made["pipeline"]):
        PIL.Image.fromarray((picture * 255).round().astype(np.uint8)).save(folder / f"{number:02d}.png")
    figures = {name: judges(crossings, pictures) for name, pictures in made.items()}
    return {"size": size, "cpu_seconds_a_picture": seconds, "methods": figures}, sheet(given | made)


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
    parser.add_argument("--squeezenet", help="weights, for recognition and naturalness")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    args = parse_args()
    folder = Path(args.pictures)
    folder.mkdir(parents=True, exist_ok=True)
    pipe = Recording(**MGPipeline.from_pretrained(args.model, dtype=torch.float32).components)
    pipe.set_progress_bar_config(disable=True)
    tracks = {}
    for name in args.tracks:
        size = 2 * pipe.mg_detail.config.sample_size
        (folder / name).mkdir(exist_ok=True)
        is_small = name == "materials"
        tracks[name], shown = run_track(pipe, args, size // 2 if is_small else size, is_small, folder / name)
        shown.save(folder / f"crossings-{name}.webp", quality=80, method=6)
        settings = {key: getattr(args, key) for key in ("count", "seed")}
        text = json.dumps({"settings": settings, "tracks": tracks}, indent=2) + "\n"
        Path(args.output).write_text(text, encoding="utf-8")
    print(octaves_table(json.loads(text)))


if __name__ == "__main__":
    main()
