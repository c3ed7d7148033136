"""Numbers, generators and arrays as people have them: refused with a sentence before anything is computed, or read right."""

import copy

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.encoder.references import read_region
from mg_diffusion.pipelines.pictures import list_masks
from mg_diffusion.sizes import check_composed_size
from pipelines.tiny import tiny_components


NAN = float("nan")
WRONG = [
    ("num_inference_steps", 0, "positive integer"),
    ("num_inference_steps", -1, "positive integer"),
    ("num_inference_steps", 4.0, "positive integer"),
    ("num_inference_steps", None, "positive integer"),
    ("num_inference_steps", True, "positive integer"),
    ("height", 64.0, "integer, in pixels"),
    ("width", "64", "integer, in pixels"),
    ("guidance_scale", None, "finite number"),
    ("guidance_scale", NAN, "finite number"),
    ("fusion_scale", "1", "finite number"),
    ("fusion_scale", NAN, "finite number"),
    ("eta", float("inf"), "finite number"),
    ("eta", 1.5, "at most 1; got 1.5"),
    ("guidance_scale", 1e30, "of at least 0 .1 is off., at most 100; got 1e.30"),
    ("guidance_scale", -1, "of at least 0"),
    ("fusion_scale", 1e30, "at most 100"),
    ("timesteps", [], "no step to take"),
    ("sigmas", [], "no step to take"),
    ("generator", 42, "manual_seed"),
    ("generator", (torch.Generator(),), "manual_seed"),
    ("generator", [1], "manual_seed"),
    ("guidance_scale", b"2", "finite number"),
    ("granularity_scale", True, None),
    ("num_detail_steps", True, "integer from 1"),
    ("num_detail_steps", 1.5, "integer from 1"),
    ("clip_skip", 99, "integer from 0 to 2"),
    ("clip_skip", -5, "integer from 0"),
    ("clip_skip", 1.5, "integer from 0"),
    ("cross_attention_kwargs", 5, "is a dict"),
    ("cross_attention_kwargs", {3: 1}, "is a dict"),
    ("cross_attention_kwargs", {"gligen": {}}, "Leave `gligen` out"),
    *(("cross_attention_kwargs", {"scale": scale}, None) for scale in (NAN, float("inf"), None, "a", 1e30)),
    ("timesteps", 5, "in a falling list"),
    ("timesteps", torch.tensor(5), "in a falling list"),
    ("timesteps", iter([999]), "in a falling list"),
    ("sigmas", 0.5, "in a falling list"),
    ("callback_on_step_end", 5, "is a function"),
    ("callback_on_step_end_tensor_inputs", "latents", "must be some of"),
    ("callback_on_step_end_tensor_inputs", None, "must be some of"),
    ("latents", np.zeros((1, 4, 8, 8), np.float32), "torch.from_numpy"),
    ("latents", torch.full((1, 4, 8, 8), NAN), "finite numbers"),
    ("output_type", None, "must be .pil."),
]
OF_EDITS = [
    ("mask_feather", 10**30, "number of pixels"),
    ("mask_feather", True, "number of pixels"),
    ("mask_feather", -1, "number of pixels"),
    ("padding_mask_crop", 2.0, "number of pixels"),
    ("strength", "1", "above 0"),
    ("strength", None, "above 0"),
    ("context_scale", True, "finite number"),
]


@pytest.fixture(scope="module")
def pipes(tmp_path_factory):
    made = []
    for kind in (MGPipeline, MGInpaintPipeline):
        parts = tiny_components(tmp_path_factory.mktemp("parts"), kind is MGInpaintPipeline)
        made.append(kind(**parts))
        made[-1].set_progress_bar_config(disable=True)
    return made


