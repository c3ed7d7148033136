"""Separate control: does an output take its color, its texture and its shape each from the reference meant for it?

Every output is compared with its three references and with random distractors from a pool of pictures. A method that
copies one reference wins one granularity and loses the other two; only separate control wins all three ("joint").
Nothing here knows how the pictures were made: a driver hands in callables.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from skimage.color import lab2rgb, rgb2lab

from mg_diffusion.granularities import GRANULARITIES

from .intervals import interval, stream
from .metrics import Descriptor, Pictures, describe, distances


Triple = Mapping[str, int]  # {"color": i, "texture": j, "shape": k}: three different places in the pool
Generate = Callable[..., Pictures]


def random_triples(n: int, pool_size: int, seed: int) -> list[dict[str, int]]:
    """`n` reproducible triples of three different pictures of a pool."""
    if pool_size < len(GRANULARITIES):
        raise ValueError(f"a triple needs a pool of at least {len(GRANULARITIES)} pictures, got {pool_size}.")
    rng = stream(seed, "triples")
    drawn = [rng.choice(pool_size, len(GRANULARITIES), replace=False) for _ in range(n)]
    return [dict(zip(GRANULARITIES, places.tolist(), strict=True)) for places in drawn]


def measure_control(
    generate: Generate,
    pool: Pictures,
    triples: Sequence[Triple],
    *,
    outputs_per_triple: int = 1,
    batch_size: int = 16,
    n_candidates: int = 32,
    n_boot: int = 1000,
    seed: int = 0,
    oracle: Callable[[Triple], np.ndarray] | None = None,
) -> dict:
    """Generate from every triple and score the outputs, next to trivial methods scored by the same code.

    Args:
        generate: called as `generate(color=[...], texture=[...], shape=[...], seeds=[...])` with lists of equal length,
            at most `batch_size`; returns as many pictures.
        pool: at least `n_candidates` different pictures (H, W, 3) in [0, 1], all of the size of the outputs.
        triples: references, as from `random_triples`.
        outputs_per_triple: how often each triple is used, each time with another seed.
        oracle: where the true answer is known, the picture of a triple; scored as the reference line "oracle".
        seed: of the distractors, of the intervals and, counting up from it, of the outputs.

    Returns: figures as from `pairwise_control` under "method" and under each name of "reference_lines", "chance" (what
        guessing scores) and "settings"; ready for `write_json`.
    """
    jobs = [triple for triple in triples for _ in range(outputs_per_triple)]
    _check(jobs, jobs, len(pool), n_candidates)
    described = [describe(picture) for picture in pool]
    outputs = _generate_all(generate, pool, jobs, batch_size, seed)
    lines = {"method": outputs, **_reference_lines(pool, described, jobs, seed)}
    if oracle is not None:
        lines["oracle"] = [describe(oracle(job)) for job in jobs]
    scores = {
        name: pairwise_control(made, jobs, described, seed=seed, n_boot=n_boot, n_candidates=n_candidates)
        for name, made in lines.items()
    }
    return {
        "method": scores.pop("method"),
        "reference_lines": scores,
        "chance": chance(n_candidates),
        "settings": {
            "triples": len(triples),
            "outputs_per_triple": outputs_per_triple,
            "pool": len(pool),
            "candidates": n_candidates,
            "bootstrap": n_boot,
            "seed": seed,
        },
    }


def pairwise_control(
    outputs: Sequence[np.ndarray | Descriptor],
    references: Sequence[Triple],
    pool: Sequence[np.ndarray | Descriptor],
    seed: int = 0,
    n_boot: int = 1000,
    n_candidates: int = 32,
) -> dict:
    """Compare each output with its three references and `n_candidates - 3` random distractors from the pool.

    Returns {"mean", "low", "high"} (95 % bootstrap interval over triples) of these shares in [0, 1]; a tie counts as a
    random choice among the tied:
        "pairwise"[g]: a distractor is farther from the output than its own reference for g (two-alternative choice).
        "top1"[g]: of all candidates, the nearest is its own reference for g.
        "mrr"[g]: one over the rank of its own reference among all candidates (mean reciprocal rank).
        "leak"[g]: of all candidates, the nearest is one of the other two references.
        "joint": top-1 in all three granularities at once.
    """
    _check(outputs, references, len(pool), n_candidates)
    described = {}  # by place: a picture that is never a candidate costs nothing
    rng = stream(seed, "distractors")
    measured = np.empty((len(outputs), len(GRANULARITIES), n_candidates))
    for row, output, triple in zip(measured, outputs, references, strict=True):
        output = _descriptor(output)
        for column, place in enumerate(_candidates(triple, len(pool), n_candidates, rng)):
            if place not in described:
                described[place] = _descriptor(pool[place])
            found = distances(output, described[place])
            row[:, column] = [found[granularity] for granularity in GRANULARITIES]
    return _summarize(_scores(measured), references, n_boot, seed)


def chance(n_candidates: int = 32) -> dict:
    """What an output scores that knows nothing of its references: the shares of `pairwise_control` when guessing."""
    mrr = sum(1 / rank for rank in range(1, n_candidates + 1)) / n_candidates
    each = {"pairwise": 1 / 2, "top1": 1 / n_candidates, "mrr": mrr, "leak": 2 / n_candidates}
    spread = {name: dict.fromkeys(GRANULARITIES, share) for name, share in each.items()}
    return {**spread, "joint": n_candidates ** -len(GRANULARITIES)}


def reinhard_transfer(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`source` with the mean and deviation of each Lab channel of `target` (Reinhard et al. 2001, there in l-alpha-beta).

    The classical way to take color from one picture and shape from another. Pictures (H, W, 3) in [0, 1].
    """
    a, b = rgb2lab(source), rgb2lab(target)
    standard = (a - a.mean((0, 1))) / np.maximum(a.std((0, 1)), 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # colors outside sRGB are clipped, as they must be
        return lab2rgb(standard * b.std((0, 1)) + b.mean((0, 1))).clip(0, 1)


def write_json(path: str | Path, result: Mapping) -> None:
    """Write a result with sorted keys, so that two runs can be compared line by line."""
    Path(path).write_text(json.dumps(result, indent=2, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")


def _generate_all(
    generate: Generate, pool: Pictures, jobs: Sequence[Triple], batch_size: int, seed: int
) -> list[Descriptor]:
    outputs = []
    for start in range(0, len(jobs), batch_size):
        batch = jobs[start : start + batch_size]
        borrowed = {granularity: [pool[job[granularity]] for job in batch] for granularity in GRANULARITIES}
        made = generate(**borrowed, seeds=[seed + start + offset for offset in range(len(batch))])
        if len(made) != len(batch):
            raise ValueError(f"generate was asked for {len(batch)} pictures and returned {len(made)}.")
        if any(np.shape(picture) != np.shape(pool[0]) for picture in made):
            raise ValueError(f"generate has to return pictures of the shape of the pool's, {np.shape(pool[0])}.")
        outputs += [describe(picture) for picture in made]
    return outputs


def _reference_lines(
    pool: Pictures, described: Sequence[Descriptor], jobs: Sequence[Triple], seed: int
) -> dict[str, list[Descriptor]]:
    """The outputs of methods anyone could run: what the figures of a real method have to be held against."""
    places = stream(seed, "random picture").integers(len(pool), size=len(jobs))
    lines = {"random_picture": [described[place] for place in places]}
    for granularity in GRANULARITIES:
        lines[f"copy_{granularity}"] = [described[job[granularity]] for job in jobs]
    lines["reinhard"] = [describe(reinhard_transfer(pool[job["shape"]], pool[job["color"]])) for job in jobs]
    return lines


def _candidates(triple: Triple, pool_size: int, n_candidates: int, rng: np.random.Generator) -> list[int]:
    """Places in the pool: the references in the order of GRANULARITIES, then different distractors."""
    own = [triple[granularity] for granularity in GRANULARITIES]
    others = np.setdiff1d(np.arange(pool_size), own)
    return own + rng.choice(others, n_candidates - len(own), replace=False).tolist()


def _scores(measured: np.ndarray) -> dict[tuple[str, ...], np.ndarray]:
    """Shares (n,) of each output from its distances (n, granularities, candidates), references first."""
    scores = {}
    joint = np.ones(len(measured))
    for index, granularity in enumerate(GRANULARITIES):
        found = measured[:, index]
        own, distractors = found[:, index, None], found[:, len(GRANULARITIES) :]
        nearest = found == found.min(1, keepdims=True)
        nearest = nearest / nearest.sum(1, keepdims=True)
        top1 = nearest[:, index]
        scores["pairwise", granularity] = ((own < distractors) + 0.5 * (own == distractors)).mean(1)
        scores["top1", granularity] = top1
        ahead = (found < own).sum(1) + ((found == own).sum(1) - 1) / 2
        scores["mrr", granularity] = 1 / (1 + ahead)
        scores["leak", granularity] = nearest[:, : len(GRANULARITIES)].sum(1) - top1
        joint = joint * top1
    return {**scores, ("joint",): joint}


def _summarize(
    scores: Mapping[tuple[str, ...], np.ndarray], references: Sequence[Triple], n_boot: int, seed: int
) -> dict:
    """Means and intervals, nested by name. Outputs of one triple stand or fall together."""
    keys = [tuple(triple[granularity] for granularity in GRANULARITIES) for triple in references]
    result = {}
    for (name, *granularity), shares in scores.items():
        figure = interval(shares, keys, n_boot=n_boot, seed=seed)
        if granularity:
            result.setdefault(name, {})[granularity[0]] = figure
        else:
            result[name] = figure
    return result


def _descriptor(picture: np.ndarray | Descriptor) -> Descriptor:
    return picture if isinstance(picture, Descriptor) else describe(picture)


def _check(outputs: Sequence, references: Sequence[Triple], pool_size: int, n_candidates: int) -> None:
    if len(outputs) != len(references) or not len(outputs):
        raise ValueError(
            f"expected one triple of references per output, and at least one: got {len(outputs)} outputs and "
            f"{len(references)} triples."
        )
    if n_candidates <= len(GRANULARITIES) or n_candidates > pool_size:
        raise ValueError(
            f"expected n_candidates between {len(GRANULARITIES) + 1} and the size of the pool, {pool_size}: "
            f"got {n_candidates}. Enlarge the pool or lower n_candidates."
        )
    for triple in references:
        if set(triple) != set(GRANULARITIES):
            raise ValueError(f"expected a triple with the keys {GRANULARITIES}, got {tuple(triple)}.")
        if len(set(triple.values())) < len(GRANULARITIES) or not all(0 <= i < pool_size for i in triple.values()):
            raise ValueError(f"expected three different places in a pool of {pool_size} pictures, got {dict(triple)}.")
