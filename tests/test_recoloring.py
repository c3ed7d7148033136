"""Recoloring at a photograph's own resolution: the palette moves, all else stays."""

from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from skimage import data
from skimage.color import rgb2lab
from skimage.feature import canny

from mg_diffusion import edits
from mg_diffusion.cli import main
from mg_diffusion.encoder.color_groups import _median
from mg_diffusion.encoder.views import rgb_to_lab
from mg_diffusion.evaluation.metrics import color_distance
from mg_diffusion.neutrals import share_of_color
from mg_diffusion.recipe import read_recipe
from mg_diffusion.recoloring import LocalModel, recolored, select_color


PHOTOS = {"astronaut": data.astronaut(), "coffee": data.coffee(), "cat": data.chelsea(), "rocket": data.rocket()}
TEAL = ["#0a9396", "#005f73", "#e9d8a6", "#001219"]


@pytest.fixture(scope="module")
def pipe(shipped):
    return shipped


def lightness(picture) -> np.ndarray:
    return rgb2lab(np.asarray(picture))[..., 0]


@pytest.mark.parametrize("name", PHOTOS)
def test_what_is_lighter_stays_lighter_and_edges_stay(pipe, name):
    photo = PIL.Image.fromarray(PHOTOS[name])
    (made,) = edits.recolor(pipe, photo, TEAL)
    assert made.size == photo.size
    before, after = lightness(photo), lightness(made)
    assert spearmanr(before.flatten(), after.flatten()).statistic > 0.97
    edges, kept = (canny((one - one.min()) / np.ptp(one), 1.5) for one in (before, after))
    grown = torch.nn.functional.max_pool2d(torch.from_numpy(kept)[None].float(), 5, 1, 2)[0].numpy() > 0
    assert (edges & grown).sum() / edges.sum() > 0.85


def test_colors_come_near_those_of_the_reference(pipe):
    found = []
    for name, other in (("astronaut", "coffee"), ("coffee", "rocket"), ("cat", "astronaut"), ("rocket", "cat")):
        photo, wanted = PHOTOS[name], PHOTOS[other]
        (made,) = edits.recolor(pipe, PIL.Image.fromarray(photo), PIL.Image.fromarray(wanted))
        found.append([color_distance(one / 255, wanted / 255) for one in (photo, np.asarray(made))])
    before, after = np.mean(found, 0)
    assert after < 0.3 * before


def test_what_has_about_one_color_keeps_one(pipe):
    """An even ground that covers more than any color of the palette is not split between two of them."""
    rows = np.linspace(0, 12, 96)[:, None, None]
    sky = np.broadcast_to(np.array([40.0, 70, 130]) + rows, (96, 96, 3)).round().astype(np.uint8).copy()
    sky[70:90, 40:56] = (230, 220, 200)
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(sky), ["#1d3557:1", "#e9c46a:1"])
    ground = rgb2lab(np.asarray(made))[:64, :, 1:]
    assert np.ptp(ground, (0, 1)).max() < 12  # the two colors are 60 apart
    thing = rgb2lab(np.asarray(made))[75:85, 45:51, 1:]
    assert np.linalg.norm(thing.mean((0, 1)) - ground.mean((0, 1))) > 30


def test_a_median_color_is_one_that_is_there():
    mostly, else_ = torch.tensor([[0.0, 60.0]]), torch.tensor([[50.0, -40.0]])
    found = _median(torch.cat([mostly.expand(70, 2), else_.expand(30, 2)]))
    torch.testing.assert_close(found, mostly[0], atol=1, rtol=0)


def test_details_stay_where_the_palette_has_one_lightness(pipe):
    """The curve of lightness is flat there and would flatten seams and hairs."""
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(PHOTOS["cat"]), ["#8a6f60", "#6f7f8a"])
    fine = [one - gaussian_filter(one, 3) for one in (lightness(PHOTOS["cat"]), lightness(made))]
    assert fine[1].std() > 0.85 * fine[0].std()


def test_a_single_color_gives_its_shades(pipe):
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(PHOTOS["cat"]), ["#7a6fa0"])
    lab = rgb2lab(np.asarray(made))
    wanted = rgb2lab(np.array([[[0x7A, 0x6F, 0xA0]]]) / 255)[0, 0]
    assert np.median(np.hypot(*(lab[..., 1:] - wanted[1:]).transpose(2, 0, 1))) < 6
    assert np.ptp(lab[..., 0]) > 40


