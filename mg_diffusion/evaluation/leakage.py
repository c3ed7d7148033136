"""Leakage: one reference is swapped, the other two and the noise stay; how much does each attribute move?

Rows say what was swapped, columns which attribute moved. With separate control the diagonal is 1 and the rest 0. Nothing
here knows how the pictures were made: a driver hands in callables.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from mg_diffusion.granularities import GRANULARITIES

from .control import Generate, Triple, _check, _generate_all, reinhard_transfer
from .intervals import N_BOOT, interval_of, stream
from .metrics import Descriptor, Pictures, describe, distances


Case = tuple[Triple, Triple]  # what the base picture is made from, and what its references are swapped for
Make = Callable[[Sequence[Triple], int], Sequence[Descriptor]]

SWAPS = (*GRANULARITIES, "everything", "seed")  # in what a picture differs from the base picture
EVERYTHING, SEED = SWAPS.index("everything"), SWAPS.index("seed")


def random_cases(n: int, pool_size: int, seed: int) -> list[tuple[dict[str, int], dict[str, int]]]:
    """`n` reproducible pairs of triples, each of six different pictures of a pool."""
    size = 2 * len(GRANULARITIES)
    if pool_size < size:
        raise ValueError(f"a case needs a pool of at least {size} pictures, got {pool_size}.")
    rng = stream(seed, "cases")
    drawn = [rng.choice(pool_size, size, replace=False).reshape(2, -1).tolist() for _ in range(n)]
    return [tuple(dict(zip(GRANULARITIES, places, strict=True)) for places in pair) for pair in drawn]


def leakage_matrix(
    generate: Generate,
    pool: Pictures,
    cases: Sequence[Case],
    *,
    batch_size: int = 16,
    n_boot: int = N_BOOT,
    seed: int = 0,
    oracle: Callable[[Triple, int], np.ndarray] | None = None,
) -> dict:
    """Six pictures of each case: the base, one reference swapped (three times), all three swapped, and another seed.

    Args:
        generate: called as `generate(color=[...], texture=[...], shape=[...], seeds=[...])` with lists of equal length,
            at most `batch_size`; returns as many pictures. The same seed has to mean the same noise.
        pool: different pictures (H, W, 3) in [0, 1], all of the size of the outputs.
        cases: as from `random_cases`; different ones, because the intervals draw each on its own.
        seed: of the intervals and, counting up from it, of the outputs: one for each case, and one more for its floor.
        oracle: where the true answer is known, the picture of a triple and a seed; the reference line "oracle".

    Returns: figures as from `leakage_figures` under "method" and under each name of "reference_lines" ("reinhard": color
        by transfer, all else from the shape reference), and "settings"; ready for `write_json`.

    Raises:
        ValueError: for cases that are not six different places in the pool, and for what `generate` returns wrongly.
    """
    _check_cases(cases, len(pool))
    makers: dict[str, Make] = {
        "method": lambda jobs, first: _generate_all(generate, pool, jobs, batch_size, first),
        "reinhard": lambda jobs, first: [
            describe(reinhard_transfer(pool[job["shape"]], pool[job["color"]])) for job in jobs
        ],
    }
    if oracle is not None:
        makers["oracle"] = lambda jobs, first: [describe(oracle(job, first + at)) for at, job in enumerate(jobs)]
    between = _reference_distances(pool, cases)
    lines = {
        name: leakage_figures(_movement(make, cases, seed), between, n_boot=n_boot, seed=seed)
        for name, make in makers.items()
    }
    return {
        "method": lines.pop("method"),
        "reference_lines": lines,
        "settings": {"cases": len(cases), "pool": len(pool), "bootstrap": n_boot, "seed": seed},
    }


def leakage_figures(moved: np.ndarray, between: np.ndarray, *, n_boot: int = N_BOOT, seed: int = 0) -> dict:
    """Movements as shares of what they could be, in three ways, each a "matrix" with its "dominance".

    A share is a ratio of means over cases. The mean of the ratios of the cases would give the most weight to cases
    whose swap changes least, where the ratio is mostly noise, and has no bound: two references of nearly one color
    would outweigh all others.

    Args:
        moved: (cases, swaps, attributes), distances from the base picture in the order of `SWAPS`, `GRANULARITIES`.
        between: (cases, attributes), distances between the two references of an attribute.

    Returns figures {"mean", "low", "high"} (95 % bootstrap interval over cases) in "matrix"[swap][attribute] and in
        "dominance", the mean of the diagonal minus the mean of the six other cells of the granularities' rows:
        "by_everything": over what swapping everything moves. The noise is part of both, so the row "seed" is a floor.
        "above_floor": the same after subtracting that floor from both. Cells below it are negative.
        "by_references": over the distance between the references. To be read beside the ratios above, which do not
            tell a method that follows its references from one that follows them but a little, and which judge an
            attribute that no swap moves on purpose by its side effects.
        Where there is nothing to divide by (swapping everything moves no more than nothing, or than another seed does),
        a share is 0: what does not follow its references does not control separately either.
    """
    rows = np.concatenate([moved, between[:, None]], axis=1)  # one array, so that they are drawn together
    figure = partial(interval_of, rows=rows, n_boot=n_boot, seed=seed)
    return {
        name: {
            "matrix": {
                swap: {
                    attribute: figure(partial(_cell, name, SWAPS.index(swap), column))
                    for column, attribute in enumerate(GRANULARITIES)
                }
                for swap in swaps
            },
            "dominance": figure(partial(_dominance, name)),
        }
        for name, (swaps, _) in NORMALIZATIONS.items()
    }


def dominance(matrix: np.ndarray) -> float:
    """Mean of the diagonal minus mean of the rest, of (3, 3): 1 if control is separate, 0 if all cells are alike."""
    diagonal = np.eye(len(matrix), dtype=bool)
    return float(matrix[diagonal].mean() - matrix[~diagonal].mean())


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    whole = np.broadcast_to(whole, part.shape)
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


# Name -> the swaps that say something in it, and how mean movements (swaps, attributes) become shares.
NORMALIZATIONS: Mapping[str, tuple[tuple[str, ...], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = {
    "by_everything": ((*GRANULARITIES, "seed"), lambda moved, between: _share(moved, moved[EVERYTHING])),
    "above_floor": (
        GRANULARITIES,
        lambda moved, between: _share(moved - moved[SEED], moved[EVERYTHING] - moved[SEED]),
    ),
    "by_references": (SWAPS, lambda moved, between: _share(moved, between)),
}


def _shares(name: str, rows: np.ndarray) -> np.ndarray:
    *moved, between = rows.mean(0)
    return NORMALIZATIONS[name][1](np.stack(moved), between)


def _cell(name: str, row: int, column: int, rows: np.ndarray) -> float:
    return _shares(name, rows)[row, column]


def _dominance(name: str, rows: np.ndarray) -> float:
    return dominance(_shares(name, rows)[: len(GRANULARITIES)])


def _movement(make: Make, cases: Sequence[Case], seed: int) -> np.ndarray:
    """Distances (cases, swaps, attributes) between the base pictures and all others."""
    first = [triple for triple, _ in cases]
    jobs = {name: [{**a, name: b[name]} for a, b in cases] for name in GRANULARITIES}
    jobs |= {"everything": [triple for _, triple in cases], "seed": first}
    base = make(first, seed)
    moved = []
    for swap in SWAPS:
        others = make(jobs[swap], seed + len(cases) if swap == "seed" else seed)
        moved.append([_row(distances(*pair)) for pair in zip(base, others, strict=True)])
    return np.array(moved).swapaxes(0, 1)


def _reference_distances(pool: Pictures, cases: Sequence[Case]) -> np.ndarray:
    """Distances (cases, attributes) between the two references of each attribute."""
    described = {place: describe(pool[place]) for case in cases for triple in case for place in triple.values()}
    found = [[distances(described[a[name]], described[b[name]])[name] for name in GRANULARITIES] for a, b in cases]
    return np.array(found)


def _row(found: Mapping[str, float]) -> list[float]:
    return [found[name] for name in GRANULARITIES]


def _check_cases(cases: Sequence[Case], pool_size: int) -> None:
    triples = [triple for case in cases for triple in case]
    _check(triples, triples, pool_size, pool_size)
    for a, b in cases:
        if set(a.values()) & set(b.values()):
            raise ValueError(
                f"expected two triples of six different pictures, got {dict(a)} and {dict(b)}: a picture that stays "
                "in another role would count as movement of that role."
            )
