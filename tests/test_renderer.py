"""The renderer is the ground truth of separate control: its factors are exact, independent and repeatable."""

import numpy as np
import pytest
import torch

from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.training.renderer import compose, lab_to_rgb, render, render_palette, render_regions, render_texture


def test_same_seeds_give_the_same_picture():
    np.testing.assert_array_equal(render(1, 2, 3, phase=4, size=32), render(1, 2, 3, phase=4, size=32))


@pytest.mark.parametrize("changed", [{"color": 9}, {"texture": 9}, {"shape": 9}, {"phase": 9}])
def test_every_seed_changes_the_picture(changed):
    seeds = {"color": 1, "texture": 3, "shape": 3, "phase": 0}
    assert np.abs(render(**seeds, size=32) - render(**{**seeds, **changed}, size=32)).mean() > 0.01


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("amplitude", [0.0, 9.0, 60.0])
def test_pictures_are_float32_rgb_in_unit_range(size, amplitude):
    picture = render(5, 6, 7, size=size, amplitude=amplitude)
    assert picture.shape == (size, size, 3) and picture.dtype == np.float32
    assert np.isfinite(picture).all() and picture.min() >= 0 and picture.max() <= 1


@pytest.mark.parametrize("seed", range(12))
def test_factors_have_the_documented_ranges(seed):
    regions, texture, palette = render_regions(seed, 48), render_texture(seed, 0, 48), render_palette(seed)
    assert regions.shape == (48, 48) and regions.min() >= 0 and regions.max() <= 3 and len(np.unique(regions)) > 1
    assert texture.mean() == pytest.approx(0, abs=1e-6) and texture.std() == pytest.approx(1, abs=1e-4)
    distances = np.linalg.norm(palette[:, None] - palette[None], axis=-1)
    assert palette.shape == (4, 3) and distances[~np.eye(4, dtype=bool)].min() > 28


@pytest.mark.parametrize("seed", [9, 12, 5, 6, 1, 3, 0])  # one for each kind of texture
def test_another_phase_is_another_piece_that_keeps_color_and_shape(seed):
    one, other = render_texture(seed, 0, 128), render_texture(seed, 1, 128)
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.99
    plain = [render(2, seed, 5, phase=phase, amplitude=0.0) for phase in (0, 1)]
    np.testing.assert_array_equal(*plain)
    # Averaged over windows larger than the grain, only color and shape are left.
    pictures = [render(2, seed, 5, phase=phase, amplitude=4.0) for phase in (0, 1)]
    blocks = [picture.reshape(4, 16, 4, 16, 3).mean((1, 3)) for picture in (plain[0], *pictures)]
    assert np.abs(blocks[1] - blocks[2]).mean() < 0.02 and np.abs(blocks[1] - blocks[0]).mean() < 0.02


def test_without_texture_regions_have_exactly_their_palette_color_and_borders_a_mixture():
    palette, regions = render_palette(3), render_regions(4, 64)
    picture = compose(palette, np.zeros((64, 64)), regions)
    quads = regions.reshape(32, 2, 32, 2).transpose(0, 2, 1, 3).reshape(32, 32, 4)
    expected = lab_to_rgb(palette[quads].mean(2))
    whole = (quads == quads[..., :1]).all(-1)
    assert whole.any() and not whole.all() and set(np.unique(quads[whole])) == set(np.unique(regions))
    np.testing.assert_allclose(picture, expected, atol=1e-6)
    np.testing.assert_allclose(picture[whole], lab_to_rgb(palette[quads[whole][:, 0]]), atol=1e-6)


def test_the_lab_of_the_renderer_is_the_lab_of_the_encoder():
    rgb = np.random.default_rng(0).uniform(0.02, 0.98, (6, 7, 3))
    lab = rgb_to_lab(torch.from_numpy(rgb).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(lab_to_rgb(lab), rgb, atol=2e-3)