def test_outside_the_mask_and_at_strength_0_nothing_differs(pipe):
    photo = PIL.Image.fromarray(PHOTOS["coffee"])
    mask = PIL.Image.new("L", photo.size)
    mask.paste(255, (100, 100, 300, 250))
    (made,) = edits.recolor(pipe, photo, TEAL, mask, mask_feather=9)
    outside = np.asarray(mask) == 0
    assert np.array_equal(np.asarray(made)[outside], PHOTOS["coffee"][outside])
    moved = np.abs(np.asarray(made).astype(int) - PHOTOS["coffee"]).mean(2)
    assert moved[150:200, 150:250].mean() > 3 * moved[101, 110:290].mean() > 0
    for scale in (0, 0.0, {"color": 0}):
        (same,) = edits.recolor(pipe, photo, TEAL, granularity_scale=scale)
        assert np.array_equal(np.asarray(same), PHOTOS["coffee"])
    (half,), (whole,) = (edits.recolor(pipe, photo, TEAL, granularity_scale=scale) for scale in (0.5, 1.0))
    far, near = (np.abs(np.asarray(one).astype(int) - PHOTOS["coffee"]).mean() for one in (whole, half))
    assert 0.3 * far < near < 0.7 * far


def test_a_color_is_selected_with_its_shades_and_no_other(pipe):
    photo = PIL.Image.fromarray(PHOTOS["astronaut"])
    (made,) = edits.recolor(pipe, photo, ["#0a9396"], select="#e1552d", tolerance=25)
    changed = np.abs(np.asarray(made).astype(int) - PHOTOS["astronaut"]).max(2)
    assert changed[330:360, 130:170].mean() > 40 and not changed[:80, 260:330].any()  # the suit, the ground
    assert 0.1 < (changed > 0).mean() < 0.5
    with pytest.raises(
        ValueError, match="No part of the picture is within 20 of #00ff00; the nearest, #[0-9a-f]{6}, is"
    ):
        edits.recolor(pipe, photo, ["#0a9396"], select="#00ff00")


def test_a_selection_that_misses_the_mask_is_refused_and_a_small_mask_is_not(pipe):
    picture = np.zeros((600, 800, 3), np.uint8)
    picture[:, :200] = (200, 30, 30)
    mask = np.zeros((600, 800), np.uint8)
    mask[300, 700] = 255
    photo, mask = PIL.Image.fromarray(picture), PIL.Image.fromarray(mask)
    with pytest.raises(ValueError, match="Nothing in the mask has the color #c81e1e"):
        edits.recolor(pipe, photo, ["#0a9396"], mask, select="#c81e1e")
    (made,) = edits.recolor(pipe, photo, TEAL, mask)
    assert (np.asarray(made) != picture).any(2).sum() <= 1


def test_a_selection_ends_where_the_color_does():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:, :32] = (200, 30, 30)
    found = select_color(picture, "#c81e1e", 20)
    assert (found[:, :28] == 255).all() and not found[:, 36:].any()


