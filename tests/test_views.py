"""The views are blind by construction: each sees its own granularity and next to nothing of the other two.

The renderer varies color, texture and shape one at a time; every variant has another piece of its texture, as two
photographs of one material have.
"""

import numpy as np
import pytest
import torch

from mg_diffusion.encoder.color import ColorBranch, color_view, draw_palette
from mg_diffusion.encoder.shape import shape_view
from mg_diffusion.encoder.structure import region_fields
from mg_diffusion.encoder.texture import TextureBranch, draw_tiles, texture_view
from mg_diffusion.encoder.views import di_zenzo_gradient, edge_preserving_smooth, gaussian_blur, rgb_to_lab
from mg_diffusion.granularities import GRANULARITIES
from mg_diffusion.training.renderer import render


PAIRS = 40


def all_views(rgb, mask=None):
    mask = torch.ones_like(rgb[:, :1]) if mask is None else mask
    lab = rgb_to_lab(rgb)
    smooth = edge_preserving_smooth(lab)
    return {
        "color": color_view(smooth, mask),
        "texture": texture_view(lab, smooth, mask),
        "shape": shape_view(smooth, mask),
    }


def descriptors(rgb, mask=None):
    """What each view holds, before anything is trained: histogram, Gram matrix of the Gabor bank, edges and regions."""
    views = all_views(rgb, mask)
    return {
        "color": ColorBranch(4).histogram(**views["color"]),
        "texture": TextureBranch(4).gram(views["texture"]["normalized"], views["texture"]["weight"]),
        "shape": torch.cat([views["shape"]["edges"], views["shape"]["structure"]], 1).flatten(1),
    }


def pictures(seeds, **kwargs):
    stack = [render(*(seed if isinstance(seed, tuple) else (seed,) * 3), **kwargs) for seed in seeds]
    return torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2)


