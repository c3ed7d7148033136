"""What a reference may be, and that everything else is refused with a ValueError that says what came and what to do."""

import re
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGEncoder
from mg_diffusion import reference_pictures as module
from mg_diffusion.cli.references import read_mask as read_mask_of_command
from mg_diffusion.encoder.reading import read_image, read_mask
from mg_diffusion.encoder.references import is_palette, parse_palette


@pytest.fixture(scope="module")
def encoder():
    return MGEncoder(
        granularities=("color", "texture"), sample_size=32, color_channels=4, texture_channels=4, num_tiles=2
    )


@pytest.fixture
def rgb():
    """uint8 (24, 32, 3), every pixel different from its neighbors."""
    return np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def as_tensor(array):
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).float() / 255


def saved(image, path, **kwargs):
    image.save(path, **kwargs)
    return path


# -- pictures that are read --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda a, path: PIL.Image.fromarray(a), id="PIL"),
        pytest.param(lambda a, path: PIL.Image.fromarray(a).convert("RGBA"), id="opaque RGBA"),
        pytest.param(lambda a, path: a, id="numpy uint8"),
        pytest.param(lambda a, path: (a / 255).astype(np.float32), id="numpy float32"),
        pytest.param(lambda a, path: a / 255, id="numpy float64"),
        pytest.param(lambda a, path: (a / 255).astype(">f8"), id="numpy of the other byte order"),
        pytest.param(lambda a, path: np.asarray(PIL.Image.fromarray(a)), id="read-only numpy"),
        pytest.param(lambda a, path: np.asfortranarray(a), id="Fortran order"),
        pytest.param(lambda a, path: a[::-1].copy()[::-1], id="negative strides"),
        pytest.param(lambda a, path: torch.from_numpy(a).permute(2, 0, 1), id="torch uint8, strided"),
        pytest.param(lambda a, path: as_tensor(a), id="torch float32"),
        pytest.param(lambda a, path: as_tensor(a).double(), id="torch float64"),
        pytest.param(lambda a, path: as_tensor(a).requires_grad_(), id="torch with gradient"),
        pytest.param(lambda a, path: saved(PIL.Image.fromarray(a), path / "a.png"), id="Path"),
        pytest.param(lambda a, path: str(saved(PIL.Image.fromarray(a), path / "a.bmp")), id="str"),
        pytest.param(
            lambda a, path: saved(PIL.Image.fromarray(a).convert("RGBA"), path / "a.webp", lossless=True), id="WebP"
        ),
    ],
)
def test_every_accepted_form_gives_the_same_pixels(rgb, tmp_path, convert):
    reference = convert(rgb, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_image(reference)
    assert found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(found, as_tensor(rgb), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, torch.float16, torch.bfloat16])
def test_half_precision_arrays_are_read(rgb, dtype):
    array = (rgb / 255).astype(dtype) if dtype is np.float16 else as_tensor(rgb).to(dtype)
    torch.testing.assert_close(read_image(array), as_tensor(rgb), rtol=0, atol=5e-3)


def test_reading_does_not_change_or_keep_the_array(rgb):
    array = (rgb / 255).astype(np.float32)
    found = read_image(array)
    found.zero_()
    np.testing.assert_array_equal(array, (rgb / 255).astype(np.float32))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "I;16"])
