"""Attribution and leak guard: what they report is true of calls whose answer is known."""

import warnings

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion import MGInpaintPipeline, MGPipeline
from mg_diffusion.attribution import draw_attribution, draw_maps, draw_overlays
from mg_diffusion.cli import main


LEFT = (0, 0, 0.5, 1)


def picture(seed: int) -> np.ndarray:
    """Four fields of color, (64, 64, 3)."""
    colors = np.random.default_rng(seed).random((2, 2, 3))
    return colors.repeat(32, 0).repeat(32, 1)


def call(shipped, references, **options):
    options = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0), **options}
    return shipped(reference_image=references, **options)


def everything():
    return {"color": picture(1), "texture": picture(2), "shape": picture(3)}


def test_attribution_changes_no_pixel_and_has_its_shapes(shipped):
    plain = call(shipped, everything(), output_type="np", num_images_per_prompt=2)
    told = call(shipped, everything(), output_type="np", num_images_per_prompt=2, return_attribution=True)
    np.testing.assert_allclose(told.images, plain.images, atol=2e-4)
    assert plain.attribution is None and set(told.attribution) == {"color", "texture", "shape"}
    for parts in told.attribution.values():
        assert parts["map"].shape == (2, 32, 32) and parts["curve"].shape == (2, 4)
        assert (parts["map"] >= 0).all() and parts["curve"].gt(0).all()


def test_what_has_no_strength_moved_nothing(shipped):
    told = call(shipped, everything(), granularity_scale={"texture": 0.0}, return_attribution=True).attribution
    assert told["texture"]["map"].max() == 0 and told["color"]["map"].max() > 0


def test_the_map_is_where_the_region_is(shipped):
    references = {"color": {"image": picture(1), "region": LEFT}, "shape": picture(3)}
    told = call(shipped, references, return_attribution=True).attribution["color"]["map"][0]
    assert told[:, :14].mean() > 3 * told[:, 18:].mean()


def test_the_curve_is_0_while_the_window_is_shut(shipped):
    schedule = {"color": (0.0, 0.5)}
    told = call(shipped, everything(), granularity_schedule=schedule, return_attribution=True).attribution
    assert told["color"]["curve"][0, :2].min() > 0 and told["color"]["curve"][0, 2:].max() == 0


def test_guidance_and_attribution_together(shipped):
    options = {"granularity_guidance": {"color": 1.0}}
    plain = call(shipped, everything(), output_type="np", **options)
    told = call(shipped, everything(), output_type="np", return_attribution=True, **options)
    np.testing.assert_allclose(told.images, plain.images, atol=2e-4)
    assert set(told.attribution) == {"color", "texture", "shape"}


def test_a_tuple_ends_with_it(shipped):
    images, _, attribution = call(shipped, everything(), return_dict=False, return_attribution=True)
    assert len(images) == 1 and set(attribution) == {"color", "texture", "shape"}


