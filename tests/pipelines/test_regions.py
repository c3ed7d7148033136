"""Regions: references that count in a part of the output, from the encoder to the picture and the command line."""

import json

import numpy as np
import PIL.Image
import pytest
import torch

from mg_diffusion.adapter.sets import split_regions
from mg_diffusion.cli import main
from mg_diffusion.encoder.references import lay_into, read_region
from mg_diffusion.evaluation.metrics import color_distance
from mg_diffusion.recipe import read_recipe

from .tiny import SIZE, picture, references, seeded


LEFT, RIGHT = (0, 0, 0.5, 1), (0.5, 0, 1, 1)


def generate(pipeline, reference_image, **options):
    options = {"num_inference_steps": 2, "output_type": "np", "generator": seeded(0), **options}
    return pipeline("a", reference_image=reference_image, **options).images


# -- reading a region -----------------------------------------------------------------------------------------------------
def test_a_box_covers_its_share_of_every_pixel():
    region = read_region((0.25, 0, 0.6, 0.5), (4, 10))
    assert region.shape == (1, 1, 4, 10)
    np.testing.assert_allclose(region[0, 0, 0], [0, 0, 0.5, 1, 1, 1, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(region[0, 0, :, 4], [1, 1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("form", ["PIL", "path", "uint8", "bool", "float", "torch"])
def test_every_form_of_a_region_is_read_alike(tmp_path, form):
    mask = np.zeros((20, 30), np.uint8)
    mask[:, :15] = 255
    PIL.Image.fromarray(mask).save(tmp_path / "mask.png")
    forms = {
        "PIL": PIL.Image.fromarray(mask),
        "path": str(tmp_path / "mask.png"),
        "uint8": mask,
        "bool": mask > 0,
        "float": mask / 255,
        "torch": torch.from_numpy(mask) / 255,
    }
    torch.testing.assert_close(read_region(forms[form], (8, 8)), read_region(LEFT, (8, 8)))


def test_gray_counts_in_part():
    ramp = np.tile(np.linspace(0, 1, 16), (16, 1))
    torch.testing.assert_close(read_region(ramp, (16, 16))[0, 0].numpy(), ramp.astype(np.float32))


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((0, 0, 1), "mask or a box .left, top, right, bottom., got"),
        ((0.5, 0, 0.5, 1), "fractions of the output, with 0 <= left < right"),
        ((0, 0, 2, 1), "fractions of the output"),
        (("a", 0, 1, 1), "mask or a box"),
        (np.zeros((8, 8)), "region is empty"),
        (np.full((8, 8), 2.0), r"must lie in \[0, 1\], .*got up to 2"),
        (np.full((8, 8), np.nan), r"must lie in \[0, 1\]"),
        (np.ones((8, 8, 2)), r"one channel, \(height, width\), got the shape \(8, 8, 2\)"),
        (np.full((8, 8), 300, np.int64), "values up to 300 of int64. Divide it"),
        (np.array([["a"]]), "bool, integers or floating point"),
        (7, "got int"),
        ("missing.png", "no reference picture at 'missing.png'"),
        (PIL.Image.new("RGBA", (8, 8), (255, 255, 255, 0)), "transparent pixels"),
    ],
)
def test_other_regions_are_refused(region, message):
    with pytest.raises(ValueError, match=message):
        read_region(region, (8, 8))


def test_a_shape_is_laid_into_the_box_around_its_region():
    laid = lay_into(torch.ones(1, 2, 5, 5), read_region((0.5, 0.25, 1, 0.75), (16, 16)))
    assert laid.shape == (1, 2, 16, 16)
    assert laid[:, :, 4:12, 8:].eq(1).all() and laid.sum() == 2 * 8 * 8


# -- from the encoder to the adapter ----------------------------------------------------------------------------------------
def encode(pipeline, reference_image, batch_size=1):
    return pipeline.encode_reference(reference_image, SIZE, SIZE, batch_size)


def test_regions_and_the_rest_share_every_place_out(make):
    pipeline = make()
    overlapping = (0.25, 0, 1, 0.5)
    entries = [{"image": picture(1), "region": LEFT}, {"image": picture(2), "region": overlapping}, picture(3)]
    parts = encode(pipeline, {"color": entries})["color"]
    total = sum(part["region"] for part in parts)
    assert len(parts) == 3
    torch.testing.assert_close(total, torch.ones_like(total))
    (only_left,) = encode(pipeline, {"color": entries[0]})["color"]
    torch.testing.assert_close(only_left["vector"], encode(pipeline, {"color": picture(1)})["color"][0]["vector"])


def test_overlapping_regions_share_a_place_out_by_weight(make):
    entries = [{"image": picture(1), "region": LEFT, "weight": 3}, {"image": picture(2), "region": (0, 0, 1, 1)}]
    first, second = (part["region"][0, 0] for part in encode(make(), {"color": entries})["color"])
    side = first.shape[1] // 2
    torch.testing.assert_close(first[:, :side], torch.full_like(first[:, :side], 0.75))
    torch.testing.assert_close(second[:, side:], torch.ones_like(second[:, side:]))


def test_every_combination_of_regions_is_a_set(make):
    pipeline = make()
    features = encode(
        pipeline,
        {
            "color": [{"image": picture(1), "region": LEFT}, {"image": picture(2), "region": RIGHT}],
            "texture": {"image": picture(3), "region": (0, 0, 1, 0.5)},
            "shape": picture(4),
        },
    )
    sets, shares = split_regions(features)
    assert [sorted(one) for one in sets] == [["color", "shape", "texture"], ["color", "shape"]] * 2
    torch.testing.assert_close(shares.sum(1), torch.ones_like(shares[:, 0]))
    torch.testing.assert_close(shares.mean((2, 3)), torch.full((1, 4), 0.25))


def test_no_regions_leave_features_as_they_are(make):
    pipeline = make()
    features = encode(pipeline, references())
    sets, shares = split_regions(features)
    (only,) = sets
    assert shares is None and all([only[name]] == parts for name, parts in features.items())


# -- pictures -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_inpainting", [False, True])
def test_one_region_over_everything_is_the_whole_picture(make, is_inpainting):
    pipeline = make(is_inpainting=is_inpainting)
    everywhere = {name: {"image": one, "region": (0, 0, 1, 1)} for name, one in references().items()}
    np.testing.assert_allclose(generate(pipeline, everywhere), generate(pipeline, references()), atol=2e-3)


def test_the_same_reference_in_two_halves_is_the_reference(make):
    pipeline = make()
    halves = [{"image": references()["texture"], "region": region} for region in (LEFT, RIGHT)]
    found = generate(pipeline, {"texture": halves})
    np.testing.assert_allclose(found, generate(pipeline, {"texture": references()["texture"]}), atol=1e-5)


def test_where_no_region_is_the_base_model_is_left_alone(make):
    pipeline = make()
    features = encode(pipeline, {"color": {"image": picture(1), "region": LEFT}})
    size = (SIZE // 2, SIZE // 2)
    folded, _ = pipeline.mg_adapter.condition(pipeline.unet, features, torch.ones(1, 3), size)
    for layer in folded.values():
        (share,) = layer[2:]
        side = int(share.shape[1] ** 0.5)
        in_color = share[0, :, 0].view(side, side)
        assert in_color[:, side // 2 :].eq(0).all() and in_color[:, : side // 2].gt(0).any()


@pytest.mark.parametrize("size", [(SIZE, SIZE), (24, 40)])
def test_regions_work_with_schedules_guidance_and_batches(make, size):
    pipeline = make()
    color = [{"image": picture(1), "region": LEFT}, {"image": ["#ff0000"], "region": RIGHT, "weight": 2}]
    lists = {"color": [color, color[::-1]], "shape": {"image": picture(4), "region": (0.25, 0.25, 1, 1)}}
    options = {
        "height": size[0],
        "width": size[1],
        "granularity_schedule": {"color": (0.0, 0.5)},
        "granularity_guidance": {"shape": 1.0},
        "negative_reference_image": {"color": ["#00ff00"]},
        "num_images_per_prompt": 2,
    }
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(
        ["a", "b"], reference_image=lists, output_type="np", num_inference_steps=2, generator=seeded(0), **options
    ).images
    assert images.shape == (4, *size, 3) and np.isfinite(images).all()


def test_regions_pass_as_embeds(make):
    pipeline = make()
    given = {"color": [{"image": picture(1), "region": LEFT}, picture(2)], "shape": picture(3)}
    by_embeds = pipeline(
        "a", reference_embeds=encode(pipeline, given), num_inference_steps=2, output_type="np", generator=seeded(0)
    ).images
    np.testing.assert_array_equal(by_embeds, generate(pipeline, given))


def test_samples_of_a_batch_need_as_many_regions(make):
    lists = {"color": [[{"image": picture(1), "region": LEFT}], [picture(2)]]}
    with pytest.raises(ValueError, match=r"need as many regions, got \[0, 1\]. Call one by one"):
        make()(["a", "b"], reference_image=lists)


def test_a_negative_reference_has_no_region(make):
    avoided = {"color": [{"image": ["#ff0000"], "region": LEFT}]}
    with pytest.raises(ValueError, match="has a region; what is avoided is avoided in the whole picture"):
        make()("a", negative_reference_image=avoided)


def test_an_edit_keeps_what_is_outside_and_takes_regions(make_inpaint):
    pipeline = make_inpaint(is_inpainting=True)
    image = np.asarray(picture(5, height=SIZE, width=SIZE)).astype(np.float32) / 255
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:12, 2:14] = True
    both = [{"image": ["#ff0000"], "region": LEFT}, {"image": ["#0000ff"], "region": RIGHT}]

    def edit(color):
        options = {"num_inference_steps": 2, "output_type": "np", "generator": seeded(0)}
        return pipeline("a", image=image, mask_image=mask, reference_image={"color": color}, **options).images[0]

    edited = edit(both)
    np.testing.assert_array_equal(edited[~mask], image[~mask])
    assert not np.array_equal(edited, edit(both[0])) and not np.array_equal(edited, edit(["#ff0000"]))


# -- the effect, with the model that is shipped ---------------------------------------------------------------------------
def swatch(palette):
    colors = np.array([[int(entry[i : i + 2], 16) / 255 for i in (1, 3, 5)] for entry in palette])
    return np.tile(colors.repeat(16, 0)[:, None], (1, 32, 1))


def test_each_half_has_the_palette_of_its_region(shipped):
    rng = np.random.default_rng(0)
    drawn = [[[f"#{rng.integers(0, 1 << 24):06x}" for _ in range(2)] for _ in range(2)] for _ in range(6)]
    lists = [
        [{"image": palette, "region": at} for palette, at in zip(two, (LEFT, RIGHT), strict=True)] for two in drawn
    ]
    shape = np.zeros((64, 64, 3))
    shape[16:48, 16:48] = 1
    options = {"num_inference_steps": 6, "output_type": "np", "generator": seeded(0)}
    images = shipped(reference_image={"color": lists, "shape": shape}, **options).images
    nearer = []
    for image, (left, right) in zip(images, drawn, strict=True):
        for half, own, other in ((image[:, :32], left, right), (image[:, 32:], right, left)):
            nearer.append(color_distance(half, swatch(own)) < color_distance(half, swatch(other)))
    assert np.mean(nearer) >= 0.9


# -- the command line -----------------------------------------------------------------------------------------------------
def test_the_command_line_takes_regions_masks_and_weights(model, tmp_path, capsys):
    for name, seed in (("one", 1), ("two", 2)):
        picture(seed).save(tmp_path / f"{name}.png")
    one, two, mask = (str(tmp_path / f"{name}.png") for name in ("one", "two", "mask"))
    PIL.Image.new("L", picture(1).size, 255).save(mask)

    def run(*colors):
        output = str(tmp_path / f"{len(list(tmp_path.iterdir()))}.png")
        flags = [part for color in colors for part in ("--color", color)]
        status = main(["generate", *flags, "--model", str(model), "--steps", "2", "-o", output])
        return status, output, capsys.readouterr().err

    status, output, _ = run(f"{one},region=0:0:0.5:1", f"#ff0000,region={mask},weight=2", f"{two},mask={mask}")
    assert status == 0
    boxed, palette, masked = read_recipe(output)["references"]["color"]
    assert boxed["region"] == [0, 0, 0.5, 1] and boxed["file"] == "one.png"
    assert palette["palette"] == ["#ff0000"] and palette["weight"] == 2 and palette["region"]["file"] == "mask.png"
    assert masked["mask"]["file"] == "mask.png"
    assert str(tmp_path) not in json.dumps(read_recipe(output))
    for color, message in (
        (f"{one},region=nowhere.png", "no mask at 'nowhere.png'. A region is a picture or LEFT:TOP"),
        (f"{one},region=0:0:x:1", "weight, scale and box are numbers"),
        (f"{one},weight=much", "weight, scale and box are numbers"),
        (f"{one},mask=nowhere.png", "no picture at 'nowhere.png'"),
        (f"{one},size=3", "may stand mask, weight, region and scale, got 'size'"),
    ):
        status, _, printed = run(color)
        assert status == 2 and message in printed
