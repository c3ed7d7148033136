"""Few steps where octaves read nothing but the sketch: the base takes one of them."""

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.loading import load_pipeline


COLORS = ["#ff8800", "#224466", "#eeeecc"]


@pytest.fixture(scope="module")
def pipe() -> MGPipeline:
    pipe = load_pipeline(MGPipeline)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    y, x = np.mgrid[:96, :96] / 96
    disc = (x - 0.5) ** 2 + (y - 0.4) ** 2 < 0.08
    return np.stack([np.where(disc, 0.9 - 0.3 * y, 0.2 + 0.2 * x)] * 3, -1).astype(np.float32)


def paint(pipe: MGPipeline, references: dict, **options) -> tuple[np.ndarray, int]:
    """The picture, and the steps that were taken."""
    sized = {"height": 128, "width": 128, **options}
    image = pipe(
        reference_image=references, generator=torch.Generator().manual_seed(0), output_type="np", **sized
    ).images
    return image, pipe.num_timesteps


def test_a_whole_sketch_takes_one_step_and_gives_the_same_picture(pipe, photo):
    references = {"color": COLORS, "shape": photo, "texture": photo}
    few, steps = paint(pipe, references)
    all_of_them, most = paint(pipe, references, composed_start=0)
    assert (steps, most) == (1, 4)
    assert 0 < np.abs(few - all_of_them).mean() < 0.01
    assert paint(pipe, references, num_inference_steps=8)[1] == 2


@pytest.mark.parametrize(
    ("names", "options"),
    [
        ("shape", {}),
        ("color texture", {}),
        ("color shape", {"granularity_scale": {"color": 0.9}}),
        ("color shape", {"granularity_scale": {"shape": [1.0, 0.5]}, "prompt": ["", ""]}),
        ("color shape", {"granularity_schedule": {"shape": (0.0, 0.5)}}),
        ("color shape", {"granularity_guidance": {"color": 1.0}}),
        ("color shape", {"feature_guidance_scale": {"color": 0.1}}),
        ("color shape", {"feature_guidance_scale": 0.1}),
        ("color shape", {"return_attribution": True}),
        ("color shape", {"height": 64, "width": 64}),
    ],
)
def test_what_the_base_decides_takes_all_steps(pipe, photo, names, options):
    given = {"color": COLORS, "shape": photo, "texture": photo}
    assert paint(pipe, {name: given[name] for name in names.split()}, **options)[1] == 4


def test_a_region_leaves_the_rest_to_the_base(pipe, photo):
    left = np.zeros((64, 64), np.uint8)
    left[:, :32] = 255
    assert paint(pipe, {"color": {"image": COLORS, "region": left}, "shape": photo})[1] == 4


def test_features_of_a_whole_sketch_do_as_their_references(pipe, photo):
    references = {"color": COLORS, "shape": photo}
    embeds = pipe.encode_reference(references, height=128, width=128)
    image = pipe(
        reference_embeds=embeds, height=128, width=128, generator=torch.Generator().manual_seed(0), output_type="np"
    ).images
    assert pipe.num_timesteps == 1
    np.testing.assert_array_equal(image, paint(pipe, references)[0])


def test_a_unet_of_many_steps_takes_them(photo):
    pipe = load_pipeline(MGPipeline, many_steps=True)
    pipe.set_progress_bar_config(disable=True)
    assert paint(pipe, {"color": COLORS, "shape": photo}, num_inference_steps=3)[1] == 3


def test_an_edit_takes_them(pipe, photo):
    edit = MGInpaintPipeline(**pipe.components)
    edit.set_progress_bar_config(disable=True)
    mask = np.zeros((96, 96), np.float32)
    mask[20:60, 20:60] = 1
    edit(image=photo, mask_image=mask, reference_image={"color": COLORS, "shape": photo}, output_type="np")
    assert edit.num_timesteps == 4


def test_a_callback_may_call_the_same_pipeline(pipe, photo):
    references, made = {"color": COLORS, "shape": photo}, []

    def again(pipe, step, timestep, tensors):
        if not made:
            made.append(None)
            made.append(paint(pipe, references)[0])
        return tensors

    image, _ = paint(pipe, references, callback_on_step_end=again)
    np.testing.assert_array_equal(image, made[1])


@pytest.mark.parametrize("left_out", [{}, {"mg_adapter": None, "mg_detail": None}])
def test_no_embeddings_are_no_references(pipe, photo, left_out):
    pipe = MGPipeline(**{**pipe.components, **left_out})
    picture = PIL.Image.fromarray((255 * photo).astype(np.uint8))
    with pytest.raises(ValueError, match="not both"):
        paint(pipe, {"color": COLORS, "shape": picture}, reference_embeds={})
