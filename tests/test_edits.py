"""Named edits on real pictures, with the model that is shipped: each does what it is for, and nothing outside the mask."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
import torch

from demo.references import reference
from mg_diffusion import MGInpaintPipeline, edits
from mg_diffusion.cli import main
from mg_diffusion.evaluation.metrics import color_distance, shape_distance, texture_distance
from mg_diffusion.recipe import read_recipe


SIZE = 64
PHOTOS = ("coffee", "cat", "rocket", "astronaut")
QUICK = {"num_inference_steps": 8}


@pytest.fixture(scope="module")
def pipe(shipped):
    pipeline = MGInpaintPipeline(**shipped.components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def photos() -> dict[str, PIL.Image.Image]:
    return {name: reference(name).resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS) for name in PHOTOS}


def seeded():
    return torch.Generator().manual_seed(0)


def disc(radius: int = 18) -> PIL.Image.Image:
    mask = PIL.Image.new("L", (SIZE, SIZE), 0)
    middle = SIZE // 2
    PIL.ImageDraw.Draw(mask).ellipse([middle - radius, middle - radius, middle + radius, middle + radius], fill=255)
    return mask


def pixels(image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(np.float64) / 255


def patch(image, where) -> np.ndarray:
    """The pixels of an irregular part, as a picture (16, N, 3)."""
    chosen = pixels(image)[where]
    return chosen[: len(chosen) // 16 * 16].reshape(16, -1, 3)


def unchanged_outside(before, after, mask) -> bool:
    return np.array_equal(pixels(before)[np.asarray(mask) == 0], pixels(after)[np.asarray(mask) == 0])


def test_retexture_moves_the_texture_and_keeps_colors_and_shape(pipe, photos):
    brick = reference("brick").resize((SIZE, SIZE), PIL.Image.Resampling.LANCZOS)
    texture, color, kept = [], [], []
    for name, photo in photos.items():
        (made,) = edits.retexture(pipe, photo, brick)
        before, after = (texture_distance(pixels(one), pixels(brick)) for one in (photo, made))
        texture.append(after / before)
        color.append(color_distance(pixels(made), pixels(photo)) < color_distance(pixels(made), pixels(brick)))
        others = [shape_distance(pixels(made), pixels(photos[other])) for other in PHOTOS if other != name]
        kept.append(shape_distance(pixels(made), pixels(photo)) < min(others))
    assert np.mean(texture) < 0.9 and all(color) and sum(kept) >= 3


def test_reshape_fills_the_mask_with_the_new_content(pipe, photos):
    (made,) = edits.reshape(pipe, photos["rocket"], disc(), color=["#cc2222", "#882222"], generator=seeded(), **QUICK)
    inside = np.asarray(disc()) > 0
    red = pixels(made)[inside].mean(0)
    assert unchanged_outside(photos["rocket"], made, disc()) and red[0] > 1.5 * red[2]


def test_reshape_draws_the_shape_of_a_reference(pipe, photos):
    mask = PIL.Image.new("L", (SIZE, SIZE), 255)
    star, heart = (reference(name).resize((SIZE, SIZE)) for name in ("star", "heart"))
    (made,) = edits.reshape(pipe, photos["coffee"], mask, shape=star, color=["#ffdd33", "#224466"], **QUICK)
    assert shape_distance(pixels(made), pixels(star)) < shape_distance(pixels(made), pixels(heart))


def test_remove_brings_the_masked_part_nearer_to_its_surroundings(pipe, photos):
    ring = (np.asarray(disc(24)) > 0) & (np.asarray(disc(14)) == 0)
    mask = disc(12)
    for photo in photos.values():
        marked = photo.copy()
        PIL.ImageDraw.Draw(marked).ellipse([22, 22, 42, 42], fill="#ff00ff")
        (made,) = edits.remove(pipe, marked, mask, generator=seeded())
        assert unchanged_outside(marked, made, mask)
        near, inside = patch(photo, ring), np.asarray(mask) > 0
        before, after = (color_distance(patch(one, inside), near) for one in (marked, made))
        assert after < 0.5 * before


def test_variation_is_another_picture_of_the_same_kind(pipe, photos):
    for name, photo in photos.items():
        one, other = edits.variation(pipe, photo, num_images_per_prompt=2, generator=seeded(), **QUICK)
        assert np.abs(pixels(one) - pixels(other)).mean() > 0.01 and np.abs(pixels(one) - pixels(photo)).mean() > 0.02
        for made in (one, other):
            distances = {entry: color_distance(pixels(made), pixels(photos[entry])) for entry in PHOTOS}
            assert min(distances, key=distances.get) == name


def test_outpaint_keeps_the_picture_and_goes_on_with_its_colors(pipe, photos):
    for name, photo in photos.items():
        (made,) = edits.outpaint(pipe, photo, left=16, right=16, generator=seeded())
        assert made.size == (SIZE + 32, SIZE)
        assert np.array_equal(pixels(made)[:, 16:-16], pixels(photo))
        added = np.concatenate([pixels(made)[:, :16], pixels(made)[:, -16:]], 1)
        edges = {entry: np.concatenate([pixels(p)[:, :8], pixels(p)[:, -8:]], 1) for entry, p in photos.items()}
        distances = {entry: color_distance(added, edge) for entry, edge in edges.items()}
        assert min(distances, key=distances.get) == name


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pipe, photo: edits.reshape(pipe, photo, disc()), "needs a color or a texture reference"),
        (
            lambda pipe, photo: edits.variation(pipe, photo, output_type="np"),
            "give back pictures; got .*'np'. Leave it out",
        ),
        (
            lambda pipe, photo: edits.reshape(pipe, photo, disc(), color=["#c11210"], output_type="latent"),
            "got .*'latent'",
        ),
        (
            lambda pipe, photo: edits.named_edit("foo", pipe, photo, None, {}, ()),
            "no edit 'foo'. There are recolor, .*variation",
        ),
        (lambda pipe, photo: edits.check_edit("foo", photo, None, {}), "There is no edit 'foo'"),
        (lambda pipe, photo: edits.outpaint(pipe, photo), "at least 1 on some side; got .0, 0, 0, 0."),
        (lambda pipe, photo: edits.outpaint(pipe, photo, left=-1), "at least 1 on some side"),
        (
            lambda pipe, photo: edits.outpaint(pipe, photo, left=65),
            "64 pixels wide, and left and right together add 65",
        ),
        (
            lambda pipe, photo: edits.outpaint(pipe, photo, left=40, top=40, right=40),
            r"adds at most as much as there is: the picture is 64 pixels wide, and left and right together add 40 \+ 40 = 80",
        ),
        (
            lambda pipe, photo: edits.outpaint(pipe, photo, top=40, bottom=30),
            r"64 pixels high, and top and bottom .* = 70",
        ),
        (
            lambda pipe, photo: edits.remove(pipe, photo, disc().resize((8, 8))),
            "mask must have the size of the picture",
        ),
    ],
)
def test_what_no_edit_can_do_is_refused(pipe, photos, call, message):
    with pytest.raises(ValueError, match=message):
        call(pipe, photos["cat"])


# -- the command line -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("command", "flags"),
    [
        ("retexture", ["--texture", "photo.png,weight=2"]),
        ("reshape", ["--mask", "mask.png", "--color", "#cc2222", "--steps", "2"]),
        ("reshape", ["--mask", "mask.png", "--texture", "photo.png", "--shape", "photo.png", "--steps", "2"]),
        ("remove", ["--mask", "mask.png"]),
        ("remove", ["--mask", "mask.png", "--crop", "20", "--seed", "3"]),
        ("variation", ["--scale", "color=0.5", "--steps", "2"]),
        ("outpaint", ["--left", "8", "--bottom", "4"]),
        ("denoise", ["--noise-level", "10", "--strength", "0.5"]),
        ("enhance", ["--color", "#cc2222,#ddeeff"]),
        ("enlarge", ["--factor", "4", "--texture", "photo.png"]),
    ],
)
def test_every_edit_has_a_command(model, photos, tmp_path, monkeypatch, capsys, command, flags):
    monkeypatch.chdir(tmp_path)
    photos["cat"].save("photo.png")
    disc().save("mask.png")
    tiny = [] if command in ("denoise", "enhance", "enlarge") else ["--model", str(model)]  # has no detail network
    assert main([command, "photo.png", *flags, *tiny, "-o", "out.png"]) == 0
    recipe = read_recipe("out.png")
    assert recipe["command"] == command and recipe["image"]["file"] == "photo.png"
    if "--mask" in flags:
        assert "pixels outside the mask that differ: 0" in capsys.readouterr().out
    if command == "outpaint":
        assert recipe["left"] == 8 and PIL.Image.open("out.png").size == (SIZE + 8, SIZE + 4)
    if command == "enlarge":
        assert recipe["factor"] == 4 and PIL.Image.open("out.png").size == (4 * SIZE, 4 * SIZE)
    assert "num_inference_steps" not in recipe or command in ("reshape", "variation")


@pytest.mark.parametrize(
    ("command", "flags", "remedy"),
    [
        ("recolor", ["--color", "#cc2222,#ddeeff"], "--assignment free"),
        ("recolor", ["--color", "#cc2222"], "or give two colors or more, and --assignment free."),
        ("recolor", ["--color", "#cc2222", "--assignment", "free"], "at random with a single color"),
        ("recolor", ["--color", "#cc2222,#CC2222:2,weight=2", "--assignment", "free"], "give two colors or more"),
        ("recolor", ["--hint", "photo.png"], "Leave --num-images out."),
        ("retexture", ["--texture", "photo.png"], "Leave --num-images out."),
        ("denoise", [], "Leave --num-images out."),
        ("enhance", [], "Leave --num-images out."),
        ("enlarge", [], "Leave --num-images out."),
    ],
)
def test_several_pictures_that_would_be_the_same_are_refused(
    model, photos, tmp_path, monkeypatch, capsys, command, flags, remedy
):
    monkeypatch.chdir(tmp_path)
    photos["cat"].save("photo.png")
    assert main([command, "photo.png", *flags, "--num-images", "2", "-o", "out.png"]) == 2
    told = capsys.readouterr().err
    assert "draws nothing at random" in told and "2 pictures would be the same" in told and remedy in told
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]
    if remedy.startswith("--"):
        again = [
            command,
            "photo.png",
            *flags,
            *remedy.split(),
            "--num-images",
            "2",
            "--model",
            str(model),
            "-o",
            "out.png",
        ]
        assert main(again) == 0
        one, other = (np.asarray(PIL.Image.open(f"out-{index}.png")) for index in range(2))
        assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["retexture", "photo.png"], "--texture"),
        (["remove", "photo.png", "--mask", "mask.png", "--color", "#112233"], "--color"),
    ],
)
def test_flags_that_an_edit_needs_or_does_not_know(capsys, flags, message):
    with pytest.raises(SystemExit):
        main([*flags, "-o", "out.png"])
    assert message in capsys.readouterr().err
