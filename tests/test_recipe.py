"""Recipes in PNG files, and outputs that are whole or not there."""

import hashlib
import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from small_disk import file_size_limit

from mg_diffusion import __version__
from mg_diffusion.picture_files import FORMATS, save_picture
from mg_diffusion.recipe import (
    KEY,
    describe_file,
    describe_reference,
    prepare_output,
    read_recipe,
    replacing,
    save_png,
    versions,
)


PICTURE = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))


def test_a_recipe_is_read_back_and_leaves_the_pixels_alone(tmp_path):
    recipe = {
        "prompt": 'Blüte 花 \n"quoted"',
        "seed": 2**62,
        "guidance_scale": 2.5,
        "references": {"color": ["#ff8800:3"]},
    }
    save_png(PICTURE, tmp_path / "a.png", recipe)
    assert read_recipe(tmp_path / "a.png") == {**recipe, "versions": versions()}
    assert versions()["mg_diffusion"] == __version__
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert list(image.text) == [KEY]
        assert (np.asarray(image) == np.asarray(PICTURE)).all()


def test_the_color_profile_is_kept(tmp_path):
    save_png(PICTURE, tmp_path / "a.png", {}, icc_profile=b"a profile")
    with PIL.Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg"])
def test_a_picture_without_a_recipe_is_told_apart(tmp_path, name):
    PICTURE.save(tmp_path / name)
    with pytest.raises(ValueError, match="holds no recipe"):
        read_recipe(tmp_path / name)


def test_a_foreign_text_is_no_recipe(tmp_path):
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text(KEY, "{not json")
    PICTURE.save(tmp_path / "a.png", pnginfo=text)
    with pytest.raises(ValueError, match="holds no recipe"):
        read_recipe(tmp_path / "a.png")


def test_references_are_named_without_folders_of_the_machine(tmp_path, monkeypatch):
    path = tmp_path / "wool.png"
    path.write_bytes(b"some bytes")
    assert describe_file(path) == {"file": "wool.png", "sha256": hashlib.sha256(b"some bytes").hexdigest()}
    assert describe_reference(str(path)) == describe_file(path)
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/b.png").write_bytes(b"")
    told = {
        "in/b.png": "in/b.png",
        "./in/b.png": "in/b.png",
        "in/../in/b.png": "b.png",
        str(tmp_path / "in/b.png"): "b.png",
    }
    assert {given: describe_file(given)["file"] for given in told} == told
    assert describe_reference(["#ffffff"]) == {"palette": ["#ffffff"]}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as part:
        part.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_full_disk_leaves_the_old_picture(tmp_path, suffix):
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
    target = tmp_path / f"a{suffix}"
    save_picture(PICTURE, target, {})
    before = target.read_bytes()
    with file_size_limit(10_000), pytest.raises(OSError, match="too large"):
        save_picture(noise, target, {})
    assert target.read_bytes() == before and os.listdir(tmp_path) == [target.name]


def test_a_write_replaces_what_a_link_points_to(tmp_path):
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "a.txt"
    target.write_text("old")
    (tmp_path / "link.txt").symlink_to(target)
    with replacing(tmp_path / "link.txt") as part:
        part.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert target.read_text() == "new"


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    save_png(PICTURE, tmp_path / "a.png", {})
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_preparing_makes_folders_and_leaves_no_trace(tmp_path):
    path = prepare_output(tmp_path / "new" / "folder" / "a.PNG", ".png")
    assert path == tmp_path / "new" / "folder" / "a.PNG"
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("output", ["photo.png", "link.png", "hard.png", "folder/../photo.png"])
def test_an_input_is_never_the_output(tmp_path, output):
    (tmp_path / "folder").mkdir()
    (tmp_path / "photo.png").write_bytes(b"")
    (tmp_path / "link.png").symlink_to(tmp_path / "photo.png")
    os.link(tmp_path / "photo.png", tmp_path / "hard.png")
    with pytest.raises(ValueError, match="an input of the same run"):
        prepare_output(tmp_path / output, ".png", [tmp_path / "other.png", tmp_path / "photo.png"])


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("a.jpg", "must be a .png file"),
        ("a", "must be a .png file"),
        ("folder.png", "is a folder"),
        ("file/a.png", "Nothing can be written"),
    ],
)
def test_outputs_that_cannot_be_are_refused_at_once(tmp_path, output, message):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=message):
        prepare_output(tmp_path / output, ".png")