def test_well_defined_modes_are_converted(rgb, mode):
    gray = PIL.Image.fromarray(rgb).convert("L")
    if mode == "I;16":
        image = PIL.Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
        assert image.mode == mode
    else:
        image = gray.convert(mode)
    expected = as_tensor(np.asarray((gray if mode == "I;16" else image).convert("RGB")))
    torch.testing.assert_close(read_image(image), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_known_white_are_brought_to_8_bits_as_the_sentence_says(rgb, mode):
    numbers = (rgb[..., 0].astype(np.float32) * 1000).astype({"I": np.int32, "F": np.float32}[mode])
    image = PIL.Image.fromarray(numbers)
    assert image.mode == mode
    with pytest.raises(ValueError, match=rf"mode {mode} has no well-defined conversion") as caught:
        read_image(image)
    way, values = re.findall("`(.*?)`", str(caught.value))
    names = {"np": np, "PIL": PIL, "image": image}
    exec(values, names)
    found = read_image(eval(way, names))
    assert (found[0] - torch.from_numpy(numbers / numbers.max())).abs().max() < 1 / 255


def test_gray_arrays_have_three_equal_channels(rgb):
    for array in (rgb[..., 0], rgb[..., 0] / 255, PIL.Image.fromarray(rgb[..., 0])):
        torch.testing.assert_close(read_image(array), as_tensor(rgb[..., :1]).expand(3, -1, -1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["path", "PIL"])
def test_exif_orientation_is_honored(rgb, tmp_path, form):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated clockwise by 90 degrees
    smooth = np.kron(rgb[:3, :4], np.ones((16, 16, 1), np.uint8))
    path = saved(PIL.Image.fromarray(smooth), tmp_path / "turned.jpg", exif=exif, quality=95, subsampling=0)
    found = read_image(path if form == "path" else PIL.Image.open(path))
    assert found.shape == (3, 64, 48)
    assert (found - as_tensor(np.rot90(smooth, -1))).abs().mean() < 0.02


# -- pictures that are refused -----------------------------------------------------------------------------------------
def image(mode, size=(32, 24), **info):
    made = PIL.Image.new(mode, size)
    made.info.update(info)
    return made


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        *[(image(mode), f"mode {mode} has no well-defined conversion.*Convert it") for mode in ("CMYK", "I", "F", "HSV")],
        *[(image(mode), f"mode {mode} has transparent pixels.*Composite it") for mode in ("RGBA", "LA", "PA")],
        (image("P", transparency=0), "mode P has transparent pixels.*pass its alpha as the mask"),
        (image("F", transparency=0), "mode F has no well-defined conversion"),
        *[(image(mode, (0, 5)), "no pixels: its size is 0 x 5") for mode in ("RGB", "RGBA", "L", "1", "I;16")],
        (np.zeros((5, 0, 3)), "no pixels: its size is 0 x 5"),
        (torch.zeros(3, 0, 5), "no pixels: its size is 5 x 0"),
        (np.zeros((0, 5)), "no pixels: its size is 5 x 0"),
        (np.full((8, 8, 3), np.nan), "NaN or infinite.*Clean"),
        (torch.full((3, 8, 8), torch.inf), "NaN or infinite.*Clean"),
        (np.zeros((1, 8, 8, 3)), r"must be numpy \(height, width, 3\).*got shape \(1, 8, 8, 3\).*as a list"),
        (np.zeros((3, 8, 8)), r"must be numpy \(height, width, 3\).*got shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 4)), r"got shape \(8, 8, 4\)"),
        (np.zeros(8), r"got shape \(8,\)"),
        (np.array(1.0), r"got shape \(\)"),
        (torch.zeros(8, 8), r"must be torch \(3, height, width\), got shape \(8, 8\)"),
        (torch.zeros(1, 3, 8, 8), r"got shape \(1, 3, 8, 8\).*as a list"),
        (torch.zeros(8, 8, 3), r"must be torch \(3, height, width\), got shape \(8, 8, 3\)"),
        (np.full((8, 8, 3), -1.0), r"must lie in \[0, 1\], got \[-1, -1\].*\(image \+ 1\) / 2"),
        (torch.full((3, 8, 8), 255.0), r"must lie in \[0, 1\], got \[255, 255\].*image / 255"),
        *[(np.zeros((8, 8, 3), t), f"uint8 or floating point.*got {np.dtype(t)}") for t in (bool, int, "u2", ">u2")],
        (np.zeros((8, 8, 3), complex), "array of numbers .*got complex128"),
        (np.zeros((8, 8, 3), object), "array of numbers .*got object"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), r"uint8 or floating point.*got torch\.bool.*as float32"),
        (torch.zeros(3, 8, 8, dtype=torch.int64), r"uint8 or floating point.*got torch\.int64"),
        (np.zeros((10, 161, 3)), "161 x 10 pixels is too long and narrow.*Crop it"),
        (image("L", (2, 33)), "2 x 33 pixels is too long and narrow"),
        (None, "must be a PIL image, a path.*got NoneType"),
        (3, "got int"),
        (b"picture.png", "got bytes"),
        ([[0.0, 1.0]], "got list"),
    ],
)  # fmt: skip
def test_other_pictures_are_refused(reference, message):
    with pytest.raises(ValueError, match="(?s)" + message):
        read_image(reference)


