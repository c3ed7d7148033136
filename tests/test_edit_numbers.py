"""Numbers, callbacks and pipelines of named edits: refused in words before anything is computed, or read right."""

from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGInpaintPipeline, MGPipeline, compose, edits
from mg_diffusion.octaves import build_detail_unet


RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (48, 64, 3), np.uint8)
MASK = np.zeros((48, 64), np.uint8)
MASK[15:30, 20:40] = 255
COLORS = ["#0a9396", "#e9d8a6"]
SELECT = "#{:02x}{:02x}{:02x}".format(*PICTURE[20, 25])
HALF = Fraction(1, 2)


@pytest.fixture(scope="module")
def parts(shipped):
    """With a detail network that does something."""
    unet = build_detail_unet((16, 32)).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(unet.conv_out.weight, std=0.02)
    return {**shipped.components, "mg_detail": unet}


@pytest.fixture(scope="module")
def pipe(parts):
    pipeline = MGInpaintPipeline(**parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def idle(parts):
    """A pipeline whose progress cannot begin: whoever computes with it fails."""

    class Idle(MGInpaintPipeline):
        def progress_bar(self, *given, **options):
            raise AssertionError("something is computed")

    return Idle(**parts)


CALLS = {
    "recolor": lambda pipe, **given: edits.recolor(pipe, PICTURE, **{"color": COLORS, **given}),
    "retexture": lambda pipe, **given: edits.retexture(pipe, PICTURE, **{"texture": PICTURE, **given}),
    "remove": lambda pipe, **given: edits.remove(pipe, PICTURE, MASK, **given),
    "outpaint": lambda pipe, **given: edits.outpaint(pipe, PICTURE, **{"left": 8, **given}),
    "denoise": lambda pipe, **given: edits.denoise(pipe, PICTURE, **given),
    "enhance": lambda pipe, **given: edits.enhance(pipe, PICTURE, **given),
    "enlarge": lambda pipe, **given: edits.enlarge(pipe, PICTURE, **given),
    "reshape": lambda pipe, **given: edits.reshape(pipe, PICTURE, MASK, color=COLORS, **given),
    "variation": lambda pipe, **given: edits.variation(pipe, PICTURE, **given),
}
WRONG = [
    *(("enlarge", {"factor": factor}, "must be 2 or 4") for factor in (2.0, HALF * 4, "2", None, True, [2], 3)),
    ("enlarge", {"texture": "nowhere.png"}, "no reference picture at 'nowhere.png'"),
    ("enlarge", {"texture": ["#ff0000"]}, "serve as color references"),
    ("enlarge", {"texture": {"image": PICTURE, "region": (0, 0, 0.5, 1)}}, "`enlarge` lays.*leave the region out"),
    ("enlarge", {"texture": PICTURE, "texture_scale": float("nan")}, "from 0.125 to 8"),
    ("enlarge", {"texture": PICTURE, "granularity_scale": 99}, "from 0 .off. to 4, got 99"),
    *(("retexture", {"texture_scale": scale}, "from 0.125 to 8") for scale in ("2", b"2", True)),
    ("retexture", {"texture": {"image": PICTURE, "scale": True}}, "from 0.125 to 8"),
    *(("recolor", {"color": {"image": PICTURE, "weight": one}}, "a positive number") for one in ("2", True, None)),
    ("recolor", {"granularity_scale": {"texture": "x"}}, "strength of texture must be a number"),
    *(("recolor", {"mask_feather": one}, "number of pixels") for one in (10**30, True, 2.0, -1)),
    *(("recolor", {"tolerance": one, "select": SELECT}, "a Delta-E") for one in ("20", True, float("nan"), 0)),
    ("recolor", {"assignment": np.array(["light", "free"])}, "`assignment` must be"),
    ("remove", {"padding_mask_crop": 10**30}, "number of pixels"),
    *(("outpaint", {"left": one}, "adds whole pixels") for one in (8.0, True, "8", None)),
    *(("remove", {"num_images_per_prompt": one}, "a positive integer") for one in (0, 2.0, True, "2")),
    ("denoise", {"noise_level": "10"}, "`noise_level` must be a number"),
    *((name, {"callback": 5}, "`callback` is a function") for name in edits.NATIVE),
    *((name, {"callback": print}, "takes `callback_on_step_end`") for name in ("reshape", "variation")),
    *((name, {"callback_on_step_end": 5}, "is a function of pipeline") for name in ("reshape", "variation")),
    *((name, {"return_dict": False}, "return a list.*leave it out") for name in ("reshape", "variation")),
]


@pytest.mark.parametrize(("name", "given", "said"), WRONG)
def test_what_cannot_be_is_refused_before_anything_is_computed(idle, name, given, said):
    with pytest.raises(ValueError, match=said):
        CALLS[name](idle, **given)


ALIKE = [
    *(("recolor", {"mask_image": MASK, "mask_feather": kind(100)}, 100) for kind in (np.uint8, np.int8, np.uint64)),
    ("recolor", {"mask_image": MASK, "mask_feather": np.uint8(255)}, 255),
    *(("remove", {"padding_mask_crop": kind(20)}, 20) for kind in (np.uint8, np.int8, np.uint16, np.uint64)),
    ("remove", {"padding_mask_crop": np.uint8(255)}, 255),
    *(("outpaint", {"left": kind(8)}, 8) for kind in (np.int64, np.uint8)),
    *(("recolor", {"select": SELECT, "tolerance": kind(20)}, 20) for kind in (np.float32, np.int64, Fraction)),
    *(("enlarge", {"factor": factor}, 2) for factor in (np.int64(2), np.uint8(2), torch.tensor(2))),
    *((name, {"granularity_scale": HALF}, 0.5) for name in ("recolor", "retexture")),
    *((name, {"strength": HALF}, 0.5) for name in ("denoise", "enhance", "enlarge")),
    ("denoise", {"noise_level": Fraction(10)}, 10),
    ("retexture", {"texture_scale": np.float32(2)}, 2),
    *(("remove", {"num_images_per_prompt": kind(2)}, 2) for kind in (np.int64, np.uint8)),
    ("recolor", {"assignment": "free", "num_images_per_prompt": np.int64(2)}, 2),
]


@pytest.mark.parametrize(("name", "given", "plain"), ALIKE)
def test_numbers_of_numpy_and_torch_are_numbers(pipe, name, given, plain):
    made = []
    for value in (list(given.values())[-1], plain):
        generator = {} if name in ("variation", "reshape") else {"generator": torch.Generator().manual_seed(0)}
        made.append(CALLS[name](pipe, **given | {list(given)[-1]: value}, **generator))
    assert len(made[0]) == len(made[1])
    assert all(np.array_equal(one, other) for one, other in zip(*made, strict=True))


def test_numbers_of_pictures_of_a_composition(shipped):
    given = ({"color": COLORS, "shape": PICTURE}, 64, 64)
    assert len(compose(*given, num_images=np.int64(2), encoder=shipped.mg_encoder)) == 2
    for count in (2.0, "2", True, 0):
        with pytest.raises(ValueError, match="`num_images` must be a positive integer"):
            compose(*given, num_images=count, encoder=shipped.mg_encoder)
    with pytest.raises(ValueError, match="`callback` is a function"):
        compose(*given, callback=5, encoder=shipped.mg_encoder)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_no_pipeline_is_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` takes a pipeline first.*got NoneType"):
        CALLS[name](None)


@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_is_nothing_to_an_edit(pipe, name):
    """As it is nothing to `compose`."""
    quick = {"num_inference_steps": 1} if name in ("reshape", "variation") else {}
    quick |= {"height": 64, "width": 64} if name == "variation" else {}
    made = []
    for place in ("cpu", "meta"):
        with torch.device(place):
            made += CALLS[name](pipe, generator=torch.Generator("cpu").manual_seed(0), **quick)
    assert np.array_equal(*made)


def test_a_class_of_the_users_edits_as_ours_does(pipe):
    class Mine(MGInpaintPipeline):
        pass

    mine = Mine(**pipe.components)
    mine.set_progress_bar_config(disable=True)
    (made,) = edits.variation(mine, PICTURE, num_inference_steps=1, height=64, width=64)
    assert isinstance(made, PIL.Image.Image)


def test_reshape_says_which_pipeline_it_needs_and_that_works(pipe):
    generating = MGPipeline(**pipe.components)
    with pytest.raises(ValueError, match=r"Pass `MGInpaintPipeline\(\*\*pipe.components\)`"):
        edits.reshape(generating, PICTURE, MASK, color=COLORS)
    (made,) = edits.reshape(
        MGInpaintPipeline(**generating.components), PICTURE, MASK, color=COLORS, num_inference_steps=1
    )
    assert made.shape == PICTURE.shape

    class Other:
        progress_bar = print

    for name in ("reshape", "variation"):
        with pytest.raises(ValueError, match=f"`{name}` takes a pipeline of MGPipeline, .*got Other"):
            CALLS[name](Other())