@pytest.mark.parametrize("place", [0, 1], ids=["generate", "edit"])
@pytest.mark.parametrize(
    ("name", "value", "said"), WRONG, ids=[f"{name}-{number}" for number, (name, *_) in enumerate(WRONG)]
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_computed(pipes, monkeypatch, place, name, value, said):
    pipe = pipes[place]
    monkeypatch.setattr(pipe.text_encoder, "forward", None)
    given = {"image": torch.rand(3, 64, 64), "mask_image": torch.ones(64, 64)} if place else {}
    with pytest.raises(ValueError, match=f"`{name}`.*{said}" if said else name):
        pipe("a leaf", **{"num_inference_steps": 1, **given, name: value})


@pytest.mark.parametrize(("name", "value", "said"), OF_EDITS)
def test_a_number_of_an_edit_that_cannot_be_is_refused(pipes, monkeypatch, name, value, said):
    monkeypatch.setattr(pipes[1].text_encoder, "forward", None)
    given = {"image": torch.rand(3, 64, 64), "mask_image": torch.ones(64, 64), name: value}
    with pytest.raises(ValueError, match=f"`{name}`.*{said}"):
        pipes[1]("a leaf", num_inference_steps=1, **given)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ([], "empty list.*leave it out"),
        (["a", 5], "list of strings"),
        (5, "list of strings, got 5"),
        ("a \udcff leaf", r"no character in UTF-8: 'a \\udcff leaf'"),
        (["a", "\ud800"], "no character in UTF-8"),
    ],
)
def test_prompts_that_cannot_be_are_refused(pipes, prompt, said):
    with pytest.raises(ValueError, match=f"`prompt`.*{said}"):
        pipes[0](prompt, num_inference_steps=1)
    assert len(pipes[0](None, num_inference_steps=1).images) == 1  # as the sentence says


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "returns a dict.*got None"),
        (5, "returns a dict.*got 5"),
        ({"latents": torch.zeros(1, 2, 8, 8)}, r"of the shape \(1, 4, 8, 8\), got \(1, 2, 8, 8\)"),
        ({"latents": None}, "got NoneType"),
        ({"latents": np.zeros((1, 4, 8, 8), np.float32)}, "got ndarray"),
        ({"latents": torch.full((1, 4, 8, 8), NAN)}, "finite numbers"),
        ({"latents": torch.zeros(1, 4, 8, 8, device="meta")}, "finite numbers"),
        ({"latents": torch.zeros(1, 4, 8, 8, dtype=torch.complex64)}, "finite numbers"),
        ({"latents": torch.zeros(1, 4, 8, 8, dtype=torch.float64)}, "of torch.float32 on cpu.*tensor.to.before."),
        ({"prompt_embeds": None}, "got NoneType"),
        ({"prompt_embeds": torch.zeros(2, 12, 5)}, r"of the shape \(rows, tokens, 32\)"),
        ({"prompt_embeds": torch.zeros(1, 12, 32)}, "at least 2 rows"),
    ],
)
def test_what_a_callback_must_not_return_is_told(pipes, returned, said):
    with pytest.raises(ValueError, match=f"`callback_on_step_end` .*{said}"):
        pipes[0](num_inference_steps=2, callback_on_step_end=lambda *given: returned)
    assert len(pipes[0](num_inference_steps=2, callback_on_step_end=lambda *given: {}).images) == 1


NARROW = {
    "height": np.uint8(64),
    "width": np.uint16(64),
    "num_images_per_prompt": np.int8(1),
    "num_detail_steps": np.int64(1),
    "mask_feather": np.uint8(255),
    "padding_mask_crop": np.int8(100),
    "clip_skip": np.uint8(0),
}


@pytest.mark.parametrize("name", NARROW)
def test_narrow_numbers_of_numpy_do_not_wrap_around(pipes, name):
    mask = torch.zeros(64, 64)
    mask[20:44, 20:44] = 1
    made = []
    for value in (NARROW[name], int(NARROW[name])):
        given = {"image": torch.full((3, 64, 64), 0.5), "mask_image": mask, name: value, "output_type": "pt"}
        made.append(pipes[1](num_inference_steps=1, generator=torch.Generator().manual_seed(0), **given).images)
    assert torch.equal(*made)


def test_areas_do_not_wrap_around():
    for side in (np.uint16(2304), np.int16(2304), 2304):
        with pytest.raises(ValueError, match="at most 4,194,304 pixels, got 2304 x 2304"):
            check_composed_size(side, side)
    assert [type(side) for side in check_composed_size(np.uint8(64), None)] == [int, type(None)]


def test_the_default_device_is_nothing_to_a_call(pipes):
    made = []
    for place in ("cpu", "meta"):
        generator, given = (
            torch.Generator().manual_seed(0),
            {"color": ["#c11210"], "shape": PIL.Image.new("L", (64, 64))},
        )
        with torch.device(place):
            made.append(
                np.asarray(pipes[0](reference_image=given, num_inference_steps=1, generator=generator).images[0])
            )
            pipes[0].encode_reference(given)
            assert torch.get_default_device().type == place
    assert np.array_equal(*made)


def test_numbers_of_numpy_and_torch_are_numbers(pipes):
    options = {"height": np.int64(64), "guidance_scale": np.float32(1.5), "eta": torch.tensor(0.0)}
    assert len(pipes[0]("a leaf", num_inference_steps=np.int64(1), **options).images) == 1


