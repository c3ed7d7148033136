"""`mg-diffusion compose`, and the flags that bring an adapter or an encoder to a base."""

import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import StableDiffusionPipeline

from mg_diffusion import MGAdapter, MGEncoder, MGPipeline, compose
from mg_diffusion.cli import main
from mg_diffusion.cli.sheets import drawn_sheet
from mg_diffusion.recipe import read_recipe
from tests.pipelines.tiny import picture, seeded, tiny_components
from tests.profiles import swapped_rgb


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(1).save("texture.png")
    picture(2, 40, 60).save("shape.png")
    return tmp_path


FLAGS = ["--color", "#c1121f:2,#fdf0d5", "--texture", "texture.png,scale=0.5", "--shape", "shape.png"]


def test_it_is_what_the_function_gives_and_holds_its_recipe(files, capsys):
    assert (
        main(["compose", *FLAGS, "--size", "96x64", "--scale", "texture=0.5", "--seed", "3", "-o", "start.png"]) == 0
    )
    assert capsys.readouterr().out.strip() == "start.png"
    given = {
        "color": ["#c1121f:2", "#fdf0d5"],
        "texture": {"image": "texture.png", "scale": 0.5},
        "shape": "shape.png",
    }
    (expected,) = compose(given, 64, 96, {"texture": 0.5}, generator=seeded(3))
    made = PIL.Image.open("start.png")
    assert made.size == (96, 64)
    np.testing.assert_array_equal(np.asarray(made), np.asarray(expected))
    recipe = read_recipe("start.png")
    assert recipe["command"] == "compose" and recipe["seed"] == 3 and recipe["granularity_scale"]["texture"] == 0.5


def test_a_bar_tells_how_far_it_is_unless_pictures_are_counted(files, capsys):
    assert main(["compose", *FLAGS, "--size", "64", "-o", "a.png"]) == 0
    assert "100/100" in capsys.readouterr().err
    (files / "shapes").mkdir()
    picture(2, 40, 60).save("shapes/shape.png")
    assert main(["compose", "--shape", "shapes", "--size", "64", "--output-dir", "out"]) == 0
    told = capsys.readouterr().err
    assert "100/100" not in told and "1/1" in told


def test_several_pictures(files):
    assert (
        main(["compose", *FLAGS, "--size", "64x64", "--assignment", "free", "--num-images", "2", "-o", "a.png"]) == 0
    )
    first, second = (np.asarray(PIL.Image.open(f"a-{index}.png")) for index in range(2))
    assert first.shape == (64, 64, 3) and (first != second).any()


def test_a_sheet_holds_all_pictures_with_their_seeds(files, capsys):
    flags = [
        "compose",
        *FLAGS,
        "--size",
        "64x96",
        "--assignment",
        "free",
        "--seed",
        "7",
        "--num-images",
        "3",
        "--sheet",
    ]
    assert main([*flags, "-o", "a.png"]) == 0
    assert capsys.readouterr().out.split() == ["a-0.png", "a-1.png", "a-2.png", "a.sheet.png"]
    sheet, recipe = PIL.Image.open("a.sheet.png"), read_recipe("a.sheet.png")
    assert recipe["seeds"] == [7, 8, 9] and recipe["files"] == ["a-0.png", "a-1.png", "a-2.png"]
    assert sheet.size == (2 * 72 + 8, 2 * 124 + 8)
    for number in range(3):
        left, top = 8 + number % 2 * 72, 8 + number // 2 * 124
        own = np.asarray(PIL.Image.open(f"a-{number}.png"))
        np.testing.assert_array_equal(np.asarray(sheet)[top : top + 96, left : left + 64], own)
    for number in range(3):
        (files / f"a-{number}.png").unlink()
    assert main([*flags, "-o", "a.png"]) == 2
    assert "a file at 'a.sheet.png' already" in capsys.readouterr().err


def test_pictures_of_any_form_are_laid_on_a_sheet():
    images = [picture(1, 600, 300), PIL.Image.new("RGBA", (32, 32)), PIL.Image.new("I;16", (32, 32), 65535)]
    swapped = PIL.Image.new("RGB", (32, 32), (20, 200, 30))
    swapped.info["icc_profile"] = swapped_rgb()
    red, green, blue = np.asarray(drawn_sheet([swapped], ["red"]))[20, 20].tolist()
    assert red > 180 > 60 > max(green, blue)  # as its profile says
    sheet = np.asarray(drawn_sheet(images, ["a", "b", "c"]))
    assert sheet.shape == (2 * (256 + 28) + 8, 2 * (128 + 8) + 8, 3)
    assert (sheet[8:40, 144:176] == 255).all() and (sheet[292:324, 8:40] == 255).all()