def test_the_longest_accepted_picture():
    assert read_image(np.zeros((10, 160, 3))).shape == (3, 10, 160)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no reference picture at"),
        (b"", "cannot be read as a picture"),
        (b"This is a letter.", "cannot be read as a picture.*truncated or of another format"),
        (b"P6\n4 what 255\n", "cannot be read as a picture"),  # Pillow's own error is a bare ValueError
        ("png", "cannot be read as a picture.*truncated"),
        ("jpeg", "cannot be read as a picture.*truncated"),
        ("tiff", "cannot be read as a picture"),
        ("folder", "cannot be read as a picture"),
    ],
)
def test_unreadable_files_are_refused_by_name(rgb, tmp_path, content, message):
    path = tmp_path / "picture"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, str):
        PIL.Image.fromarray(rgb).save(path, content)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="(?s)" + message) as error:
        read_image(path)
    assert str(path) in str(error.value)


def test_a_truncated_file_that_was_opened_before_is_refused_too(rgb, tmp_path):
    path = saved(PIL.Image.fromarray(rgb), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with PIL.Image.open(path) as opened, pytest.raises(ValueError, match="A reference cannot be read as a picture"):
        read_image(opened)


@pytest.mark.parametrize("form", ["PIL", "path"])
def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch, tmp_path, form):
    monkeypatch.setattr(module, "MAX_PIXELS", 99)
    reference = PIL.Image.new("1", (10, 10))
    if form == "path":
        path = saved(reference, tmp_path / "large.png")
        path.write_bytes(path.read_bytes()[:60])  # the header is there, the pixels are not
        reference = path
    with pytest.raises(ValueError, match="10 x 10 pixels; at most 99 are accepted.*Shrink it"):
        read_image(reference)


@pytest.mark.parametrize(("limit", "message"), [(300, "24 x 16 pixels; at most 100"), (90, "too many pixels.*Shrink")])
def test_pillows_own_alarm_never_reaches_the_caller(monkeypatch, tmp_path, limit, message):
    """Pillow warns of a decompression bomb above its limit and raises its own error above twice that."""
    path = saved(PIL.Image.new("L", (24, 16)), tmp_path / "bomb.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(module, "MAX_PIXELS", 100)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        warnings.simplefilter("error")
        read_image(path)


def test_a_picture_between_the_limits_is_read_without_a_warning(monkeypatch, tmp_path):
    path = saved(PIL.Image.new("L", (24, 16)), tmp_path / "large.png")
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 300)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(path).shape == (3, 16, 24)


