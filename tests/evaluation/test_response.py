import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from mg_diffusion.evaluation.control import random_triples, write_json
from mg_diffusion.evaluation.response import STRENGTHS, response_figures, slider_response
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.renderer import render


SIDE = 32
TRIPLES = random_triples(4, 10, seed=0)


@pytest.fixture(scope="module")
def pool():
    return [render(place, place, place, size=SIDE) for place in range(10)]


def wipe(picture: np.ndarray, share: float) -> np.ndarray:
    """So many rows of the picture, gray below them: nearer to the picture in every attribute, the more there are."""
    result = np.full_like(picture, 0.5)
    rows = round(min(share, 1) * len(picture))
    result[:rows] = picture[:rows]
    return result


def slider(granularity, curve=lambda strength: strength):
    """A method that follows one reference as far as `curve` says, and ignores the other two."""

    def generate(seeds, scales, **references):
        return [wipe(picture, curve(scales[granularity])) for picture in references[granularity]]

    return generate


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_slider_moves_its_own_attribute_and_the_others_have_no_effect(pool, granularity):
    result = slider_response(slider(granularity), pool, TRIPLES, n_boot=20)
    for name in GRANULARITIES:
        own = name == granularity
        assert result[name]["monotone"] is own
        assert result[name]["spearman_of_mean"] == pytest.approx(float(own))
        assert result[name]["spearman"]["mean"] == pytest.approx(float(own), abs=0.1)
    means = [point["mean"] for point in result[granularity]["curve"]]
    assert means[0] > 0.1
    assert means[4:] == pytest.approx([0] * 3, abs=1e-5)  # a copy of the reference from strength 1 on


def test_inverted_slider_is_found(pool):
    found = slider_response(slider("color", lambda strength: 1 - strength), pool, TRIPLES, n_boot=20)["color"]
    assert found["spearman_of_mean"] == found["spearman"]["mean"] == pytest.approx(-1)
    assert found["monotone"] is False


def test_curve_goes_beyond_1_but_is_not_judged_there(pool):
    found = slider_response(slider("color", lambda s: s if s <= 1 else 0.1), pool, TRIPLES, n_boot=20)["color"]
    assert [point["strength"] for point in found["curve"]] == list(STRENGTHS)
    assert found["curve"][-1]["mean"] > found["curve"][4]["mean"] + 1
    assert found["spearman_of_mean"] == pytest.approx(1)
    assert found["monotone"] is True


def test_one_strength_runs_while_the_others_stay_at_1_with_the_same_noise(pool, tmp_path):
    calls = []

    def generate(color, texture, shape, seeds, scales):
        assert len(color) == len(texture) == len(shape) == len(seeds) <= 3
        calls.append((tuple(scales[name] for name in GRANULARITIES), tuple(seeds)))
        return color

    result = slider_response(generate, pool, TRIPLES, strengths=(0, 0.5, 1), batch_size=3, n_boot=20, seed=5)
    assert len(set(calls)) == len(calls)
    assert {scales for scales, _ in calls} == {
        (1, 1, 1), (0, 1, 1), (0.5, 1, 1), (1, 0, 1), (1, 0.5, 1), (1, 1, 0), (1, 1, 0.5),
    }  # fmt: skip
    assert {seeds for _, seeds in calls} == {(5, 6, 7), (8,)}
    assert result["settings"]["strengths"] == [0, 0.5, 1]
    write_json(tmp_path / "response.json", result)
    assert json.loads((tmp_path / "response.json").read_text()) == result


def test_outputs_of_one_triple_stand_or_fall_together(pool):
    once, often = (
        slider_response(slider("color"), pool, TRIPLES * times, strengths=(0, 0.5, 1), n_boot=200)["color"]
        for times in (1, 2)
    )
    assert once["curve"][1] == pytest.approx(often["curve"][1])


def test_figures_agree_with_scipy():
    found = np.random.default_rng(0).uniform(size=(20, 7))
    figures = response_figures(found, STRENGTHS)
    expected = spearmanr(STRENGTHS[:5], -found.mean(0)[:5]).statistic
    assert figures["spearman_of_mean"] == pytest.approx(expected)
    each = [spearmanr(STRENGTHS[:5], -row[:5]).statistic for row in found]
    assert figures["spearman"]["mean"] == pytest.approx(np.mean(each))
    assert [point["mean"] for point in figures["curve"]] == pytest.approx(found.mean(0))


@pytest.mark.parametrize(
    ("curve", "monotone"),
    [
        ([4, 3, 2, 1, 0], True),
        ([4, 3, 3, 1, 1], True),
        ([4, 2, 3, 1, 0], False),
        ([0, 1, 2, 3, 4], False),
        ([2, 2, 2, 2, 2], False),
    ],
)
def test_monotone_falls_and_never_rises(curve, monotone):
    assert response_figures(np.array([curve, curve]), STRENGTHS[:5])["monotone"] is monotone


@pytest.mark.parametrize("strengths", [(0, 1), (0, 0.5, 1.5), (1, 0.5, 0), (0, 0.5, 0.5), (-1, 0, 1), 1.0])
def test_wrong_strengths_are_refused(pool, strengths):
    with pytest.raises(ValueError, match="increasing strengths of at least 0, three or more of them at most 1"):
        slider_response(lambda **_: pytest.fail("generated"), pool, TRIPLES, strengths=strengths)


def test_wrong_triples_and_generators_are_refused(pool):
    with pytest.raises(ValueError, match="in a pool of 10 pictures"):
        slider_response(lambda **_: pytest.fail("generated"), pool, [{"color": 0, "texture": 1, "shape": 10}])
    with pytest.raises(ValueError, match="asked for 4 pictures and returned 0"):
        slider_response(lambda **_: [], pool, TRIPLES)
