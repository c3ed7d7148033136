import numpy as np
import pytest
from scipy.ndimage import find_objects

from mg_diffusion.evaluation.masks import centered_hole, check_masks, random_masks


PICTURE = np.zeros((64, 48, 3))


@pytest.mark.parametrize("size", [(64, 64), (40, 96), (16, 16)])
def test_random_masks_cover_10_to_40_percent(size):
    masks = random_masks(60, size, seed=0)
    assert all(mask.dtype == bool and mask.shape == size for mask in masks)
    areas = [mask.mean() for mask in masks]
    assert 0.1 <= min(areas) < 0.15 and 0.35 < max(areas) <= 0.4


def test_random_masks_are_reproducible_and_different():
    first, again, other = (np.array(random_masks(8, (64, 64), seed)) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any(axis=(1, 2)).all()
    assert (first[:4] == random_masks(4, (64, 64), seed=0)).all()  # more masks leave the first as they were
    assert len({mask.tobytes() for mask in first}) == 8


def test_rectangles_and_strokes_take_turns():
    masks = random_masks(20, (64, 64), seed=0)
    filled = [mask[find_objects(mask.astype(int))[0]].mean() for mask in masks]  # of the bounding box
    assert set(filled[::2]) == {1.0}
    assert max(filled[1::2]) < 1


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (33, 51)])
def test_centered_hole(size):
    box, mask = centered_hole(size)
    side = round(5 / 8 * min(size))
    assert mask[box].shape == (side, side) and mask[box].all()
    assert mask.sum() == side**2
    for axis, length in enumerate(size):
        before, after = box[axis].start, length - box[axis].stop
        assert abs(before - after) <= 1


def test_small_pictures_are_refused():
    with pytest.raises(ValueError, match=r"sides of at least 16 pixels, got \(64, 15\)"):
        random_masks(1, (64, 15), seed=0)
    with pytest.raises(ValueError, match="a hole of 15 pixels .* sides of at least 26 pixels"):
        centered_hole((24, 64))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([], "one mask per picture, and at least one: got 1 pictures and 0 masks"),
        ([np.ones((48, 64), bool)], r"of its picture, \(64, 48\): got bool of shape \(48, 64\)"),
        ([np.ones((64, 48))], "a mask of booleans .* got float64"),
        ([np.ones((64, 48), bool)], "one that is all True"),
        ([np.zeros((64, 48), bool)], "one that is all False"),
    ],
)
def test_wrong_masks_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        check_masks([PICTURE], masks)
