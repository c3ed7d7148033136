"""Pictures, masks, regions, references and control images drawn at random: read right, or refused with a ValueError.

Each door is tried with forms of something known, which must come out as that, and with anything at all.
"""

import warnings
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from mg_diffusion import edits
from mg_diffusion.encoder.reading import read_cut_out, read_image, read_mask
from mg_diffusion.encoder.references import read_region
from mg_diffusion.pipelines.other_adapters import OtherAdapters
from mg_diffusion.pipelines.pictures import list_images, list_masks


drawn = settings(max_examples=250, deadline=None, derandomize=True, database=None)  # the same ones each time
SIDES = some.integers(2, 9)
TORCH_FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TORCH_WHOLE = [torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32]
PIPELINE = SimpleNamespace(
    vae_scale_factor=1, _execution_device=torch.device("cpu"), unet=SimpleNamespace(dtype=torch.float32)
)


# -- memory that holds the same -------------------------------------------------------------------------------------------
def flipped(array):
    return np.ascontiguousarray(array[::-1])[::-1]


def spread(array):
    """Every second element of a larger array."""
    larger = np.zeros([2 * side for side in array.shape], array.dtype)
    larger[tuple(slice(None, None, 2) for _ in array.shape)] = array
    return larger[tuple(slice(None, None, 2) for _ in array.shape)]


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def foreign(array):
    return array.astype(array.dtype.newbyteorder(">"))


LAYOUTS = some.sampled_from(
    [np.asarray, flipped, spread, read_only, foreign, np.asfortranarray, lambda a: a[:, ::-1][:, ::-1]]
)