# -- masks -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda m: m, id="bool"),
        pytest.param(lambda m: m.astype(np.uint8) * 255, id="0 and 255"),
        pytest.param(lambda m: m.astype(np.float64), id="float"),
        pytest.param(lambda m: m[None], id="(1, H, W)"),
        pytest.param(lambda m: torch.from_numpy(m), id="torch bool"),
        pytest.param(lambda m: torch.from_numpy(m).bfloat16()[None], id="torch bfloat16"),
        pytest.param(lambda m: torch.from_numpy(m).float().requires_grad_(), id="torch with gradient"),
        pytest.param(lambda m: PIL.Image.fromarray(m), id="PIL 1"),
        pytest.param(lambda m: PIL.Image.fromarray(m).convert("L"), id="PIL L"),
        pytest.param(lambda m: PIL.Image.fromarray(m).convert("RGB"), id="PIL RGB"),
    ],
)
def test_every_form_of_a_mask_selects_the_same(convert):
    mask = np.random.default_rng(0).random((12, 16)) > 0.5
    assert torch.equal(read_mask(convert(mask), 12, 16), torch.from_numpy(mask[None]).float())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((6, 8)), r"must have the size of the reference, .* = \(12, 16\), got \(6, 8\). Resize it"),
        (np.ones((12, 16, 2)), r"one channel, \(height, width\), got the shape \(12, 16, 2\)"),
        (image("L", (12, 16)), r"got \(16, 12\)"),
        (
            np.r_[np.ones(96), np.full(96, 255)].reshape(12, 16),
            r"in floating point it lies in \[0, 1\], got up to 255",
        ),
        (np.full((12, 16), np.nan), "must lie in .*from nan to nan"),
        (-np.ones((12, 16)), "must lie in .*from -1 to -1"),
        (np.zeros((12, 16)), "selects nothing: none of it is lighter than middle gray. White is what is borrowed"),
        (image("1", (16, 12)), "selects nothing"),
        ("mask.png", "There is no reference picture at 'mask.png'"),
        ([1], "mask must be a PIL image, a path, or a numpy or torch array of numbers, got list"),
        (np.full((12, 16), None), "array of numbers"),
    ],
)
def test_other_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        read_mask(mask, 12, 16)


@pytest.mark.parametrize("kind", ["PIL", "path", "array", "levels"])
def test_a_soft_mask_is_split_at_middle_gray_and_told(tmp_path, kind):
    """As on the command line."""
    soft = np.linspace(0, 255, 192).round().astype(np.uint8).reshape(12, 16)
    PIL.Image.fromarray(soft).save(tmp_path / "soft.png")
    forms = {"PIL": PIL.Image.fromarray(soft), "path": tmp_path / "soft.png", "array": soft, "levels": soft / 255}
    with pytest.warns(UserWarning, match="mask is not only black and white: what is lighter than middle gray is read"):
        read = read_mask(forms[kind], 12, 16)
    assert np.array_equal(read[0].numpy(), np.asarray(read_mask_of_command(str(tmp_path / "soft.png"))) > 0)
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="none of it is lighter than middle gray"):
        read_mask(np.full((12, 16), 0.4), 12, 16)


# -- palettes ----------------------------------------------------------------------------------------------------------
def test_palette_entries_have_colors_and_weights():
    colors, weights = parse_palette(["#ff8000:3", "#00FF00", "#000000:.5"])
    torch.testing.assert_close(colors, torch.tensor([[1.0, 128 / 255, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(weights, torch.tensor([3.0, 1.0, 0.5]) / 4.5)


@pytest.mark.parametrize(
    "entry", ["#ff80", "ff8000", "#gg0000", "#ff8000:0", "#ff8000:-1", "#ff8000:x", "#ff8000:" + "9" * 400, "#", "red"]
)
def test_other_palette_entries_are_refused(entry):
    with pytest.raises(ValueError, match='must be "#rrggbb" or "#rrggbb:weight" with a positive weight'):
        parse_palette(["#000000", entry])


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        (["#000000"], True),
        (("#000000", "#wrong"), True),
        ([], False),
        ("#000000", True),
        ("#000000:2, #ffffff", True),
        ("#wrong", False),
        ("#000000.png", False),
        (["#000000", "a.png"], False),
    ],
)
def test_a_palette_is_a_list_of_strings_that_begin_with_a_hash_or_a_text_of_colors(reference, expected):
    assert is_palette(reference) is expected


# -- references of a call ----------------------------------------------------------------------------------------------
PICTURE = np.full((32, 32, 3), 0.5)
ONE_PIXEL = np.arange(32 * 32).reshape(32, 32) == 33


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({}, r'has the keys "image" and, optional, "mask", "weight", "region" and "scale"; got \[\]'),
        ({"image": PICTURE, "weights": 1}, r"got \['image', 'weights'\]"),
        ({"image": PICTURE, 1: 2}, r"got \['image', 1\]"),
        *[
            ({"image": PICTURE, "weight": weight}, "weight must be a positive number")
            for weight in (0, -1, float("nan"), float("inf"), "much", None, [1])
        ],
        ({"image": PICTURE, "mask": np.ones((4, 4))}, "mask must have the size of the reference"),
        (
            {"image": PICTURE, "mask": ONE_PIXEL},
            "selects too little to read.*Crop the",
        ),
        ({"image": None}, "got NoneType"),
        ({"image": ["#ff0000"]}, "got list"),
    ],
)
def test_other_reference_dicts_are_refused(encoder, reference, message):
    with pytest.raises(ValueError, match=message):
        encoder.load(reference)


