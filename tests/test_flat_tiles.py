"""Of a texture reference's tiles those are laid that are nothing but texture."""

import pytest
import torch
from skimage import data

from mg_diffusion.encoder.texture import LAYOUT_TILES, TextureBranch
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab


@pytest.fixture(scope="module")
def branch() -> TextureBranch:
    return TextureBranch(16)


def grain(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def test_tiles_with_a_thing_in_them_are_left_out_and_the_others_keep_their_order(branch):
    tiles = 0.3 * grain(2, 12, 24, 24)
    tiles[0, ::2, 4:20, 11:13] = 2.0  # scratches
    tiles[1, 6:, 10:13, 3:21] = -2.0
    kept = branch.flattest(tiles, 6)
    assert torch.equal(kept[0], tiles[0, 1::2]) and torch.equal(kept[1], tiles[1, :6])


def test_contrast_alone_leaves_nothing_out(branch):
    """Weak tiles with things in them go, strong ones that are even stay."""
    tiles = grain(1, 12, 24, 24)
    tiles[0, ::2] *= 0.1
    tiles[0, ::2, 4:20, 11:13] += 0.8
    assert torch.equal(branch.flattest(tiles, 6)[0], tiles[0, 1::2])


def test_a_texture_keeps_all_that_is_in_it(branch, monkeypatch):
    """Bricks: their joints stand out, and are everywhere."""
    lab = torch.zeros(1, 3, 128, 128)
    lab[:, 0] = 60 + grain(128, 128)
    lab[:, 0, ::12] -= 20
    lab[:, 0, :, ::12] -= 20
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 128, 128))
    monkeypatch.setattr(branch, "flattest", None)
    assert branch.layout(*given)["layout_tiles"].shape == (1, LAYOUT_TILES, 24, 24)


def test_a_picture_of_things_is_laid_without_what_stands_out(branch, monkeypatch):
    photo = torch.from_numpy(data.astronaut()[:256, 100:356] / 255).permute(2, 0, 1)[None].float()
    lab = rgb_to_lab(photo)
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 256, 256))
    tiles = branch.layout(*given)["layout_tiles"]
    assert tiles.shape == (1, LAYOUT_TILES, 24, 24)
    monkeypatch.setattr("mg_diffusion.encoder.texture.THINGS", 1e9)
    every = branch.layout(*given)["layout_tiles"]
    assert tiles.abs().amax((2, 3)).mean() < 0.9 * every.abs().amax((2, 3)).mean()
