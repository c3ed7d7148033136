"""Crossed pictures have the colors of one reference, the borders of another, and nothing else."""

import numpy as np
import pytest
import torch

from mg_diffusion.modeling_mg_encoder import rgb_to_lab
from mg_diffusion.training import renderer
from mg_diffusion.training.composer import (
    add_texture,
    flatten_regions,
    lab_to_rgb,
    layout_axes,
    transfer_colors,
    turn_at_random,
    turn_to_layout,
)


def pixels(seed, size=32):
    """Lab pixels (N, 3) of a rendered picture."""
    rgb = torch.from_numpy(renderer.render(seed, seed, seed, size=size)).permute(2, 0, 1)[None].double()
    return rgb_to_lab(rgb)[0].flatten(1).T.numpy()


@pytest.mark.parametrize("seed", range(3))
def test_the_result_has_the_color_distribution_of_the_target(seed):
    source, target = pixels(seed), pixels(seed + 10)
    result = transfer_colors(turn_at_random(source, np.random.default_rng(seed)), target)
    np.testing.assert_allclose(result.mean(0), target.mean(0), atol=1e-9)
    others = np.linalg.qr(np.random.default_rng(99).standard_normal((3, 3)))[0]
    for axes in (np.eye(3), others):
        apart = np.abs(np.sort(result @ axes, 0) - np.sort(target @ axes, 0)).mean(0)
        before = np.abs(np.sort(source @ axes, 0) - np.sort(target @ axes, 0)).mean(0)
        assert apart.max() < 3 and apart.sum() < 0.3 * before.sum()


def test_the_transfer_is_a_function_of_its_arguments_and_the_turn_of_its_random_numbers():
    source, target = pixels(1), pixels(2)
    one, again, other = (turn_at_random(source, np.random.default_rng(seed)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(transfer_colors(one, target), transfer_colors(again, target))
    assert np.abs(transfer_colors(one, target) - transfer_colors(other, target)).max() > 1


@pytest.mark.parametrize("seed", range(5))
def test_regions_stay_regions(seed):
    """What is equal in the source stays together: a border is where there was one."""
    noise = np.random.default_rng(0).normal(0, 0.5, (2, 400, 3))
    region = np.repeat([0, 1], 200)
    source = np.array([[30.0, 20, 0], [70, -10, 30]])[region] + noise[0]
    target = np.array([[55.0, 60, 40], [40, 0, -50]])[np.tile([0, 1], 200)] + noise[1]
    result = transfer_colors(turn_at_random(source, np.random.default_rng(seed)), target)
    means = np.stack([result[region == index].mean(0) for index in (0, 1)])
    spread = max(result[region == index].std(0).max() for index in (0, 1))
    assert spread < 2 and np.linalg.norm(means[0] - means[1]) > 100


@pytest.mark.parametrize("inside, outside", [((90.0, 0, 0), (10.0, 0, 0)), ((10.0, 0, 0), (90.0, 0, 0))])
def test_turned_to_the_layout_the_middle_is_light_whatever_it_was(inside, outside):
    edges = torch.zeros(1, 1, 64, 64)
    edges[..., 20:44, 20], edges[..., 20:44, 43] = 1.0, 1.0
    edges[..., 20, 20:44], edges[..., 43, 20:44] = 1.0, 1.0
    middle = np.zeros((64, 64), bool)
    middle[21:43, 21:43] = True
    source = np.where(middle.reshape(-1, 1), inside, outside) + np.random.default_rng(0).normal(0, 0.1, (4096, 3))
    turned = turn_to_layout(source, layout_axes(edges)[0])
    assert turned.shape == (4096, 3)
    assert turned[middle.ravel(), 0].min() > turned[~middle.ravel(), 0].max()


def test_flattening_removes_grain_and_keeps_borders():
    lab = torch.zeros(1, 3, 32, 32)
    lab[:, 0] = 30
    lab[:, 0, :, 16:] = 70
    flat = flatten_regions(lab + torch.randn(lab.shape, generator=torch.Generator().manual_seed(0)))
    assert (flat - lab).abs().mean() < 0.4 and (flat[..., :15] - lab[..., :15]).abs().max() < 2


def test_lab_to_rgb_inverts_the_encoder_and_is_the_one_of_the_renderer():
    rgb = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lab = rgb_to_lab(rgb)
    torch.testing.assert_close(lab_to_rgb(lab), rgb, atol=1e-4, rtol=0)
    torch.testing.assert_close(lab_to_rgb(lab[0]), rgb[0], atol=1e-4, rtol=0)
    wild = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 300 - 100
    expected = torch.from_numpy(renderer.lab_to_rgb(wild.permute(1, 2, 0).numpy())).permute(2, 0, 1)
    torch.testing.assert_close(lab_to_rgb(wild), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("strength", [0.0, 1.0, 50.0])
def test_texture_changes_lightness_only_and_stays_in_range(strength):
    base = torch.tensor([50.0, 10.0, -10.0]).view(3, 1, 1).expand(3, 16, 16)
    canvas = strength * torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
    painted = add_texture(base, canvas)
    assert painted.min() >= 0 and painted.max() <= 1 and torch.isfinite(painted).all()
    assert torch.equal(base, torch.tensor([50.0, 10.0, -10.0]).view(3, 1, 1).expand(3, 16, 16))
    expected = torch.cat([(base[:1] + 10 * canvas).clamp(0, 100), base[1:]])
    torch.testing.assert_close(painted, lab_to_rgb(expected))
