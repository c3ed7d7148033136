"""Recoloring and retexturing: what of the picture stays, and how near the result is to the reference."""

from typing import Any

import cv2
import numpy as np
import PIL.Image
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage.color import rgb2lab
from skimage.exposure import match_histograms
from skimage.restoration import denoise_bilateral
from tqdm import tqdm

from mg_diffusion import edits
from mg_diffusion.evaluation.metrics import color_distance, texture_distance
from mg_diffusion.evaluation.squeezenet import texture_grams

from ..octaves import ranked


CANDIDATES = 32
NEAR = 2  # pixels in which an edge is the same edge
LIGHT_SIGMA = 1 / 24  # of the side: light at large


def edges_agree(first: np.ndarray, second: np.ndarray) -> float:
    """F-score of Canny edges, each the same as one within `NEAR` pixels; thresholds follow each picture's gradients."""
    found = [_edges(one) for one in (first, second)]
    near = [cv2.dilate(one, np.ones((2 * NEAR + 1,) * 2, np.uint8)) for one in found]
    precision, recall = ((found[i] & near[1 - i]).sum() / max(1, found[i].sum()) for i in (0, 1))
    return float(2 * precision * recall / max(1e-6, precision + recall))


def _edges(picture: np.ndarray) -> np.ndarray:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    spread = float(
        np.percentile(np.abs(cv2.Sobel(gray, cv2.CV_64F, 1, 0)) + np.abs(cv2.Sobel(gray, cv2.CV_64F, 0, 1)), 90)
    )
    return (cv2.Canny(gray, 0.5 * spread, spread) > 0).astype(np.uint8)


def recoloring(pipe: Any, pictures: list[np.ndarray], seed: int, count: int) -> dict[str, float]:
    """Pairs of pictures, one in the colors of the other, beside histogram matching; and in shades of one color."""
    rng, rows, single = np.random.default_rng(seed), [], []
    for _ in tqdm(range(count), desc="recoloring"):
        source, palette = (pictures[int(place)] for place in rng.choice(len(pictures), 2, replace=False))
        (made,) = edits.recolor(pipe, PIL.Image.fromarray(source), PIL.Image.fromarray(palette))
        made, matched = np.asarray(made), match_histograms(source, palette, channel_axis=-1)
        before, after = (rgb2lab(one)[..., 0] for one in (source, made))
        rows.append(
            [
                spearmanr(before.ravel()[::7], after.ravel()[::7]).statistic,
                edges_agree(source, made),
                *(color_distance(one / 255, palette / 255) for one in (made, matched, source)),
            ]
        )
        color = rng.integers(40, 216, 3)
        (shades,) = edits.recolor(pipe, PIL.Image.fromarray(source), ["#{:02x}{:02x}{:02x}".format(*color)])
        lab, wanted = rgb2lab(np.asarray(shades)), rgb2lab(color[None, None] / 255)
        single.append(float(np.median(np.linalg.norm((lab - wanted)[..., 1:], axis=-1))))
    names = ("rank correlation of lightness", "edges", "palette distance", "histogram matching", "as it is")
    means = dict(zip(names, np.mean(rows, 0).round(3).tolist(), strict=True))
    return {
        "pictures": count,
        **means,
        "Delta-E to a single color at equal lightness": round(float(np.mean(single)), 2),
    }


def retexturing(
    pipe: Any, pictures: list[np.ndarray], textures: list[np.ndarray], seed: int, count: int, net: Any = None
) -> dict[str, Any]:
    """Pictures under materials: light at large, silhouettes, and whether the own texture is found again.

    With a network, by its Gram matrices as well: local binary patterns find a material laid over one gray in .63 of the
    cases at this size, Gram matrices in .97 (docs/detail.md).
    """
    rng, rows = np.random.default_rng(seed), []
    candidates = [textures[int(place)] / 255 for place in rng.choice(len(textures), CANDIDATES, replace=False)]
    for _ in tqdm(range(count), desc="retexturing"):
        source, texture = pictures[int(rng.integers(len(pictures)))], textures[int(rng.integers(len(textures)))]
        (made,) = edits.retexture(pipe, PIL.Image.fromarray(source), PIL.Image.fromarray(texture))
        made = np.asarray(made)
        light = [gaussian_filter(rgb2lab(one)[..., 0], LIGHT_SIGMA * min(one.shape[:2])) for one in (source, made)]
        smooth = [
            (255 * denoise_bilateral(one / 255, 7, 0.12, 4, channel_axis=-1)).astype(np.uint8)
            for one in (source, made)
        ]
        among = [texture / 255, *candidates]
        judged = _ranked([texture_distance(made / 255, other) for other in among])
        if net is not None:
            found = texture_grams(net, [made / 255, *among])
            judged += _ranked(np.linalg.norm(found[1:] - found[:1], axis=1).tolist())
        rows.append(
            [np.corrcoef(light[0].ravel(), light[1].ravel())[0, 1], edges_agree(smooth[0], smooth[1]), *judged]
        )
    names = ["correlation of light", "silhouettes", "own texture against another", "own texture nearest of 32"]
    names += [f"{name}, by Gram matrices" for name in names[2:]] if net is not None else []
    return {"pictures": count, **dict(zip(names, np.mean(rows, 0).round(3).tolist(), strict=True))}


def _ranked(distances: list[float]) -> list[float]:
    """In what share of pairs the first, the own one, is nearer than another, and whether than all of them."""
    near, *others = distances
    others = [other for other in others if abs(other - near) > 1e-9][: CANDIDATES - 1]  # the own one may be among them
    is_nearest, share = ranked(near, others)
    return [share, is_nearest]


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| | pictures | figure | |", "|-|-:|-|-:|"]
    for kind, row in found.items():
        count = row["pictures"]
        lines += [f"| {kind} | {count} | {name} | {value} |" for name, value in row.items() if name != "pictures"]
    return "\n".join(lines)
