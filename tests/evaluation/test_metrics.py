import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from skimage.color import lab2rgb, rgb2lab

from mg_diffusion.evaluation import metrics
from mg_diffusion.evaluation.metrics import color_distance, describe, distances, shape_distance, texture_distance
from mg_diffusion.granularities import GRANULARITIES

from . import DEVIATION, palette, pattern, regions, render


DISTANCES = {"color": color_distance, "texture": texture_distance, "shape": shape_distance}
PAIRS = 8


@pytest.fixture(scope="module")
def movement():
    """Mean distance (granularity -> changed factor -> distance) between renders; the phase always changes."""
    total = {
        granularity: dict.fromkeys((*GRANULARITIES, "nothing", "everything"), 0.0) for granularity in GRANULARITIES
    }
    for seed in range(PAIRS):
        factors = dict.fromkeys(GRANULARITIES, seed)
        other = {granularity: seed + 100 for granularity in GRANULARITIES}
        changes = {granularity: {**factors, granularity: seed + 100} for granularity in GRANULARITIES}
        changes |= {"nothing": factors, "everything": other}
        origin = describe(render(**factors))
        for change, changed in changes.items():
            for granularity, distance in distances(origin, describe(render(**changed, phase=1))).items():
                total[granularity][change] += distance / PAIRS
    return total


def shuffled(picture: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).permutation(picture.reshape(-1, 3)).reshape(picture.shape)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_distance_moves_with_its_own_factor_only(movement, granularity):
    moved = movement[granularity]
    assert 0.8 < moved[granularity] / moved["everything"] < 1.2
    for other in {*GRANULARITIES, "nothing"} - {granularity}:
        assert moved[other] / moved["everything"] < 0.3, other


@pytest.mark.parametrize("distance", DISTANCES.values())
def test_distance_is_zero_to_itself_symmetric_and_positive(distance):
    a, b = render(1, 2, 3), render(4, 5, 6)
    assert distance(a, a) == pytest.approx(0, abs=1e-6)
    assert distance(a, b) == pytest.approx(distance(b, a))
    assert distance(a, b) > 0.02


def test_descriptors_give_the_same_numbers():
    a, b = render(1, 2, 3), render(4, 5, 6)
    expected = {granularity: distance(a, b) for granularity, distance in DISTANCES.items()}
    assert distances(describe(a), describe(b)) == expected


def test_features_are_reproducible_and_leave_the_global_random_state_alone():
    picture = render(1, 2, 3)
    np.random.seed(0)
    state = np.random.get_state()[1].copy()
    first, second = describe(picture), describe(picture.astype(np.float64).copy())
    assert np.array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(first.color, second.color)
    np.testing.assert_array_equal(first.texture, second.texture)
    np.testing.assert_array_equal(first.shape.segments, second.shape.segments)


def test_color_is_blind_to_where_the_colors_are():
    picture = render(1, 2, 3)
    assert color_distance(picture, shuffled(picture)) == pytest.approx(0, abs=1e-5)


def test_color_compares_pictures_of_different_sizes():
    picture = render(1, 2, 3)
    assert color_distance(picture, picture.repeat(2, 0).repeat(3, 1)) < 0.1
    assert color_distance(picture, render(9, 2, 3)[:, :48]) > 3


def test_color_counts_delta_e():
    gray = np.full((32, 32, 3), 0.5)
    for shift in ([20, 0, 0], [0, 12, -16]):
        assert color_distance(gray, lab2rgb(rgb2lab(gray) + shift)) == pytest.approx(20 / 2, rel=0.1)


def test_color_agrees_with_scipy_along_each_direction():
    a, b = render(1, 2, 3), render(4, 5, 6)
    points = [rgb2lab(picture).reshape(-1, 3) for picture in (a, b)]
    exact = [wasserstein_distance(*(p @ direction for p in points)) for direction in metrics._directions()]
    assert color_distance(a, b) == pytest.approx(np.mean(exact), rel=0.01)


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.rot90])
def test_texture_is_blind_to_flips_and_quarter_turns(turn):
    for seed in range(4):
        picture = render(seed, seed, seed)
        assert texture_distance(picture, turn(picture)) < 0.02