def textured(height, width):
    """A figure on a ground, both with texture, of any size."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    figure = ((x**2 + y**2) < 0.4).float()
    colors = torch.tensor([[0.7, 0.3, 0.2], [0.2, 0.4, 0.6]]).view(2, 3, 1, 1)
    return (figure * colors[:1] + (1 - figure) * colors[1:] + 0.05 * torch.randn(1, 1, height, width)).clamp(0, 1)


@pytest.fixture(scope="module")
@torch.no_grad()
def movement():
    """{changed factor: {view: mean distance its descriptor moves, relative to changing all three}}."""
    variants = {
        "color": pictures([(2 * i + 1, 2 * i, 2 * i) for i in range(PAIRS)], phase=1),
        "texture": pictures([(2 * i, 2 * i + 1, 2 * i) for i in range(PAIRS)], phase=2),
        "shape": pictures([(2 * i, 2 * i, 2 * i + 1) for i in range(PAIRS)], phase=3),
        "all": pictures([2 * i + 1 for i in range(PAIRS)], phase=4),
    }
    base = descriptors(pictures([2 * i for i in range(PAIRS)]))
    moved = {}
    for name, rgb in variants.items():
        found = descriptors(rgb)
        moved[name] = {view: (found[view] - base[view]).norm(dim=1).mean().item() for view in GRANULARITIES}
    return {name: {view: moved[name][view] / moved["all"][view] for view in GRANULARITIES} for name in GRANULARITIES}


# -- blindness ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("view", GRANULARITIES)
def test_view_follows_its_own_factor_as_far_as_a_change_of_all_three(movement, view):
    assert movement[view][view] >= 0.8, movement


@pytest.mark.parametrize("view", GRANULARITIES)
@pytest.mark.parametrize("factor", GRANULARITIES)
def test_view_hardly_moves_with_another_factor(movement, factor, view):
    if factor != view:
        assert movement[factor][view] <= 0.3, movement


@pytest.mark.parametrize("places", [1, 64 * 10, 64 * 64])
def test_a_picture_is_smoothed_alike_in_strips_of_any_height(places, monkeypatch):
    lab = rgb_to_lab(pictures([1, 2]))
    smooth = edge_preserving_smooth(lab)
    monkeypatch.setattr("mg_diffusion.encoder.views.SMOOTHED_AT_ONCE", places)
    assert torch.equal(edge_preserving_smooth(lab), smooth)
    assert edge_preserving_smooth(lab[:0]).shape == (0, 3, 64, 64)


def test_color_features_do_not_know_the_order_of_the_points():
    view = color_view(edge_preserving_smooth(rgb_to_lab(pictures([1, 2]))), torch.rand(2, 1, 64, 64))
    order = torch.randperm(view["points"].shape[1])
    branch = ColorBranch(16)
    shuffled = branch(view["points"][:, order], view["weights"][:, order])
    torch.testing.assert_close(shuffled, branch(**view), rtol=0, atol=1e-5)


def test_color_features_do_not_know_where_the_colors_are():
    """A picture cut into quarters that are exchanged keeps its bag of colors but for what straddles the cuts."""
    rgb = pictures([3, 4])
    exchanged = rgb.roll((32, 32), (2, 3))
    found, moved = descriptors(rgb), descriptors(exchanged)
    other = descriptors(pictures([5, 6]))
    assert (moved["color"] - found["color"]).norm() < 0.15 * (other["color"] - found["color"]).norm()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda lab: lab * torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1), id="opposite hues"),
        pytest.param(lambda lab: lab[:, [0, 2, 1]], id="mirrored hues"),
        pytest.param(lambda lab: lab + torch.tensor([7.0, 0.0, 0.0]).view(1, 3, 1, 1), id="brighter"),
        pytest.param(lambda lab: lab + torch.tensor([0.0, 9.0, -5.0]).view(1, 3, 1, 1), id="tinted"),
        pytest.param(lambda lab: torch.cat([100 - lab[:, :1], lab[:, 1:]], 1), id="negative"),
    ],
)
def test_shape_is_unchanged_by_every_change_of_color_that_keeps_the_distances(change):
    lab = rgb_to_lab(pictures([7, 8]))
    mask = torch.ones_like(lab[:, :1])
    found, changed = (shape_view(edge_preserving_smooth(x), mask)["edges"] for x in (lab, change(lab)))
    torch.testing.assert_close(changed, found, rtol=0, atol=2e-3)


def test_texture_does_not_know_hue_brightness_or_contrast():
    """The texture view reads only lightness, of which it removes the level and most of the amplitude."""
    lab = rgb_to_lab(pictures([9, 10], amplitude=12.0))
    smooth = edge_preserving_smooth(lab)
    mask, bank = torch.ones_like(lab[:, :1]), TextureBranch(4)

    def gram(changed):
        view = texture_view(changed, smooth, mask)
        return bank.gram(view["normalized"], view["weight"])

    found = gram(lab)
    tinted = torch.cat([lab[:, :1], torch.randn_like(lab[:, 1:])], 1)
    torch.testing.assert_close(gram(tinted), found, rtol=0, atol=0)
    torch.testing.assert_close(gram(lab + 10.0), found, rtol=0, atol=1e-3)
    lower = torch.cat([0.6 * lab[:, :1], lab[:, 1:]], 1)
    assert (gram(lower) - found).norm() < 0.15 * found.norm()


def test_texture_view_evens_out_contrast_that_varies_over_the_picture():
    amplitude = torch.linspace(5, 15, 96).expand(1, 1, 64, 96)
    lab = torch.cat([50 + amplitude * torch.randn(1, 1, 64, 96), torch.zeros(1, 2, 64, 96)], 1)
    normalized = texture_view(lab, torch.full_like(lab, 50.0), torch.ones_like(lab[:, :1]))["normalized"]
    low, high = (part.std().item() for part in (normalized[..., :32], normalized[..., 64:]))
    assert low == pytest.approx(1, abs=0.2) and high == pytest.approx(1, abs=0.2)


def test_contrast_is_the_amplitude_of_the_texture():
    weak, strong = (all_views(pictures([(1, 9, 3)], amplitude=a))["texture"]["contrast"].item() for a in (4.0, 12.0))
    assert 2.0 < strong / weak < 3.2


# -- differentiable ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", GRANULARITIES)
def test_gradients_reach_the_picture(name):
    rgb = pictures([11, 12]).requires_grad_()
    weights = torch.randn_like(descriptors(rgb.detach())[name])
    (descriptors(rgb)[name] * weights).sum().backward()
    assert torch.isfinite(rgb.grad).all() and (rgb.grad.abs().amax((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("name", GRANULARITIES)
@pytest.mark.parametrize("level", [0.0, 0.04045, 0.5, 1.0])
def test_values_and_gradients_of_flat_pictures_are_finite(name, level):
    rgb = torch.full((1, 3, 32, 32), level, requires_grad=True)
    found = descriptors(rgb)[name]
    found.square().sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(rgb.grad).all()


def structure_of(rgb, mask=None):
    return all_views(rgb, mask)["shape"]["structure"]


def two_regions(inside, outside, size=64):
    """A box right of the middle in one color on a ground of another."""
    rgb = torch.tensor(outside).view(1, 3, 1, 1).repeat(1, 1, size, size)
    rgb[..., 14:50, 30:56] = torch.tensor(inside).view(1, 3, 1, 1)
    return rgb


@pytest.mark.parametrize("inside, outside", [((0.9, 0.9, 0.2), (0.1, 0.1, 0.3)), ((0.1, 0.4, 0.1), (0.9, 0.6, 0.9))])
def test_structure_is_the_same_whatever_the_colors_are(inside, outside):
    """Light on dark, dark on light, any hue: what lies on top has the same false color."""
    expected, found = (
        structure_of(two_regions((0.8, 0.3, 0.2), (0.2, 0.4, 0.6))),
        structure_of(two_regions(inside, outside)),
    )
    assert (found - expected).abs().mean() < 0.05 * expected.abs().mean()
    box, ground = found[..., 20:44, 36:50].mean((0, 2, 3)), found[..., :24].mean((0, 2, 3))
    assert (box - ground).norm() > 0.5


def test_structure_of_a_mirrored_picture_is_mirrored():
    rgb = textured(64, 64).roll(9, 3)
    torch.testing.assert_close(structure_of(rgb.flip(-1)), structure_of(rgb).flip(-1), atol=0.05, rtol=0)


def test_structure_knows_nothing_outside_the_mask():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 20:] = 1
    one, other = two_regions((0.8, 0.3, 0.2), (0.2, 0.4, 0.6)), two_regions((0.8, 0.3, 0.2), (0.2, 0.4, 0.6))
    other[..., :8] = 0.9
    found = structure_of(one, mask)
    assert found[..., :20].abs().max() == 0 and found[..., 20:].abs().max() > 0.3
    torch.testing.assert_close(structure_of(other, mask), found, atol=1e-3, rtol=0)


def test_a_palette_of_a_bag_has_its_colors_by_weight():
    points = torch.tensor([[[50.0, 0, 0], [20, 10, 5], [90, 0, -9]]])
    palette = draw_palette(points, torch.tensor([[0.5, 0.25, 0.25]]))
    assert palette.shape == (1, 256, 3)
    assert [int((palette[0] == color).all(1).sum()) for color in points[0]] == [128, 64, 64]
    bag = torch.randn(2, 256, 3)
    same = draw_palette(bag, torch.full((2, 256), 1 / 256))
    torch.testing.assert_close(same.sort(1).values, bag.sort(1).values)
    ramp = torch.linspace(0, 1, 256).view(1, 256, 1).expand(-1, -1, 3)
    part = draw_palette(ramp, torch.full((1, 256), 1 / 256))[:, 100:180, 0]
    assert part.mean() == pytest.approx(0.5, abs=0.02) and part.std() == pytest.approx(12**-0.5, abs=0.02)


def test_flat_pictures_have_no_edges_and_no_texture():
    views = all_views(torch.full((1, 3, 32, 32), 0.6))
    assert views["shape"]["edges"].abs().max() == 0 and views["shape"]["structure"].abs().max() < 1e-3
    assert views["texture"]["normalized"].abs().max() < 1e-3 and views["texture"]["detail"].abs().max() < 1e-3


# -- batches, sizes, masks ---------------------------------------------------------------------------------------------
def test_batched_equals_single():
    rgb, mask = pictures([13, 14, 15]), (torch.rand(3, 1, 64, 64) > 0.5).float()
    together, alone = all_views(rgb, mask), [all_views(rgb[i : i + 1], mask[i : i + 1]) for i in range(3)]
    for name, view in together.items():
        for key, value in view.items():
            single = torch.cat([views[name][key] for views in alone])
            torch.testing.assert_close(value, single, rtol=1e-4, atol=1e-4, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (96, 40), (24, 24), (24, 168), (25, 31)])
def test_any_size_and_aspect(size):
    rgb = textured(*size)
    views = all_views(rgb)
    points = -(-size[0] // 2) * -(-size[1] // 2)
    assert views["color"]["points"].shape == (1, points, 3)
    torch.testing.assert_close(views["color"]["weights"].sum(1), torch.ones(1))
    for key in ("normalized", "weight", "detail"):
        assert views["texture"][key].shape == (1, 1, *size)
    assert views["texture"]["contrast"].shape == (1, 1) and views["shape"]["edges"].shape == (1, 1, *size)
    assert views["shape"]["edges"].min() >= 0 and 0.5 < views["shape"]["edges"].max() <= 1 + 1e-5
    assert all(torch.isfinite(value).all() for view in views.values() for value in view.values())


@pytest.mark.parametrize("name", GRANULARITIES)
def test_what_is_far_outside_the_mask_does_not_matter(name):
    """The views look up to 28 pixels around a pixel (blurs, smoothing); further away the mask hides everything."""
    rgb, mask = pictures([16], size=96), torch.zeros(1, 1, 96, 96)
    mask[..., :40] = 1
    changed = rgb.clone()
    changed[..., 72:] = pictures([17], size=96)[..., 72:]
    found, other, whole = descriptors(rgb, mask)[name], descriptors(changed, mask)[name], descriptors(changed)[name]
    torch.testing.assert_close(other, found, rtol=0, atol=2e-3)
    assert (whole - found).norm() > 10 * (other - found).norm() + 0.01 * found.norm()


def test_the_border_of_a_mask_is_no_edge():
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 8:24, 8:24] = 1
    assert all_views(torch.full((1, 3, 32, 32), 0.3), mask)["shape"]["edges"].max() == 0


# -- parts -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rgb", "lab"),
    [
        ((0.0, 0.0, 0.0), (0, 0, 0)),
        ((1.0, 1.0, 1.0), (100, 0, 0)),
        ((1.0, 0.0, 0.0), (53.24, 80.09, 67.20)),
        ((0.0, 1.0, 0.0), (87.73, -86.18, 83.18)),
        ((0.0, 0.0, 1.0), (32.30, 79.19, -107.86)),
    ],
)
def test_lab_of_known_colors(rgb, lab):
    found = rgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1)).flatten()
    torch.testing.assert_close(found, torch.tensor(lab, dtype=torch.float32), rtol=0, atol=0.05)


def test_blur_keeps_constants_and_spreads_as_asked():
    torch.testing.assert_close(gaussian_blur(torch.full((1, 2, 9, 30), 3.0), 2.0), torch.full((1, 2, 9, 30), 3.0))
    spot = torch.zeros(1, 1, 41, 41)
    spot[..., 20, 20] = 1
    axis = torch.arange(41.0) - 20
    for dim in (2, 3):
        profile = gaussian_blur(spot, 3.0).sum(dim).flatten()
        assert (profile * axis**2).sum().sqrt().item() == pytest.approx(3.0, rel=0.03)


def test_gradient_of_a_ramp_is_its_slope_in_any_channel_and_direction():
    x = torch.arange(16.0).expand(16, 16)
    for channel in range(3):
        for ramp in (x, x.T):
            lab = torch.zeros(1, 3, 16, 16)
            lab[0, channel] = 2.5 * ramp
            torch.testing.assert_close(
                di_zenzo_gradient(lab)[..., 1:-1, 1:-1], torch.full((1, 1, 14, 14), 2.5), rtol=1e-3, atol=0
            )


def test_smoothing_removes_texture_and_keeps_the_edge():
    lab = torch.full((1, 3, 32, 32), 30.0)
    lab[..., 16:] = 80.0
    smooth = edge_preserving_smooth(lab + 4 * torch.randn(1, 1, 32, 32))
    away = torch.cat([smooth[..., 2:14] - 30, smooth[..., 18:30] - 80], 3)
    assert away.abs().mean() < 1.0 and (smooth[..., 17] - smooth[..., 14]).mean() > 40


def test_tiles_come_from_inside_the_mask_and_are_the_same_in_every_call():
    position = torch.arange(96.0).expand(1, 1, 48, 96)
    mask = torch.zeros_like(position)
    mask[..., :40] = 1
    tiles = draw_tiles(position, mask, num_tiles=10, mask=mask)
    assert tiles.shape == (1, 10, 24, 24) and tiles[:, :5].max() < 40
    assert torch.equal(tiles, draw_tiles(position, mask, num_tiles=10, mask=mask))
    other = draw_tiles(position, torch.ones_like(mask), 10, torch.Generator().manual_seed(1))
    assert not torch.equal(draw_tiles(position, torch.ones_like(mask), 10), other)


def test_any_part_of_the_tiles_is_like_any_other():
    """References that share the places lend the first, second, ... part of theirs."""
    weight = torch.linspace(0.05, 1, 64).expand(1, 1, 64, 64).contiguous()
    drawn = [draw_tiles(weight, weight, 64, torch.Generator().manual_seed(seed))[0] for seed in range(30)]
    means = torch.stack(drawn).mean((2, 3))
    assert (means[:, :32].mean() - means[:, 32:].mean()).abs() < 0.1 * means.std()


@pytest.mark.parametrize("num_tiles", [1, 16, 40])
def test_tiles_repeat_when_a_picture_has_fewer_places(num_tiles):
    tiles = draw_tiles(torch.randn(2, 1, 24, 32), torch.ones(2, 1, 24, 32), num_tiles)
    assert tiles.shape == (2, num_tiles, 24, 24)


def test_region_fields_are_alike_within_a_region_and_differ_between_regions():
    edges = torch.zeros(1, 1, 64, 64)
    edges[..., 20:44, 20], edges[..., 20:44, 43] = 1.0, 1.0
    edges[..., 20, 20:44], edges[..., 43, 20:44] = 1.0, 1.0
    fields = region_fields(edges, 8)
    inside, outside = fields[0, :, 12:20, 12:20].flatten(1), fields[0, :, :8].flatten(1)
    assert fields.shape == (1, 8, 32, 32)
    assert inside.std(1).max() < 0.1
    assert (inside.mean(1) - outside.mean(1)).abs().max() > 5 * inside.std(1).max()


def test_region_fields_pass_gradients_to_the_edges_and_take_any_size():
    edges = torch.rand(2, 1, 48, 80, requires_grad=True)
    fields = region_fields(edges, 3)
    fields.square().sum().backward()
    assert fields.shape == (2, 3, 24, 40)
    assert torch.isfinite(edges.grad).all() and edges.grad.abs().max() > 0
