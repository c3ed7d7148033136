"""Each granularity on its own: what is not given is taken of what the base paints, and serves the one that is."""

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data
from skimage.color import rgb2lab

from mg_diffusion import MGPipeline
from mg_diffusion.adapter.sketch import LEAST_CONTRAST, SHADES, SLACK, with_contrast, with_shades, within
from mg_diffusion.encoder.texture import TILE


@pytest.fixture(scope="module")
def pipe():
    pipe = MGPipeline.from_pretrained("hub_cards/mg-bazaar")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def cat():
    return PIL.Image.fromarray(data.chelsea()).resize((128, 128))


def paint(pipe, references, **options):
    """Lab (128, 128, 3)."""
    options = {"height": 128, "width": 128, "num_inference_steps": 3, "num_detail_steps": 3, **options}
    made = pipe(reference_image=references, generator=torch.Generator().manual_seed(0), output_type="np", **options)
    return rgb2lab(made.images[0])


def likeness(made, reference):
    """Correlation of lightness."""
    return np.corrcoef(made[..., 0].ravel(), rgb2lab(np.asarray(reference))[..., 0].ravel())[0, 1]


def test_a_shape_alone_is_recognised_in_colors_of_the_base(pipe, cat):
    assert likeness(paint(pipe, {"shape": cat}), cat) > 0.6
    assert likeness(paint(pipe, {}), cat) < 0.4


def test_a_shape_without_its_colors_is_the_same_as_one_at_strength_0_of_color(pipe, cat):
    colors = {"color": ["#c81e1e", "#1e1ec8"], "shape": cat}
    off = paint(pipe, colors, granularity_scale={"color": 0.0})
    assert np.array_equal(off, paint(pipe, {"shape": cat}))


def test_half_the_strength_of_color_lies_between(pipe, cat):
    colors = {"color": ["#c81e1e", "#e0a0a0"], "shape": cat}
    off, half, whole = (paint(pipe, colors, granularity_scale={"color": scale}) for scale in (0.0, 0.5, 1.0))
    moved, least = (np.abs(one - off)[..., 1:].mean() for one in (whole, half))
    assert 0.25 * moved < least < 0.97 * moved


def test_a_color_alone_brings_its_colors(pipe):
    made = paint(pipe, {"color": ["#c81e1e", "#1e5ac8"]})
    red, blue = (np.linalg.norm(made[..., 1:] - rgb2lab(np.array(one) / 255)[1:], axis=-1) < 30 for one in COLORS)
    assert red.mean() > 0.15 and blue.mean() > 0.15


COLORS = ([200, 30, 30], [30, 90, 200])


def test_a_single_color_shows_the_shape_in_its_shades(pipe, cat):
    made = paint(pipe, {"color": ["#0a9396"], "shape": cat})
    assert likeness(made, cat) > 0.6 and made[..., 0].std() > 8
    wanted = rgb2lab(np.array([[10, 147, 150]]) / 255)[0, 1:]
    assert np.median(np.linalg.norm(made[..., 1:] - wanted, axis=-1)) < 12


def test_regions_are_left_as_they_are(pipe, cat):
    half = {"image": cat, "region": (0, 0, 0.5, 1)}
    assert np.isfinite(paint(pipe, {"shape": [half]})).all()


def test_shades_are_of_single_colors_alone():
    one, two = torch.tensor([[[50.0, 20, -30]]]).expand(1, 8, 3), torch.tensor([[50.0, 0, 0], [60.0, 0, 0]])[None]
    shades = with_shades(one)
    assert torch.equal(with_shades(two), two) and torch.equal(shades[..., 1:], one[..., 1:])
    assert (shades[..., 0].amax() - shades[..., 0].amin() - SHADES).abs() < 1e-3
    both = with_shades(torch.cat([one, two.repeat_interleave(4, 1)]))
    assert torch.equal(both[0], shades[0]) and torch.equal(both[1], two.repeat_interleave(4, 1)[0])


def test_a_palette_of_little_contrast_is_laid_with_more():
    gray = torch.cat([50 + 3 * torch.randn(1, 500, 1), torch.full((1, 500, 2), 2.0)], 2)
    wider = with_contrast(gray)
    assert abs(wider[..., 0].std() - LEAST_CONTRAST) < 0.1 and torch.equal(wider[..., 1:], gray[..., 1:])
    assert torch.equal(wider[..., 0].argsort(), gray[..., 0].argsort())
    rich = torch.cat([70 + 20 * torch.randn(1, 500, 1), gray[..., 1:]], 2)
    single = gray[:, :1].expand(-1, 500, -1)
    for left in (rich, single):
        assert torch.equal(with_contrast(left), left)


def test_a_gray_color_reference_still_shows_the_shape(pipe, cat):
    plain = (np.full((96, 96, 3), 170) + np.arange(96)[:, None, None] / 8).astype(np.uint8)
    made = paint(pipe, {"color": PIL.Image.fromarray(plain), "shape": cat})
    assert made[..., 0].std() > 8 and likeness(made, cat) > 0.6


def test_colors_of_a_sketch_stay_near_their_palette():
    palette, wild = torch.tensor([[[50.0, 10, 0], [60.0, 20, 5], [40.0, 12, -4]]]), torch.randn(1, 500, 3) * 80
    bounded = within(wild, palette)
    assert torch.equal(bounded[..., 0], wild[..., 0])
    nearest = torch.cdist(bounded[0, :, 1:], palette[0, :, 1:]).amin(1)
    assert nearest.max() < 10 + 2 * SLACK
    assert torch.allclose(within(palette, palette), palette, atol=1e-5)


@pytest.mark.parametrize(("side", "scale", "tile"), [(128, 1.0, 24), (256, 1.0, 24), (512, 1.0, 48), (256, 3.0, 72)])
def test_tiles_grow_with_the_texture(pipe, side, scale, tile):
    brick = {"image": PIL.Image.fromarray(data.brick()).convert("RGB"), "scale": scale}
    (features,) = pipe.encode_reference({"texture": brick}, side, side)["texture"]
    assert features["layout_tiles"].shape[2:] == (tile, tile) and TILE == 24


def test_textures_of_several_scales_are_mixed(pipe, cat):
    brick = PIL.Image.fromarray(data.brick()).convert("RGB")
    mixed = [{"image": brick, "scale": 4.0}, {"image": cat, "scale": 2.0}]
    (features,) = pipe.encode_reference({"texture": mixed}, 128, 128)["texture"]
    assert features["layout_tiles"].shape[2:] == (24, 24)
    rows = pipe.encode_reference({"texture": [[mixed[0]], [mixed[1]]]}, 128, 128, batch_size=2)["texture"]
    assert rows[0]["layout_tiles"].shape[0] == 2
