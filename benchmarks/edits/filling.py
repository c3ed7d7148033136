"""Holes whose content is known: filled by `mg_diffusion.filling`, by OpenCV's methods and, where installed, PatchMatch."""

import time
from collections.abc import Callable

import numpy as np
from skimage.draw import line
from skimage.restoration import inpaint_biharmonic
from tqdm import tqdm

from mg_diffusion.evaluation.editing import boundary_jump, masked_psnr
from mg_diffusion.evaluation.metrics import texture_features
from mg_diffusion.filling import fill


STROKES, POINTS, WIDTH = 3, 3, 1 / 25  # polylines, their corners, their width as a share of the side
GRAY = 128  # stands in the hole, so that no method can look the answer up
PATCH = 5  # side in pixels of PyPatchMatch's patches
KINDS = ("quarter", "half", "strokes")


def masks(side: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Boxes of a quarter and of a half of the side, and strokes."""
    from scipy.ndimage import distance_transform_edt

    made = {}
    for name, size in (("quarter", side // 4), ("half", side // 2)):
        made[name] = np.zeros((side, side), bool)
        top, left = rng.integers(0, side - size, 2)
        made[name][top : top + size, left : left + size] = True
    path = np.zeros((side, side), bool)
    for _ in range(STROKES):
        points = rng.integers(0, side, (POINTS, 2))
        for start, end in zip(points, points[1:], strict=False):
            path[line(*start, *end)] = True
    made["strokes"] = distance_transform_edt(~path) <= WIDTH * side / 2
    return made


def methods() -> dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]:
    """Each fills a picture (H, W, 3) of 8 bits where a mask (H, W) is."""
    import cv2

    found = {
        "ours": fill,
        "Telea": lambda image, mask: cv2.inpaint(image, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA),
        "biharmonic": lambda image, mask: _to_bytes(inpaint_biharmonic(image / 255, mask, channel_axis=-1)),
    }
    try:
        import patchmatch  # PyPatchMatch: pip install pypatchmatch
    except ImportError:
        return found

    def by_patches(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        patchmatch.set_random_seed(0)
        made = patchmatch.inpaint(image.copy(), mask=255 * mask.astype(np.uint8), patch_size=PATCH)
        return np.where(mask[..., None], made, image)

    return {**found, "PatchMatch": by_patches}


def measure(pictures: list[np.ndarray], seed: int, biharmonic: int) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by kind of hole and method; biharmonic filling, which takes long, of so many pictures.

    "psnr" inside; "lbp", the distance of local binary patterns inside; "gradient", the mean of lightness inside over the
    truth's (median over pictures); "seam", the step along the edge over the truth's; "seconds".
    """
    rows: dict[str, dict[str, list[list[float]]]] = {kind: {} for kind in KINDS}
    tried = methods()
    for number, truth in enumerate(tqdm(pictures, desc="filling")):
        for kind, mask in masks(len(truth), np.random.default_rng([seed, number])).items():
            given = np.where(mask[..., None], GRAY, truth).astype(np.uint8)
            for name, method in tried.items():
                if name == "biharmonic" and number >= biharmonic:
                    continue
                start = time.perf_counter()
                made = method(given, mask)
                seconds = time.perf_counter() - start
                rows[kind].setdefault(name, []).append([*_figures(truth / 255, made / 255, mask), seconds])
    return {kind: {name: _means(np.array(row)) for name, row in found.items()} for kind, found in rows.items()}


def _figures(truth: np.ndarray, made: np.ndarray, mask: np.ndarray) -> list[float]:
    near = np.linalg.norm(texture_features(truth, mask) - texture_features(made, mask)) / np.sqrt(6)
    gradients = [np.hypot(*np.gradient(one.mean(2)))[mask].mean() for one in (made, truth)]
    jumps = [boundary_jump(one, mask) for one in (made, truth)]
    return [masked_psnr(truth, made, mask), near, gradients[0] / max(gradients[1], 1e-4), *jumps]


def _means(rows: np.ndarray) -> dict[str, float]:
    psnr, lbp, gradient, jump, true_jump, seconds = rows.T
    return {
        "pictures": len(rows),
        "psnr": round(float(psnr.mean()), 2),
        "lbp": round(float(lbp.mean()), 3),
        "gradient": round(float(np.median(gradient)), 2),
        "seam": round(float(jump.mean() / true_jump.mean()), 2),
        "seconds": round(float(seconds.mean()), 2),
    }


def _to_bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().clip(0, 255).astype(np.uint8)


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    lines = [
        "| hole | method | pictures | PSNR, dB | LBP distance | gradient, of the truth's | seam, of the truth's | seconds |",
        "|-|-|-:|-:|-:|-:|-:|-:|",
    ]
    labels = {"quarter": "box, a quarter of the side", "half": "box, a half of the side", "strokes": "strokes"}
    for kind, rows in found.items():
        for name, row in rows.items():
            figures = f"{row['psnr']} | {row['lbp']} | {row['gradient']} | {row['seam']} | {row['seconds']}"
            lines.append(f"| {labels[kind]} | {name} | {row['pictures']} | {figures} |")
    return "\n".join(lines)
