"""Do samples lie nearer to training pictures than pictures do that were never trained on?"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch.nn.functional as F
from skimage.color import rgb2lab

from .intervals import N_BOOT, stream
from .metrics import Pictures
from .quality import Extract, extracted, name_of
from .squeezenet import BATCH_SIZE, pixel_batches


CHUNK = 1024
N_WORST = 16


@dataclass(frozen=True)
class Nearest:
    """For each of N pictures the nearest training picture."""

    distance: np.ndarray  # (N,)
    place: np.ndarray  # (N,) in the training pictures
    flipped: np.ndarray  # (N,) whether the picture was nearer when mirrored


def memorisation_audit(
    samples: Pictures,
    train: Pictures,
    held_out: Pictures,
    *,
    features: Extract | None = None,
    side: int = 16,
    chunk: int = CHUNK,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict:
    """Compare the distances of samples and of held-out pictures, each to its nearest training picture.

    Samples and held-out pictures are also tried mirrored left to right, since training pictures often are.

    Args:
        samples, train, held_out: pictures (H, W, 3) in [0, 1], of one size. Held-out pictures come from where the
            training pictures do and repeat none of them: every repeat among them hides a sample that repeats one.
        features: pictures -> (N, D), as from `load_features`, for a second opinion; `None` for none.
        side: pictures are averaged down to `side` by `side` pixels, where their colors are compared.
        chunk: training pictures at a time. Never more are described or compared at once; only their rows are kept.

    Returns: under "pixels", where distances are the root mean square of Delta-E, and "features", if given, where they
        are Euclidean:
        "auc": {"mean", "low", "high"}, the probability that a sample is farther from the training pictures than a
            held-out picture is, ties counting half: 0.5 if samples are no nearer than unseen pictures, 0 if all are
            copies. 95 % bootstrap interval over samples and over held-out pictures; the training pictures are given.
            Blurred or plain samples are nearer to everything and score below 0.5 too: look at the worst pairs.
        "worst": the 16 samples nearest to a training picture, nearest first, each {"sample", "train", "distance",
            "flipped"} with the places of the two.
        Then "settings".

    Raises:
        ValueError: if there are no samples, training or held-out pictures.
    """
    sets = {"samples": samples, "train": train, "held_out": held_out}
    for name, pictures in sets.items():
        if not len(pictures):
            raise ValueError(f"expected at least one picture in {', '.join(sets)}, got none as {name}.")
    judges = {"pixels": partial(small_lab, side=side)}
    if features is not None:
        judges["features"] = features
    result = {}
    for name, extract in judges.items():
        rows = _rows(extract, train, chunk)
        of_samples, of_held_out = (_nearest(extract, pictures, rows, chunk) for pictures in (samples, held_out))
        auc = _auc_interval(of_samples.distance, of_held_out.distance, n_boot, seed)
        result[name] = {"auc": auc, "worst": _worst(of_samples)}
    settings = {name: len(pictures) for name, pictures in sets.items()}
    settings |= {"features": None if features is None else name_of(features), "side": side}
    return {**result, "settings": {**settings, "bootstrap": n_boot, "seed": seed}}


def small_lab(pictures: Pictures, side: int = 16) -> np.ndarray:
    """Lab colors of pictures averaged down to `side` by `side`: (N, 3 * side * side).

    Scaled so that the Euclidean distance of two rows is the root mean square of Delta-E over their pixels.
    """
    rows = []
    for pixels in pixel_batches(pictures, BATCH_SIZE):
        small = F.adaptive_avg_pool2d(pixels, side).permute(0, 2, 3, 1).numpy()
        rows.append(rgb2lab(small).reshape(len(small), -1) / side)
    return np.concatenate(rows)


def _rows(extract: Extract, pictures: Pictures, chunk: int, *, flip: bool = False) -> np.ndarray:
    """Features (N, D) float32, of `chunk` pictures at a time."""
    rows = []
    for start in range(0, len(pictures), chunk):
        part = [pictures[place] for place in range(start, min(start + chunk, len(pictures)))]
        rows.append(extracted(extract, [p[:, ::-1] for p in part] if flip else part).astype(np.float32))
    return np.concatenate(rows)


def _nearest(extract: Extract, pictures: Pictures, train: np.ndarray, chunk: int) -> Nearest:
    """The nearest of the training rows (T, D) to each picture or to its mirror image."""
    found = [_nearest_rows(_rows(extract, pictures, chunk, flip=flip), train, chunk) for flip in (False, True)]
    (plain, plain_place), (mirrored, mirrored_place) = found
    flipped = mirrored < plain
    return Nearest(np.minimum(plain, mirrored), np.where(flipped, mirrored_place, plain_place), flipped)


def _nearest_rows(rows: np.ndarray, train: np.ndarray, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    """Distance (N,) and place (N,) of the nearest training row to each row."""
    least = np.full(len(rows), np.inf)
    place = np.zeros(len(rows), int)
    for start in range(0, len(train), chunk):
        part = train[start : start + chunk]
        squared = (part**2).sum(1) - 2 * rows @ part.T  # less |row|^2, which is the same for all
        candidate = squared.argmin(1)
        value = np.take_along_axis(squared, candidate[:, None], 1)[:, 0]
        place = np.where(value < least, start + candidate, place)
        least = np.minimum(value, least)
    return np.linalg.norm(rows - train[place], axis=1), place  # from differences: exactly 0 for a copy


def _auc_interval(samples: np.ndarray, held_out: np.ndarray, n_boot: int, seed: int) -> dict[str, float]:
    rng = stream(seed, "memorisation")
    resamples = [_auc(rng.choice(samples, len(samples)), rng.choice(held_out, len(held_out))) for _ in range(n_boot)]
    low, high = np.percentile(resamples, [2.5, 97.5])
    return {"mean": _auc(samples, held_out), "low": float(low), "high": float(high)}


def _auc(samples: np.ndarray, held_out: np.ndarray) -> float:
    """P(sample > held-out) + P(equal) / 2."""
    ordered = np.sort(held_out)
    below = np.searchsorted(ordered, samples, "left") + np.searchsorted(ordered, samples, "right")
    return float(below.mean() / (2 * len(ordered)))


def _worst(nearest: Nearest) -> list[dict]:
    return [
        {
            "sample": int(sample),
            "train": int(nearest.place[sample]),
            "distance": float(nearest.distance[sample]),
            "flipped": bool(nearest.flipped[sample]),
        }
        for sample in np.argsort(nearest.distance, kind="stable")[:N_WORST]
    ]
