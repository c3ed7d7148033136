"""Recoloring by strokes: what is under a stroke, and connected with it, gets its color; all else stays."""

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pytest
from skimage import data
from skimage.color import rgb2lab

from mg_diffusion import edits
from mg_diffusion.cli import main
from mg_diffusion.hints import stroke_areas, stroke_colors
from mg_diffusion.recipe import read_recipe


WIDTH, HEIGHT = 240, 160
RED, GREEN, GROUND = (190, 60, 50), (60, 140, 60), (200, 196, 185)
BLUE, PURPLE = (20, 70, 200), (120, 40, 150)


def drawn() -> PIL.Image.Image:
    """Two red discs and a green one on a light ground, with a little noise."""
    image = PIL.Image.new("RGB", (WIDTH, HEIGHT), GROUND)
    draw = PIL.ImageDraw.Draw(image)
    for middle, color in ((50, RED), (120, GREEN), (190, RED)):
        draw.ellipse([middle - 28, 50, middle + 28, 106], fill=color)
    noise = np.random.default_rng(0).normal(0, 4, (HEIGHT, WIDTH, 1))
    return PIL.Image.fromarray((np.asarray(image) + noise).round().clip(0, 255).astype(np.uint8))


def strokes(image: PIL.Image.Image, *given: tuple[int, tuple[int, int, int]]) -> PIL.Image.Image:
    """An image with a stroke over each (middle, color)."""
    image = image.copy()
    for middle, color in given:
        fill = (*color, 255) if image.mode == "RGBA" else color
        PIL.ImageDraw.Draw(image).line([middle - 12, 70, middle + 12, 86], fill=fill, width=5)
    return image


def layer() -> PIL.Image.Image:
    return PIL.Image.new("RGBA", (WIDTH, HEIGHT))


def changed(before, after) -> np.ndarray:
    return (np.asarray(before) != np.asarray(after)).any(2)


def disc(middle: int, radius: int = 28) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (x - middle) ** 2 + (y - 78) ** 2 < radius**2


def tint(picture, where) -> np.ndarray:
    return np.median(rgb2lab(np.asarray(picture))[where][:, 1:], 0)


def test_a_stroke_colors_the_thing_under_it_and_no_other(shipped):
    photo = drawn()
    (made,) = edits.recolor(shipped, photo, hint=strokes(layer(), (50, BLUE)))
    differs = changed(photo, made)
    assert differs[disc(50, 22)].mean() > 0.98 and not differs[~disc(50, 40)].any()
    wanted = rgb2lab(np.array([[BLUE]], np.uint8))[0, 0, 1:]
    assert np.abs(tint(made, disc(50, 22)) - wanted).max() < 12
    assert np.abs(tint(made, disc(190, 22)) - tint(photo, disc(190, 22))).max() == 0  # as red, and not connected


def test_each_stroke_has_its_color_and_shades_stay(shipped):
    photo = drawn()
    (made,) = edits.recolor(shipped, photo, hint=strokes(layer(), (50, BLUE), (120, PURPLE), (190, BLUE)))
    for middle, color in ((50, BLUE), (120, PURPLE), (190, BLUE)):
        wanted = rgb2lab(np.array([[color]], np.uint8))[0, 0, 1:]
        assert np.abs(tint(made, disc(middle, 22)) - wanted).max() < 14
        light = [rgb2lab(np.asarray(one))[disc(middle, 22)][:, 0] for one in (photo, made)]
        assert np.corrcoef(*light)[0, 1] > 0.8  # the grain is still there
    assert not changed(photo, made)[:44].any()


def test_strokes_over_the_picture_say_the_same_as_those_on_a_layer(shipped):
    photo = drawn()
    over, alone = (
        edits.recolor(shipped, photo, hint=strokes(ground, (50, BLUE), (120, PURPLE)))[0]
        for ground in (photo, layer())
    )
    assert np.array_equal(over, alone)


def test_a_photograph(shipped):
    """Of an astronaut the orange suit."""
    photo = PIL.Image.fromarray(data.astronaut())
    hint = PIL.Image.new("RGBA", photo.size)
    PIL.ImageDraw.Draw(hint).line([130, 330, 170, 360], fill="#0a9396", width=8)
    (made,) = edits.recolor(shipped, photo, hint=hint, tolerance=25)
    differs = changed(photo, made)
    assert differs[330:360, 130:170].mean() > 0.95 and not differs[:80, 260:330].any()
    assert 0.05 < differs.mean() < 0.5


