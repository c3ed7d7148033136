"""The benchmarks of larger pictures: what is drawn and judged, and that the pages show the figures."""

import json

import numpy as np
import pytest
from skimage import data

from benchmarks.octaves import CANDIDATES, Judges, draw_crossings, ranked
from benchmarks.pages import DETAIL_PAGE, rewritten
from benchmarks.sizes import table as sizes_table
from mg_diffusion.model_card import octaves_table


@pytest.fixture(scope="module")
def photos():
    """Forty different squares of photographs, (64, 64, 3) in [0, 1]."""
    rng, whole = np.random.default_rng(0), (data.astronaut(), data.coffee(), data.chelsea(), data.rocket())
    cut = []
    for number in range(40):
        picture = whole[number % 4]
        top, left = (int(rng.integers(side - 128)) for side in picture.shape[:2])
        cut.append(picture[top : top + 128 : 2, left : left + 128 : 2] / 255)
    return cut


def test_crossings_are_of_different_photographs_and_the_same_by_seed():
    found = draw_crossings(40, None, 30, seed=0)
    assert found == draw_crossings(40, None, 30, seed=0) != draw_crossings(40, None, 30, seed=1)
    assert all(len({one.color, one.texture, one.shape}) == 3 for one in found)
    assert max(one.texture for one in draw_crossings(40, 5, 30, seed=0)) == 4


def test_ranks():
    assert ranked(1.0, [2.0, 3.0]) == (1.0, 1.0) and ranked(2.5, [2.0, 3.0]) == (0.0, 0.5)


def test_a_copy_of_the_shape_reference_is_found_by_shape_and_not_by_color(photos):
    crossings = draw_crossings(len(photos), None, 6, seed=0)
    judges = Judges(photos, photos, None, seed=0)
    figures = judges(crossings, [photos[one.shape] for one in crossings])
    assert figures["shape"] == {"nearest": 1.0, "pairwise": 1.0} and figures["color"]["nearest"] < 0.5
    assert figures["all three"] == 0 and "recognition" not in figures
    assert figures["sharpness"] == pytest.approx(1, abs=0.5)
    assert all(len(judges._candidates("color", one.color)) == CANDIDATES for one in crossings)


def test_tables_hold_all_rows():
    row = {name: {"nearest": 0.5, "pairwise": 0.75} for name in ("color", "texture", "shape")}
    row |= {"all three": 0.25, "sharpness": 0.9}
    tracks = {"photographs": {"size": 256, "methods": {"composition": row, "pipeline": row}}}
    text = octaves_table({"settings": {}, "tracks": tracks})
    assert (
        "| photographs, 256 px: pipeline | 0.50 / 0.75 | 0.50 / 0.75 | - | 0.50 / 0.75 | - | 0.25 | 0.90 | - | - |"
        in text
    )
    sizes = {
        "settings": {"threads": 2},
        "sizes": {"100": {"few": 2.0, "few, again": 1.0, "many": 4.0, "memory_mib": 700.4}},
    }
    assert "| 100 | 2.0 | 1.0 | 200 | 4.0 | 700 |" in sizes_table(sizes)


def test_the_page_shows_the_figures_of_the_repository(repository):
    """If this fails, run `python -m benchmarks.pages`."""
    page = DETAIL_PAGE.read_text(encoding="utf-8")
    assert rewritten(page, DETAIL_PAGE) == page
    found = json.loads((repository / "hub_cards" / "mg-bazaar" / "octaves.json").read_text(encoding="utf-8"))
    assert octaves_table(found) in (repository / "hub_cards" / "mg-bazaar" / "README.md").read_text(encoding="utf-8")
