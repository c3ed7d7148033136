"""Regions that a click, a color or a button selects, without the page."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest

from demo.selecting import GROWTH, MAX_TOLERANCE, SHOWN, grown, region_at, region_of


SIZE = (1600, 800)  # shown with 400 x 200


def photo(size=SIZE) -> PIL.Image.Image:
    """Two red discs and noise."""
    image = PIL.Image.new("RGB", size, "#c8c4b9")
    draw = PIL.ImageDraw.Draw(image)
    for middle in (400, 1200):
        draw.ellipse([middle - 200, 200, middle + 200, 600], fill="#be3c32")
    noise = np.random.default_rng(0).normal(0, 3, (size[1], size[0], 1))
    return PIL.Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def share(mask: PIL.Image.Image, box: tuple[int, int, int, int]) -> float:
    return float(np.asarray(mask.crop(box)).mean() / 255)


def test_a_click_selects_what_is_connected():
    mask = region_at(photo(), [100, 100], 20)  # the left disc
    assert mask.size == SIZE and set(np.unique(mask)) == {0, 255}
    assert share(mask, (300, 300, 500, 500)) > 0.99
    assert share(mask, (800, 0, 1600, 800)) == 0 and share(mask, (0, 0, 1600, 150)) == 0
    around = region_at(photo(), (5, 5), 20)
    assert share(around, (0, 0, 1600, 150)) > 0.99 and share(around, (300, 300, 500, 500)) == 0
    assert share(region_at(photo(), (5, 5), MAX_TOLERANCE), (0, 0, 1600, 150)) > 0.99


def test_the_last_pixel_that_is_shown_is_one():
    assert share(region_at(photo(), (SHOWN - 1, 199), 20), (1500, 700, 1600, 800)) > 0.99
    small = photo().resize((60, 30))
    assert region_at(small, (SHOWN - 1, 199), 20).size == (60, 30)


def test_a_color_selects_all_of_it():
    mask = region_of(photo(), "#be3c32", 20)
    assert mask.size == SIZE and set(np.unique(mask)) == {0, 255}
    assert min(share(mask, (middle - 100, 300, middle + 100, 500)) for middle in (400, 1200)) > 0.99
    assert share(mask, (0, 0, 1600, 150)) == 0


@pytest.mark.parametrize("size", [(100, 40), (1600, 1200)])
def test_a_mask_grows_on_all_sides(size):
    mask = PIL.Image.new("L", size)
    mask.paste(255, (40, 20, 60, 24))
    wide = max(1, round(GROWTH / 100 * max(size)))
    assert grown(mask).getbbox() == (40 - wide, max(0, 20 - wide), 60 + wide, min(size[1], 24 + wide))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: region_at(photo(), (400, 10), 20), "nothing at this place: the picture is shown with 400 x 200"),
        (lambda: region_at(photo(), (-1, 10), 20), "nothing at this place"),
        (lambda: region_at(photo(), None, 20), "nothing at this place"),
        (lambda: region_at(photo(), ["1", 2], 20), "nothing at this place"),
        (lambda: region_at(photo(), (1, 2, 3), 20), "nothing at this place"),
        (lambda: region_at(photo(), (float("nan"), 2), 20), "nothing at this place"),
        (lambda: region_at(photo(), (10, 10), 0), "The tolerance"),
        (lambda: region_at(photo(), (10, 10), None), "The tolerance"),
        (lambda: region_of(photo(), "#00ff00", 20), "No part of the picture is within 20 of #00ff00"),
        (lambda: region_of(photo(), "green", 20), "is no color"),
        (lambda: region_of(photo(), "#ff0000, #00ff00", 20), "Select one color"),
        (lambda: region_of(photo(), None, 20), "A palette is a short text"),
    ],
)
def test_what_cannot_be_selected_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call()