def test_texture_is_nearly_blind_to_brightness_and_contrast():
    picture = render(1, 2, 3)
    different = texture_distance(picture, render(1, 4, 3))
    assert texture_distance(picture, 0.2 + 0.6 * picture) < 0.2 * different


def test_texture_notices_a_shuffle_that_color_ignores():
    picture = render(1, 0, 3)
    assert texture_distance(picture, shuffled(picture)) > 0.15


def test_shape_is_blind_to_which_region_has_which_color():
    for seed in range(4):
        lab = palette(seed)
        first, second = (lab2rgb(lab[order][regions(seed)]).clip(0, 1) for order in ([0, 1, 2], [2, 0, 1]))
        assert shape_distance(first, second) < 0.05
        assert color_distance(first, second) > 1


def test_shape_survives_a_texture_overlay():
    for seed in range(4):
        lab = palette(seed)[regions(seed)]
        flat = lab2rgb(lab).clip(0, 1)
        lab[..., 0] += DEVIATION * pattern(seed, 0)
        assert shape_distance(flat, lab2rgb(lab).clip(0, 1)) < 0.15


def test_shape_notices_a_flip():
    picture = render(1, 2, 3)
    assert shape_distance(picture, np.flipud(picture)) > 0.3


def test_shape_of_a_large_picture_is_that_of_the_reduced_one():
    small = [render(seed, seed, seed) for seed in (1, 2)]
    large = [picture.repeat(2, 0).repeat(2, 1) for picture in small]
    assert shape_distance(*large) == pytest.approx(shape_distance(*small), abs=0.05)


@pytest.mark.parametrize("deviation", [0.0, 0.02])
def test_flat_pictures_explain_and_are_explained_by_nothing(deviation):
    noise = np.random.default_rng(0).standard_normal((64, 64, 3))
    flat = (0.5 + deviation * noise).clip(0, 1)
    assert shape_distance(flat, flat) == 1
    assert shape_distance(flat, render(1, 2, 3)) == 1


def test_picture_of_two_colors_has_a_shape():
    halves = np.zeros((64, 64, 3))
    halves[:, 32:] = 1
    assert shape_distance(halves, 1 - halves) < 0.01
    assert shape_distance(halves, np.rot90(halves)) > 0.9


@pytest.mark.parametrize("distance", DISTANCES.values())
@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((64, 64)), r"shape \(height, width, 3\), got an array of shape \(64, 64\)"),
        (np.zeros((1, 64, 64, 3)), r"one RGB picture"),
        (np.zeros((3, 64, 64)), r"one RGB picture"),
        (np.zeros((64, 64, 3), np.uint8), r"got uint8: divide 8-bit pictures by 255"),
        (np.zeros((8, 64, 3)), r"sides of at least 16 pixels, got \(8, 64\)"),
        (np.full((64, 64, 3), np.nan), r"NaN or infinite"),
        (np.full((64, 64, 3), 1.5), r"values in \[0, 1\], got 1.5 to 1.5: rescale or clip"),
        (np.full((64, 64, 3), -1.0), r"values in \[0, 1\], got -1 to -1"),
    ],
)
def test_wrong_pictures_are_refused(distance, picture, message):
    good = np.zeros((64, 64, 3))
    for pair in ((picture, good), (good, picture)):
        with pytest.raises(ValueError, match=message):
            distance(*pair)


def test_shape_of_different_sizes_is_refused():
    with pytest.raises(ValueError, match=r"\(64, 64\) and \(64, 48\) \(height, width\): resize or crop"):
        shape_distance(render(1, 2, 3), render(1, 2, 3)[:, :48])
