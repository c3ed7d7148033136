"""`compose`: what references ask for, laid together by no network."""

import numpy as np
import PIL.Image
import pytest
import torch
from skimage.color import rgb2lab

from mg_diffusion import compose
from mg_diffusion.composition import _embedded_encoder
from tests.pipelines.tiny import picture, references, seeded


def to_array(image: PIL.Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


def halves() -> PIL.Image.Image:
    """Dark on the left, light on the right."""
    pixels = np.zeros((96, 96, 3), np.uint8)
    pixels[:, 48:] = 230
    pixels[:, :48] = 25
    return PIL.Image.fromarray(pixels)


def test_a_palette_lies_in_the_regions_of_the_shape_by_light():
    (made,) = compose({"color": ["#102060", "#ffe0a0"], "shape": halves()}, 96, 96)
    left, right = to_array(made)[:, 8:40].mean((0, 1)), to_array(made)[:, 56:88].mean((0, 1))
    assert np.abs(left - [0x10, 0x20, 0x60]).max() < 25 and np.abs(right - [0xFF, 0xE0, 0xA0]).max() < 25


def test_a_shape_alone_is_gray_and_keeps_its_light():
    (made,) = compose({"shape": halves()}, 96, 96)
    lab = rgb2lab(np.asarray(made))
    assert np.abs(lab[..., 1:]).max() < 2
    assert lab[:, 56:, 0].mean() - lab[:, :40, 0].mean() > 20


def test_a_palette_alone_lies_in_clouds_that_the_generator_draws():
    colors = {"color": ["#c1121f", "#102060"]}
    made = [to_array(compose(colors, 64, 64, generator=seeded(seed))[0]) for seed in (0, 0, 1)]
    assert (made[0] == made[1]).all() and (made[0] != made[2]).any()
    assert made[0][..., 0].std() > 20  # both colors are there


def test_a_texture_alone_lies_over_middle_gray():
    (made,) = compose({"texture": picture(1, 128, 128)}, 96, 96)
    pixels = to_array(made)
    assert np.abs(pixels.mean() - 119) < 12 and pixels.std() > 2 and np.ptp(pixels, axis=2).max() <= 1


def test_strengths_are_how_much_of_each_there_is():
    given, size = references(), (64, 96)
    whole = compose(given, *size, generator=seeded(), output_type="pt")
    smooth = compose(given, *size, granularity_scale={"texture": 0}, generator=seeded(), output_type="pt")
    without = compose(
        {n: one for n, one in given.items() if n != "texture"}, *size, generator=seeded(), output_type="pt"
    )
    assert whole.shape == (1, 3, *size) and 0 <= whole.min() and whole.max() <= 1
    assert not torch.equal(whole, smooth)
    # The generator draws an order of tiles where there is a texture; by light it decides nothing else.
    assert torch.equal(smooth, without)


def test_the_aspect_of_the_shape_is_kept_unless_a_size_is_given():
    given = {"color": ["#c1121f"], "shape": picture(0, 40, 80)}
    (made,) = compose(given)
    assert abs(made.width - 2 * made.height) <= 8 and abs(made.width * made.height - 512**2) < 0.1 * 512**2
    assert compose(given, 64, 64)[0].size == (64, 64)
    cut_out = given["shape"].convert("RGBA")
    cut_out.putalpha(cut_out.getchannel("R"))
    for shape in (cut_out, {"image": cut_out}, [{"image": cut_out, "region": (0, 0, 0.5, 1)}, cut_out]):
        assert compose({"shape": shape}, width=128)[0].size == (128, 64)
    assert compose(given, width=128)[0].size == (128, 64) and compose(given, height=64)[0].size == (128, 64)


def test_several_pictures_differ_in_what_is_left_open():
    made = compose(references(), 64, 64, assignment="free", num_images=2, generator=[seeded(0), seeded(1)])
    (alone,) = compose(references(), 64, 64, assignment="free", generator=seeded(1))
    assert (to_array(made[0]) != to_array(made[1])).any()
    assert (to_array(made[1]) == to_array(alone)).all()


def test_the_share_that_is_done_is_told_and_work_can_be_stopped():
    told = []
    compose(references(), 64, 64, callback=told.append)
    assert len(told) == 4 and told == sorted(told) and told[-1] == 1 and told[-2] == 0.5

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compose(references(), 64, 64, callback=stop)


def test_a_region_limits_where_a_reference_counts():
    left = {"image": ["#d00000"], "region": (0, 0, 0.5, 1)}
    right = {"image": ["#0000d0"], "region": (0.5, 0, 1, 1)}
    (made,) = compose({"color": [left, right], "shape": picture(3)}, 64, 128)
    pixels = to_array(made)
    assert pixels[:, :56, 0].mean() > 2 * pixels[:, :56, 2].mean()
    assert pixels[:, 72:, 2].mean() > 2 * pixels[:, 72:, 0].mean()


def test_what_a_region_leaves_is_composed_without_it():
    color = {"image": ["#d00000"], "region": (0, 0, 0.5, 1)}
    made = compose({"color": color, "shape": halves()}, 64, 128, generator=seeded(), output_type="pt")
    gray = compose({"shape": halves()}, 64, 128, generator=seeded(), output_type="pt")
    torch.testing.assert_close(made[..., 72:], gray[..., 72:], atol=0.02, rtol=0)
    assert made[0, 0, :, :56].mean() > 2 * made[0, 2, :, :56].mean()


def test_colors_alone_are_the_same_in_a_batch_and_by_themselves():
    given = {"color": picture(4), "shape": picture(5)}
    scale = {"shape": 0.0}
    many = compose(given, 64, 64, scale, num_images=3, generator=[seeded(i) for i in range(3)], output_type="pt")
    one = compose(given, 64, 64, scale, generator=seeded(2), output_type="pt")
    torch.testing.assert_close(many[2:], one, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 60}, "`height` must be a multiple of 8 of at least 64"),
        ({"height": 8}, "`height` must be a multiple of 8 of at least 64"),
        ({"width": 64.0}, "`width` must be a multiple of 8"),
        ({"height": 4096, "width": 4096}, "at most 4,194,304 pixels.*enlarge it"),
        ({"granularity_scale": 0}, "nothing to compose"),
        ({"granularity_scale": {"colour": 1}}, "Unknown granularity 'colour'"),
        ({"reference_image": {}}, "nothing to compose"),
        ({"reference_image": [picture()]}, "given by granularity"),
        ({"reference_image": {"hue": picture()}}, "Unknown granularity 'hue'"),
        ({"assignment": "dark"}, '`assignment` must be "light" or "free"'),
        ({"num_images": 0}, "`num_images` must be a positive integer"),
        ({"generator": 3}, "must be a `torch.Generator`"),
        ({"num_images": 3, "generator": [seeded(), seeded()]}, "one for each of the 3 pictures, got 2"),
        ({"granularity_scale": {"texture": {"up": 1}}}, "need an adapter"),
        ({"output_type": "np"}, '`output_type` must be "pil" or "pt"'),
        ({"texture_scale": -1}, "scale"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        compose(**{"reference_image": references(), **options})


def test_a_batch_of_which_some_pictures_have_nothing_is_refused_as_these_alone_are(shipped, monkeypatch):
    given, scale = {"color": picture(), "shape": None}, {"color": [1, 0, 0.5], "texture": 1}
    said = r"nothing to compose for the pictures \[1\] of 3: what is given \(color\) has a `granularity_scale` of 0"
    with monkeypatch.context() as context, pytest.raises(ValueError, match=said):
        context.setattr("mg_diffusion.composition.read_reference", None)
        compose(given, 64, 64, scale, num_images=3)
    features = shipped.mg_encoder.encode(given, (16, 16), 3, layout_size=(64, 64))
    with pytest.raises(ValueError, match=said):
        shipped.mg_encoder.compose(features, (64, 64), scale, 3)
    assert len(compose(given, 64, 64, {"color": [1, 0.01, 0.5]}, num_images=3)) == 3
    with_texture = {**given, "texture": picture()}
    assert len(compose(with_texture, 64, 64, scale, num_images=3)) == 3


def test_features_of_another_size_are_refused(shipped):
    features = shipped.mg_encoder.encode(references(), (16, 16), layout_size=(64, 64))
    with pytest.raises(ValueError, match=r"layout_size=\(64, 96\)"):
        shipped.mg_encoder.compose(features, (64, 96))
    features = shipped.mg_encoder.encode(references(), (16, 16))
    with pytest.raises(ValueError, match="The texture features were not made to be laid out"):
        shipped.mg_encoder.compose(features, (64, 64))


@pytest.mark.parametrize("around", ["autocast", "float64", "meta"])
def test_nothing_around_it_changes_a_composition(around):
    """Nor does what was around the first call stay."""
    expected = compose(references(), 64, 64, generator=seeded(), output_type="pt")
    _embedded_encoder.cache_clear()
    generator = seeded()
    try:
        torch.set_default_dtype(torch.float64 if around == "float64" else torch.float32)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=around == "autocast"),
            torch.device("meta" if around == "meta" else "cpu"),
        ):
            inside = compose(references(), 64, 64, generator=generator, output_type="pt")
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(inside, expected, atol=1e-5, rtol=0)
    assert torch.equal(compose(references(), 64, 64, generator=seeded(), output_type="pt"), expected)