def test_free_assignments_are_up_to_the_generator(pipe):
    photo, palette = PIL.Image.fromarray(PHOTOS["coffee"]), ["#c81e1e", "#1155cc", "#ffdd33"]

    def made(seed, **options):
        generator = torch.Generator().manual_seed(seed)
        return [np.asarray(one) for one in edits.recolor(pipe, photo, palette, generator=generator, **options)]

    one, same, other = (made(seed, assignment="free")[0] for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    two = made(0, assignment="free", num_images_per_prompt=2)
    assert not np.array_equal(*two)
    assert np.array_equal(*made(0, num_images_per_prompt=2))
    for one in (TEAL[:1], [TEAL[:1], {"image": [TEAL[0].upper()], "weight": 2}]):
        with pytest.raises(ValueError, match="nothing to assign, so 2 pictures would be the same"):
            edits.recolor(pipe, photo, one, assignment="free", num_images_per_prompt=2)
    assert len(edits.recolor(pipe, photo, TEAL, assignment="free")) == 1


def test_a_large_picture_is_computed_in_strips(monkeypatch):
    """Which are the same as the whole."""
    palette = torch.tensor([[[30.0, 40, 20], [70.0, -20, 10], [90.0, 0, 5]]])
    whole = recolored(PHOTOS["rocket"], palette)
    monkeypatch.setattr("mg_diffusion.recoloring.STRIP", 37)
    assert np.abs(recolored(PHOTOS["rocket"], palette).astype(int) - whole).max() <= 1


def test_a_local_model_carries_edges_up():
    """Of a guide with one edge, values that jump there jump at the same place in the larger picture."""
    large = torch.zeros(1, 3, 64, 64)
    large[..., 30:] = 0.8
    small = torch.nn.functional.avg_pool2d(large, 4)
    model = LocalModel(small, 5 * small[:, :1] - 1)
    assert (model(large, 0, 64) - (5 * large[:, :1] - 1)).abs().max() < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"granularity_scale": -1}, "must be a number from 0 .off. to 4"),
        ({"granularity_scale": {"color": float("nan")}}, "must be a number from 0 .off. to 4"),
        ({"select": "#c81e1e", "tolerance": 0}, "above 0 and at most 100, got 0"),
        ({"granularity_scale": True}, "must be a number from 0 .off. to 4"),
        ({"granularity_scale": {"colour": 0}}, "Strengths are those of color, texture, shape, got"),
        ({"num_images_per_prompt": 0}, "a positive integer, got 0"),
        ({"num_images_per_prompt": 3, "generator": [torch.Generator()] * 2}, "one for each of the 3 pictures; got 2"),
        ({"generator": 42}, "must be a `torch.Generator"),
        ({"generator": [], "assignment": "free"}, "one for each of the 1 pictures; got 0"),
        ({"granularity_scale": 1e39}, "must be a number from 0 .off. to 4"),
        ({"select": 5}, '"#rrggbb" without a weight, got 5'),
        ({"select": "#ff0000:2"}, '"#rrggbb" without a weight, got'),
        ({"color": None}, "needs a color reference"),
        ({"image": PHOTOS["coffee"] / 255}, "of uint8 or uint16, got float64.*astype.np.uint16"),
        ({"image": [PIL.Image.fromarray(PHOTOS["coffee"])] * 2}, "Several pictures: one by one"),
        ({"image": PIL.Image.fromarray(np.zeros((64, 64), np.uint16))}, "makes colors.*Pass the picture as an array"),
        ({"select": "red"}, '"#rrggbb" without a weight, got'),
        ({"assignment": "dark"}, 'must be "light" or "free"'),
        ({"mask_feather": 0.5}, "an integer of at least 0; got 0.5"),
        ({"color": {"image": PIL.Image.fromarray(PHOTOS["cat"]), "region": (0, 0, 0.5, 1)}}, "leave the region out"),
        ({"image": PIL.Image.new("RGB", (12, 40))}, "at least 16 x 16 pixels"),
        ({"mask_image": PIL.Image.new("L", (16, 16))}, "mask must have the size"),
    ],
)
def test_what_cannot_be_is_refused(pipe, options, message):
    given = {"image": PIL.Image.fromarray(PHOTOS["coffee"]), "color": TEAL, **options}
    with pytest.raises(ValueError, match=message):
        edits.recolor(pipe, **given)


def test_another_default_type_changes_nothing():
    palette = torch.tensor([[[30.0, 40, 20], [70.0, -20, 10], [90.0, 0, 5]]])
    plain = recolored(PHOTOS["rocket"], palette)
    torch.set_default_dtype(torch.float64)
    try:
        made = recolored(PHOTOS["rocket"], palette)
    finally:
        torch.set_default_dtype(torch.float32)
    assert np.abs(made.astype(int) - plain).max() <= 3


def test_a_feather_wider_than_the_mask_ends(pipe):
    photo = PIL.Image.fromarray(PHOTOS["rocket"])
    mask = PIL.Image.new("L", photo.size, 255)
    whole, wide = (edits.recolor(pipe, photo, TEAL, mask, mask_feather=width)[0] for width in (0, 10**6))
    assert np.array_equal(np.asarray(whole), np.asarray(wide))  # borders of the picture are no borders of the mask


def test_a_pipeline_without_an_encoder_is_refused():
    with pytest.raises(ValueError, match="has no `mg_encoder`"):
        edits.recolor(SimpleNamespace(progress_bar=print), PIL.Image.fromarray(PHOTOS["cat"]), TEAL)


# -- the command line -----------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PIL.Image.fromarray(PHOTOS["coffee"]).save("photo.png")
    mask = PIL.Image.new("L", (600, 400))
    mask.paste(255, (100, 100, 300, 250))
    mask.save("mask.png")


@pytest.mark.parametrize(
    "flags",
    [
        ["--color", "#0a9396,#001219:2"],
        ["--color", "photo.png", "--mask", "mask.png", "--feather", "4"],
        ["--color", "#0a9396", "--select", "#a0522d", "--tolerance", "40", "--scale", "color=0.8"],
        ["--color", "#0a9396,#c81e1e", "--assignment", "free", "--seed", "3"],
    ],
)
def test_the_command(folder, capsys, flags):
    assert main(["recolor", "photo.png", *flags, "-o", "out.png"]) == 0
    recipe = read_recipe("out.png")
    assert recipe["command"] == "recolor" and recipe["image"]["file"] == "photo.png"
    assert "num_inference_steps" not in recipe and PIL.Image.open("out.png").size == (600, 400)
    if "--mask" in flags:
        assert "pixels outside the mask that differ: 0" in capsys.readouterr().out
    if "--select" in flags:
        assert recipe["select"] == "#a0522d" and recipe["tolerance"] == 40


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--color"),
        (["--color", "#0a9396", "--steps", "2"], "--steps"),
        (["--color", "#0a9396", "--scale", "texture=2"], "leave this --scale out"),
        (["--color", "#0a9396", "--select", "#00ff00"], "raise the tolerance"),
        (["--color", "#0a9396", "--tolerance", "30"], "--tolerance is that of --select or --hint"),
    ],
)
def test_flags_that_it_needs_or_does_not_know(folder, capsys, flags, message):
    try:
        assert main(["recolor", "photo.png", *flags, "-o", "out.png"])
    except SystemExit as error:
        assert error.code
    assert message in capsys.readouterr().err


