"""Noise, blocks of JPEG and small pictures: the detail network against scikit-image, BM3D (where installed) and bicubic."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
from skimage.restoration import denoise_nl_means
from tqdm import tqdm

from mg_diffusion.restoring import enlarge, restore


LEVELS = (15, 25, 50)
QUALITIES = (10, 20, 40)
FACTORS = (2, 4)
LUMA = np.array([0.299, 0.587, 0.114])


def decibels(made: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(max(((made.astype(float) - truth) ** 2).mean() / 255**2, 1e-6)))


def denoisers(unet: Any) -> dict[str, Callable[[np.ndarray, float], np.ndarray]]:
    def by_means(image: np.ndarray, level: float) -> np.ndarray:
        options = {"patch_size": 5, "patch_distance": 6, "fast_mode": True, "channel_axis": -1}
        return 255 * denoise_nl_means(image / 255, h=0.8 * level / 255, sigma=level / 255, **options)

    found = {
        "as it is": lambda image, level: image,
        "ours": lambda image, level: restore(unet, image, level),
        "ours, level estimated": lambda image, level: restore(unet, image),
        "non-local means": by_means,
    }
    try:
        import bm3d  # pip install bm3d
    except ImportError:
        return found
    return {**found, "BM3D": lambda image, level: 255 * bm3d.bm3d_rgb(image / 255, level / 255).clip(0, 1)}


def measure(unet: Any, pictures: list[np.ndarray], seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Mean decibels: "noise" by level and method, "jpeg" by quality; "enlarged" by factor, of luma, with gradients."""
    noise: dict[str, dict[str, list[float]]] = {str(level): {} for level in LEVELS}
    jpeg: dict[str, dict[str, list[float]]] = {str(quality): {} for quality in QUALITIES}
    enlarged: dict[str, dict[str, list[float]]] = {str(factor): {} for factor in FACTORS}
    for number, truth in enumerate(tqdm(pictures, desc="restoring")):
        for level in LEVELS:
            drawn = np.random.default_rng([seed, number]).normal(0, level, truth.shape)
            given = (truth + drawn).round().clip(0, 255).astype(np.uint8)
            for name, method in denoisers(unet).items():
                noise[str(level)].setdefault(name, []).append(decibels(method(given, level), truth))
        for quality in QUALITIES:
            given = _compressed(truth, quality)
            for name, made in (("as it is", given), ("ours", restore(unet, given, 0.0))):
                jpeg[str(quality)].setdefault(name, []).append(decibels(made, truth))
        for factor in FACTORS:
            for name, figure in _enlarged(unet, truth, factor).items():
                enlarged[str(factor)].setdefault(name, []).append(figure)
    found = {"noise": noise, "jpeg": jpeg, "enlarged": enlarged}
    return {
        kind: {
            key: {name: round(float(np.mean(row)), 2) for name, row in rows.items()} for key, rows in by_key.items()
        }
        for kind, by_key in found.items()
    } | {"pictures": len(pictures)}


def _compressed(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


def _enlarged(unet: Any, truth: np.ndarray, factor: int) -> dict[str, float]:
    height, width = (side // factor * factor for side in truth.shape[:2])
    truth = PIL.Image.fromarray(truth[:height, :width])
    small = truth.resize((width // factor, height // factor), PIL.Image.Resampling.BICUBIC)
    made = np.asarray(small)
    for _ in range(factor.bit_length() - 1):
        made = enlarge(unet, made)
    shown = {"bicubic": np.asarray(small.resize((width, height), PIL.Image.Resampling.BICUBIC)), "ours": made}
    luma = np.asarray(truth) @ LUMA
    figures = {}
    for name, picture in shown.items():
        figures[name] = decibels(picture @ LUMA, luma)
        figures[f"{name}, gradient"] = _gradient(picture @ LUMA) / _gradient(luma)
    return figures


def _gradient(luma: np.ndarray) -> float:
    return float(np.hypot(*np.gradient(luma)).mean())


def table(found: dict[str, Any]) -> str:
    names = list(found["noise"][str(LEVELS[0])])
    lines = [f"PSNR in dB, {found['pictures']} pictures.", "", f"| noise, of 255 | {' | '.join(names)} |"]
    lines.append("|-:|" + "-:|" * len(names))
    for level, row in found["noise"].items():
        lines.append(f"| {level} | " + " | ".join(f"{row[name]}" for name in names) + " |")
    lines += ["", "| JPEG quality | as it is | ours |", "|-:|-:|-:|"]
    lines += [f"| {quality} | {row['as it is']} | {row['ours']} |" for quality, row in found["jpeg"].items()]
    lines += ["", "| enlarged by (luma) | bicubic | ours | gradient, bicubic | gradient, ours |", "|-:|-:|-:|-:|-:|"]
    for factor, row in found["enlarged"].items():
        gradients = f"{row['bicubic, gradient']} | {row['ours, gradient']}"
        lines.append(f"| {factor} | {row['bicubic']} | {row['ours']} | {gradients} |")
    return "\n".join(lines)
