"""`mg-diffusion recipe`: a picture tells how it was made, and is made again, pixel by pixel."""

import json
import os
import shutil
from pathlib import PureWindowsPath

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest

from mg_diffusion.cli import main
from mg_diffusion.cli.recorded import check_recipe
from mg_diffusion.loading import embedded_model
from mg_diffusion.recipe import KEY, describe_file, read_recipe
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


@pytest.fixture
def stranger(files):
    """stranger(recipe) -> a picture that holds it, whatever it is."""

    def made(found) -> str:
        text = PIL.PngImagePlugin.PngInfo()
        text.add_text(KEY, found if isinstance(found, str) else json.dumps(found))
        PIL.Image.open("a.png").save("stranger.png", pnginfo=text)
        return "stranger.png"

    return made


@pytest.fixture
def recipe_of_a(files):
    palette = {"color": [{"palette": ["#0a9396"]}]}
    return {"command": "recolor", "image": describe_file("a.png"), "references": palette, "versions": {}}


@pytest.mark.parametrize(
    "added",
    [
        {"force": True, "output": "precious.png"},
        {"output_dir": "elsewhere"},
        {"help": True},
        {"device": "cuda:9"},
        {"num_images": 3, "sheet": True},
        {"trust_remote_code": True},
    ],
    ids=lambda added: next(iter(added)),
)
def test_a_stranger_says_nothing_that_only_flags_say(files, stranger, recipe_of_a, added, capsys):
    picture(9, 64, 64).save("precious.png")
    before = (files / "precious.png").read_bytes()
    assert main(["recipe", stranger({**recipe_of_a, **added}), "-o", "out.png"]) == 0
    err = capsys.readouterr().err
    assert all(f"{name} of the recipe is no flag here" in err for name in added)
    assert (files / "precious.png").read_bytes() == before and not (files / "elsewhere").exists()
    (files / "out.png").write_bytes(b"mine")
    assert main(["recipe", stranger({**recipe_of_a, **added, "force": True}), "-o", "out.png"]) == 2
    assert (files / "out.png").read_bytes() == b"mine"


def test_the_code_of_a_strangers_model_does_not_run(files, stranger, monkeypatch, capsys):
    """Neither that of a folder, which no picture names, nor of a model of the Hub."""
    evil = files / "evil"
    shutil.copytree(embedded_model(), evil)
    index = json.loads((evil / "model_index.json").read_text())
    (evil / "model_index.json").write_text(json.dumps({**index, "unet": ["evil_unet", "EvilUNet"]}))
    (evil / "unet" / "evil_unet.py").write_text(
        "open('ran', 'w').close()\nfrom diffusers import UNet2DConditionModel\nclass EvilUNet(UNet2DConditionModel): pass\n"
    )
    found = {"command": "generate", "references": {"color": [{"palette": ["#0a9396"]}]}, "num_inference_steps": 1}
    for place in ("./evil", str(evil), "evil"):
        path = stranger({**found, "model": place, "trust_remote_code": True})
        assert main(["recipe", path, "-o", "out.png"]) == 2
        assert "whose place a recipe does not tell. Give it: --model" in capsys.readouterr().err
        assert main(["recipe", path, "-o", "out.png", "--trust-remote-code"]) == 2
        assert "Add --model, if you know" in capsys.readouterr().err
        assert main(["recipe", path, "-o", "out.png", "--model", "evil"]) == 2
        assert "Here: --trust-remote-code" in capsys.readouterr().err
        assert not (files / "ran").exists()
    seen = {}

    def loaded(kind, model, **options):
        seen.update(options, model=model)
        raise ValueError("not of this world")

    monkeypatch.setattr("mg_diffusion.cli.generation.load_pipeline", loaded)
    monkeypatch.setattr("mg_diffusion.pipelines.pipeline_class", lambda model: None)
    assert main(["recipe", stranger({**found, "model": "some/body", "trust_remote_code": True}), "-o", "o.png"]) == 2
    assert "the model 'some/body' of the Hub is what the picture names: no code" in capsys.readouterr().err
    assert seen["model"] == "some/body" and seen["trust_remote_code"] is False
    assert main(["recipe", "stranger.png", "-o", "o.png", "--model", "evil", "--trust-remote-code"]) == 2
    assert seen["model"] == "evil" and seen["trust_remote_code"] is True  # as the user says


