"""What makes a crossed picture out of a sketch: clean regions under a texture."""

import pytest
import torch

from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.training import renderer
from mg_diffusion.training.composer import add_texture, flatten_regions, lab_to_rgb


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
