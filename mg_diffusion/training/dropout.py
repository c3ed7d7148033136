"""What a sample is to do without: references that are dropped, and what is masked to be repainted."""

import numpy as np
import torch

from .renderer import render_regions


def random_mask(rng: np.random.Generator, size: int, whole: float) -> torch.Tensor:
    """A region to repaint, (1, S, S) of 0 and 1: everything (with probability `whole`), a box, or rendered figures."""
    if rng.random() < whole:
        return torch.ones(1, size, size)
    mask = np.zeros((size, size), np.float32)
    if rng.random() < 0.5:
        height, width = rng.integers(size // 5, size, 2)
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        mask[top : top + height, left : left + width] = 1
    else:
        mask[render_regions(int(rng.integers(10**9)), size) > 0] = 1
    return torch.from_numpy(mask if mask.any() else np.ones_like(mask)).unsqueeze(0)


def random_presence(rng: np.random.Generator, kind: str) -> np.ndarray:
    """Condition dropout: which granularities a sample keeps, (3,) bool.

    Each is dropped on its own, so that every subset is seen. Crossed pictures always keep at least one: without any
    reference the model should paint photographs. These lose more: their own colors are seldom those of the sketch.
    """
    if kind == "photo" and rng.random() < 0.4:
        return np.zeros(3, bool)
    if rng.random() < 0.2:
        return np.arange(3) == rng.integers(3)
    present = rng.random(3) > (0.35 if kind == "photo" else 0.08)
    return present if present.any() or kind == "photo" else np.ones(3, bool)
