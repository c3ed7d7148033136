"""`mg-diffusion recipe`: a picture tells how it was made, and is made again, pixel by pixel."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest

from mg_diffusion.cli import main
from mg_diffusion.recipe import read_recipe
from tests.pipelines.tiny import picture


def pixels(path) -> np.ndarray:
    with PIL.Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(1, 64, 64).save("a.png")
    picture(2, 64, 64).save("b.png")
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 20:40] = 255
    PIL.Image.fromarray(mask).save("mask.png")
    return tmp_path


STEERED = [
    *("--color", "#c1121f:2,#fdf0d5", "--color", "a.png,mask=mask.png,weight=0.5", "--shape", "b.png"),
    *("--texture", "a.png,scale=2,region=0:0:0.5:1", "--scale", "texture=0.7", "--schedule", "texture=0:0.5"),
    *("--schedule", "color=1,0.5,0", "--guidance", "shape=0.5", "--negative-color", "b.png", "--steps", "2"),
]
COMMANDS = {
    "curve": ["generate", "--color", "#c1121f", "--schedule", "color=0,1", "--prompt=-a", "--steps", "4", "--size", "64"],
    "generate": ["generate", *STEERED, "--seed", "3", "--size", "64"],
    "guided": ["generate", "--shape", "b.png", "--feature-guidance", "shape=1", "--feature-window", "0:0.5", "--steps", "4", "--size", "64"],
    "many steps": ["generate", "--color", "#c1121f", "--many-steps", "--steps", "2", "--size", "64"],
    "compose": ["compose", "--color", "#c1121f,#fdf0d5", "--shape", "b.png", "--size", "96x64", "--assignment", "free", "--seed", "2"],
    "edit": ["edit", "a.png", "--mask", "mask.png", "--color", "b.png", "--steps", "2", "--feather", "2"],
    "recolor": ["recolor", "a.png", "--color", "b.png", "--assignment", "free", "--seed", "5"],
    "outpaint": ["outpaint", "a.png", "--left", "16"],
    "variation": ["variation", "a.png", "--size", "64", "--steps", "2"],
}  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_picture_is_made_again(files, name, capsys):
    assert main([*COMMANDS[name], "-o", "made.png"]) == 0
    assert main(["recipe", "made.png", "-o", "again.png"]) == 0
    assert "mg-diffusion " in capsys.readouterr().err
    np.testing.assert_array_equal(pixels("made.png"), pixels("again.png"))
    assert read_recipe("made.png") == read_recipe("again.png")


def test_without_an_output_the_recipe_is_printed(files, capsys):
    main([*COMMANDS["compose"], "-o", "made.jpg"])
    capsys.readouterr()
    assert main(["recipe", "made.jpg"]) == 0
    assert json.loads(capsys.readouterr().out) == read_recipe("made.jpg")


def test_files_are_found_by_content_wherever_they_lie(files, capsys):
    main([*COMMANDS["compose"], "-o", "made.png"])
    (files / "elsewhere").mkdir()
    shutil.move("b.png", "elsewhere/renamed.png")
    assert main(["recipe", "made.png", "-o", "again.png"]) == 2
    assert "needs the file 'b.png' as it was" in capsys.readouterr().err
    assert main(["recipe", "made.png", "-o", "again.png", "--files", "elsewhere"]) == 0
    np.testing.assert_array_equal(pixels("made.png"), pixels("again.png"))
    picture(7).save("b.png")
    assert main(["recipe", "made.png", "-o", "other.png"]) == 2
    assert "is another picture by now" in capsys.readouterr().err


def test_files_are_found_where_they_were_named_and_elsewhere_by_a_folder(files, capsys, monkeypatch):
    """References in other folders than the picture, given relative, absolute, and by a path that leads out."""
    for name in ("refs/deep", "out", "far", "work"):
        (files / name).mkdir(parents=True)
    shutil.move("a.png", "refs/deep/a.png")
    shutil.move("b.png", "far/b.png")
    flags = ["--texture", "refs/deep/a.png,mask=mask.png", "--size", "64", "--steps", "1"]
    assert main(["generate", *flags, "-o", "out/made.png"]) == 0
    assert main(["recipe", "out/made.png", "-o", "again.png"]) == 0
    np.testing.assert_array_equal(pixels("out/made.png"), pixels("again.png"))
    assert read_recipe("out/made.png") == read_recipe("again.png")
    monkeypatch.chdir(files / "work")
    for far in ("../far/b.png", str(files / "far" / "b.png")):
        flags = ["--shape", far, "--color", "#c1121f", "--size", "64"]
        assert main(["compose", *flags, "--force", "-o", "made.png"]) == 0
        assert read_recipe("made.png")["references"]["shape"][0]["file"] == "b.png"
        assert main(["recipe", "made.png", "--force", "-o", "again.png"]) == 2
        assert "--files FOLDER" in capsys.readouterr().err
        assert main(["recipe", "made.png", "--files", "../far", "--force", "-o", "again.png"]) == 0
        np.testing.assert_array_equal(pixels("made.png"), pixels("again.png"))


def test_what_cannot_be_repeated_is_told(files, capsys):
    assert main(["recipe", "a.png"]) == 2
    assert "holds no recipe" in capsys.readouterr().err
    assert main(["recipe", "nowhere.png"]) == 2
    main([*COMMANDS["compose"], "-o", "made.png"])
    assert main(["recipe", "made.png", "-o", "made.png"]) == 2
    assert "already" in capsys.readouterr().err
    from mg_diffusion.recipe import save_png

    save_png(PIL.Image.open("a.png"), "page.png", {"command": "demo.generate"})
    assert main(["recipe", "page.png", "-o", "out.png"]) == 2
    assert "restored by dropping them onto it" in capsys.readouterr().err
    save_png(PIL.Image.open("a.png"), "own.png", {"command": "generate", "model": "my-model", "seed": 1})
    assert main(["recipe", "own.png", "-o", "out.png"]) == 2
    assert "made by the model 'my-model'" in capsys.readouterr().err
