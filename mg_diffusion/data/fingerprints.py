"""Near duplicates: which pictures are the same one, resized, compressed, recolored, mirrored or slightly cropped.

Two stages. A perceptual hash of 63 bits finds candidates among all pairs; the gradients of thumbnails, laid over each
other at a few crops, confirm them. The hash alone takes t-shirts on one floor for the same picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import PIL.Image


SIDE = 32  # pixels of a side of the thumbnail
FREQUENCIES = 8  # in each direction; the constant one is left out
BITS = FREQUENCIES**2 - 1
MAX_DISTANCE = 12  # bits
MIN_SIMILARITY = 0.75
ROWS = 512  # of the matrix of distances at a time
CROP = 0.05  # of a side, the largest that is looked for


@dataclass(frozen=True)
class Fingerprint:
    """`bits` and `mirrored` are (63,) bool, of the picture and of its mirror image; `thumbnail` is (32, 32, 3) uint8."""

    bits: np.ndarray
    mirrored: np.ndarray
    thumbnail: np.ndarray


@dataclass(frozen=True)
class Near:
    """A pair of pictures by their positions, and the correlation of their gradients, up to 1."""

    first: int
    second: int
    is_mirrored: bool
    similarity: float


@cache
def cosines() -> np.ndarray:
    """(8, 32): the lowest frequencies of the orthogonal DCT-II."""
    waves = np.cos(np.pi / SIDE * np.outer(np.arange(FREQUENCIES), np.arange(SIDE) + 0.5))
    return waves * np.sqrt(2 / SIDE)


def fingerprint(image: PIL.Image.Image) -> Fingerprint:
    """The DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.

    Args:
        image: RGB, of any size.
    """
    thumbnail = image.resize(
        (SIDE, SIDE), PIL.Image.Resampling.BOX if min(image.size) >= SIDE else PIL.Image.Resampling.BICUBIC
    )
    gray = np.asarray(thumbnail.convert("L"), dtype=np.float32)
    waves = cosines() @ gray @ cosines().T
    # A mirror image has the same waves, the odd ones across with the other sign.
    pair = [(waves * signs).reshape(-1)[1:] for signs in (1, (-1) ** np.arange(FREQUENCIES))]
    bits, mirrored = (one > np.median(one) for one in pair)
    return Fingerprint(bits, mirrored, np.asarray(thumbnail))


@cache
def crops() -> list[tuple[np.ndarray, np.ndarray]]:
    """Matrices (32, 32) that sample rows and columns of parts of a thumbnail: all, its middle, its four corners."""
    whole, start, end = (0.0, 1.0), (0.0, 1 - CROP), (CROP, 1.0)
    middles = [(share, 1 - share) for share in (CROP / 2, CROP)]
    parts = [
        (whole, whole),
        *((span, span) for span in middles),
        *((y, x) for y in (start, end) for x in (start, end)),
    ]
    return [(sampling(*y), sampling(*x)) for y, x in parts]


@cache
def sampling(start: float, end: float) -> np.ndarray:
    """(32, 32): linear interpolation at the pixels of [start, end] of a side."""
    places = np.clip((start + (end - start) * (np.arange(SIDE) + 0.5) / SIDE) * SIDE - 0.5, 0, SIDE - 1)
    left = np.minimum(places.astype(int), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), left] = 1 - (places - left)
    matrix[np.arange(SIDE), left + 1] = places - left
    return matrix


def gradients(pictures: np.ndarray) -> np.ndarray:
    """(N, 32, 32, 3) to (N, D): differences of neighbors, of mean 0 and length 1 (0 for plain pictures)."""
    down, across = np.diff(pictures, axis=1)[:, :, 1:], np.diff(pictures, axis=2)[:, 1:]
    flat = np.concatenate([down, across], axis=-1).reshape(len(pictures), -1)
    flat = flat - flat.mean(1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(N,): how well pairs of thumbnails (N, 32, 32, 3) agree where one of them may be a crop of the other, up to 1."""
    first, second = first.astype(np.float32), second.astype(np.float32)
    best = np.full(len(first), -1.0)
    for part, other in ((first, gradients(second)), (second, gradients(first))):
        for rows, columns in crops():
            cropped = np.einsum("yi,nijc,xj->nyxc", rows, part, columns, optimize=True)
            best = np.maximum(best, (gradients(cropped) * other).sum(1))
    return best


def candidates(prints: Sequence[Fingerprint]) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of positions (first < second) whose hashes differ in at most `MAX_DISTANCE` bits, block by block."""
    # Of vectors of 1 and -1 a product of matrices counts equal bits, faster than XOR and a count in numpy.
    signs = np.array([one.bits for one in prints], np.float32) * 2 - 1
    mirrored = np.array([one.mirrored for one in prints], np.float32) * 2 - 1
    for start in range(0, len(prints), ROWS):
        for others, is_mirrored in ((signs, False), (mirrored, True)):
            agreement = signs[start : start + ROWS] @ others[start:].T
            first, second = np.nonzero(agreement >= BITS - 2 * MAX_DISTANCE)
            later = second > first
            yield first[later] + start, second[later] + start, is_mirrored


def near_pairs(prints: Sequence[Fingerprint]) -> list[Near]:
    """All near duplicates, the most similar first. Time grows with the square of the number, memory does not."""
    found: dict[tuple[int, int], Near] = {}
    if not prints:
        return []
    thumbnails = np.stack([one.thumbnail for one in prints])
    for firsts, seconds, is_mirrored in candidates(prints):
        for start in range(0, len(firsts), ROWS):
            first, second = firsts[start : start + ROWS], seconds[start : start + ROWS]
            others = thumbnails[second][:, :, ::-1] if is_mirrored else thumbnails[second]
            values = similarity(thumbnails[first], others)
            for index in np.nonzero(values >= MIN_SIMILARITY)[0]:
                pair = int(first[index]), int(second[index])
                near = Near(*pair, is_mirrored, round(float(values[index]), 3))
                found[pair] = max(found.get(pair, near), near, key=lambda one: one.similarity)
    return sorted(found.values(), key=lambda one: (-one.similarity, one.first, one.second))