MASK = np.zeros((64, 48), bool)
MASK[8:40, 16:40] = True
FORMS = {
    "bool": MASK,
    "flipped": np.flipud(np.flipud(MASK).copy()),
    "columns backwards": MASK[:, ::-1].copy()[:, ::-1],
    "turned": np.rot90(np.rot90(MASK).copy(), 3),
    "big-endian": MASK.astype(">f4"),
    "uint16, 0 and 1": MASK.astype(np.uint16),
    "uint16, 0 and 255": MASK.astype(np.uint16) * 255,
    "uint16, 0 and 65535": MASK.astype(np.uint16) * 65535,
    "big-endian uint16": (MASK.astype(np.uint16) * 65535).astype(">u2"),
    "uint32": MASK.astype(np.uint32),
    "int64": MASK.astype(np.int64) * 255,
    "three channels": np.repeat(MASK[..., None], 3, 2).astype(np.uint8) * 255,
    "torch uint16": torch.from_numpy(MASK.astype(np.uint16)),
    "torch int64": torch.from_numpy(MASK.astype(np.int64) * 255),
}
READ_ONLY = MASK.astype(np.uint8)
READ_ONLY.flags.writeable = False
FORMS["read-only"] = READ_ONLY


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("error:.*not writable")
def test_masks_of_all_forms_are_the_same_mask(form):
    (mask,) = list_masks(FORMS[form])
    assert torch.equal(mask, torch.from_numpy(MASK)[None].float())


def test_channels_that_differ_and_channels_that_may_be_masks_are_refused():
    channels = np.stack([MASK, ~MASK, MASK], 2)
    with pytest.raises(ValueError, match="channels that differ.*mask\\[..., 0\\]"):
        list_masks(channels)
    (mask,) = list_masks(channels[..., 0])
    assert mask.any()
    same = torch.from_numpy(MASK).expand(3, -1, -1)
    with pytest.raises(ValueError, match="one mask of three channels, or three masks"):
        list_masks(same)
    assert len(list_masks(same[0])) == 1 and len(list_masks(same.unsqueeze(1))) == 3
    assert len(list_masks(torch.stack([same[0], ~same[0], same[0]]))) == 3


@pytest.mark.parametrize(
    "region",
    [
        MASK.astype(np.uint8),
        MASK.astype(np.uint8) * 255,
        MASK.astype(np.int64),
        MASK.astype(np.uint16) * 65535,
        MASK.astype(">f4"),
        np.flipud(np.flipud(MASK).copy()),
        torch.from_numpy(MASK.astype(np.int32)),
    ],
    ids=["0 and 1", "0 and 255", "int64", "uint16", "big-endian", "flipped", "torch int32"],
)
def test_regions_of_all_forms_are_the_same_region(region):
    assert torch.equal(read_region(region, (64, 48)), read_region(MASK, (64, 48)))


@pytest.mark.parametrize("region", [MASK.astype(np.int64) * 300, -MASK.astype(np.int64), MASK * 2.0])
def test_regions_beyond_white_are_refused(region):
    with pytest.raises(ValueError, match="A region must lie in"):
        read_region(region, (64, 48))


def test_control_images_of_16_bits_are_scaled_and_not_cut_off(pipes):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    flat = PIL.Image.fromarray((ramp / 257).round().astype(np.uint8))
    expected = pipes[0].prepare_control_image(flat, (64, 64), 3, 1, "control_image")
    for deep in (ramp.astype(np.uint16), ramp.astype(np.int32)):
        found = pipes[0].prepare_control_image([PIL.Image.fromarray(deep)], (64, 64), 3, 1, "control_image")
        assert torch.allclose(found, expected, atol=1.01 / 255)  # whole numbers, rounded twice
    narrow = PIL.Image.fromarray(np.asarray(flat).astype(np.int32))
    assert torch.equal(pipes[0].prepare_control_image(narrow, (64, 64), 3, 1, "control_image"), expected)
    with pytest.raises(ValueError, match="between 0 and 65535"):
        pipes[0].prepare_control_image(PIL.Image.fromarray(-ramp.astype(np.int32)), (64, 64), 3, 1, "control_image")


def test_feature_guidance_says_that_it_needs_gradients_and_works_afterwards(pipes):
    given = {"reference_image": {"color": ["#c11210"]}, "feature_guidance_scale": 1.0, "num_inference_steps": 1}
    with torch.inference_mode(), pytest.raises(ValueError, match="rules out.*no_grad"):
        pipes[0]("a leaf", **given)
    with torch.no_grad():
        assert len(pipes[0]("a leaf", **given).images) == 1


def test_from_pipe_knows_the_older_name_of_the_type(pipes):
    half = MGInpaintPipeline.from_pipe(copy.deepcopy(pipes[1]), torch_dtype=torch.bfloat16)
    assert half.unet.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="Give one of them"):
        MGInpaintPipeline.from_pipe(pipes[1], torch_dtype=torch.bfloat16, dtype=torch.float32)
