"""How much outputs differ when only the seed does, next to how much real pictures differ from each other."""

from collections.abc import Sequence

import numpy as np

from .intervals import N_BOOT, interval
from .metrics import Pictures
from .quality import Extract, extracted


def diversity(
    outputs_by_references: Sequence[Pictures],
    real: Pictures,
    features: Extract,
    *,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict[str, float]:
    """Variance of features over seeds under fixed references, over their variance between real pictures.

    A method that ignores its seed, such as one that copies a reference, scores 0. One that ignores its references and
    draws real pictures at random scores 1, so 1 is no aim: references have to narrow what comes out. Noise can exceed it.

    Args:
        outputs_by_references: one group per set of references; in each, the outputs (H, W, 3) in [0, 1] of at least two
            seeds.
        real: at least two real pictures of the same size. They are taken as given: the interval does not include
            that others might have been drawn.
        features: pictures -> (N, D), as from `load_features`.

    Returns: {"mean", "low", "high"}, with a 95 % bootstrap interval over groups. Variances are unbiased traces of
        covariances; groups count alike, whatever their size.

    Raises:
        ValueError: if there is no group, a group has fewer than two outputs, or real pictures have no variance.
    """
    groups = [list(outputs) for outputs in outputs_by_references]
    if not groups or min(map(len, groups)) < 2:
        raise ValueError(
            f"expected at least one group of outputs, each of at least 2 seeds, got {len(groups)} groups of sizes "
            f"{[len(outputs) for outputs in groups]}."
        )
    between_real = _variance(extracted(features, real)) if len(real) > 1 else 0.0
    if not between_real > 0:
        raise ValueError(f"expected at least 2 different real pictures, got {len(real)} without any variance.")
    rows = extracted(features, [output for outputs in groups for output in outputs])
    ends = np.cumsum([len(outputs) for outputs in groups])
    within = [_variance(group) for group in np.split(rows, ends[:-1])]
    return interval(np.divide(within, between_real), n_boot=n_boot, seed=seed)


def _variance(rows: np.ndarray) -> float:
    """Trace of the unbiased covariance of rows (N, D)."""
    return float(rows.var(0, ddof=1).sum())
