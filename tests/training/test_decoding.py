"""Which files are pictures: what is converted, and what is skipped for which reason."""

import io

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.decoding import MODES, Unusable, decode

from .garbage import contents, encode, noise, png, png_header


def read(data, min_side=16, **options):
    return decode(io.BytesIO(data), min_side, **options)


CASES = {name.partition("-")[2]: case for name, case in contents(0).items() if case[1] != "not a picture file"}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_picture_has_its_reason(name):
    data, reason = CASES[name]
    with pytest.raises(Unusable) as raised:
        read(data)
    assert raised.value.reason == reason and raised.value.detail


@pytest.mark.parametrize("mode", MODES)
def test_sound_modes_become_rgb(mode):
    level = 255 if mode == "1" else 102  # of the palette that PIL converts to
    image = read(encode(PIL.Image.new("RGB", (32, 32), (level,) * 3).convert(mode), "PNG"))
    assert image.mode == "RGB" and image.size == (32, 32) and (np.asarray(image) == level).all()


def test_rgb_of_16_bits_is_read_with_8():
    row = b"\0" + bytes([200, 17, 100, 17, 50, 17]) * 32  # no filter, then the high byte first
    assert (np.asarray(read(png(32, 32, 16, row * 32))) == (200, 100, 50)).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode):
    pixels = np.zeros((32, 32, 4), np.uint8)
    pixels[:, 16:] = (0, 0, 0, 255)
    image = PIL.Image.fromarray(pixels)
    data = encode(image.quantize(4) if mode == "P" else image.convert(mode), "PNG")
    found = np.asarray(read(data))
    assert (found[:, :16] == 255).all() and (found[:, 16:] < 3).all()


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP"])
def test_formats_are_read(kind):
    flat = PIL.Image.new("RGB", (32, 32), (200, 100, 50))
    assert np.abs(np.asarray(read(encode(flat, kind)), int) - (200, 100, 50)).max() < 8


@pytest.mark.parametrize("mode, kind", [("F", "TIFF"), ("I", "TIFF"), ("LAB", "TIFF"), ("CMYK", "TIFF")])
def test_modes_that_need_a_guess_are_skipped(mode, kind):
    image = noise(0).convert("L").convert(mode) if mode in "FI" else PIL.Image.new(mode, (32, 32))
    with pytest.raises(Unusable) as raised:
        read(encode(image, kind))
    assert raised.value.args == ("color mode", f"{mode}, none of {', '.join(MODES)}")


def test_the_photograph_of_a_phone_is_the_first_picture_of_its_file():
    light, dark = (PIL.Image.new("RGB", (32, 32), (level,) * 3) for level in (200, 50))
    data = encode(light, "MPO", save_all=True, append_images=[dark])
    assert PIL.Image.open(io.BytesIO(data)).n_frames == 2
    assert np.asarray(read(data)).min() > 190


def test_a_second_page_is_no_picture_of_its_own():
    with pytest.raises(Unusable, match="animated.*a TIFF of several pictures"):
        read(encode(noise(0), "TIFF", save_all=True, append_images=[noise(1)]))


@pytest.mark.parametrize("limit, is_read", [(1599, False), (1600, True)])
def test_the_limit_of_pixels_is_judged_by_the_header(limit, is_read):
    if is_read:
        assert read(encode(noise(0), "PNG"), max_pixels=limit).size == (40, 40)
    with pytest.raises(Unusable, match="40 x 40, more than 1599 in all"):
        read(png_header(40, 40), max_pixels=1599)
    with pytest.raises(Unusable, match="too many pixels"):
        read(png_header(10_000, 10_000))


@pytest.mark.parametrize("least, is_read", [(40, True), (41, False)])
def test_the_shorter_side_counts(least, is_read):
    data = encode(noise(0).resize((80, 40)), "PNG")
    if is_read:
        assert read(data, least).size == (80, 40)
    else:
        with pytest.raises(Unusable, match="80 x 40, the shorter side less than 41"):
            read(data, least)


def test_a_lack_of_memory_is_no_damage_of_the_file(monkeypatch):
    def fail(self):
        raise MemoryError

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(MemoryError):
        read(encode(noise(0), "PNG"))
