"""Rendered pictures whose color, texture and shape are known because each is drawn from a seed of its own."""

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.color import lab2rgb


SIDE = 64
DEVIATION = 9.0  # of the texture, in units of L


def render(color: int, texture: int, shape: int, phase: int = 0) -> np.ndarray:
    """A picture (64, 64, 3) in [0, 1]; `phase` moves the texture without changing its kind."""
    lab = palette(color)[regions(shape)]
    lab[..., 0] = (lab[..., 0] + DEVIATION * pattern(texture, phase)).clip(2, 98)
    return lab2rgb(lab).clip(0, 1)


def palette(seed: int) -> np.ndarray:
    """Three Lab colors, each at least 30 Delta-E from the others."""
    rng = np.random.default_rng([seed, 1])
    while True:
        colors = np.column_stack([rng.uniform(30, 80, 3), rng.uniform(-32, 32, (3, 2))])
        if min(np.linalg.norm(colors - np.roll(colors, 1, axis=0), axis=1)) > 30:
            return colors


def regions(seed: int) -> np.ndarray:
    """Labels 0 to 2: a disk and a bar, anywhere."""
    rng = np.random.default_rng([seed, 2])
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - rng.uniform(0.3, 0.7, (2, 1, 1))
    labels = (np.hypot(x, y) < rng.uniform(0.2, 0.4)).astype(int)
    angle = rng.uniform(0, np.pi)
    labels[np.abs(x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.2, 0.2)) < rng.uniform(0.06, 0.15)] = 2
    return labels


def pattern(seed: int, phase: int) -> np.ndarray:
    """Stripes, checks or grains of a random scale, with mean 0 and standard deviation 1."""
    rng, place = np.random.default_rng([seed, 3]), np.random.default_rng([seed, phase, 4])
    kind, angle, frequency = rng.integers(3), rng.uniform(0, np.pi), rng.uniform(0.8, 2.2)
    y, x = np.mgrid[:SIDE, :SIDE] + place.uniform(0, SIDE, (2, 1, 1))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if kind == 0:
        values = np.sin(frequency * along)
    elif kind == 1:
        values = np.sign(np.sin(frequency / 2 * along) * np.sin(frequency / 2 * across))
    else:
        values = gaussian_filter(place.standard_normal((SIDE, SIDE)), frequency - 0.6)
    return (values - values.mean()) / values.std()
