"""Near duplicates, on photographs that come with scikit-image."""

import io

import numpy as np
import PIL.Image
import pytest
from skimage import data

from mg_diffusion.data.fingerprints import MAX_DISTANCE, ROWS, candidates, fingerprint, near_pairs


PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle", "camera", "coins", "brick", "grass", "gravel")


def photograph(name: str) -> PIL.Image.Image:
    found = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    return PIL.Image.fromarray(found).convert("RGB")


def encoded(image: PIL.Image.Image, quality: int) -> PIL.Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return PIL.Image.open(file).convert("RGB")


def cropped(image: PIL.Image.Image, left: float, top: float, right: float, bottom: float) -> PIL.Image.Image:
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int(right * width), int(bottom * height)))


VARIANTS = {
    "resized": lambda image: image.resize((97, 131), PIL.Image.Resampling.BICUBIC),
    "encoded": lambda image: encoded(image, 30),
    "gray": lambda image: image.convert("L").convert("RGB"),
    "middle": lambda image: cropped(image, 0.025, 0.025, 0.975, 0.975),
    "mirrored": lambda image: image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored, resized and encoded": lambda image: encoded(
        image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).resize((120, 120)), 50
    ),
}


@pytest.fixture(scope="module")
def photographs():
    return [photograph(name) for name in PHOTOGRAPHS]


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_found_and_other_photographs_are_not(photographs, name):
    # Bricks, grass and gravel have no layout to hash: a crop of them is another picture.
    kept = photographs[:-3] if name == "middle" else photographs
    pairs = near_pairs([fingerprint(image) for image in [*kept, *map(VARIANTS[name], kept)]])
    assert {(pair.first, pair.second) for pair in pairs} == {(i, i + len(kept)) for i in range(len(kept))}
    assert {pair.is_mirrored for pair in pairs} == {"mirrored" in name}


def test_a_crop_of_a_corner_is_found(photographs):
    pairs = near_pairs([fingerprint(photographs[0]), fingerprint(cropped(photographs[0], 0.05, 0.05, 1, 1))])
    assert [(pair.first, pair.second) for pair in pairs] == [(0, 1)]


def test_plain_pictures_are_no_near_duplicates():
    prints = [fingerprint(PIL.Image.new("RGB", (40, 40), color)) for color in ("red", "blue", "gray")]
    assert near_pairs(prints) == []


def test_no_picture_has_no_pair():
    assert near_pairs([]) == []


def test_the_mirrored_hash_is_the_hash_of_the_mirror_image(photographs):
    for image in photographs:
        mirror = image.resize((256, 256)).transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        assert np.array_equal(fingerprint(image.resize((256, 256))).mirrored, fingerprint(mirror).bits)


def test_blocks_find_the_pairs_that_comparing_each_with_each_finds():
    rng = np.random.default_rng(0)
    images = [PIL.Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(ROWS + 80)]
    images[-20:] = images[:10] + images[ROWS : ROWS + 10]  # pairs across blocks, and within the second
    prints = [fingerprint(image.resize((32, 32))) for image in images]
    bits = np.array([one.bits for one in prints])
    mirrored = np.array([one.mirrored for one in prints])
    expected = {
        (int(i), int(j), is_mirrored)
        for others, is_mirrored in ((bits, False), (mirrored, True))
        for i, row in enumerate(bits)
        for j in np.nonzero((row != others).sum(1) <= MAX_DISTANCE)[0]
        if j > i
    }
    found = [
        (int(i), int(j), is_mirrored)
        for first, second, is_mirrored in candidates(prints)
        for i, j in zip(first, second, strict=True)
    ]
    assert set(found) == expected and len(found) == len(expected) > 0
    assert any(i < ROWS <= j for i, j, _ in found) and any(ROWS <= i for i, _, _ in found)