def test_masks_alphas_16_bits_and_strength_hold(shipped):
    photo, hint = drawn(), strokes(layer(), (50, BLUE))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[:, :50] = True
    (made,) = edits.recolor(shipped, photo, None, mask, hint=hint)
    assert changed(photo, made)[mask & disc(50, 22)].mean() > 0.95 and not changed(photo, made)[~mask].any()
    cut = photo.copy()
    cut.putalpha(PIL.Image.fromarray(255 * mask.astype(np.uint8)))
    (made,) = edits.recolor(shipped, cut, hint=strokes(cut, (40, BLUE)))
    assert (
        made.mode == "RGBA" and not changed(cut, made)[~mask].any() and changed(cut, made)[disc(40, 10)].mean() > 0.9
    )
    deep = np.asarray(photo).astype(np.uint16) * 257 + 3
    (made,) = edits.recolor(shipped, deep, hint=hint)
    assert made.dtype == np.uint16 and not changed(deep, made)[~disc(50, 40)].any()
    assert changed(deep, made)[disc(50, 22)].mean() > 0.98
    (same,) = edits.recolor(shipped, photo, hint=hint, granularity_scale=0)
    assert np.array_equal(same, photo)


def test_soft_edges_of_strokes_are_no_colors():
    painted = np.array([BLUE] * 90 + [PURPLE] * 60 + [(130, 130, 130)] * 2, np.uint8)
    found = stroke_colors(painted)
    assert [int(owned.sum()) for _, owned in found] == [90, 60]
    with pytest.raises(ValueError, match="at most 12 colors, these have more. Paint them in flat colors"):
        stroke_colors(np.random.default_rng(0).integers(0, 256, (500, 3), np.uint8))


def test_a_place_that_two_strokes_claim_goes_to_the_nearer_color():
    image = np.zeros((64, 64, 3), np.uint8) + np.linspace(60, 190, 64)[None, :, None].astype(np.uint8)
    left, right = np.zeros((2, 64, 64), bool)
    left[20:40, 2:6], right[20:40, 58:62] = True, True
    first, second = stroke_areas(image, [left, right], 40)
    assert (first[:, :20] == 255).all() and (second[:, 44:] == 255).all()
    assert not (np.minimum(first, second) > 140).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hint": layer()}, "`hint` cannot be read. The picture is wholly transparent.*Paint strokes on a transparent layer"),
        ({"hint": drawn()}, "Nothing is painted in the hint.*or over the picture itself"),
        ({"hint": strokes(layer(), (50, BLUE)).resize((20, 20))}, r"size of the picture, \(240, 160\), got \(20, 20\)"),
        ({"hint": PIL.Image.new("RGB", (WIDTH, HEIGHT))}, "differs from the picture in 100% of its pixels.*without losses"),
        ({"hint": strokes(layer(), (50, BLUE)), "color": ["#ff0000"]}, "leave `color`, `select` and `assignment` out"),
        ({"hint": strokes(layer(), (50, BLUE)), "select": "#ff0000"}, "leave `color`, `select` and `assignment` out"),
        ({"hint": "nosuch.png"}, "`hint` cannot be read.*nosuch.png"),
        ({"hint": strokes(layer(), (50, BLUE)), "mask_image": disc(190)}, "select nothing in the mask.*White is edited"),
        ({}, "needs a color reference.*or a `hint`"),
    ],
)  # fmt: skip
def test_what_no_hint_can_be_is_refused(shipped, options, message):
    with pytest.raises(ValueError, match=message):
        edits.recolor(shipped, drawn(), **options)


def test_progress_rises_to_1(shipped):
    shares = []
    edits.recolor(shipped, drawn(), hint=strokes(layer(), (50, BLUE), (120, PURPLE)), callback=shares.append)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)


def test_the_command(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    drawn().save("photo.png")
    strokes(layer(), (50, BLUE)).save("strokes.png")
    command = ["recolor", "photo.png", "--model", str(model), "-o", "out.png"]
    assert main([*command, "--hint", "strokes.png", "--tolerance", "25"]) == 0
    recipe = read_recipe("out.png")
    assert recipe["hint"]["file"] == "strokes.png" and recipe["tolerance"] == 25
    assert changed(drawn(), PIL.Image.open("out.png"))[disc(50, 22)].mean() > 0.98
    for flags in ([], ["--hint", "strokes.png", "--color", "#ff0000"]):
        assert main([*command, "--force", *flags]) == 2 and "either --color or --hint" in capsys.readouterr().err
    assert main([*command, "--force", "--hint", "nosuch.png"]) == 2
    assert "There is no picture at 'nosuch.png'" in capsys.readouterr().err
    assert main([*command[:-1], "strokes.png", "--force", "--hint", "strokes.png"]) == 2
    assert "is an input of the same run" in capsys.readouterr().err
