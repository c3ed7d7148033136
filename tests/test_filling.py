"""Holes that are filled with what surrounds them, at the picture's own resolution."""

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data

from demo.references import reference
from mg_diffusion import edits
from mg_diffusion.evaluation.metrics import texture_distance
from mg_diffusion.filling import fill
from mg_diffusion.membrane import corrected
from mg_diffusion.patches import PatchLevel
from mg_diffusion.seams import spread


SIDE = 96


def photo(name: str, side: int = SIDE) -> np.ndarray:
    return np.asarray(reference(name).convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS))


def box(side: int = SIDE, size: int = 32) -> np.ndarray:
    mask = np.zeros((side, side), bool)
    first = (side - size) // 2
    mask[first : first + size, first : first + size] = True
    return mask


@pytest.mark.parametrize("name", ["cat", "coffee", "rocket"])
def test_nothing_outside_differs_and_nothing_under_the_mask_is_read(name):
    picture, mask = photo(name), box()
    hidden = picture.copy()
    hidden[mask] = 77
    filled, same = fill(picture, mask), fill(hidden, mask)
    assert np.array_equal(filled[~mask], picture[~mask]) and np.array_equal(filled, same)


def test_what_is_unknown_is_neither_read_nor_filled():
    picture, mask, unknown = photo("cat"), box(), np.zeros((SIDE, SIDE), bool)
    unknown[:, 70:] = True
    hidden = picture.copy()
    hidden[unknown] = 77
    filled, same = (fill(one, mask, unknown=unknown) for one in (picture, hidden))
    assert np.array_equal(filled[~mask], picture[~mask]) and np.array_equal(filled[mask], same[mask])
    assert not np.array_equal(fill(picture, mask)[mask], fill(hidden, mask)[mask])


def test_texture_goes_on():
    kept, mask = [], box(128, 48)
    for name in ("brick", "gravel", "grass", "fur"):
        picture = photo(name, 128)
        truth, made = (one[mask].reshape(48, 48, 3) for one in (picture, fill(picture, mask)))
        flat = np.full_like(truth, picture[~mask].mean().round())
        near, far = (texture_distance(one / 255, truth / 255) for one in (made, flat))
        assert near < 0.25 * far, name
        kept.append(np.divide(*(np.abs(np.diff(one.astype(float), axis=0)).mean() for one in (made, truth))))
    assert 0.75 < np.median(kept) < 1.3 and min(kept) > 0.4, kept


def test_a_clear_sky_goes_on_without_a_seam_or_a_tint():
    gradient = np.linspace(90, 210, SIDE)[:, None, None] + np.array([-40, 0, 30])
    noise = np.random.default_rng(0).normal(0, 1.5, (SIDE, SIDE, 3))
    sky, mask = (gradient + noise).round().clip(0, 255).astype(np.uint8), box()
    error = fill(sky, mask)[mask].astype(float) - sky[mask]
    assert np.abs(error.mean(0)).max() < 1.5 and np.sqrt((error**2).mean()) < 6