def test_an_edit_tells_what_its_surroundings_lent(shipped):
    inpaint = MGInpaintPipeline(**shipped.components)
    inpaint.set_progress_bar_config(disable=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[16:48, 16:48] = 255
    told = call(inpaint, None, image=picture(4), mask_image=mask, return_attribution=True).attribution
    assert set(told) == {"color", "texture", "shape"} and told["color"]["map"].max() > 0


def test_of_an_edit_within_a_crop_nothing_moved_around_it(shipped):
    """The map lies where it was computed, in any size that it is drawn in."""
    inpaint = MGInpaintPipeline(**shipped.components)
    inpaint.set_progress_bar_config(disable=True)
    mask = np.zeros((64, 64), np.uint8)
    mask[4:12, 36:44] = 255
    given = {"image": picture(4), "mask_image": mask, "padding_mask_crop": 4, "return_attribution": True}
    told = call(inpaint, everything(), **given).attribution
    left, top, right, bottom = (64 * told["color"]["region"]).int().tolist()
    assert 0 < left <= 36 and top <= 4 and 44 <= right < 64 and 12 <= bottom < 64
    for size in ((64, 64), (128, 96)):
        drawn = np.stack([np.asarray(one) for one in draw_maps(told, size).values()])
        (rows, columns), height, width = np.nonzero(drawn.max(0)), size[1] / 64, size[0] / 64
        assert drawn.max() > 200 and columns.min() >= left * width and columns.max() < right * width
        assert rows.min() >= top * height and rows.max() < bottom * height
    assert all(one.size == (3, 2) for one in draw_maps(told, (3, 2)).values())
    around = {"image": picture(4), "mask_image": mask, "return_attribution": True}
    assert "region" not in call(inpaint, everything(), **around).attribution["color"]


def test_nothing_given_nothing_told(shipped):
    assert call(shipped, None, return_attribution=True).attribution == {}
    with pytest.raises(ValueError, match="no attribution to draw"):
        draw_attribution(PIL.Image.new("RGB", (64, 64)), {})


def test_the_drawing_is_hot_where_the_map_is(shipped):
    references = {"color": {"image": picture(1), "region": LEFT}, "shape": picture(3)}
    told = call(shipped, references, return_attribution=True)
    drawn = np.asarray(draw_attribution(told.images[0], {"color": told.attribution["color"]})).astype(int)
    assert drawn.shape[1] == 64 and drawn.shape[0] > 64
    heat = drawn[:64, :, 0] - drawn[:64, :, 2]
    assert heat[:, :28].mean() > 3 * abs(heat[:, 36:].mean())
    with pytest.raises(ValueError, match="of 1 pictures, so `index` is 0 to 0; got 1"):
        draw_attribution(told.images[0], told.attribution, index=1)


def test_maps_and_overlays_have_the_size_that_is_asked_for(shipped):
    references = {"color": {"image": picture(1), "region": LEFT}, "shape": picture(3)}
    told = call(shipped, references, return_attribution=True).attribution
    maps = draw_maps(told, (256, 192))
    assert set(maps) == {"color", "shape"} and all(one.size == (256, 192) and one.mode == "L" for one in maps.values())
    color = np.asarray(maps["color"]).astype(int)
    assert color[:, :112].mean() > 3 * color[:, 144:].mean()
    assert max(np.asarray(one).max() for one in maps.values()) > 240  # one scale, of which white is the most
    shown = draw_overlays(PIL.Image.new("RGB", (256, 192), "gray"), told)
    assert all(one.size == (256, 192) and one.mode == "RGB" for one in shown.values())
    both = np.asarray(draw_attribution(PIL.Image.new("RGB", (256, 192), "gray"), told))
    assert (both[:192] == np.concatenate([np.asarray(one) for one in shown.values()], 1)).all()
    with pytest.raises(ValueError, match="no attribution to draw"):
        draw_maps({}, (8, 8))


def test_the_command_line_writes_maps_of_the_size_of_the_output(tmp_path):
    for seed, name in enumerate("ab"):
        PIL.Image.fromarray((255 * picture(seed)).astype(np.uint8)).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    flags = ["generate", "--color", files[0], "--shape", files[1], "--width", "128", "--attribution-maps"]
    assert main([*flags, "-o", str(tmp_path / "out.png")]) == 0
    maps = [tmp_path / f"out.attribution-{name}.png" for name in ("color", "shape")]
    assert all(PIL.Image.open(one).size == PIL.Image.open(tmp_path / "out.png").size == (128, 128) for one in maps)
    assert not (tmp_path / "out.attribution.png").exists()
    (tmp_path / "out.png").unlink()
    assert main([*flags, "-o", str(tmp_path / "out.png")]) == 2 and not (tmp_path / "out.png").exists()


def test_without_an_adapter_there_is_none(shipped):
    without = MGPipeline(**{**shipped.components, "mg_adapter": None})
    with pytest.raises(ValueError, match="is about what an adapter does"):
        call(without, None, return_attribution=True)


# -- leak guard -----------------------------------------------------------------------------------------------------------
def test_the_guard_speaks_when_the_color_reference_lends_its_shape(shipped):
    """The shape reference is switched off, and the picture of the color reference leads the shape by features."""
    disc = np.hypot(*(np.indices((64, 64)) - 31.5))[..., None] < 20
    bars = np.indices((64, 64))[1][..., None] // 8 % 2 == 0
    white, black = np.ones(3), np.zeros(3)
    references = {"color": np.where(disc, white, black), "shape": np.where(bars, white, black)}

    def warned(given, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            call(shipped, given, leak_guard=True, num_inference_steps=6, **options)
        return [str(entry.message) for entry in caught if "follows its" in str(entry.message)]

    assert warned(references) == []
    # The same two pictures, and an output that follows the color reference: its picture lends the structure.
    told = warned({"color": references["color"], "shape": references["color"], "texture": references["shape"]})
    assert told == []
    (message,) = warned(references, granularity_scale={"shape": 0.0}, latents=drawn(shipped, references["color"]))
    assert "output 0 follows its color reference more than its shape reference: 1.00" in message


def drawn(shipped, image) -> torch.Tensor:
    """Noise that already holds a picture."""
    tensor = torch.from_numpy(image).permute(2, 0, 1).float()[None] * 2 - 1
    noise = torch.randn(1, 12, 32, 32, generator=torch.Generator().manual_seed(0))
    return noise + 8 * shipped.vae.encode(tensor).latent_dist.mode()


@pytest.mark.parametrize(
    "references",
    [
        None,
        {"shape": picture(1)},
        {"shape": picture(1), "color": ["#ff0000"]},
        {"shape": {"image": picture(1), "region": LEFT}, "color": picture(2)},
    ],
    ids=["none", "shape alone", "a palette", "a region"],
)
def test_the_guard_needs_pictures_to_compare(shipped, references):
    with pytest.raises(ValueError, match="needs a shape reference, and a color or texture reference, as pictures"):
        call(shipped, references, leak_guard=True)


def test_the_guard_looks_at_pictures_only(shipped):
    with pytest.raises(ValueError, match='with `output_type="latent"` there are none'):
        call(shipped, everything(), leak_guard=True, output_type="latent")


# -- the command line -----------------------------------------------------------------------------------------------------
def test_the_command_line_draws_and_warns(model, tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 2), ("mask", 0)):
        image = PIL.Image.fromarray((picture(seed) * 255).astype(np.uint8))
        image.save(tmp_path / f"{name}.png")
    PIL.Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16)).save(tmp_path / "mask.png")
    a, b, mask = (str(tmp_path / f"{name}.png") for name in ("a", "b", "mask"))
    common = ["--model", str(model), "--steps", "2", "--attribution"]
    output = str(tmp_path / "out.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        flags = ["generate", "--color", a, "--shape", b, "--leak-guard", "--num-images", "2", "-o", output]
        assert main([*flags, *common]) == 0
    assert (tmp_path / "out-0.attribution.png").is_file() and (tmp_path / "out-1.attribution.png").is_file()
    assert main(["edit", a, "--mask", mask, "--texture", b, "-o", output, *common]) == 0
    assert (tmp_path / "out.attribution.png").is_file()
    capsys.readouterr()
    assert main(["generate", "-o", str(tmp_path / "none.png"), *common]) == 0
    assert "no attribution to draw" in capsys.readouterr().err and (tmp_path / "none.png").is_file()
