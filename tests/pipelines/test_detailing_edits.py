"""Edits by octaves: what surrounds the mask is kept in all of them, and comes back bit for bit."""

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGInpaintPipeline
from mg_diffusion.octaves import build_detail_unet, build_scheduler, paint_octaves

from .test_detailing import picture
from .tiny import SIZE, tiny_components


SIDES = (6 * SIZE, 8 * SIZE)  # of the photograph, (height, width)
MASK = np.zeros(SIDES, np.uint8)
MASK[2 * SIZE : 4 * SIZE, 3 * SIZE : 5 * SIZE] = 255
REFERENCES = {"color": picture(1), "texture": picture(2), "shape": picture(3)}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory):
    torch.manual_seed(0)
    unet = build_detail_unet((16, 32), sample_size=2 * SIZE).eval()
    torch.nn.init.normal_(unet.conv_out.weight, std=0.05)
    parts = tiny_components(tmp_path_factory.mktemp("tokenizer"), vae="haar")
    pipe = MGInpaintPipeline(**parts, mg_detail=unet)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photo() -> PIL.Image.Image:
    return picture(7, SIDES)


def edit(pipe, references=REFERENCES, seed=0, **options):
    options = {"num_inference_steps": 2, "num_detail_steps": 2, **options}
    given = {"image": photo(), "mask_image": PIL.Image.fromarray(MASK), **options}
    made = pipe(reference_image=references, generator=torch.Generator().manual_seed(seed), **given).images
    return np.asarray(made[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding_mask_crop": 5},
        {"mask_feather": 4},
        {"strength": 0.6},
        {"references": None},
        {"context_scale": 0.0},
    ],
    ids=str,
)
def test_outside_the_mask_every_bit_stays(pipe, options):
    differs = (edit(pipe, **options) != np.asarray(photo())).any(2)
    assert not differs[MASK == 0].any() and differs[MASK > 0].mean() > 0.9


def test_it_is_computed_at_the_size_of_the_photograph(pipe, monkeypatch):
    sizes, painted = [], MGInpaintPipeline.paint_detail

    def recording(self, call, image, known=None, kept=0.0):
        sizes.append(call.output_size)
        return painted(self, call, image, known, kept)

    monkeypatch.setattr(MGInpaintPipeline, "paint_detail", recording)
    edit(pipe)
    edit(pipe, padding_mask_crop=0)
    edit(pipe, height=2 * SIZE, width=4 * SIZE)
    edit(MGInpaintPipeline.from_pipe(pipe, mg_detail=None))
    whole, part, asked = sizes
    assert abs(whole[0] / SIDES[0] - 1) < 0.35 and abs(whole[1] / SIDES[1] - 1) < 0.35
    assert part[0] < whole[0] and asked == (2 * SIZE, 4 * SIZE)


def test_a_size_is_that_of_the_result(pipe):
    assert edit(pipe, height=4 * SIZE, width=4 * SIZE).shape == (4 * SIZE, 4 * SIZE, 3)


def test_references_steer_what_is_painted_and_0_is_without_them(pipe):
    inside = MASK > 0
    with_all, other = edit(pipe), edit(pipe, {**REFERENCES, "texture": picture(9)})
    assert (with_all != other)[inside].mean() > 0.1
    assert np.array_equal(edit(pipe, granularity_scale=0.0), edit(pipe, None, granularity_scale=0.0))


def test_the_less_strength_the_more_of_the_photograph_survives(pipe):
    inside = MASK > 0
    apart = [
        np.abs(edit(pipe, strength=strength, num_detail_steps=6).astype(float) - np.asarray(photo()))[inside].mean()
        for strength in (0.5, 1.0)
    ]
    assert apart[0] < apart[1]


def test_each_picture_of_a_batch_has_its_own_mask(pipe):
    other = np.roll(MASK, SIZE, axis=1)
    masks = [PIL.Image.fromarray(one) for one in (MASK, other)]
    made = pipe(
        image=photo(),
        mask_image=masks,
        reference_image=REFERENCES,
        num_inference_steps=2,
        num_detail_steps=2,
        generator=torch.Generator().manual_seed(0),
    ).images
    for image, mask in zip(made, (MASK, other), strict=True):
        differs = (np.asarray(image) != np.asarray(photo())).any(2)
        assert not differs[mask == 0].any() and differs[mask > 0].mean() > 0.9


def test_steps_are_checked(pipe):
    with pytest.raises(ValueError, match="`num_detail_steps` must be an integer from 1"):
        edit(pipe, num_detail_steps=0)


def test_octaves_keep_what_is_known(pipe):
    torch.manual_seed(1)
    known, hole = torch.rand(1, 3, 64, 64) * 2 - 1, torch.zeros(1, 1, 64, 64)
    hole[..., 16:32, 24:40] = 1
    blank = torch.zeros(1, 1, 64, 64)
    painted = paint_octaves(
        pipe.mg_detail,
        build_scheduler(),
        torch.zeros(1, 3, 16, 16),
        blank,
        blank.expand(-1, 3, -1, -1),
        0.0,
        0.0,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        known=(known, hole),
    )
    outside = (hole == 0).expand_as(known)
    torch.testing.assert_close(painted[outside], known[outside], atol=1e-4, rtol=0)
    assert (painted - known)[~outside].abs().mean() > 0.1
