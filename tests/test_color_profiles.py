"""Pictures that bring a color profile along: read in sRGB, edited in their own colors, and no profile where it is wrong."""

import numpy as np
import PIL.Image
import pytest

from mg_diffusion import edits
from mg_diffusion.cli import main
from mg_diffusion.color_profiles import from_srgb, in_srgb
from mg_diffusion.encoder.reading import read_cut_out, read_image
from mg_diffusion.pipelines.pictures import list_images
from tests.pipelines.tiny import picture
from tests.profiles import cmyk, scanner_rgb, srgb, swapped_rgb


@pytest.fixture
def press(tmp_path):
    """A CMYK JPEG, and the same as TIFF, all of cyan."""
    image = PIL.Image.new("CMYK", (48, 40), (255, 0, 0, 0))
    image.save(tmp_path / "press.jpg", icc_profile=cmyk(), quality=100)
    image.save(tmp_path / "press.tif", icc_profile=cmyk())
    return tmp_path


def test_cmyk_is_converted_by_its_profile(press):
    for name in ("press.jpg", "press.tif"):
        rgb = 255 * read_image(press / name)
        red, green, blue = rgb.mean((1, 2)).tolist()
        assert green > 200 and green > red + 40 and green > blue + 60  # cyan without it
        (read,) = list_images(press / name)
        assert read.mode == "RGB" and "icc_profile" not in read.info
        assert np.abs(np.asarray(read).mean((0, 1)) - [red, green, blue]).max() < 1


def test_cmyk_without_a_profile_or_with_a_broken_one_is_refused(tmp_path):
    image = PIL.Image.new("CMYK", (48, 40))
    image.save(tmp_path / "bare.jpg")
    image.save(tmp_path / "broken.jpg", icc_profile=b"nothing")
    image.save(tmp_path / "other.jpg", icc_profile=swapped_rgb())
    with pytest.raises(ValueError, match="mode CMYK.*this one has none that can be read"):
        read_image(tmp_path / "bare.jpg")
    for name in ("broken.jpg", "other.jpg"):
        with pytest.warns(UserWarning, match="profile.*cannot be applied"), pytest.raises(ValueError, match="CMYK"):
            list_images(tmp_path / name)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colors_of_another_profile_are_brought_to_srgb(mode):
    image = PIL.Image.new("RGB", (32, 32), (200, 40, 60)).convert(mode, palette=PIL.Image.Palette.ADAPTIVE)
    image.info["icc_profile"] = swapped_rgb()
    assert np.abs(255 * read_image(image)[:, 0, 0].numpy() - [40, 200, 60]).max() <= 2
    assert "icc_profile" not in in_srgb(image).info and in_srgb(image).mode == ("RGBA" if mode == "RGBA" else "RGB")


def test_what_is_transparent_stays_so():
    image = PIL.Image.new("RGBA", (32, 32), (200, 40, 60, 255))
    image.paste((0, 0, 0, 0), (0, 0, 16, 32))
    image.info["icc_profile"] = swapped_rgb()
    rgb, visible = read_cut_out(image)
    assert visible[0, :, :16].max() == 0 and visible[0, :, 16:].min() == 1
    assert np.abs(255 * rgb[:, 0, 31].numpy() - [40, 200, 60]).max() <= 2


def test_srgb_by_any_name_is_left_as_it_is():
    image = picture(1)
    image.info["icc_profile"] = srgb()
    assert in_srgb(image) is image
    image.info["icc_profile"] = swapped_rgb()
    assert in_srgb(image) is not image


def test_a_broken_profile_is_told_and_the_colors_are_taken_as_srgb():
    image = picture(1)
    plain = np.asarray(image)
    for profile, why in ((b"nothing", "cannot be applied"), (cmyk(), "it is of CMYK, the picture of RGB")):
        image.info["icc_profile"] = profile
        with pytest.warns(UserWarning, match=f"{why}.*taken as those of sRGB"):
            (read,) = list_images(image)
        assert (np.asarray(read) == plain).all()


def test_there_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    image = PIL.Image.fromarray(pixels)
    image.info["icc_profile"] = swapped_rgb()
    assert np.abs(from_srgb(np.asarray(in_srgb(image)), swapped_rgb()).astype(int) - pixels).max() <= 2


# -- edits ----------------------------------------------------------------------------------------------------------------
@pytest.fixture
def photo(tmp_path):
    """Left what is red by its profile, right what is blue."""
    image = PIL.Image.new("RGB", (64, 48), (20, 200, 30))
    image.paste((30, 20, 200), (32, 0, 64, 48))
    image.save(tmp_path / "photo.png", icc_profile=swapped_rgb())
    return tmp_path / "photo.png"


