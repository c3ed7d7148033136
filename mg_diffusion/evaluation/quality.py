"""How near a set of pictures is to real pictures: distances between two sets of features, with a real-versus-real floor.

Features are rows (N, D) from any callable that takes pictures (H, W, 3) in [0, 1]; `load_features` makes one from a file
of weights. A distance is named after its features and compares only with distances from the same features and the same
number of pictures.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .intervals import stream
from .metrics import Pictures
from .squeezenet import BATCH_SIZE, load_squeezenet, pixel_batches, pooled_features


N_HALVES = 200  # fewer resamples than elsewhere: each takes a singular value decomposition
N_PROJECTIONS = 128
INCEPTION_SIDE = 299
FEWEST = 4  # pictures of a set: a half of it still has a covariance

Extract = Callable[[Pictures], np.ndarray]


@dataclass(frozen=True)
class Features:
    """A callable pictures -> (N, D) that knows its name."""

    name: str
    extract: Extract

    def __call__(self, pictures: Pictures) -> np.ndarray:
        return self.extract(pictures)


def image_quality(
    samples: Pictures,
    real_a: Pictures,
    real_b: Pictures,
    reconstructions: Pictures | None,
    features: Extract,
    *,
    n_boot: int = N_HALVES,
    seed: int = 0,
) -> dict:
    """Distances of three sets of pictures from the real pictures `real_a`.

    Args:
        samples: generated pictures. All pictures are (H, W, 3) in [0, 1] and of one size.
        real_a, real_b: real pictures, none of them in both. `real_b` against `real_a` is the floor that no generator can
            be expected to go below.
        reconstructions: `real_b` through the autoencoder, or `None`. Not `real_a`: compared with their own originals,
            they would seem nearer than other real pictures.
        features: pictures -> (N, D); its attribute `name`, or else its `__name__`, goes into the result.

    Returns: under "samples", "reconstructions" (if any) and "real": {"frechet", "kernel", "sliced_wasserstein"}, each
        {"mean", "low", "high"}: the distance between all pictures and its 95 % interval. Then "features", their name,
        and "settings", where "pictures" is the number of pictures on each side of every distance. A Frechet distance
        grows as that number shrinks, so larger sets are cut to the smallest, by a draw that depends on `seed` alone.
    """
    sets = {"samples": samples, "reconstructions": reconstructions, "real": real_b, "reference": real_a}
    sets = {name: pictures for name, pictures in sets.items() if pictures is not None}
    _check_sets(sets)
    n = min(map(len, sets.values()))
    rows = {name: extracted(features, _drawn(pictures, n, seed, name)) for name, pictures in sets.items()}
    reference = rows.pop("reference")
    return {
        **{name: _figures(found, reference, n_boot, seed) for name, found in rows.items()},
        "features": name_of(features),
        "settings": {"pictures": n, "bootstrap": n_boot, "seed": seed},
    }


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance between Gaussians with the means and covariances of two sets of rows (N, D), (M, D).

    |mean difference|^2 + tr(A + B - 2 (A B)^(1/2)), covariances A and B unbiased. Biased upward, the more the fewer rows.
    The trace of the root is the sum of the singular values of the product of factors of A and B, which are the centered
    rows themselves: exact also for fewer rows than columns, where A and B are singular and `scipy.linalg.sqrtm` is not.
    Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium".
    """
    a, b = _checked_rows(a, b)
    factors = _covariance_factor(a), _covariance_factor(b)
    spread = sum(float((factor**2).sum()) for factor in factors)
    shared = float(np.linalg.svd(factors[0] @ factors[1].T, compute_uv=False).sum())
    return max(float(((a.mean(0) - b.mean(0)) ** 2).sum()) + spread - 2 * shared, 0.0)  # -1e-12 is rounding


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of two sets of rows (N, D), (M, D) for the kernel (x y / D + 1)^3.

    0 in the mean, whatever N and M, for sets from one distribution; it can therefore be negative.
    Binkowski et al. 2018, "Demystifying MMD GANs" (KID).
    """
    a, b = _checked_rows(a, b)
    return _mean_of_pairs(a) + _mean_of_pairs(b) - 2 * float(_kernel(a, b).mean())


def sliced_wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 distance of two sets of rows (N, D), (M, D), averaged over 128 fixed random directions.

    In units of the features. Bonneel et al. 2015, "Sliced and Radon Wasserstein barycenters of measures".
    """
    a, b = _checked_rows(a, b)
    directions = np.random.default_rng(0).standard_normal((N_PROJECTIONS, a.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    n = max(len(a), len(b))
    return float(np.abs(_quantiles(directions @ a.T, n) - _quantiles(directions @ b.T, n)).mean())


def load_features(path: str | Path) -> Features:
    """Features from a file of weights, named after the network.

    Args:
        path: `.safetensors` with SqueezeNet 1.1 (see `load_squeezenet`), or `.pt` or `.pth` with the state dict of
            torchvision's `inception_v3`, for which torchvision has to be installed. These are not the weights of
            published FID figures, which come from another Inception network.

    Raises:
        ValueError: if the file is missing or holds something else, or torchvision is needed and not installed.
    """
    if Path(path).suffix == ".safetensors":
        return Features("SqueezeNet-1.1", partial(pooled_features, load_squeezenet(path)))
    if Path(path).suffix in (".pt", ".pth"):
        return Features("Inception-v3", partial(_inception_features, _load_inception(path)))
    raise ValueError(
        f"expected weights of SqueezeNet 1.1 (.safetensors) or of torchvision's inception_v3 (.pt, .pth), "
        f"got {str(path)!r}."
    )


def extracted(features: Extract, pictures: Pictures) -> np.ndarray:
    """What `features` returns for the pictures, as (N, D) float64, or a ValueError if it is not that."""
    rows = np.asarray(features(pictures), np.float64)
    if rows.ndim != 2 or len(rows) != len(pictures) or not np.isfinite(rows).all():
        raise ValueError(
            f"expected features to turn {len(pictures)} pictures into finite rows ({len(pictures)}, D), got shape "
            f"{rows.shape}{'' if np.isfinite(rows).all() else ' with NaN or infinite values'} from {name_of(features)}."
        )
    return rows


def name_of(features: Extract) -> str:
    """The attribute `name` of a callable, or else its `__name__`, or that of its class."""
    return getattr(features, "name", None) or getattr(features, "__name__", type(features).__name__)


def _figures(a: np.ndarray, b: np.ndarray, n_boot: int, seed: int) -> dict[str, dict[str, float]]:
    statistics = {"frechet": frechet_distance, "kernel": kernel_distance, "sliced_wasserstein": sliced_wasserstein}
    figures = {name: _interval(statistic, a, b, n_boot, seed) for name, statistic in statistics.items()}
    for name in ("frechet", "sliced_wasserstein"):
        figures[name]["low"] = max(figures[name]["low"], 0.0)  # only the kernel distance can be negative
    return figures


def _interval(
    statistic: Callable[[np.ndarray, np.ndarray], float], a: np.ndarray, b: np.ndarray, n_boot: int, seed: int
) -> dict[str, float]:
    # A bootstrap with replacement repeats rows. Repeats make covariances look narrower and the rows of a set alike, so
    # that every draw lies above the distance it is meant to surround. Halves drawn without replacement have no repeats,
    # and a mean over half of the rows strays from that over all as far as the latter from the truth (the delete-half
    # jackknife: Shao and Wu 1989, "A general theory for jackknife variance estimation"). What halves do overstate, the
    # bias of fewer rows, is taken out by centering the resamples on the distance between all rows. Between sets from one
    # distribution, where distances are no longer linear in means, such an interval is wider than it need be.
    rng = stream(seed, "halves")
    value = statistic(a, b)
    resamples = np.array([statistic(_half(a, rng), _half(b, rng)) for _ in range(n_boot)])
    low, high = np.percentile(value + resamples - resamples.mean(), [2.5, 97.5])
    return {"mean": value, "low": float(low), "high": float(high)}


def _half(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.choice(len(rows), len(rows) // 2, replace=False)]


def _drawn(pictures: Pictures, n: int, seed: int, name: str) -> list[np.ndarray]:
    """`n` of the pictures, in their order."""
    places = stream(seed, f"{name} drawn").choice(len(pictures), n, replace=False)
    return [pictures[place] for place in np.sort(places)]


def _covariance_factor(rows: np.ndarray) -> np.ndarray:
    """X with X^T X the unbiased covariance (D, D) of rows (N, D); at most D rows."""
    centered = (rows - rows.mean(0)) / np.sqrt(len(rows) - 1)
    return np.linalg.qr(centered, mode="r") if len(rows) > rows.shape[1] else centered


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _mean_of_pairs(rows: np.ndarray) -> float:
    """The kernel averaged over pairs of two different rows."""
    values = _kernel(rows, rows)
    return float((values.sum() - np.trace(values)) / (len(rows) * (len(rows) - 1)))


def _quantiles(values: np.ndarray, n: int) -> np.ndarray:
    """n quantiles of each row; exact where n is a multiple of what there is."""
    if values.shape[1] == n:
        return np.sort(values)
    return np.quantile(values, (np.arange(n) + 0.5) / n, axis=1, method="inverted_cdf").T


def _load_inception(path: str | Path) -> torch.nn.Module:
    try:
        from torchvision.models import inception_v3
    except ImportError as error:
        raise ValueError(
            f"expected torchvision for the Inception-v3 weights in {str(path)!r}, but it is not installed: "
            "`pip install torchvision`, or give SqueezeNet 1.1 as a .safetensors file."
        ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        aux_logits = any(name.startswith("AuxLogits.") for name in state)
        net = inception_v3(weights=None, aux_logits=aux_logits, transform_input=False, init_weights=False)
        net.load_state_dict(state)
    except Exception as error:  # files that hold something else raise errors of any type
        raise ValueError(
            f"expected the state dict of torchvision's inception_v3, got {str(path)!r}: {str(error)[:200]}. "
            "Save one with torch.save(net.state_dict(), path)."
        ) from error
    net.fc = torch.nn.Identity()  # what goes into it, 2048 means over the picture, are the features
    return net.eval().requires_grad_(False)


@torch.no_grad()
def _inception_features(net: torch.nn.Module, pictures: Pictures) -> np.ndarray:
    """(N, 2048) from pictures resized bilinearly, with anti-aliasing, to the 299 pixels the network was trained on."""
    rows = []
    for pixels in pixel_batches(pictures, BATCH_SIZE):
        pixels = F.interpolate(pixels, size=(INCEPTION_SIDE, INCEPTION_SIDE), mode="bilinear", antialias=True)
        rows.append(net(2 * pixels - 1).numpy())
    return np.concatenate(rows)


def _check_sets(sets: dict[str, Pictures]) -> None:
    for name, pictures in sets.items():
        if len(pictures) < FEWEST:
            raise ValueError(f"expected at least {FEWEST} pictures in each set, got {len(pictures)} as {name}.")
    sizes = {name: np.shape(pictures[0]) for name, pictures in sets.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"expected pictures of one size, got {sizes}: features see how pictures were resized, so bring the real "
            "ones to the size of the samples first."
        )


def _checked_rows(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1:] != b.shape[1:] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"expected two arrays of features (N, D) and (M, D) with one D and at least 2 rows each, got shapes "
            f"{a.shape} and {b.shape}."
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("expected finite features, got NaN or infinite values: look for pictures that hold such.")
    return a, b
