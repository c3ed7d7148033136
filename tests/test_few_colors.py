"""Palettes of few colors: whole regions get colors that were asked for, and no mixtures."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from skimage import data
from skimage.color import rgb2lab

from mg_diffusion.adapter.few_colors import few_colors, lay_few_colors, split_in_order
from mg_diffusion.adapter.sketch import lay_palette, with_contrast
from mg_diffusion.pipelines import MGPipeline


@pytest.fixture(scope="module")
def pipe():
    pipe = MGPipeline.from_pretrained("hub_cards/mg-bazaar", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


COLORS = torch.tensor([[30.0, 5, -40], [70.0, 30, 70]])


def palette(*counts: int) -> torch.Tensor:
    return torch.cat([color.expand(count, 3) for color, count in zip(COLORS, counts, strict=True)])[None]


def disc_and_ground(share: float) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 64, dtype=torch.float32)] * 2, indexing="ij")
    disc = (x * x + y * y < 4 * share / torch.pi).float()
    return torch.stack([disc - 0.5, 0.3 * disc, 0 * disc])[None]


@pytest.mark.parametrize("share", [0.1, 0.4, 0.7])
@pytest.mark.parametrize("counts", [(128, 128), (64, 192), (192, 64)])
def test_regions_get_colors_of_the_palette_whatever_their_areas_are(share, counts):
    structure = disc_and_ground(share)
    laid = lay_palette(structure, palette(*counts))
    light = structure[0, 0] > 0
    assert torch.allclose(laid[0, :, light].T, COLORS[1].expand(int(light.sum()), 3), atol=0.5)
    assert torch.allclose(laid[0, :, ~light].T, COLORS[0].expand(int((~light).sum()), 3), atol=0.5)


def test_of_more_regions_than_colors_those_go_together_whose_areas_fit():
    areas, weights = torch.tensor([0.2, 0.3, 0.1, 0.4]), torch.tensor([0.5, 0.5])
    assert split_in_order(areas, weights).tolist() == [0, 0, 1, 1]
    assert split_in_order(areas, torch.tensor([0.2, 0.8])).tolist() == [0, 1, 1, 1]


def test_of_more_colors_than_regions_those_are_laid_whose_weights_fit():
    areas, weights = torch.tensor([0.5, 0.5]), torch.tensor([0.45, 0.1, 0.45])
    assert split_in_order(areas, weights).tolist() == [0, 2]
    assert split_in_order(areas[:1] * 2, weights).tolist() in ([0], [2])


def test_every_color_is_laid_where_there_are_regions_for_all():
    areas, weights = torch.tensor([0.9, 0.05, 0.05]), torch.tensor([0.6, 0.2, 0.2])
    assert split_in_order(areas, weights).tolist() == [0, 1, 2]


def test_places_that_count_for_nothing_take_no_part_of_the_palette():
    structure = torch.cat([disc_and_ground(0.4), torch.full((1, 3, 64, 64), -0.9)], 3)
    area = torch.cat([torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64)], 3)
    laid = lay_few_colors(structure[0], palette(128, 128)[0], area[0])
    assert (laid[0, :, :64] > 60).float().mean() == pytest.approx(0.4, abs=0.02)


def test_a_gradient_shows_both_colors():
    ramp = torch.linspace(-0.1, 0.1, 64, dtype=torch.float32).expand(1, 3, 64, 64)
    laid = lay_palette(ramp, palette(128, 128))
    assert laid[0, 0, :, 0].mean() < 40 and laid[0, 0, :, -1].mean() > 60


def test_maps_of_nothing_at_all_get_one_color():
    assert torch.isfinite(lay_palette(torch.zeros(1, 3, 64, 64), palette(128, 128))).all()


def test_a_batch_is_laid_row_by_row():
    structures = torch.cat([disc_and_ground(0.2), disc_and_ground(0.6)])
    both = lay_palette(structures, palette(128, 128))
    assert all(
        torch.allclose(both[i : i + 1], lay_palette(structures[i : i + 1], palette(128, 128))) for i in range(2)
    )


@pytest.mark.parametrize("other", ["photograph", "single"])
def test_a_row_is_laid_alike_whatever_lies_beside_it(other):
    beside = {"photograph": 50 + 5 * torch.randn(1, 256, 3), "single": COLORS[:1].expand(1, 256, 3)}[other]
    structure = disc_and_ground(0.4)
    both = lay_palette(structure, torch.cat([palette(64, 192), beside]))
    assert torch.equal(both[:1], lay_palette(structure, palette(64, 192)))
    assert torch.allclose(both[1:], lay_palette(structure, beside), atol=1e-3)
    assert torch.equal(with_contrast(torch.cat([palette(64, 192), beside]))[:1], palette(64, 192))


def test_autocast_rounds_no_colors():
    structure, photograph = disc_and_ground(0.4), 50 + 20 * torch.randn(1, 256, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        laid = lay_palette(structure, palette(64, 192))
        many = lay_palette(structure, photograph)
    assert torch.equal(laid, lay_palette(structure, palette(64, 192)))
    assert torch.equal(many, lay_palette(structure, photograph))


def test_photographs_and_single_colors_are_not_few():
    assert torch.equal(few_colors(palette(100, 156)[0]), palette(100, 156)[0])
    assert few_colors(COLORS[:1].expand(256, 3)) is None and few_colors(100 * torch.rand(256, 3)) is None
    pastel = torch.tensor([[70.0, 10, 0], [71.0, -10, 0]]).repeat(1, 128, 1).view(1, 256, 3)
    assert torch.equal(with_contrast(pastel), pastel)  # chosen, and not stretched


def test_a_swatch_is_of_its_few_colors(pipe):
    swatch = np.zeros((200, 400, 3), np.uint8)
    swatch[:, :150], swatch[:, 150:] = (230, 57, 70), (29, 53, 87)
    file = io.BytesIO()
    PIL.Image.fromarray(swatch).save(file, "JPEG", quality=85)
    (features,) = pipe.encode_reference({"color": PIL.Image.open(file)}, 128, 128)["color"]
    main, counts = few_colors(features["palette"][0]).unique(dim=0, return_counts=True)
    assert counts[0] / counts.sum() == pytest.approx(250 / 400, abs=0.03)
    assert (
        np.linalg.norm(
            main.numpy() - rgb2lab([[(29 / 255, 53 / 255, 87 / 255), (230 / 255, 57 / 255, 70 / 255)]])[0], axis=1
        ).max()
        < 3
    )


def test_photographs_are_not_of_few_colors(pipe):
    for picture in (data.astronaut(), data.coffee(), data.chelsea(), data.rocket()):
        (features,) = pipe.encode_reference({"color": PIL.Image.fromarray(picture)}, 128, 128)["color"]
        assert few_colors(features["palette"][0]) is None


@pytest.mark.parametrize("colors", [["#ff8800", "#224466"], ["#ff8800:3", "#224466"], ["#cc2222:1", "#ffff00:3"]])
def test_a_picture_is_of_the_colors_that_were_asked_for(pipe, colors):
    picture = np.full((96, 96, 3), 90, np.uint8)
    picture[24:72, 30:66] = (240, 220, 60)
    made = pipe(
        reference_image={"color": colors, "shape": PIL.Image.fromarray(picture)},
        height=128,
        width=128,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    wanted = rgb2lab([[[int(one[i : i + 2], 16) / 255 for i in (1, 3, 5)] for one in colors]])[0]
    lab = rgb2lab(made)
    for part in (lab[40:88, 48:80], lab[4:24]):
        median = np.median(part.reshape(-1, 3), 0)
        assert np.linalg.norm(wanted - median, axis=1).min() < 8