def test_a_recolored_picture_has_the_palette_in_its_own_profile(shipped, photo):
    mask = PIL.Image.new("L", (64, 48))
    mask.paste(255, (0, 0, 32, 48))
    (made,) = edits.recolor(shipped, photo, ["#c02020"], mask)
    before, after = np.asarray(PIL.Image.open(photo)), np.asarray(made)
    assert made.info["icc_profile"] == swapped_rgb()
    assert (after[:, 32:] == before[:, 32:]).all()
    assert after[:, :32, 1].mean() > after[:, :32, 0].mean() + 60  # red, which is green in its numbers
    (same,) = edits.recolor(shipped, photo, ["#c02020"], mask, granularity_scale=0.0)
    assert (np.asarray(same) == before).all()


def test_edits_without_colors_of_others_compute_in_the_picture_s_own(shipped, photo):
    (made,) = edits.outpaint(shipped, photo, left=8)
    assert made.info["icc_profile"] == swapped_rgb()
    assert (np.asarray(made)[:, 8:] == np.asarray(PIL.Image.open(photo))).all()


def test_a_variation_is_in_srgb(shipped, photo):
    (made,) = edits.variation(shipped, photo, num_inference_steps=2)
    assert "icc_profile" not in made.info


def test_cmyk_is_edited_in_srgb(shipped, press):
    (made,) = edits.outpaint(shipped, press / "press.tif", left=8)
    assert made.mode == "RGB" and "icc_profile" not in made.info
    assert (
        np.abs(
            np.asarray(made)[:, 8:].mean((0, 1)) - np.asarray(list_images(press / "press.tif")[0]).mean((0, 1))
        ).max()
        < 1
    )


def saved(path):
    with PIL.Image.open(path) as image:
        image.load()
    return image


def test_the_command_line_keeps_the_profile_where_it_is_right(photo, press, model, capsys):
    mask = PIL.Image.new("L", (64, 48))
    mask.paste(255, (8, 8, 40, 40))
    mask.save(photo.with_name("mask.png"))
    flags = ["--model", str(model), "--steps", "2"]
    for suffix in (".png", ".webp", ".tif"):
        out = str(photo.with_name(f"edited{suffix}"))
        command = ["edit", str(photo), "--mask", str(photo.with_name("mask.png")), "--color", "#c02020", "-o", out]
        assert main([*command, *flags]) == 0
        assert "differ: 0" in capsys.readouterr().out
        assert saved(out).info["icc_profile"] == swapped_rgb()
    out = str(photo.with_name("varied.png"))
    assert main(["variation", str(photo), "-o", out, *flags]) == 0
    assert "icc_profile" not in saved(out).info
    out = str(press / "wide.png")
    assert main(["outpaint", str(press / "press.jpg"), "--left", "8", "--model", str(model), "-o", out]) == 0
    assert "is CMYK: it is edited in sRGB" in capsys.readouterr().err
    assert "icc_profile" not in saved(out).info and saved(out).mode == "RGB"


@pytest.mark.parametrize("command", ["edit", "recolor"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "transparent"])
def test_palettes_with_a_profile_are_compared_in_srgb(photo, model, capsys, command, alpha):
    mask = PIL.Image.new("L", (64, 48))
    mask.paste(255, (8, 8, 40, 40))
    mask.save(photo.with_name("mask.png"))
    image = PIL.Image.open(photo).convert("P", palette=PIL.Image.Palette.ADAPTIVE)
    options = {"transparency": bytes([255] * 255 + [0])} if alpha else {}
    image.save(photo.with_name("few.png"), icc_profile=swapped_rgb(), **options)
    given, out = str(photo.with_name("few.png")), str(photo.with_name("out.png"))
    flags = ["--mask", str(photo.with_name("mask.png")), "--color", "#c02020", "-o", out, "--model", str(model)]
    assert main([command, given, *flags, *(["--steps", "2"] if command == "edit" else [])]) == 0
    printed = capsys.readouterr()
    assert "differ: 0" in printed.out and "is of a palette: it is edited in sRGB" in printed.err
    assert "icc_profile" not in saved(out).info
    kept = np.asarray(in_srgb(PIL.Image.open(given)).convert("RGB"))[:8]
    assert (np.asarray(saved(out).convert("RGB"))[:8] == kept).all()


def test_a_profile_without_a_way_back_is_refused_before_the_work(shipped):
    photo = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    photo.info["icc_profile"] = scanner_rgb()
    with pytest.raises(ValueError, match="Convert it first"):
        edits.recolor(shipped, photo, ["#4a6fa5"])
    (made,) = edits.recolor(shipped, in_srgb(photo), ["#4a6fa5"])  # the remedy
    assert made.size == photo.size