def night(share: float = 0.06) -> PIL.Image.Image:
    """Stars of two colors in a black sky."""
    pixels = np.full((120, 120, 3), 2, np.uint8)
    sky = np.random.default_rng(0).random((120, 120))
    pixels[sky < share], pixels[sky < share / 2] = (240, 150, 90), (120, 160, 240)
    return PIL.Image.fromarray(np.asarray(PIL.Image.fromarray(pixels).resize((480, 480))))


def test_night_stays_night(pipe):
    photo = night()
    (made,) = edits.recolor(pipe, photo, PIL.Image.fromarray(PHOTOS["coffee"]))
    black = lightness(photo) < 1
    assert black.mean() > 0.5
    assert lightness(made)[black].max() < 6
    blue = np.asarray(photo)[..., 2].astype(int) - np.asarray(photo)[..., 0] > 80
    assert (np.asarray(made)[blue] * [-1, 0, 1.0]).sum(1).mean() < 20  # coffee has no blue


def test_paper_stays_white(pipe):
    pixels = np.full((128, 128, 3), 254, np.uint8)
    pixels[32:96, 32:96] = (180, 60, 50)
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(pixels), ["#22577a", "#c7f9cc"])
    made = np.asarray(made)
    assert (made[:8].astype(int) > 245).all()
    assert np.argmax(made[64, 64]) > 0  # red no more


def test_black_that_is_selected_changes(pipe):
    pixels = np.full((128, 128, 3), (200, 190, 160), np.uint8)
    pixels[32:96, 32:96] = 6
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(pixels), ["#c81e1e"], select="#060606")
    red, green, blue = np.asarray(made)[64, 64].astype(int)
    assert red > 60 + max(green, blue)


def test_gray_pictures_are_toned_as_a_whole(pipe):
    photo = np.repeat(data.moon()[..., None], 3, 2)
    photo[:64] = 0
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(photo), ["#22577a"])
    assert np.ptp(np.asarray(made)[:32].astype(int), 2).min() > 10


def test_shade_on_a_color_is_of_that_color():
    dark = rgb_to_lab(torch.tensor([[40.0, 8, 4], [12, 12, 12]]).T.reshape(1, 3, 2, 1) / 255)
    hue, black = share_of_color(dark).flatten().tolist()
    assert hue > 0.95 and black < 0.05


def test_dark_places_with_a_little_hue_take_the_new_one(pipe):
    """A brown that is nearly black leaves no stain in a picture that turns blue."""
    pixels = np.full((128, 128, 3), (190, 120, 60), np.uint8)
    pixels[:40] = (26, 18, 13)
    (made,) = edits.recolor(pipe, PIL.Image.fromarray(pixels), ["#1d3557", "#457b9d", "#f1faee"])
    red, _, blue = np.asarray(made)[10, 60].astype(int)
    assert blue >= red


@pytest.mark.parametrize("light", [0.35, 0.6, 1.3])
def test_a_color_in_the_shade_is_selected_and_another_color_of_that_lightness_is_not(light):
    linear = np.array([0.35, 0.03, 0.03])
    srgb = lambda value: np.where(value > 0.0031308, 1.055 * value ** (1 / 2.4) - 0.055, 12.92 * value)  # noqa: E731
    red, shade = ((255 * srgb(linear * factor)).round().astype(np.uint8) for factor in (1, light))
    picture = np.full((96, 96, 3), 128, np.uint8)
    picture[20:76, 20:48], picture[20:76, 48:76] = red, shade
    mask = select_color(picture, "#{:02x}{:02x}{:02x}".format(*red), 20)
    assert mask[30:66, 26:70].min() > 240 and mask[:12].max() == 0
    picture[20:76, 48:76] = (255 * srgb(np.array([0.12, 0.1, 0.03]) * light)).round()
    assert select_color(picture, "#{:02x}{:02x}{:02x}".format(*red), 20)[30:66, 54:70].max() < 16
