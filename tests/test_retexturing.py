"""Another texture at a picture's own resolution: its light and its silhouettes stay, the texture is the asked one."""

import numpy as np
import PIL.Image
import pytest
from scipy.ndimage import gaussian_filter

from demo.references import reference
from mg_diffusion import edits
from mg_diffusion.evaluation.metrics import texture_distance
from mg_diffusion.retexturing import retextured, texture_canvas


PHOTOS = ("coffee", "cat", "rocket", "astronaut")
SIDE = 192


def photo(name: str, side: int = SIDE) -> PIL.Image.Image:
    return reference(name).convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS)


def lightness(picture: PIL.Image.Image) -> np.ndarray:
    return gaussian_filter(np.asarray(picture.convert("L"), float), SIDE / 24)


def test_large_scale_light_stays_and_the_texture_is_the_asked_one(shipped):
    textures = {name: photo(name) for name in ("brick", "grass", "gravel")}
    right = []
    for name in PHOTOS:
        for asked, texture in textures.items():
            (made,) = edits.retexture(shipped, photo(name), texture)
            assert np.corrcoef(lightness(made).ravel(), lightness(photo(name)).ravel())[0, 1] > 0.9
            near = {other: texture_distance(_pixels(made), _pixels(one)) for other, one in textures.items()}
            right.append(min(near, key=near.get) == asked)
    assert np.mean(right) > 0.6  # gravel and grass of 192 px are alike; by chance a third is right


def _pixels(picture: PIL.Image.Image) -> np.ndarray:
    return np.asarray(picture) / 255


def test_outside_the_mask_and_at_strength_0_nothing_differs(shipped):
    picture, mask = photo("cat"), PIL.Image.new("L", (SIDE, SIDE))
    mask.paste(255, (40, 50, 120, 130))
    (made,) = edits.retexture(shipped, picture, photo("brick"), mask, mask_feather=6)
    differs = (np.asarray(made) != np.asarray(picture)).any(2)
    assert differs.any() and not differs[np.asarray(mask) == 0].any()
    (same,) = edits.retexture(shipped, picture, photo("brick"), granularity_scale={"texture": 0})
    assert np.array_equal(same, picture)


def test_strength_and_scale_count(shipped):
    picture, texture = photo("coffee"), photo("gravel")
    detail = [
        np.abs(
            np.diff(np.asarray(edits.retexture(shipped, picture, texture, **options)[0].convert("L"), float))
        ).mean()
        for options in ({"granularity_scale": 0.5}, {}, {"granularity_scale": 2.0}, {"texture_scale": 3.0})
    ]
    assert detail[0] < detail[1] < detail[2] and detail[3] < detail[1]


def test_cards_lists_and_canvases_larger_than_they_are_laid(shipped, tmp_path):
    shipped.mg_encoder.save_card(tmp_path / "brick.safetensors", "texture", photo("brick"))
    picture = photo("cat")
    (of_card,) = edits.retexture(shipped, picture, tmp_path / "brick.safetensors")
    (of_both,) = edits.retexture(shipped, picture, [photo("brick"), {"image": photo("gravel"), "scale": 2.0}])
    assert not np.array_equal(of_card, picture) and not np.array_equal(of_both, of_card)
    canvas = texture_canvas(shipped.mg_encoder, photo("brick"), (96, 64))
    assert canvas.shape == (1, 1, 96, 64) and canvas.std() > 0.05
    large = retextured(np.asarray(picture.resize((128, 192))), canvas)
    assert large.shape == (192, 128, 3)


def test_several_pictures_are_one(shipped):
    first, second = edits.retexture(shipped, photo("cat"), photo("brick"), num_images_per_prompt=2)
    assert first is not second and np.array_equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"texture": None}, "`retexture` needs a texture reference"),
        ({"texture": {"image": "brick", "region": (0, 0, 0.5, 1)}}, "leave the region out"),
        ({"granularity_scale": -1}, "The strength of texture must be a number from 0 .off. to 4, got -1"),
        ({"texture_scale": 100}, "scale"),
        ({"mask_feather": -2}, "`mask_feather` is a number of pixels"),
        ({"generator": "x"}, "`generator` must be"),
    ],
)
def test_what_cannot_be_is_refused(shipped, options, message):
    options = {"texture": photo("brick"), **options}
    if isinstance(options["texture"], dict):
        options["texture"]["image"] = photo("brick")
    with pytest.raises(ValueError, match=message):
        edits.retexture(shipped, photo("cat"), **options)


def test_it_needs_an_encoder():
    class Pipe:
        mg_encoder, progress_bar = None, print

    with pytest.raises(ValueError, match="this pipeline has no `mg_encoder`"):
        edits.retexture(Pipe(), photo("cat"), photo("brick"))


def test_a_picture_of_things_is_warned_of(shipped):
    with pytest.warns(UserWarning, match="looks like objects rather than like one texture"):
        edits.retexture(shipped, photo("cat"), photo("astronaut", 256))


def test_progress_can_stop_it(shipped):
    def stop(share: float) -> None:
        raise RuntimeError(f"stopped at {share}")

    with pytest.raises(RuntimeError, match="stopped at 1"):
        edits.retexture(shipped, photo("cat"), photo("brick"), callback=stop)
