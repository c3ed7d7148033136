"""Editing with references: does a hole take on the color, texture and shape of the references given for it?

Nothing here knows how the pictures were made: a driver hands in callables.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mg_diffusion.granularities import GRANULARITIES

from .control import Triple, _check, chance, pairwise_control
from .editing import Edit, edit_all, exactness, in_8_bits
from .intervals import N_BOOT, stream
from .masks import centered_hole
from .metrics import Descriptor, Pictures, color_features, describe, shape_features, texture_features


def random_edits(n: int, pool_size: int, seed: int) -> list[dict[str, int]]:
    """`n` reproducible edits: the places in a pool of four different pictures, "source" and one per granularity."""
    names = ("source", *GRANULARITIES)
    if pool_size < len(names):
        raise ValueError(f"an edit needs a pool of at least {len(names)} pictures, got {pool_size}.")
    rng = stream(seed, "edits")
    return [dict(zip(names, rng.choice(pool_size, len(names), replace=False).tolist(), strict=True)) for _ in range(n)]


def measure_hole_control(
    edit: Edit,
    pool: Pictures,
    edits: Sequence[Mapping[str, int]],
    *,
    granularities: Sequence[str] = GRANULARITIES,
    batch_size: int = 16,
    n_candidates: int = 32,
    n_boot: int = N_BOOT,
    seed: int = 0,
    oracle: Callable[[Triple], np.ndarray] | None = None,
) -> dict:
    """Does a hole take on the attributes of the references given for it, in place of those of the picture around it?

    The hole is a centered square, `masks.HOLE` of the shorter side; only its pixels are judged. A reference lends its
    color and texture as a whole, and its shape in place: shape is compared with what the reference has where the hole
    is, as in a pipeline whose shape reference covers the picture.

    Args:
        pool: at least `n_candidates` different pictures, all of one size.
        edits: as from `random_edits`. The source, rounded to 8 bits, is what is edited, and a possible distractor.
        granularities: those whose references are handed to `edit`, and that are judged.
        oracle: where the true answer is known, the whole picture of a triple; the reference line "oracle".
        seed: of the distractors, of the intervals and, counting up from it, of the outputs.

    Returns: under "method", and under each name of "reference_lines" ("source": the hole left as it was; "copy_...":
        the hole filled with that reference in place), the shares of `pairwise_control` for the given granularities
        ("joint" only if all are given); "exactness"; "chance"; "settings".

    Raises:
        ValueError: for wrong arguments, and for what `edit` returns wrongly.
    """
    _check_edits(edits, granularities, pool)
    triples = [{name: job[name] for name in GRANULARITIES} for job in edits]
    _check(edits, triples, len(pool), n_candidates)
    box, mask = centered_hole(np.shape(pool[0])[:2])
    candidates = [_descriptor_in_place(picture, box) for picture in pool]
    sources = [in_8_bits(pool[job["source"]]) for job in edits]
    masks = [mask] * len(edits)
    borrowed = {name: [pool[job[name]] for job in edits] for name in granularities}
    outputs = edit_all(edit, sources, masks, borrowed, batch_size, seed)
    filled = {"method": outputs, "source": sources}
    filled |= {f"copy_{name}": [pool[job[name]] for job in edits] for name in GRANULARITIES}
    if oracle is not None:
        filled["oracle"] = [oracle(triple) for triple in triples]
    scores = {}
    for name, pictures in filled.items():
        found = pairwise_control(
            [describe(picture[box]) for picture in pictures], triples, candidates, seed, n_boot, n_candidates
        )
        scores[name] = _only(found, granularities)
    return {
        "method": scores.pop("method"),
        "reference_lines": scores,
        "exactness": exactness(sources, outputs, masks),
        "chance": _only(chance(n_candidates), granularities),
        "settings": {
            "edits": len(edits),
            "granularities": list(granularities),
            "hole": [int(side) for side in np.shape(pool[0][box])[:2]],
            "pool": len(pool),
            "candidates": n_candidates,
            "bootstrap": n_boot,
            "seed": seed,
        },
    }


def _descriptor_in_place(picture: np.ndarray, box: tuple[slice, slice]) -> Descriptor:
    """Color and texture of the whole picture, shape of what lies in the box."""
    return Descriptor(color_features(picture), texture_features(picture), shape_features(picture[box]))


def _only(found: Mapping, granularities: Sequence[str]) -> dict:
    """The shares of the named granularities; "joint" says nothing unless all are named."""
    kept = {name: {key: row[key] for key in granularities} for name, row in found.items() if name != "joint"}
    return {**kept, "joint": found["joint"]} if set(granularities) == set(GRANULARITIES) else kept


def _check_edits(edits: Sequence[Mapping[str, int]], granularities: Sequence[str], pool: Pictures) -> None:
    known = set(granularities) <= set(GRANULARITIES) and len(set(granularities)) == len(granularities)
    if not known or not granularities:
        raise ValueError(f"expected some of the granularities {GRANULARITIES}, each once, got {tuple(granularities)}.")
    sizes = {np.shape(picture) for picture in pool}
    if len(sizes) != 1:
        raise ValueError(f"expected pictures of one size, got {sorted(sizes)}: crop or resize them first.")
    for job in edits:
        if set(job) != {"source", *GRANULARITIES}:
            raise ValueError(f"expected an edit with the keys {('source', *GRANULARITIES)}, got {tuple(job)}.")
        if job["source"] in [job[name] for name in GRANULARITIES] or not 0 <= job["source"] < len(pool):
            raise ValueError(
                f"expected a source in a pool of {len(pool)} pictures that is none of its references, got {dict(job)}."
            )
