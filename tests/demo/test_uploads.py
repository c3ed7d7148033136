"""What comes from outside is checked before it is decoded, and refused in words."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, save_file

from demo import links, uploads
from demo.checked_references import CheckedReference, read_reference
from demo.settings import MAX_COUNT, MAX_SEED, MAX_STEPS, MAX_SWEEP, Settings
from mg_diffusion.granularities import GRANULARITIES
from tests.profiles import srgb, swapped_rgb


def as_file(image: PIL.Image.Image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG file whose header promises more than anyone wants to decode."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def test_the_page_about_it_names_the_limits(repository):
    said = " ".join((repository / "docs/demo.md").read_text(encoding="utf-8").split())
    million, of_edits = (f"{pixels / 10**6:g} million" for pixels in (uploads.MAX_PIXELS, uploads.MAX_EDIT_PIXELS))
    assert f"{million} pixels for a reference, {of_edits} for a picture to edit" in said
    assert f"files: {uploads.MAX_BYTES // 2**20} MB" in said and f"cards: {uploads.MAX_CARD_BYTES // 2**20} MB" in said
    assert f"at most {MAX_STEPS} steps, {MAX_COUNT} pictures, {MAX_SWEEP} x {MAX_SWEEP} in a grid" in said


RED = PIL.Image.new("RGB", (64, 48), "#cc2222")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a picture"),
        (b"hello", "cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture"),
        (as_file(RED, "GIF"), "cannot be read as a picture. Accepted are PNG, JPEG, WEBP"),
        (as_file(RED, "BMP"), "cannot be read as a picture"),
        (as_file(RED)[:90], "damaged"),
        (bomb(60_000, 60_000), "pixels; at most 16 million"),
        (bomb(5_000, 4_000), "pixels; at most 16 million are accepted. Shrink it to 4472 x 3577 or less first"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "Accepted are PNG, JPEG, WEBP files. HEIC, .* save it as JPEG"),
        (bomb(4_000, 3_000), "damaged"),
        (as_file(PIL.Image.new("RGB", (4, 4))), "each side must have at least 8"),
        (as_file(PIL.Image.new("RGB", (500, 20))), "none more than 8 times"),
        (as_file(PIL.Image.new("RGBA", (64, 64), "#ff000080")), "transparent parts"),
        (as_file(PIL.Image.new("CMYK", (64, 64)), "JPEG"), "stored as CMYK"),
        (as_file(PIL.Image.new("I;16", (64, 64))), "stored as I"),
    ],
)
def test_pictures_that_cannot_serve_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        uploads.read_reference(content, "The color reference")


def test_a_colored_mask_is_refused():
    mask = PIL.Image.new("RGB", (64, 64))
    mask.paste("red", (0, 0, 32, 64))
    with pytest.raises(ValueError, match="The mask has colors. Save it in black and white"):
        uploads.read_mask(as_file(mask), (64, 64))


def test_pictures_in_other_colors_are_read_in_srgb_without_their_profile():
    image, colors = PIL.Image.new("RGB", (32, 32), (200, 40, 60)), (40, 200, 60)
    content = as_file(image, "PNG", icc_profile=swapped_rgb())
    photo, profile = uploads.read_photo(content)
    assert profile is None
    for read in (photo, uploads.read_reference(content, "The color reference")):
        assert np.abs(np.asarray(read)[0, 0].astype(int) - colors).max() <= 2 and not read.info
    photo, profile = uploads.read_photo(as_file(image, "PNG", icc_profile=srgb()))
    assert profile == srgb() and photo.getpixel((0, 0)) == (200, 40, 60)


def test_a_picture_is_turned_upright_reduced_and_loses_its_metadata():
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Secret Camera"
    image = PIL.Image.fromarray(np.arange(1024 * 512 * 3, dtype=np.uint32).astype(np.uint8).reshape(512, 1024, 3))
    read = uploads.read_reference(as_file(image, "JPEG", exif=exif), "The color reference")
    assert read.size == (256, 512) and read.mode == "RGB" and not read.info and not read.getexif()


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA"])
def test_ordinary_modes_are_read(mode):
    assert uploads.read_reference(as_file(RED.convert(mode)), "The shape reference").mode == "RGB"


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.bin"
    path.write_bytes(b"0" * 3000)
    with pytest.raises(ValueError, match="0.0 MB; at most 0 MB"):
        uploads.file_bytes(path, 2000)
    assert len(uploads.file_bytes(path)) == 3000


def test_masks_must_fit_and_be_opaque():
    mask = PIL.Image.new("L", (64, 48), 200)
    assert uploads.read_mask(as_file(mask), (64, 48)).getextrema() == (255, 255)
    with pytest.raises(ValueError, match="The mask has 64 x 48 pixels, the picture 48 x 64"):
        uploads.read_mask(as_file(mask), (48, 64))
    with pytest.raises(ValueError, match="transparent parts"):
        uploads.read_mask(as_file(PIL.Image.new("RGBA", (64, 48))), (64, 48))


def test_a_mask_of_16_bits_is_split_at_its_middle_gray():
    levels = np.full((48, 64), 20_000, np.uint16)
    levels[:, :32] = 40_000
    mask = uploads.read_mask(as_file(PIL.Image.fromarray(levels)), (64, 48))
    assert (np.asarray(mask) == np.where(levels > 32768, 255, 0)).all()


def test_palettes_are_read():
    assert uploads.read_palette(" #ff8800:3, #224466; #abcdef:0.5 ") == ["#ff8800:3", "#224466", "#abcdef:0.5"]
    assert uploads.read_palette("  ") == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("red", "'red' is no color"),
        ("#ff88", "is no color"),
        ("#ff8800:0", "is no color"),
        ("#ff8800:-1", "is no color"),
        ("#ff8800:1e9", "is no color"),
        ("#ff8800:nan", "is no color"),
        (", ".join(["#ff8800"] * 17), "17 colors; at most 16"),
        ("#ff8800," * 1000, "short text"),
        (3, "short text"),
    ],
)
def test_palettes_that_are_none_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        uploads.read_palette(text)


# -- cards ------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def loaded(models):
    return models.get()


@pytest.fixture(scope="module")
def cards(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    for name in GRANULARITIES:
        loaded.pipe.mg_encoder.save_card(
            folder / f"{name}.safetensors", name, PIL.Image.new("RGB", (120, 40), "#446688")
        )
    return folder


def check(path, name, loaded):
    uploads.check_card(path, name, loaded.pipe.mg_encoder, loaded.card_shapes[name])


@pytest.mark.parametrize("name", GRANULARITIES)
def test_cards_of_any_aspect_ratio_are_accepted(cards, loaded, name):
    check(cards / f"{name}.safetensors", name, loaded)


def metadata(cards, loaded, name):
    return {
        "format": uploads.CARD_FORMAT,
        "granularity": name,
        "encoder": loaded.pipe.mg_encoder.fingerprint(name),
        "source": "",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda kept: kept.pop("tiles"), "does not hold"),
        (lambda kept: kept.update(more=torch.zeros(3)), "holds more"),
        (lambda kept: kept.update(tiles=torch.zeros(1, 64, 24, 25)), "does not hold"),
        (lambda kept: kept.update(tiles=torch.zeros(1, 64, 24, 24, dtype=torch.int32)), "does not hold"),
        (lambda kept: kept.update(tiles=kept["tiles"].to(torch.float8_e4m3fn)), "does not hold"),
        (lambda kept: kept.update(vector=kept["vector"] * torch.nan), "numbers that no picture gives"),
        (lambda kept: kept.update(vector=kept["vector"] + torch.inf), "numbers that no picture gives"),
    ],
)
def test_cards_with_other_contents_are_refused(cards, loaded, tmp_path, change, message):
    kept = load_file(cards / "texture.safetensors")
    change(kept)
    save_file(kept, tmp_path / "card.safetensors", metadata(cards, loaded, "texture"))
    with pytest.raises(ValueError, match=message):
        check(tmp_path / "card.safetensors", "texture", loaded)


@pytest.mark.parametrize("shape", [(1, 1, 64, 64 * 5), (1, 1, 0, 64), (1, 2, 64, 64)])
def test_maps_are_bounded(cards, loaded, tmp_path, shape):
    kept = {**load_file(cards / "shape.safetensors"), "edges": torch.zeros(shape)}
    save_file(kept, tmp_path / "card.safetensors", metadata(cards, loaded, "shape"))
    with pytest.raises(ValueError, match="does not hold"):
        check(tmp_path / "card.safetensors", "shape", loaded)


def test_what_is_no_card_is_refused(cards, loaded, tmp_path):
    path = tmp_path / "card.safetensors"
    for content, message in (
        (b"", "cannot be read"),
        (b"\x80\x04\x95pickle", "cannot be read"),
        (struct.pack("<Q", 2**60) + b"{}", "cannot be read"),
        (b"0" * (uploads.MAX_CARD_BYTES + 1), "at most 4 MB"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            check(path, "texture", loaded)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="no granularity card"):
        check(path, "texture", loaded)
    kept = load_file(cards / "texture.safetensors")
    save_file(kept, path, metadata(cards, loaded, "texture") | {"format": "mg_diffusion granularity card 2"})
    with pytest.raises(ValueError, match="no granularity card"):
        check(path, "texture", loaded)
    save_file(kept, path, metadata(cards, loaded, "texture") | {"encoder": "another"})
    with pytest.raises(ValueError, match="made by another model"):
        check(path, "texture", loaded)


def test_references_in_recipes_are_checked_like_uploads():
    reference = CheckedReference("picture", RED)
    assert read_reference(reference.recipe(True), "color").value == RED
    assert read_reference(reference.recipe(False), "color") is None
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        read_reference({"picture": "aGVsbG8="}, "color")


# -- settings and addresses -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scales": {"color": 1.0}}, "a strength for each"),
        ({"scales": {"color": 3.0, "texture": 1.0, "shape": 1.0}}, "strength of color must be a number from 0 to 2"),
        ({"scales": {"color": None, "texture": 1.0, "shape": 1.0}}, "strength of color"),
        ({"scales": {"color": float("nan"), "texture": 1.0, "shape": 1.0}}, "strength of color"),
        ({"prompt": "a" * 301}, "at most 300"),
        ({"prompt": 3}, "at most 300"),
        ({"prompt": "\ud800"}, "half a character"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED}, "seed"),
        ({"seed": 10**400}, "seed"),
        ({"seed": "<img src=x>"}, "'&lt;img src=x&gt;'"),
        ({"seed": 1.5}, "whole number"),
        ({"seed": True}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 51}, "steps"),
        ({"count": 17}, "pictures must be a number from 1 to 16"),
        ({"guidance": 0.9}, "Guidance must be a number from 1 to 15"),
        ({"guidance": None}, "Guidance"),
        ({"size": 100}, "size must be one of 64, 128, 256, 512, got 100"),
        ({"size": "256"}, "size must be a number"),
        ({"aspect": "5:1"}, "aspect must be one of as the shape, 1:1"),
        ({"aspect": None}, "aspect"),
        ({"coarseness": 0.2}, "coarseness of texture must be a number from 0.25 to 4"),
        ({"coarseness": float("nan")}, "coarseness"),
        ({"assignment": "dark"}, "assignment of colors must be one of light, free"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**{"scales": dict.fromkeys(GRANULARITIES, 1.0), **changes})


def test_an_address_comes_back():
    values = {"color": "#023047:2, #8ecae6", "texture": "weave", "shape_scale": 0.5, "seed": 3, "prompt": "a b&c"}
    values |= {"size": "128", "aspect": "3:2", "coarseness": 2.0, "assignment": "free"}
    query = links.write(values)
    assert query == (
        "?color=023047:2,8ecae6&texture=weave&shape_scale=0.5&seed=3&prompt=a+b%26c&size=128&aspect=3:2"
        "&coarseness=2&assignment=free"
    )
    from urllib.parse import parse_qsl

    assert links.parse(dict(parse_qsl(query[1:])), ["mg-bazaar"]) == (values, [])


def test_an_address_that_says_nothing_is_told():
    query = {"color": "red", "texture": "../etc", "shape_scale": "99", "seed": "x", "tab": "admin", "other": "1"}
    found, complaints = links.parse(query, ["mg-bazaar"])
    (long,) = links.parse({"prompt": "a" * 301}, ["mg-bazaar"])[1]
    assert "prompt is left out: The prompt must be a text of at most 300 characters, got 301 characters." in long
    assert (
        "seed is left out: The seed must be a number from 0 to" in complaints[-2]
        and "got the text 'x'." in complaints[-2]
    )
    assert found == {} and len(complaints) == 5 and all("left out" in one for one in complaints)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(ValueError, match="no longer there. Upload it again"):
        uploads.file_bytes(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="a strength for each of"):
        Settings(scales=None)