DAMAGED = {
    "image of another form": {"image": "a.png"},
    "image without a hash": {"image": {"file": "a.png"}},
    "image elsewhere": {"image": {"file": "../a.png", "sha256": "0" * 64}},
    "image at the root": {"image": {"file": "/a.png", "sha256": "0" * 64}},
    "image that leads out": {"image": {"file": "in/../../a.png", "sha256": "0" * 64}},
    "a list of references": {"references": [1]},
    "a reference of another form": {"references": {"color": ["#0a9396"]}},
    "references of another kind": {"references": {"sound": [{"palette": ["#0a9396"]}]}},
    "a palette of numbers": {"references": {"color": [{"palette": [1]}]}},
    "a palette with a file": {"references": {"color": [{"palette": ["#0a9396,mask=/etc/passwd"]}]}},
    "a palette that is a flag": {"references": {"color": [{"palette": ["--force"]}]}},
    "a mask by its path": {"references": {"color": [{**{"palette": ["#0a9396"]}, "mask": "/etc/passwd"}]}},
    "versions in a list": {"versions": [1]},
    "versions of numbers": {"versions": {"torch": 2}},
    "one strength": {"granularity_scale": 5},
    "strengths of text": {"granularity_scale": {"color": "x"}},
    "a schedule of objects": {"granularity_schedule": {"color": {}}},
    "a model by number": {"model": 5},
    "a command in a list": {"command": ["recolor"]},
    "a setting that is an object": {"seed": {"y": [1]}},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_recipe_of_another_form_is_refused_in_words(files, stranger, recipe_of_a, name, capsys):
    (key,) = DAMAGED[name]
    path = stranger({**recipe_of_a, **DAMAGED[name]})
    assert main(["recipe", path, "-o", "out.png"]) == 2
    assert f"the recipe is damaged, or none of mg-diffusion: {key!r} must be" in capsys.readouterr().err.lower()
    assert main(["recipe", path]) == 0  # which is the way that the message names


@pytest.mark.parametrize("place", ["a:b.png", "C:\\a.png", "..\\a.png", "\\a.png", "\\\\server\\share\\a.png"])
def test_what_leads_elsewhere_on_windows_is_refused_there(monkeypatch, place):
    monkeypatch.setattr("mg_diffusion.recipe.Path", PureWindowsPath)
    check_recipe({"image": {"file": "in/a.png", "sha256": "0" * 64}})
    with pytest.raises(ValueError, match="The recipe is damaged"):
        check_recipe({"image": {"file": place, "sha256": "0" * 64}})


@pytest.mark.skipif(os.name == "nt", reason="they are no names of files there")
@pytest.mark.parametrize("name", ["a:b.png", "12:30:00:5.png", "..\\a.png"])
def test_names_that_lead_elsewhere_on_windows_alone_are_repeated(files, name):
    shutil.copy("a.png", name)
    shutil.copy("mask.png", f"m{name}")
    flags = ["--color", f"{name},region=m{name}", "--steps", "1"]
    assert main(["edit", name, "--mask", "mask.png", *flags, "-o", "made.png"]) == 0
    assert read_recipe("made.png")["image"]["file"] == name
    assert main(["recipe", "made.png", "-o", "again.png"]) == 0
    np.testing.assert_array_equal(pixels("made.png"), pixels("again.png"))


@pytest.mark.parametrize("text", ["[]", '"x"', "null", "5", "{", "[" * 100_000], ids=len)
def test_what_is_no_object_is_no_recipe(files, stranger, text, capsys):
    assert main(["recipe", stranger(text), "-o", "out.png"]) == 2
    assert "holds no recipe" in capsys.readouterr().err


def test_files_are_looked_for_in_folders(files, stranger, recipe_of_a, capsys):
    for place in ("nofolder", "a.png"):
        assert main(["recipe", stranger(recipe_of_a), "-o", "out.png", "--files", place]) == 2
        assert f"--files names folders in which files of the recipe lie; {place!r} is none" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["-x.png", "#1.png"])
def test_files_named_like_flags_and_colors_are_repeated(files, stranger, recipe_of_a, name):
    shutil.move("a.png", name)
    shutil.copy("b.png", "a.png")  # what `stranger` draws on
    found = {**recipe_of_a, "image": describe_file(name), "references": {"color": [describe_file(name)]}}
    assert main(["recipe", stranger(found), "-o", "out.png"]) == 0


def test_a_comma_in_a_path_names_no_other_file(files, stranger, recipe_of_a, capsys):
    """What follows it would be read as a mask that the stranger chooses."""
    place = files / "x,mask=" / "elsewhere.png"
    place.parent.mkdir()
    shutil.copy("b.png", place)
    described = {**describe_file(place), "file": "x,mask=/elsewhere.png"}
    found = {**recipe_of_a, "references": {"color": [described]}}
    assert main(["recipe", stranger(found), "-o", "out.png"]) == 2
    assert "has a comma in its path" in capsys.readouterr().err and not (files / "out.png").exists()


def test_a_stranger_does_not_speak_to_the_terminal(files, stranger, recipe_of_a, capsys):
    found = {**recipe_of_a, "versions": {"torch\x1b[2J": "1\x07"}, "evil\x1b]0;title\x07": 1}
    assert main(["recipe", stranger(found), "-o", "out.png"]) == 0
    err = capsys.readouterr().err
    assert "\x1b" not in err and "\x07" not in err and "\\x1b[2J" in err


def test_what_cannot_be_read_beside_the_picture_is_passed_over(files, stranger, recipe_of_a, monkeypatch):
    shutil.move("a.png", "renamed.png")
    shutil.copy("b.png", "a.png")
    (files / "locked.png").write_bytes(b"private")
    accessible = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "locked" not in str(path) and accessible(path, mode))
    assert main(["recipe", stranger(recipe_of_a), "-o", "out.png"]) == 0
