"""Crossings at four times the base's size: the composition alone, plain enlargement, the detail network.

    python -m benchmarks.octaves --data PHOTOGRAPHS --materials MATERIALS --weights DETAIL --output_dir OUT

References are drawn from the `val` pictures of two folders by a seed; every second texture is a material. Canvas and
sketch are laid once, at the size of the output, light kept light, and shrunk for what is below. Writes `sheet.png` with
the first crossings and `octaves.json` with the judges of `mg_diffusion.evaluation`: own reference nearest of 32, own
against each other one (pairwise), and sharpness, the mean gradient of lightness over that of the photographs.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from skimage.color import rgb2lab

from mg_diffusion import MGPipeline
from mg_diffusion.adapter.quilting import lay_tiles
from mg_diffusion.adapter.sketch import lay_palette, turn_colors
from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.structure import nearest_turn
from mg_diffusion.encoder.texture import draw_tiles, texture_view
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab
from mg_diffusion.evaluation.metrics import Descriptor, describe, distances
from mg_diffusion.evaluation.squeezenet import load_squeezenet, pooled_features
from mg_diffusion.mg_bench.pools import read_pool
from mg_diffusion.octaves import LEVELS, STEPS, build_scheduler, paint_octaves
from mg_diffusion.training.crossings import add_texture, flatten_regions, lab_to_rgb
from mg_diffusion.training.detail_pool import NUM_TILES, colors_of
from mg_diffusion.training.validation import labeled_grid


SIZE, BASE_SIZE = 256, 64
CANDIDATES = 32
CANVAS_GAIN = 1.3  # of a canvas shrunk to the base's size, where little of its contrast is left


@dataclass
class Crossing:
    """Places of the references in their pools, and what is laid of them, (1, C, SIZE, SIZE)."""

    color: int
    texture: int
    shape: int
    is_material: bool
    canvas: torch.Tensor
    sketch: torch.Tensor  # Lab
    turn: torch.Tensor


def to_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()


def to_array(rgb: torch.Tensor) -> np.ndarray:
    return rgb[0].permute(1, 2, 0).clamp(0, 1).double().numpy()


def lay_out(color: np.ndarray, texture: np.ndarray, shape: np.ndarray, seed: int) -> dict[str, torch.Tensor]:
    smooth = {name: edge_preserving_smooth(rgb_to_lab(to_tensor(one))) for name, one in (("c", color), ("s", shape))}
    lab = rgb_to_lab(to_tensor(texture))
    view = texture_view(lab, edge_preserving_smooth(lab), torch.ones_like(lab[:, :1]))
    tiles = draw_tiles(view["detail"], view["weight"], 2 * NUM_TILES, torch.Generator().manual_seed(seed))
    structure = shape_view(smooth["s"], torch.ones_like(smooth["s"][:, :1]))["structure"]
    turn = nearest_turn(structure.flatten(2), smooth["s"].flatten(2))
    sketch = lay_palette(turn_colors(structure, turn), colors_of(smooth["c"]))
    return {"canvas": lay_tiles(tiles, SIZE, SIZE), "sketch": sketch, "turn": turn}


def draw_crossings(photos: list[np.ndarray], materials: list[np.ndarray], count: int, seed: int) -> list[Crossing]:
    rng, found = np.random.default_rng(seed), []
    for number in range(count):
        color, texture, shape = map(int, rng.choice(len(photos), 3, replace=False))
        is_material = bool(number % 2)
        texture = int(rng.integers(len(materials))) if is_material else texture
        shown = materials[texture] if is_material else photos[texture]
        laid = lay_out(photos[color], shown, photos[shape], seed + number)
        found.append(Crossing(color, texture, shape, is_material, **laid))
    return found


def compose(crossing: Crossing) -> torch.Tensor:
    """The composition alone, (1, 3, SIZE, SIZE) in [0, 1]."""
    return add_texture(flatten_regions(crossing.sketch)[0], crossing.canvas[0])[None].clamp(0, 1)


def paint_small(pipe: MGPipeline, crossing: Crossing, references: dict[str, np.ndarray], seed: int) -> torch.Tensor:
    """What the base makes of the same canvas and sketch, shrunk, (1, 3, BASE_SIZE, BASE_SIZE) in [0, 1]."""
    features = pipe.encode_reference(references)
    # One tile of the whole size is laid as it is.
    (texture,), (shape,) = features["texture"], features["shape"]
    texture["tiles"] = CANVAS_GAIN * F.interpolate(crossing.canvas, (BASE_SIZE,) * 2, mode="area")
    shape |= {"sketch": crossing.sketch, "turn": crossing.turn}
    generator = torch.Generator().manual_seed(seed)
    return pipe(reference_embeds=features, generator=generator, output_type="pt").images.float()


def enlarge(crossing: Crossing, small: torch.Tensor) -> torch.Tensor:
    return F.interpolate(small, (SIZE,) * 2, mode="bicubic", align_corners=False).clamp(0, 1)


def detailer(unet: UNet2DModel, levels: Sequence[float], steps: int) -> Callable[..., torch.Tensor]:
    """The detail network, from what the base painted."""

    def paint(crossing: Crossing, small: torch.Tensor) -> torch.Tensor:
        sketch = lab_to_rgb(crossing.sketch).clamp(0, 1) * 2 - 1
        made = paint_octaves(
            unet,
            build_scheduler(),
            small * 2 - 1,
            crossing.canvas,
            sketch,
            levels=levels,
            num_inference_steps=steps,
            generator=torch.Generator().manual_seed(crossing.shape),
        )
        return made / 2 + 0.5

    return paint


def gradient(picture: np.ndarray) -> float:
    lightness = rgb2lab(picture)[..., 0]
    return float(np.hypot(*np.gradient(lightness)).mean())


def ranked(own: float, others: Sequence[float]) -> tuple[float, float]:
    """Whether the own reference is the nearest, and in what share of pairs it is nearer."""
    return float(own < min(others)), float(np.mean([own < other for other in others]))


class Judges:
    """Figures of pictures made from crossings. The other candidates are the same for all, so that few are described."""

    def __init__(self, photos: list[np.ndarray], materials: list[np.ndarray], squeezenet: str | None, seed: int):
        self.pools, self.described, self.features = {"photo": photos, "material": materials}, {}, {}
        rng = np.random.default_rng(seed)
        self.others = {kind: rng.permutation(len(pool))[:CANDIDATES] for kind, pool in self.pools.items()}
        self.sharpness = float(np.mean([gradient(photo) for photo in photos[:100]]))
        self.net = load_squeezenet(squeezenet) if squeezenet else None

    def _candidates(self, kind: str, own: int) -> list[int]:
        """The own reference and 31 others."""
        return [own, *(int(one) for one in self.others[kind] if one != own)][:CANDIDATES]

    def _described(self, kind: str, place: int) -> Descriptor:
        if (kind, place) not in self.described:
            self.described[kind, place] = describe(self.pools[kind][place])
        return self.described[kind, place]

    def _feature(self, place: int) -> np.ndarray:
        if place not in self.features:
            (self.features[place],) = pooled_features(self.net, [self.pools["photo"][place]])
        return self.features[place]

    def __call__(self, crossings: list[Crossing], made: list[np.ndarray]) -> dict[str, object]:
        """Own reference nearest of 32, and pairwise; textures of photographs and of materials apart."""
        scores, joint = {}, []
        for crossing, picture in zip(crossings, made, strict=True):
            output, hits = describe(picture), []
            for name, own in (("color", crossing.color), ("texture", crossing.texture), ("shape", crossing.shape)):
                kind = "material" if name == "texture" and crossing.is_material else "photo"
                among = [self._described(kind, one) for one in self._candidates(kind, own)]
                found = [distances(output, other)[name] for other in among]
                label = f"texture ({kind}s)" if name == "texture" else name
                scores.setdefault(label, []).append(ranked(found[0], found[1:]))
                hits.append(scores[label][-1][0])
            joint.append(min(hits))
            if self.net is not None:
                (own,) = pooled_features(self.net, [picture])
                among = [self._feature(one) for one in self._candidates("photo", crossing.shape)]
                found = np.linalg.norm(np.stack(among) - own, axis=1)
                scores.setdefault("recognition", []).append(ranked(found[0], found[1:]))
        figures = {
            name: dict(zip(("nearest", "pairwise"), np.mean(values, 0).round(3).tolist(), strict=True))
            for name, values in scores.items()
        }
        sharpness = float(np.mean([gradient(picture) for picture in made])) / self.sharpness
        return {**figures, "all three": round(float(np.mean(joint)), 3), "sharpness": round(sharpness, 3)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.octaves", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of photographs with val/")
    parser.add_argument("--materials", required=True, help="folder of materials with val/")
    parser.add_argument("--base", default="hub_cards/mg-bazaar", help="MGPipeline of 64 px")
    parser.add_argument("--weights", nargs="+", required=True, help="folders of detail networks")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--shown", type=int, default=12, help="crossings of the sheet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--levels", type=float, nargs="+", default=list(LEVELS))
    parser.add_argument("--squeezenet", help="weights, for recognition")
    parser.add_argument("--sheet_only", action="store_true", help="no figures")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    args = parse_args()
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    photos = read_pool(args.data, None, SIZE).pictures
    materials = read_pool(args.materials, None, SIZE // 2).pictures
    repeated = [np.pad(one, ((0, SIZE // 2), (0, SIZE // 2), (0, 0)), "wrap") for one in materials]  # to be compared
    crossings = draw_crossings(photos, materials, args.count, args.seed)
    pipe = MGPipeline.from_pretrained(args.base)
    pipe.set_progress_bar_config(disable=True)
    shown = [materials[one.texture] if one.is_material else photos[one.texture] for one in crossings]
    smalls = [
        paint_small(pipe, one, {"color": photos[one.color], "texture": texture, "shape": photos[one.shape]}, number)
        for number, (one, texture) in enumerate(zip(crossings, shown, strict=True))
    ]
    methods = {"composition": lambda one, small: compose(one), "enlarged": enlarge}
    for weights in args.weights:
        unet = UNet2DModel.from_pretrained(weights).eval()
        name = "detail" if len(args.weights) == 1 else f"detail\n{Path(weights).parent.name[-12:]}"
        methods[name] = detailer(unet, args.levels, args.steps)
    made, seconds = {}, {}
    for name, method in methods.items():
        start = time.process_time()
        made[name] = [to_array(method(one, small)) for one, small in zip(crossings, smalls, strict=True)]
        seconds[name] = round((time.process_time() - start) / args.count, 2)
    columns = {
        "color": [photos[one.color] for one in crossings],
        "texture": [(repeated if one.is_material else photos)[one.texture] for one in crossings],
        "shape": [photos[one.shape] for one in crossings],
        **made,
    }
    rows = {name: [(one * 255).round().astype(np.uint8) for one in row[: args.shown]] for name, row in columns.items()}
    labeled_grid(rows).save(folder / "sheet.png")
    figures = {}
    if not args.sheet_only:
        judges = Judges(photos, repeated, args.squeezenet, args.seed)
        figures = {name: judges(crossings, pictures) for name, pictures in made.items()}
    report = {"settings": vars(args), "cpu_seconds_a_picture": seconds, "figures": figures}
    (folder / "octaves.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
