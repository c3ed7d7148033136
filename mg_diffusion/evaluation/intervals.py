"""Means with 95 % bootstrap intervals, and the random numbers they are drawn with."""

from collections.abc import Callable, Sequence

import numpy as np


N_BOOT = 1000


def stream(seed: int, use: str) -> np.random.Generator:
    """Independent random numbers for each use of one seed, so that one draw does not depend on another."""
    return np.random.default_rng([seed, *use.encode()])


def interval(
    values: Sequence[float], groups: Sequence | None = None, *, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, float]:
    """Mean and percentile bootstrap interval: {"mean", "low", "high"}.

    Args:
        values: (n,) one per output.
        groups: n labels; outputs of one group (made from the same references) stand or fall together: they are
            averaged first, and groups are drawn, not outputs.
    """
    return interval_of(np.mean, _averaged(values, groups), n_boot=n_boot, seed=seed)


def interval_of(
    statistic: Callable[[np.ndarray], float], rows: np.ndarray, *, n_boot: int = N_BOOT, seed: int = 0
) -> dict[str, float]:
    """Any statistic of rows (n, ...) and its percentile bootstrap interval over rows, under "mean", "low", "high"."""
    rng = stream(seed, "bootstrap")
    resamples = [statistic(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(n_boot)]
    low, high = np.percentile(resamples, [2.5, 97.5])
    return {"mean": float(statistic(rows)), "low": float(low), "high": float(high)}


def _averaged(values: Sequence[float], groups: Sequence | None) -> np.ndarray:
    values = np.asarray(values, float)
    if not len(values):
        raise ValueError("expected at least one value to average, got none.")
    if groups is None:
        return values
    _, index = np.unique(np.asarray(groups), axis=0, return_inverse=True)
    index = index.reshape(-1)
    return np.bincount(index, weights=values) / np.bincount(index)
