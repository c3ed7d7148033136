"""What is of one color in a shape reference is one region of its layout, inside its mask."""

import numpy as np
import pytest
import torch

from mg_diffusion.encoder.color_groups import AT_ONCE, one_color_each
from mg_diffusion.encoder.shape import one_region_each
from mg_diffusion.encoder.structure import shading, structure_map
from mg_diffusion.encoder.views import edge_preserving_smooth


SIDE = 64


def dress(folds: float = 25.0) -> torch.Tensor:
    """A blue thing with a lit half on yellow, (1, 3, H, W) Lab."""
    lab = torch.zeros(1, 3, SIDE, SIDE)
    lab[:] = torch.tensor([80.0, 0.0, 50.0]).view(1, 3, 1, 1)
    lab[..., 16:48, 16:48] = torch.tensor([30.0, 10.0, -45.0]).view(1, 3, 1, 1)
    lab[:, 0, 16:48, 32:48] += torch.linspace(0, folds, 16)  # light, and the color stays
    return lab


def laid(lab: torch.Tensor, mask: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.ones(1, 1, SIDE, SIDE) if mask is None else mask
    smooth = edge_preserving_smooth(lab)
    return structure_map(smooth, mask), one_region_each(smooth, structure_map(smooth, mask), mask)


def spread(structure: torch.Tensor) -> float:
    """Between the lit and the dark half of the dress, beside that between dress and ground."""
    dark, lit = structure[..., 20:44, 18:22].mean((2, 3)), structure[..., 20:44, 40:46].mean((2, 3))
    return ((lit - dark).norm() / (structure[..., 2:10, 2:60].mean((2, 3)) - dark).norm()).item()


def test_light_on_a_thing_is_no_region_of_its_own():
    before, after = laid(dress())
    assert spread(before) > 0.4 and spread(after) < 0.15


def test_what_light_does_is_shading_instead():
    lab = dress()
    structure = laid(lab)[1]
    found = shading(structure, edge_preserving_smooth(lab)[:, :1], lab[:, :1])
    assert found[..., 20:44, 40:46].mean() - found[..., 20:44, 18:22].mean() > 8


def test_an_edge_is_of_both_sides_and_no_region_between_them():
    structure = laid(dress(folds=0.0))[1]
    rows = structure[0, :, 30]  # (3, W)
    ground, thing = rows[:, 4], rows[:, 24]
    share = (rows - ground[:, None]).norm(dim=0) / (thing - ground).norm()
    beside = torch.minimum((rows - ground[:, None]).norm(dim=0), (rows - thing[:, None]).norm(dim=0))
    assert share.max() < 1.05 and (beside > 0.1 * (thing - ground).norm()).sum() <= 4


def test_nothing_outside_the_mask_comes_back():
    lab = dress()
    lab[..., 4:12, 52:60] = lab[..., 20:28, 18:26]  # another blue thing, not asked for
    mask = torch.ones(1, 1, SIDE, SIDE)
    mask[..., 50:] = 0
    structure = laid(lab, mask)[1]
    assert not structure[..., 50:].any() and structure[..., 20:28, 18:26].any()


def test_thin_strokes_that_were_shrunk_keep_their_regions():
    """A mask that is nowhere above a half."""
    mask = torch.zeros(1, 1, SIDE, SIDE)
    mask[..., 10:54, 30:34] = 0.4
    before, after = laid(dress(folds=0.0), mask)
    assert after.abs().max() > 0.5 * before.abs().max() > 0


def test_each_of_a_batch_is_as_alone():
    first, second = dress(), dress().flip(3)
    both = torch.cat([first, second])
    mask = torch.ones(2, 1, SIDE, SIDE)
    mask[1, :, :, 40:] = 0
    smooth = edge_preserving_smooth(both)
    structure = structure_map(smooth, mask)
    found = one_region_each(smooth, structure, mask)
    for place in range(2):
        alone = (one[place : place + 1] for one in (smooth, structure, mask))
        torch.testing.assert_close(found[place : place + 1], one_region_each(*alone))


@pytest.mark.parametrize("place", [0, 1, 1009])
def test_a_color_of_a_few_places_of_a_large_picture_is_never_lost(place):
    side = int(np.sqrt(2 * AT_ONCE)) + 40
    smooth = torch.full((1, 3, side, side), 0.0)
    smooth[:, 0] = 50
    smooth.flatten(2)[0, :, place] = torch.tensor([50.0, 90.0, 0.0])
    made = one_color_each(smooth, smooth, torch.ones(1, 1, side, side))
    assert made[:, 0].min() > 45