@some.composite
def tensors(draw, array):
    """A tensor of a numpy array of native types."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    change = draw(some.sampled_from(["none", "transposed", "gradient"]))
    if change == "transposed":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    return tensor.requires_grad_() if change == "gradient" and tensor.is_floating_point() else tensor


# -- forms of a known mask ------------------------------------------------------------------------------------------------
@some.composite
def black_and_white(draw):
    """(H, W) bool, neither all black nor wholly one color."""
    height, width, seed = draw(SIDES), draw(SIDES), draw(some.integers(0, 2**32 - 1))
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    mask[0, 0], mask[-1, -1] = True, False
    return mask


def white_of(draw, dtype):
    if dtype.kind == "b" or dtype.kind == "f":
        return 1
    most = np.iinfo(dtype).max
    return draw(some.sampled_from([white for white in (1, 255, 65535, most) if white <= most and white != 127]))


def channels_of(draw, mask, axis, white):
    count = draw(some.sampled_from([0, 1, 3, 4]))
    if not count:
        return mask
    parts = [mask] * min(count, 3) + [np.full_like(mask, white)] * (count == 4)
    return np.stack(parts, axis)


@some.composite
def masks(draw, truth, is_alone=True):
    """A form of a mask that can be read in one way only."""
    kind = draw(some.sampled_from(["numpy", "torch", "PIL"]))
    if kind == "PIL":
        return draw(mask_pictures(truth))
    names = ["?", "u1", "u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8"]
    dtype = np.dtype(draw(some.sampled_from(names)))
    if kind == "numpy":
        white = white_of(draw, dtype)
        array = channels_of(draw, truth.astype(dtype) * dtype.type(white), 2, white)
        return draw(LAYOUTS)(array)
    if draw(some.booleans()):
        tensor = torch.from_numpy(truth).to(draw(some.sampled_from(TORCH_FLOATS)))
    else:
        tensor = torch.from_numpy(truth).to(draw(some.sampled_from(TORCH_WHOLE)))
    expanded = draw(some.sampled_from([0, 1, 3 if is_alone else 1]))
    return tensor.expand(expanded, -1, -1) if expanded else tensor


@some.composite
def mask_pictures(draw, truth):
    gray = PIL.Image.fromarray(255 * truth.astype(np.uint8))
    mode = draw(some.sampled_from(["1", "L", "P", "RGB", "RGBA", "LA", "I", "F", "I;16"]))
    if mode == "1":
        return PIL.Image.fromarray(truth)
    if mode == "I;16":
        return PIL.Image.fromarray(truth.astype(np.uint16) * draw(some.sampled_from([1, 255, 65535])))
    if mode in ("I", "F"):
        return PIL.Image.fromarray(truth.astype({"I": np.int32, "F": np.float32}[mode]))
    return gray.convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=2) if mode == "P" else gray.convert(mode)


@drawn
@given(some.data())
def test_masks_of_edits_are_read_right(data):
    truth = data.draw(black_and_white())
    with warnings.catch_warnings(action="error"):
        (found,) = list_masks(data.draw(masks(truth, is_alone=False)))
        assert np.array_equal(found[0].numpy(), truth)
        assert np.array_equal(edits.read_mask(data.draw(masks(truth))), 255 * truth.astype(np.uint8))


@drawn
@given(some.data())
def test_masks_and_regions_of_references_are_read_right(data):
    truth = data.draw(black_and_white())
    with warnings.catch_warnings(action="error"):
        found = read_mask(data.draw(masks(truth)), *truth.shape)
        assert np.array_equal(found[0].numpy(), truth)
        region = read_region(data.draw(masks(truth)), truth.shape)
        assert np.array_equal(region[0, 0].numpy(), truth)


@drawn
@given(some.data())
def test_gray_is_read_right_where_it_counts_in_part(data):
    levels = np.random.default_rng(data.draw(some.integers(0, 2**32 - 1))).random((data.draw(SIDES), data.draw(SIDES)))
    levels[0, 0] = 1.0
    most = data.draw(some.sampled_from([1, 255, 65535]))
    kind = {1: data.draw(some.sampled_from(["f4", "f8"])), 255: "u1", 65535: "u2"}[most]
    array = (levels * most).round() if most > 1 else levels
    given_levels = data.draw(LAYOUTS)(array.astype(kind))
    atol = 1e-6 + 0.5 / most * (most > 1)
    np.testing.assert_allclose(read_region(given_levels, levels.shape)[0, 0], levels, atol=atol, rtol=1e-3)
    assert np.abs(edits.read_mask(given_levels) / 255 - levels).max() <= 0.5 / 255 + atol


# -- forms of a known picture ---------------------------------------------------------------------------------------------
@some.composite
def pictures(draw):
    """(H, W, 3) of 8 bits."""
    height, width, seed = draw(SIDES), draw(SIDES), draw(some.integers(0, 2**32 - 1))
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@some.composite
def forms_of(draw, truth):
    """A form of a picture."""
    kind = draw(some.sampled_from(["numpy", "torch", "PIL"]))
    if kind == "PIL":
        picture = PIL.Image.fromarray(truth)
        return picture.convert("RGBA") if draw(some.booleans()) else picture
    dtype = draw(some.sampled_from(["u1", "f2", "f4", "f8"]))
    array = truth if dtype == "u1" else (truth / 255).astype(dtype)
    if kind == "numpy":
        return draw(LAYOUTS)(array)
    tensor = draw(tensors(array.transpose(2, 0, 1)))
    return tensor.detach().to(torch.bfloat16) if dtype == "f4" and draw(some.booleans()) else tensor


@drawn
@given(some.data())
def test_pictures_are_read_right(data):
    truth = data.draw(pictures())
    wanted = torch.from_numpy(truth).permute(2, 0, 1).float() / 255
    with warnings.catch_warnings(action="error"):
        torch.testing.assert_close(read_image(data.draw(forms_of(truth))), wanted, atol=2e-3, rtol=2e-3)
        (found,) = list_images(data.draw(forms_of(truth)))
        found = (
            torch.from_numpy(np.array(found)).permute(2, 0, 1) / 255 if isinstance(found, PIL.Image.Image) else found
        )
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=2e-3)


def controlled(image, size, channels=3):
    return OtherAdapters.prepare_control_image(PIPELINE, image, size, channels, 1, "control_image")


@drawn
@given(some.data())
def test_control_images_are_read_right(data):
    truth = data.draw(pictures())
    form = data.draw(forms_of(truth).filter(lambda one: getattr(one, "dtype", None) not in (np.uint8, torch.uint8)))
    wanted = torch.from_numpy(truth).permute(2, 0, 1).float() / 255
    torch.testing.assert_close(controlled(form, truth.shape[:2])[0], wanted, atol=2e-3, rtol=2e-3)


# -- anything -------------------------------------------------------------------------------------------------------------
@some.composite
def arrays(draw):
    """An array of any type and up to five dimensions, with any values, of numpy or torch."""
    shape = draw(some.lists(some.sampled_from([0, 1, 2, 3, 4, 5]), max_size=5))
    names = [
        "?",
        "u1",
        "u2",
        "u4",
        "u8",
        "i1",
        "i2",
        "i4",
        "i8",
        "f2",
        "f4",
        "f8",
        "g",
        "c8",
        "O",
        "U3",
        "M8[s]",
        "V2",
    ]
    scale = draw(some.sampled_from([0, 0.5, 1, 2, 255, 256, 65535, 1e9]))
    values = np.asarray(np.random.default_rng(draw(some.integers(0, 2**32 - 1))).random(shape) * scale)
    values = np.asarray(values.round() if draw(some.booleans()) else values)
    values = np.array(-values if draw(some.integers(0, 9)) == 0 else values)
    if values.size and draw(some.integers(0, 9)) == 0:
        values.flat[0] = draw(some.sampled_from([np.nan, np.inf, -np.inf]))
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        array = values.astype("f8").astype(draw(some.sampled_from(names))) if draw(some.integers(0, 3)) else values
    if array.dtype.kind in "buif" and array.dtype.itemsize < 16 and draw(some.booleans()):
        tensor = torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        changed = draw(some.sampled_from(["none", "bfloat16", "meta", "sparse"]))
        if changed in ("bfloat16", "meta"):
            return tensor.to(torch.bfloat16 if changed == "bfloat16" else "meta")
        return tensor.float().to_sparse() if changed == "sparse" else tensor
    return np.ma.masked_array(array, mask=True) if draw(some.integers(0, 19)) == 0 else array


@some.composite
def odd_pictures(draw):
    mode = draw(some.sampled_from("1 L P RGB RGBA LA PA RGBa La CMYK YCbCr LAB HSV I F I;16 I;16B".split()))
    size = draw(some.sampled_from([(0, 0), (0, 4), (1, 1), (5, 3), (40, 2)]))
    return PIL.Image.new(mode, size, draw(some.sampled_from([0, 1])) if len(mode) < 2 else None)


ANYTHING = some.one_of(
    arrays(),
    odd_pictures(),
    some.sampled_from(
        [None, True, 0, 1.5, float("nan"), b"", b"abc", {}, object(), "", "missing.png", "\0", "#ffffff"]
    ),
    some.lists(arrays(), max_size=2),
    some.tuples(*[some.floats(allow_nan=True)] * 4),
)


def is_level(found):
    values = torch.as_tensor(np.asarray(found, np.float32))
    return bool(torch.isfinite(values).all()) and bool((values >= 0).all()) and bool((values <= 1).all())


def as_levels(one):
    return np.asarray(one, np.float32) / 255 if isinstance(one, PIL.Image.Image) else one


DOORS = {
    "image": lambda one: [as_levels(each) for each in list_images(one)],
    "mask": list_masks,
    "mask of a named edit": lambda one: [edits.read_mask(one) / 255],
    "region": lambda one: [read_region(one, (4, 6))],
    "reference": lambda one: [part for part in read_cut_out(one) if part is not None],
    "mask of a reference": lambda one: [read_mask(one, 3, 5)],
    "control image": lambda one: [(controlled(one, (4, 6)) + 1) / 2],  # from -1, which some read as masked
}


@pytest.mark.parametrize("door", DOORS)
@drawn
@given(anything=ANYTHING)
def test_anything_is_read_or_refused(door, anything):
    with warnings.catch_warnings(action="ignore"):
        try:
            found = DOORS[door](anything)
        except ValueError as error:
            assert len(str(error)) > 20
            return
    assert all(is_level(one) for one in found)
