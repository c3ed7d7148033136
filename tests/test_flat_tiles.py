"""Of a texture reference's tiles those are laid that are nothing but texture."""

import pytest
import torch
from skimage import data

from mg_diffusion.encoder.texture import FEWEST, LAYOUT_TILES, TextureBranch, flattest, picked, stronger_texture
from mg_diffusion.encoder.views import edge_preserving_smooth, rgb_to_lab


@pytest.fixture(scope="module")
def branch() -> TextureBranch:
    return TextureBranch(16)


def grain(*size: int) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(0))


def flat(branch: TextureBranch, tiles: torch.Tensor, count: int, among: torch.Tensor | None = None) -> torch.Tensor:
    response = branch._responses(tiles)
    peak = (response.amax((3, 4)) / (response.mean((3, 4)) + 0.02)).mean(2)
    among = torch.ones(tiles.shape[:2], dtype=torch.bool) if among is None else among
    return picked(tiles, flattest(peak, among, count))


def test_tiles_with_a_thing_in_them_are_left_out_and_the_others_keep_their_order(branch):
    tiles = 0.3 * grain(2, 12, 24, 24)
    tiles[0, ::2, 4:20, 11:13] = 2.0  # scratches
    tiles[1, 6:, 10:13, 3:21] = -2.0
    kept = flat(branch, tiles, 6)
    assert torch.equal(kept[0], tiles[0, 1::2]) and torch.equal(kept[1], tiles[1, :6])


def test_contrast_alone_leaves_nothing_out(branch):
    """Weak tiles with things in them go, strong ones that are even stay."""
    tiles = grain(1, 12, 24, 24)
    tiles[0, ::2] *= 0.1
    tiles[0, ::2, 4:20, 11:13] += 0.8
    assert torch.equal(flat(branch, tiles, 6)[0], tiles[0, 1::2])


def test_a_texture_keeps_all_that_is_in_it(branch, monkeypatch):
    """Bricks: their joints stand out, and are everywhere."""
    lab = torch.zeros(1, 3, 128, 128)
    lab[:, 0] = 60 + grain(128, 128)
    lab[:, 0, ::12] -= 20
    lab[:, 0, :, ::12] -= 20
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 128, 128))
    monkeypatch.setattr("mg_diffusion.encoder.texture.flattest", None)
    assert branch.layout(*given)["layout_tiles"].shape == (1, LAYOUT_TILES, 24, 24)


def test_a_picture_of_things_is_laid_without_what_stands_out(branch, monkeypatch):
    photo = torch.from_numpy(data.astronaut()[:256, 100:356] / 255).permute(2, 0, 1)[None].float()
    lab = rgb_to_lab(photo)
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 256, 256))
    tiles = branch.layout(*given)["layout_tiles"]
    assert tiles.shape == (1, LAYOUT_TILES, 24, 24)
    monkeypatch.setattr("mg_diffusion.encoder.texture.THINGS", 1e9)
    all_of_it = branch.layout(*given)["layout_tiles"]
    assert tiles.abs().amax((2, 3)).mean() < 0.9 * all_of_it.abs().amax((2, 3)).mean()


def test_of_two_textures_the_stronger_is_the_one(branch):
    """A knitted sweater on a wall: picture by picture, whatever the others of a batch are."""
    tiles = grain(3, 40, 24, 24)
    tiles[0, 8:] *= 0.1
    tiles[1] *= torch.linspace(1, 2, 40)[:, None, None]
    tiles[2, 2:] *= 0.1  # a button is no texture
    chosen = stronger_texture(tiles)
    assert torch.equal(chosen[0], torch.arange(40) < 8)
    assert chosen[1:].all()
    kept = flat(branch, tiles, 10, chosen)
    assert torch.equal(kept[0, :4], kept[0, 4:8]) and torch.equal(
        kept[0, :2], kept[0, 8:]
    )  # taken again from the first on
    assert {tile.sum().item() for tile in kept[0]} <= {tile.sum().item() for tile in tiles[0, :8]}


def test_tiles_that_are_all_alike_are_all_the_texture():
    assert stronger_texture(torch.zeros(2, 5, 24, 24)).all()


def test_a_canvas_has_no_scraps_of_another_texture(branch):
    """Knitted below, a wall above."""
    lab = torch.zeros(1, 3, 256, 256)
    lab[:, 0] = 60 + 0.5 * grain(256, 256)
    rows = torch.arange(256, dtype=torch.float32)
    lab[:, 0, 128:] += 8 * torch.sin(rows / 2)[None, :] * torch.sin(rows[128:, None] / 3)
    laid = branch.layout(lab, edge_preserving_smooth(lab), torch.ones(1, 1, 256, 256))["layout_tiles"]
    assert laid.shape == (1, LAYOUT_TILES, 24, 24)
    assert laid.std((2, 3)).min() > 0.5 * laid.std((2, 3)).max()


def test_what_is_stronger_and_not_the_same_everywhere_is_no_texture(branch, monkeypatch):
    """The rims of a cup: stronger than the wood behind it, and each another one."""
    cup = torch.from_numpy(data.coffee()[:, 100:500] / 255).permute(2, 0, 1)[None].float()
    lab = rgb_to_lab(torch.nn.functional.interpolate(cup, (256, 256), mode="area"))
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 256, 256))
    found = []
    monkeypatch.setattr(
        "mg_diffusion.encoder.texture.stronger_texture",
        lambda tiles: found.append(stronger_texture(tiles)) or found[0],
    )
    tiles = branch.layout(*given)["layout_tiles"]
    assert not found[0].all()
    monkeypatch.setattr("mg_diffusion.encoder.texture.stronger_texture", lambda tiles: torch.ones_like(found[0]))
    assert torch.equal(tiles, branch.layout(*given)["layout_tiles"])


def test_a_few_tiles_are_not_laid_over_and_over(branch, monkeypatch):
    lab = torch.zeros(1, 3, 64, 64)
    lab[:, 0] = 60 + 5 * grain(64, 64)
    given = (lab, edge_preserving_smooth(lab), torch.ones(1, 1, 64, 64))
    monkeypatch.setattr(
        "mg_diffusion.encoder.texture.stronger_texture", lambda tiles: torch.arange(tiles.shape[1])[None] < 12
    )
    sameness = iter(2 * [1.0, 0.0, 1.0])  # of all that are drawn, of the stronger ones, of the flattest
    monkeypatch.setattr("mg_diffusion.encoder.texture.unlike", lambda mean: torch.tensor([next(sameness)]))
    tiles = branch.layout(*given)["layout_tiles"]
    assert len(tiles.sum((2, 3)).unique()) >= FEWEST
    monkeypatch.setattr("mg_diffusion.encoder.texture.FEWEST", 1)
    assert len(branch.layout(*given)["layout_tiles"].sum((2, 3)).unique()) < FEWEST