def test_pictures_that_are_the_same_are_told(files):
    flags = ["--color", "#c1121f:2,#fdf0d5", "--shape", "shape.png", "--size", "64", "--num-images", "2"]
    with pytest.warns(UserWarning, match="The 2 pictures are the same.*--assignment free leaves open"):
        assert main(["compose", *flags, "-o", "same.png"]) == 0
    with warnings.catch_warnings(action="error"):
        assert main(["compose", *flags, "--assignment", "free", "-o", "other.png"]) == 0
        assert main(["compose", *FLAGS, "--size", "64", "--num-images", "2", "-o", "tiles.png"]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*FLAGS, "--sheet"], "--sheet lays several pictures side by side. Add --num-images N"),
        ([], "Give --color, --texture or --shape"),
        ([*FLAGS, "--width", "64", "--size", "64"], "--size is width and height in one"),
        ([*FLAGS, "--size", "60x64"], "multiple of 8"),
        ([*FLAGS, "--scale", "color=0", "--scale", "texture=0", "--scale", "shape=0"], "nothing to compose"),
        (["--shape", "shape.png", "--scale", "color=1"], "about the strength of a color reference"),
        (["--shape", "no.png"], "There is no reference picture"),
        (["--shape", "shape.png,wieght=2"], "may stand mask, weight, region and scale, got 'wieght'"),
        ([*FLAGS, "-o", "shape.png"], "shape.png"),
    ],
)
def test_errors_say_what_to_do_and_write_nothing(files, capsys, flags, message):
    before = sorted(files.iterdir())
    assert main(["compose", "-o", "out.png", *flags]) == 2
    assert message in capsys.readouterr().err and sorted(files.iterdir()) == before


def test_a_size_is_two_sides_or_one(files, capsys):
    with pytest.raises(SystemExit):
        main(["compose", *FLAGS, "--size", "7y", "-o", "out.png"])
    assert "must be WIDTHxHEIGHT in pixels, such as 768x512" in capsys.readouterr().err
    picture(1, 40, 80).save("wide.png")
    for size, made in (("128", (184, 88)), ("64x64", (64, 64))):
        assert main(["compose", "--shape", "wide.png", "--size", size, "--force", "-o", "out.png"]) == 0
        assert PIL.Image.open("out.png").size == made


# -- a base, and what steers it -------------------------------------------------------------------------------------------
@pytest.fixture
def base(files):
    """A Stable Diffusion as it is, and the encoder and adapter for it in another folder."""
    parts = tiny_components(files)
    own = {name: part for name, part in parts.items() if not name.startswith("mg_")}
    StableDiffusionPipeline(
        **own, safety_checker=None, feature_extractor=None, requires_safety_checker=False
    ).save_pretrained("base")
    parts["mg_encoder"].save_pretrained("steering/mg_encoder")
    parts["mg_adapter"].save_pretrained("steering/mg_adapter")
    return files


def made_by(flags, output):
    assert main(["generate", "--steps", "4", "--model", "base", *FLAGS, *flags, "-o", output]) == 0
    return np.asarray(PIL.Image.open(output))


def test_a_base_is_steered_with_nothing_else_and_by_an_adapter(base):
    alone = made_by([], "alone.png")
    assert read_recipe("alone.png")["composed_start"] == "auto"
    started = made_by(["--composed-start", "0.9"], "started.png")
    adapted = made_by(["--adapter", "steering"], "adapted.png")
    assert len({one.tobytes() for one in (alone, started, adapted)}) == 3
    by_other_encoder = made_by(["--encoder", "steering", "--feature-guidance", "color=1"], "encoder.png")
    assert by_other_encoder.shape == alone.shape


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--texture", ""], "argument --texture: is empty: a variable of the shell"),
        (["--composed-start", "2"], "from 0 (off) to 1"),
    ],
)
def test_flags_that_say_nothing(base, capsys, flags, message):
    try:
        assert main(["generate", "--model", "base", *FLAGS, *flags, "-o", "none.png"]) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    assert message in capsys.readouterr().err


def test_an_adapter_that_is_not_there(base, capsys):
    assert main(["generate", "--model", "base", "--adapter", "nowhere", *FLAGS, "-o", "out.png"]) == 2
    assert "There is no folder 'nowhere'" in capsys.readouterr().err
    MGEncoder().save_pretrained("half/mg_encoder")
    assert main(["generate", "--model", "base", "--adapter", "half", *FLAGS, "-o", "out.png"]) == 2
    assert "Cannot load MGAdapter from 'half/mg_adapter'" in capsys.readouterr().err


def test_an_untrained_adapter_is_told_on_the_command_line(base):
    torch.manual_seed(0)
    pipe = MGPipeline.from_pretrained("base")
    encoder = MGEncoder.from_pretrained("steering", subfolder="mg_encoder")
    encoder.save_pretrained("fresh/mg_encoder")
    MGAdapter.from_unet(pipe.unet, encoder).save_pretrained("fresh/mg_adapter")
    with pytest.warns(UserWarning, match="adapter was never trained"):
        made_by(["--adapter", "fresh"], "fresh.png")
