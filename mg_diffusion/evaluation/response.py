"""Sliders: does an attribute come nearer to its reference as the strength of that reference is turned up?

Nothing here knows how the pictures were made: a driver hands in a callable.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
from scipy.stats import spearmanr

from mg_diffusion.granularities import GRANULARITIES

from .control import Triple, _check, _generate_all
from .intervals import N_BOOT, interval
from .metrics import Pictures, describe, distances


STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def slider_response(
    generate: Callable[..., Pictures],
    pool: Pictures,
    triples: Sequence[Triple],
    *,
    strengths: Sequence[float] = STRENGTHS,
    batch_size: int = 16,
    n_boot: int = N_BOOT,
    seed: int = 0,
) -> dict:
    """Run the strength of each granularity while the other two stay at 1, with the same noise at every strength.

    Args:
        generate: called as `generate(color=[...], texture=[...], shape=[...], seeds=[...], scales={granularity: float})`
            with lists of equal length, at most `batch_size`; returns as many pictures.
        pool: at least 4 pictures (H, W, 3) in [0, 1], all of the size of the outputs.
        triples: references, as from `random_triples`.
        strengths: increasing from at least 0, three or more of them at most 1. Beyond 1 is extrapolation: it is part of
            the curve, but whether it rises or falls is not judged.
        seed: of the intervals and, counting up from it, of the outputs.

    Returns: under each granularity, and "settings":
        "curve": for each strength {"strength", "mean", "low", "high"} of the distance between the output and the
            reference in that granularity, with a 95 % bootstrap interval over triples.
        "spearman_of_mean": rank correlation of the strengths up to 1 with minus the mean curve, in [-1, 1]; 0 if the
            curve is flat. 1 says that it falls at each step, however little.
        "spearman": the same of the curve of each triple, its mean and interval.
        "monotone": whether the mean curve up to strength 1 never rises, and falls at least once.

    Raises:
        ValueError: for wrong strengths or triples, and for what `generate` returns wrongly.
    """
    _check(triples, triples, len(pool), len(pool))
    _check_strengths(strengths)
    references = {place: describe(pool[place]) for triple in triples for place in triple.values()}

    @cache  # all at 1 is asked for by each granularity
    def measured(*scales: float) -> np.ndarray:
        """Distances (triples, granularities) of the outputs at these scales to their references."""
        scaled = partial(generate, scales=dict(zip(GRANULARITIES, scales, strict=True)))
        outputs = _generate_all(scaled, pool, triples, batch_size, seed)
        return np.array(
            [
                [distances(output, references[triple[name]])[name] for name in GRANULARITIES]
                for output, triple in zip(outputs, triples, strict=True)
            ]
        )

    groups = [tuple(triple[name] for name in GRANULARITIES) for triple in triples]
    summarize = partial(interval, groups=groups, n_boot=n_boot, seed=seed)
    result = {}
    for index, granularity in enumerate(GRANULARITIES):
        rows = [np.where(np.arange(len(GRANULARITIES)) == index, strength, 1.0) for strength in strengths]
        found = np.stack([measured(*row.tolist())[:, index] for row in rows], axis=1)
        result[granularity] = response_figures(found, strengths, summarize)
    settings = {"triples": len(triples), "pool": len(pool), "bootstrap": n_boot, "seed": seed}
    return {**result, "settings": {**settings, "strengths": list(strengths)}}


def response_figures(
    found: np.ndarray, strengths: Sequence[float], summarize: Callable[[np.ndarray], dict[str, float]] = interval
) -> dict:
    """The figures of `slider_response` for one granularity, from distances (triples, strengths)."""
    judged = np.asarray(strengths) <= 1
    curve = [
        {"strength": float(strength), **summarize(column)} for strength, column in zip(strengths, found.T, strict=True)
    ]
    mean = np.array([point["mean"] for point in curve])[judged]
    within = np.asarray(strengths)[judged]
    return {
        "curve": curve,
        "spearman_of_mean": _rank_correlation(within, -mean),
        "spearman": summarize(np.array([_rank_correlation(within, -row) for row in found[:, judged]])),
        "monotone": bool((np.diff(mean) <= 0).all() and mean[-1] < mean[0]),
    }


def _rank_correlation(strengths: np.ndarray, nearness: np.ndarray) -> float:
    if np.ptp(nearness) == 0:
        return 0.0  # scipy says NaN: a slider without effect has no order
    return float(spearmanr(strengths, nearness).statistic)


def _check_strengths(strengths: Sequence[float]) -> None:
    values = np.asarray(strengths, float)
    rises = values.ndim == 1 and (np.diff(values) > 0).all()
    if not rises or (values < 0).any() or (values <= 1).sum() < 3:
        raise ValueError(
            f"expected increasing strengths of at least 0, three or more of them at most 1, got {strengths}: "
            f"use for example {STRENGTHS}."
        )
