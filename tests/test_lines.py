"""What a shape reference draws: lines and borders, but neither grain nor slow light."""

import pytest
import torch
from skimage import data

from mg_diffusion.adapter.layout import lay_out
from mg_diffusion.encoder.remembered import Remembered
from mg_diffusion.encoder.shape import ShapeBranch, default_backbone
from mg_diffusion.encoder.structure import LINE_FLOOR, lines
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab


def drawn(lightness: torch.Tensor) -> torch.Tensor:
    return lines(lightness[None, None])[0, 0]


def test_grain_and_slow_light_draw_nothing():
    noise = 3 * torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(20, 80, 64).expand(64, 64)
    assert not drawn(50 + noise).any() and not drawn(ramp).any()


@pytest.mark.parametrize("size", [(64, 64), (40, 90)])
def test_a_seam_is_drawn_where_it_is(size):
    seam = torch.full(size, 50.0)
    seam[:, 20:23] -= 20
    found = drawn(seam)
    assert (found[:, 21] < -5).all() and not found[:, 35:].any()
    torch.testing.assert_close(drawn(100 - seam), -found, atol=1e-4, rtol=0)


def test_a_border_of_regions_is_drawn_lighter_on_its_lighter_side():
    border = torch.full((64, 64), 30.0)
    border[:, 32:] = 70
    found = drawn(border)
    assert (found[:, 30] < -2).all() and (found[:, 33] > 2).all() and not found[:, :20].any()


def test_lines_of_a_photograph_are_few():
    lab = rgb_to_lab(torch.from_numpy(data.chelsea()[:256, :256] / 255).permute(2, 0, 1)[None].float())
    found = lines(lab[:, :1])
    assert 0.01 < (found != 0).float().mean() < 0.4 and found.abs().max() > LINE_FLOOR


def test_a_sketch_shows_them_in_the_colors_of_its_regions_and_outside_the_mask_nothing():
    lab = torch.zeros(1, 3, 64, 64)
    lab[:, 0], lab[:, 1, :, 32:] = 50, 40
    plain = ShapeBranch(default_backbone()).layout(lab, edge_preserving_smooth(lab), torch.ones(1, 1, 64, 64))
    lab[:, 0, :, 15:17] = 20
    mask = torch.ones(1, 1, 64, 64)
    mask[..., :32, :] = 0
    drawn = ShapeBranch(default_backbone()).layout(lab, edge_preserving_smooth(lab), mask)
    assert not drawn["layout_shading"][..., :32, :].any()
    assert (drawn["layout_shading"][..., 32:, 15:17] < -2).all()
    color = {"palette": torch.tensor([[[70.0, 0, 0], [30.0, 20, 20]]])}
    of_plain, of_drawn = (
        lay_out({"color": dict(color), "shape": one}, (64, 64), Remembered())["shape"]["sketch"][:, 0, 40:]
        for one in (plain, drawn)
    )
    darker = of_drawn[..., 15:17].mean() - of_drawn[..., 22:26].mean()
    assert darker < -1.5 and abs(of_plain[..., 15:17].mean() - of_plain[..., 22:26].mean()) < 0.5