def test_a_sloped_sky_keeps_its_slope_whatever_lies_far_from_the_hole():
    """Patches of the same grain from a darker part of the sky take the light that the hole's edge has."""
    light = np.linspace(90, 200, SIDE)[:, None] * np.ones((1, SIDE))
    grain = np.random.default_rng(0).normal(0, 3, (SIDE, SIDE))
    sky = np.stack([0.7 * light, 0.85 * light, light], 2) + grain[..., None]
    picture, hole = sky.round().clip(0, 255).astype(np.uint8), box()
    made = fill(np.where(hole[..., None], 0, picture).astype(np.uint8), hole)
    rows = slice(SIDE // 3 + 2, 2 * SIDE // 3 - 2)
    found, truth = (one[rows, rows].mean((1, 2)) for one in (made.astype(float), sky))
    assert np.abs(found - truth).max() < 6
    assert 0.6 < made[rows, rows].std((1, 2)).mean() / picture[rows, rows].std((1, 2)).mean() < 1.5


def test_a_glow_at_the_edge_does_not_tint_what_is_far_from_it():
    picture = np.random.default_rng(0).normal(20, 4, (80, 300, 3))
    picture[:, 97:100] += (14, 4, 0)
    hole = np.zeros((80, 300), bool)
    hole[:, 100:] = True
    made = fill(picture.round().clip(0, 255).astype(np.uint8), hole)
    assert np.abs(made[:, 220:].mean((0, 1)) - 20).max() < 3


def test_a_slope_over_the_last_columns_does_not_go_on():
    picture = np.random.default_rng(0).normal(20, 4, (200, 260, 3))
    picture[:, 194:200, 0] += np.arange(6)
    hole = np.zeros((200, 260), bool)
    hole[:, 200:] = True
    made = fill(picture.round().clip(0, 255).astype(np.uint8), hole)
    assert made[:, 200:, 0].mean(0).max() < 27


def test_an_edge_goes_on_through_the_hole():
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    picture[:, SIDE // 2 :] = 220
    mask = box(size=24)
    made = fill(picture, mask)
    assert (np.abs(made.astype(int) - picture) > 40)[mask].mean() < 0.06


def test_what_the_picture_has_once_does_not_lie_in_an_outpainting_again(shipped):
    photo = PIL.Image.fromarray(data.moon()).resize((256, 256))
    seed = torch.Generator().manual_seed(0)
    made = np.asarray(edits.outpaint(shipped, photo, left=64, right=64, generator=seed)[0])
    added = np.concatenate([made[:, :64], made[:, -64:]], 1)
    assert (np.asarray(photo) > 170).mean() > 0.003  # the large crater
    assert (added > 170).mean() < 0.0005


def test_a_seed_is_a_filling_and_strokes_at_the_border_are_filled():
    picture, mask = photo("cat"), np.zeros((SIDE, SIDE), bool)
    mask[:6], mask[40:46], mask[:, -3:] = True, True, True
    first, again = fill(picture, mask, seed=1), fill(picture, mask, seed=1)
    assert np.array_equal(first, again)
    assert np.abs(first[mask].astype(float) - picture[mask]).mean() < 30


@pytest.mark.parametrize("size", [(17, 40), (40, 17), (33, 97)])
def test_sides_of_any_length(size):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    mask = np.zeros(size, bool)
    mask[4:9, 5:12] = True
    made = fill(picture, mask)
    assert made.shape == picture.shape and np.array_equal(made[~mask], picture[~mask])


def test_what_is_far_from_the_mask_is_not_read():
    picture, mask = photo("coffee", 256), np.zeros((256, 256), bool)
    mask[20:30, 20:30] = True
    other = picture.copy()
    other[128:] = 0
    assert np.array_equal(fill(picture, mask)[:100], fill(other, mask)[:100])
    assert not np.array_equal(fill(picture, mask, margin=8), fill(picture, mask))


def test_what_cannot_be_filled_is_refused():
    with pytest.raises(ValueError, match="empty: there is nothing to fill"):
        fill(photo("cat"), np.zeros((SIDE, SIDE), bool))
    mask = np.ones((SIDE, SIDE), bool)
    mask[:3] = False
    with pytest.raises(ValueError, match="too little of the picture is left.*Make the mask smaller"):
        fill(photo("cat"), mask)


def test_progress_rises_to_1_and_what_it_raises_stops_the_work():
    shares = []
    fill(photo("cat"), box(), step=shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)

    def stop(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(photo("cat"), box(), step=stop)


def test_search_only_comes_nearer():
    torch.manual_seed(0)
    hole = torch.zeros(40, 40, dtype=torch.bool)
    hole[15:25, 15:25] = True
    level, generator = PatchLevel(torch.rand(40, 40, 3), hole), torch.Generator().manual_seed(0)
    level.found = level.is_source.nonzero()[:1, 0].repeat(len(level.targets))
    level.search(generator, 0)
    before = level.errors.clone()
    level.search(generator, 40)
    assert (level.errors <= before + 1e-5).all() and level.errors.mean() < 0.98 * before.mean()
    assert level.is_source[level.found].all()


def test_a_correction_has_the_differences_that_are_asked_for():
    hole = torch.zeros(70, 53, dtype=torch.bool)
    hole[10:60, :40] = True
    hole[30:40, 10:20] = False
    wanted = torch.rand(3, 70, 53, generator=torch.Generator().manual_seed(0)) * hole
    found = corrected(wanted.diff(dim=2), wanted.diff(dim=1), hole)
    assert (found - wanted).norm() < 0.05 * wanted.norm() and not found[:, ~hole].any()
    assert not corrected(0 * wanted.diff(dim=2), 0 * wanted.diff(dim=1), hole).any()


def test_a_sky_of_two_lights_has_no_step_inside():
    """What goes on from the left is darker than what goes on from the right."""
    sky = np.full((SIDE, SIDE, 3), [90, 110, 160]) + 14.0 * (np.arange(SIDE) > SIDE / 2)[None, :, None]
    sky = (sky + np.random.default_rng(0).normal(0, 1, sky.shape)).round().clip(0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, 30:66] = True
    columns = fill(sky, mask).mean((0, 2))
    assert np.abs(np.diff(columns)).max() < 5 < np.ptp(columns)


def test_what_is_known_is_spread_smoothly():
    values, weight = torch.zeros(1, 1, 9, 13), torch.zeros(1, 1, 9, 13)
    values[..., 0], weight[..., 0] = 1.0, 1.0
    values[..., -1], weight[..., -1] = 3.0, 1.0
    found = spread(values, weight)
    assert torch.equal(found[..., 0], values[..., 0]) and torch.equal(found[..., -1], values[..., -1])
    assert 1 <= found.min() and found.max() <= 3 and (found[0, 0, 4].diff() > -0.2).all()


# -- remove and outpaint ------------------------------------------------------------------------------------------------
def test_each_picture_has_its_own_generator(shipped):
    picture, mask = PIL.Image.fromarray(photo("cat")), PIL.Image.fromarray(box().astype(np.uint8) * 255)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    both = edits.remove(shipped, picture, mask, num_images_per_prompt=2, generator=generators)
    (second,) = edits.remove(shipped, picture, mask, generator=torch.Generator().manual_seed(4))
    assert np.array_equal(both[1], second) and not np.array_equal(both[0], both[1])


def test_a_callback_hears_of_all_pictures(shipped):
    picture, mask = PIL.Image.fromarray(photo("cat")), PIL.Image.fromarray(box().astype(np.uint8) * 255)
    shares = []
    edits.remove(shipped, picture, mask, num_images_per_prompt=2, callback=shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1) and any(0.4 < one < 0.6 for one in shares)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding_mask_crop": -1}, "`padding_mask_crop` is a number of pixels, an integer of at least 0; got -1"),
        ({"padding_mask_crop": 2.0}, "`padding_mask_crop` is a number of pixels"),
        ({"padding_mask_crop": 1}, "too little of the picture is left"),
        ({"num_images_per_prompt": 0}, "must be a positive integer, got 0"),
        ({"generator": 7}, "must be a `torch.Generator"),
    ],
)
def test_options_that_cannot_be_are_refused(shipped, options, message):
    picture, mask = PIL.Image.fromarray(photo("cat")), PIL.Image.fromarray(box().astype(np.uint8) * 255)
    with pytest.raises(ValueError, match=message):
        edits.remove(shipped, picture, mask, **options)