def test_weight_and_mask_of_a_dict_are_read(encoder):
    mask = np.zeros((32, 32), bool)
    mask[:, :16] = True
    loaded = encoder.load({"image": PICTURE, "mask": mask, "weight": np.float32(2)})
    assert loaded["weight"] == 2.0 and loaded["mask"].mean() == pytest.approx(0.5)
    assert encoder.load({"image": PICTURE, "mask": None})["mask"].mean() == 1


@pytest.mark.parametrize(
    ("references", "batch_size", "message"),
    [
        ({"light": PICTURE}, 1, r"Unknown granularity 'light'; this encoder knows \('color', 'texture'\)"),
        ({"light": None}, 1, "Unknown granularity 'light'"),
        ([PICTURE], 1, r'by granularity, for example \{"color": image\}; got list'),
        ({"color": []}, 1, "list of color references is empty. Leave the granularity out"),
        ({"color": [PICTURE, [PICTURE]]}, 2, "one non-empty list for each of the 2 prompts, got 2 entries of which 1"),
        ({"color": [[PICTURE], [PICTURE], [PICTURE]]}, 2, "each of the 2 prompts, got 3 entries of which 3 are lists"),
        ({"texture": [[PICTURE], []]}, 2, "one non-empty list for each of the 2 prompts"),
        ({"texture": [[]]}, 1, "one non-empty list for each of the 1 prompts"),
        ({"texture": ["#ff0000"]}, 1, "serve as color references, not as texture"),
        ({"color": ["#ff00"]}, 1, 'must be "#rrggbb"'),
        ({"color": "#ff00"}, 1, "no reference picture at '#ff00'. Hex colors are written as .#rrggbb."),
        ({"color": ["#ff0000", "red"]}, 1, "no reference picture at 'red'"),
        ({"color": Path("missing.png")}, 1, "There is no reference picture at 'missing.png'"),
        ({"color": [PICTURE, None]}, 1, "got NoneType"),
    ],
)
def test_other_references_are_refused(encoder, references, batch_size, message):
    with pytest.raises(ValueError, match=message):
        encoder.encode(references, (32, 32), batch_size)


@pytest.mark.parametrize("form", ["PIL", "numpy", "gray numpy", "torch", "path", "dict", "list", "list of lists"])
def test_every_form_of_a_reference_is_encoded_alike(encoder, rgb, tmp_path, form):
    gray = np.repeat(rgb[..., :1], 3, 2)
    reference = {
        "PIL": lambda: PIL.Image.fromarray(gray),
        "numpy": lambda: gray,
        "gray numpy": lambda: gray[..., 0],
        "torch": lambda: torch.from_numpy(gray).permute(2, 0, 1),
        "path": lambda: str(saved(PIL.Image.fromarray(gray), tmp_path / "a.png")),
        "dict": lambda: {"image": gray, "mask": np.ones(gray.shape[:2], bool), "weight": 3.0},
        "list": lambda: [gray],
        "list of lists": lambda: [[gray]],
    }[form]()
    expected = encoder.encode({"color": gray, "texture": gray}, (32, 32))
    found = encoder.encode({"color": reference, "texture": reference}, (32, 32))
    for name, (features,) in expected.items():
        for key, value in features.items():
            torch.testing.assert_close(found[name][0][key], value)