@pytest.mark.parametrize("scale", [1e10, 1e30, 10**400, {"texture": 1e19}, torch.tensor(1e12)])
def test_strengths_that_would_overflow_are_refused(scale):
    with pytest.raises(ValueError, match="granularity_scale"):
        compose(references(), 64, 64, scale)


@pytest.mark.parametrize("weight", [1e39, 5e-324, 10**400])
def test_weights_that_would_overflow_are_refused(weight):
    colors = [{"image": ["#ff0000"], "weight": weight, "region": (0, 0, 0.5, 1)}, {"image": ["#0000ff"]}]
    with pytest.raises(ValueError, match="weight must be a positive number"):
        compose({"color": colors}, 64, 64)


def test_numbers_of_numpy_and_torch_are_numbers():
    expected = compose(references(), 64, 64, 0.5, generator=seeded(), output_type="pt")
    made = compose(references(), np.int64(64), np.int32(64), torch.tensor(0.5), generator=seeded(), output_type="pt")
    assert torch.equal(made, expected)


def test_a_mistyped_name_is_told_before_anything_is_read():
    told = []
    with pytest.raises(ValueError, match="Unknown granularity 'colour'"):
        compose({"texture": references()["texture"], "colour": ["#c1121f"]}, 64, 64, callback=told.append)
    assert not told


def test_what_is_no_encoder_is_refused():
    with pytest.raises(ValueError, match="`encoder` must be an `MGEncoder`"):
        compose(references(), 64, 64, encoder="x")
