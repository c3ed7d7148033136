"""Each node on tensors: the same as the library's function, and words for what is wrong."""

import numpy as np
import PIL.Image
import pytest
import torch
from pipelines.tiny import picture

from mg_diffusion import compose
from mg_diffusion.comfyui import NODE_CLASS_MAPPINGS, models
from mg_diffusion.edits import denoise, enlarge, recolor
from mg_diffusion.encoder.views import lab_to_rgb
from mg_diffusion.palettes import extract_palette


def image_of(*seeds: int, height: int = 40, width: int = 48) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.array(picture(seed, height, width))) for seed in seeds]).float() / 255


def run(name: str, **inputs):
    """A node as ComfyUI calls it: in inference mode, by keywords, with the defaults of its widgets."""
    node = NODE_CLASS_MAPPINGS[name]
    widgets = {
        key: options[0].get("default") if options and "default" in options[0] else kind[0]
        for key, (kind, *options) in node.INPUT_TYPES()["required"].items()
    }
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(**{**widgets, **inputs})


def is_image(image: torch.Tensor) -> bool:
    return (
        image.ndim == 4
        and image.shape[3] == 3
        and image.dtype == torch.float32
        and 0 <= image.min() <= image.max() <= 1
    )


def bits(image: torch.Tensor) -> np.ndarray:
    """(H, W, C) in 0..1 as an array of 16 bits, as the library takes pictures."""
    return (65535 * image.double()).round().numpy().astype(np.uint16)


@pytest.fixture(scope="module")
def networks():
    return models.embedded()


@pytest.mark.parametrize("around", [torch.float64, torch.float16, "meta"], ids=str)
def test_networks_are_in_float32_on_the_cpu_whatever_is_the_default_when_they_are_first_used(networks, around):
    late, before = models.Networks(networks.folder), torch.get_default_dtype()
    try:
        torch.set_default_dtype(before if around == "meta" else around)
        with torch.device("meta" if around == "meta" else "cpu"):
            found = late.mg_encoder, late._detail
    finally:
        torch.set_default_dtype(before)
    for one, expected in zip(found, (networks.mg_encoder, networks.mg_detail), strict=True):
        assert {(p.dtype, p.device.type) for p in one.parameters()} == {(torch.float32, "cpu")}
        state = one.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in expected.cpu().state_dict().items())


# -- compose ------------------------------------------------------------------------------------------------------------
def test_composing_is_the_librarys(networks):
    color, texture, shape = image_of(1), image_of(2), image_of(3)
    (made,) = run(
        "MGCompose", color=color, texture=texture, shape=shape, width=96, height=64, seed=5, shape_strength=0.5
    )
    references = {
        name: image[0].permute(2, 0, 1) for name, image in (("color", color), ("texture", texture), ("shape", shape))
    }
    scales = {"color": 1.0, "texture": 1.0, "shape": 0.5}
    generator = torch.Generator().manual_seed(5)
    expected = compose(references, 64, 96, scales, generator=generator, output_type="pt", encoder=networks.mg_encoder)
    assert made.shape == (1, 64, 96, 3) and is_image(made)
    assert torch.equal(made, expected.permute(0, 2, 3, 1))


def test_composing_with_a_palette_regions_weights_and_a_batch(networks):
    left, right = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    left[..., :4], right[..., 4:] = 1, 1
    (first,) = run("MGReference", granularity="color", palette="#e63946:2, #f4a261", region=left)
    (both,) = run("MGReference", granularity="color", image=image_of(1), region=right, weight=2.0, references=first)
    (both,) = run("MGReference", granularity="texture", image=image_of(4), scale=2.0, references=both)
    (made,) = run(
        "MGCompose", references=both, shape=image_of(3), width=64, height=64, batch_size=2, assignment="free"
    )
    references = {
        "color": [
            {"image": ["#e63946:2", "#f4a261"], "region": (0, 0, 0.5, 1)},
            {"image": image_of(1)[0].permute(2, 0, 1), "region": (0.5, 0, 1, 1), "weight": 2.0},
        ],
        "texture": [{"image": image_of(4)[0].permute(2, 0, 1), "scale": 2.0}],
        "shape": image_of(3)[0].permute(2, 0, 1),
    }
    generator = torch.Generator().manual_seed(0)
    expected = compose(references, 64, 64, assignment="free", num_images=2, generator=generator, output_type="pt")
    assert torch.equal(made, expected.permute(0, 2, 3, 1))
    assert not torch.equal(made[0], made[1])


def test_of_a_batch_every_picture_is_a_reference_and_a_mask_is_borrowed_above_a_half():
    soft = torch.full((1, 40, 48), 0.4)
    soft[..., :24] = 0.6
    (found,) = run("MGReference", granularity="color", image=image_of(1, 2), mask=soft, palette="#ff0000")
    first, second, palette = found["color"]
    assert torch.equal(first["image"], image_of(1)[0].permute(2, 0, 1)) and palette == {"image": ["#ff0000"]}
    assert torch.equal(second["mask"], soft[0] > 0.5)


def test_of_a_picture_with_an_alpha_what_can_be_seen_is_read():
    cut_out = torch.cat([image_of(1), torch.ones(1, 40, 48, 1)], 3)
    (found,) = run("MGReference", granularity="color", image=cut_out)
    assert isinstance(found["color"][0]["image"], PIL.Image.Image) and found["color"][0]["image"].mode == "RGBA"


# -- palettes -----------------------------------------------------------------------------------------------------------
def test_a_palette_is_extracted_changed_and_laid_into_a_picture(networks):
    image = image_of(1)
    palette, swatch = run("MGExtractPalette", image=image, colors=3)
    colors = extract_palette(networks.mg_encoder, image[0].permute(2, 0, 1), 3)
    assert palette == ", ".join(colors) and is_image(swatch)
    assert (255 * swatch[0, 0, 0]).round().int().tolist() == [int(colors[0][at : at + 2], 16) for at in (1, 3, 5)]

    changed, swatch = run("MGEditPalette", palette=palette, changes="2=#1d6fd1:40\n3=, #ffffff:5")
    assert changed == f"{colors[0]}, #1d6fd1:40, #ffffff:5"
    (made,) = run("MGRecolor", image=image_of(2), palette=changed)
    (expected,) = recolor(networks, bits(image_of(2)[0]), changed.split(", "))
    assert np.array_equal(bits(made[0]), expected)


def test_a_palette_of_a_part():
    image = torch.zeros(1, 32, 32, 3)
    image[:, :, :16, 0], image[:, :, 16:, 2] = 1, 1
    mask = torch.zeros(1, 32, 32)
    mask[..., 20:] = 1
    assert run("MGExtractPalette", image=image, mask=mask, colors=1)[0] == "#0000ff:100"


# -- views --------------------------------------------------------------------------------------------------------------
def test_views_are_the_encoders(networks):
    image = image_of(1, height=64, width=64)
    views = networks.mg_encoder.views(image.permute(0, 3, 1, 2))
    shown = {
        view: run("MGViews", image=image, view=view)[0]
        for view in ("color", "texture", "texture tiles", "shape", "shape edges")
    }
    assert all(one.shape == image.shape and is_image(one) for one in shown.values())
    assert torch.equal(shown["shape"], (views["shape"]["structure"] / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1))
    assert torch.equal(shown["shape edges"][..., 0], views["shape"]["edges"][:, 0].clamp(0, 1))
    normalized = views["texture"]["normalized"] * views["texture"]["weight"]
    assert torch.allclose(shown["texture"][..., 0], (0.5 + normalized[:, 0] / 6).clamp(0, 1))
    assert len(shown["texture tiles"].unique()) > 100
    bag = lab_to_rgb(views["color"]["points"].transpose(1, 2)[..., None])[0, :, :, 0].T
    colors = shown["color"][0].flatten(0, 1).unique(dim=0)
    assert (colors[:, None] - bag).abs().amax(2).min(1).values.max() < 1e-5


# -- exact paste --------------------------------------------------------------------------------------------------------
def test_what_the_mask_leaves_comes_back_bit_for_bit():
    kept, made = torch.rand(2, 20, 24, 3), torch.rand(2, 20, 24, 3)
    mask = torch.zeros(1, 20, 24)
    mask[:, 4:12, 4:12], mask[:, 12:16, 4:12] = 1, 0.25
    (pasted,) = run("MGExactPaste", image=kept, edited=made, mask=mask)
    assert torch.equal(pasted[:, mask[0] == 0], kept[:, mask[0] == 0])
    assert torch.equal(pasted[:, mask[0] == 1], made[:, mask[0] == 1])
    gray = mask[0] == 0.25
    assert torch.allclose(pasted[:, gray], 0.75 * kept[:, gray] + 0.25 * made[:, gray])
    assert pasted.data_ptr() != kept.data_ptr()

    (soft,) = run("MGExactPaste", image=kept, edited=made, mask=(mask == 1).float(), feather=3)
    assert torch.equal(soft[:, mask[0] < 1], kept[:, mask[0] < 1])
    assert torch.allclose(soft[0, 4, 6], 0.75 * kept[0, 4, 6] + 0.25 * made[0, 4, 6])


def test_several_edits_of_one_picture_are_pasted():
    kept, made, mask = torch.rand(1, 16, 16, 3), torch.rand(3, 16, 16, 3), torch.ones(1, 16, 16)
    assert torch.equal(run("MGExactPaste", image=kept, edited=made, mask=mask)[0], made)


# -- filters ------------------------------------------------------------------------------------------------------------
def test_filters_are_the_librarys(networks):
    image, mask = image_of(1, 2), torch.zeros(1, 40, 48)
    mask[..., 24:] = 1
    (recolored,) = run(
        "MGRecolor", image=image, color=image_of(3), mask=mask, feather=2, strength=0.5, assignment="free", seed=3
    )
    (cleaned,) = run("MGDenoise", image=image, mask=mask, strength=0.5, noise_level=25.0)
    (larger,) = run("MGEnlarge", image=image, texture=image_of(4))
    generators = [torch.Generator().manual_seed(3) for _ in image]
    for number, one in enumerate(image):
        options = {"mask_feather": 2, "granularity_scale": 0.5, "assignment": "free", "generator": generators[number]}
        (expected,) = recolor(networks, bits(one), [image_of(3)[0].permute(2, 0, 1)], mask[0].numpy(), **options)
        assert np.array_equal(bits(recolored[number]), expected)
        (expected,) = denoise(networks, bits(one), mask[0].numpy(), strength=0.5, noise_level=25.0)
        assert np.array_equal(bits(cleaned[number]), expected)
        (expected,) = enlarge(networks, bits(one), 2, [image_of(4)[0].permute(2, 0, 1)])
        assert np.array_equal(bits(larger[number]), expected)
    assert larger.shape == (2, 80, 96, 3) and is_image(larger)


def test_filters_leave_floats_as_they_are_where_nothing_is_edited():
    image, mask = torch.rand(1, 32, 32, 3), torch.zeros(1, 32, 32)
    mask[..., 16:] = 1
    for name, options in (("MGRecolor", {"palette": "#0a9396"}), ("MGDenoise", {})):
        (made,) = run(name, image=image, mask=mask, **options)
        assert torch.equal(made[..., :16, :], image[..., :16, :]) and not torch.equal(made, image)
        assert torch.equal(run(name, image=image, strength=0.0, **options)[0], image)


def test_an_alpha_stays():
    image = torch.cat([image_of(1), torch.full((1, 40, 48, 1), 0.3)], 3)
    (made,) = run("MGRecolor", image=image, palette="#0a9396")
    assert torch.equal(made[..., 3], image[..., 3]) and not torch.equal(made, image)


# -- a model of one's own -----------------------------------------------------------------------------------------------
def test_a_model_of_ones_own(model):
    (own,) = run("MGModel", folder=str(model))
    assert own.mg_encoder.config.sample_size != models.embedded().mg_encoder.config.sample_size
    (seen,) = run("MGViews", image=image_of(1), mg_model=own)
    assert not torch.equal(seen, run("MGViews", image=image_of(1))[0])
    assert run("MGModel", folder=" ")[0] is models.embedded()


# -- words --------------------------------------------------------------------------------------------------------------
IMAGE = image_of(1)


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("MGCompose", {}, "nothing to compose: connect a color"),
        ("MGCompose", {"palette": "#12"}, 'must be "#rrggbb"'),
        ("MGCompose", {"color": IMAGE[0]}, r"`color` must be an IMAGE.*\(40, 48, 3\).*Convert Mask to Image"),
        ("MGCompose", {"shape": IMAGE, "color_region": torch.ones(1, 8, 8)}, "region for color, but no color reference"),
        ("MGCompose", {"color": IMAGE, "color_region": torch.ones(2, 8, 8)}, "one mask, got a batch of 2"),
        ("MGReference", {"granularity": "texture", "palette": "#ffffff"}, "serve as color references, not as texture"),
        ("MGReference", {"granularity": "texture"}, "reference is empty: connect"),
        ("MGReference", {"granularity": "color", "palette": "#ffffff", "mask": torch.ones(1, 8, 8)}, "needs an IMAGE"),
        ("MGReference", {"granularity": "color", "image": IMAGE, "mask": torch.ones(1, 64, 64)}, "48 x 40.*64 x 64.*Resize"),
        ("MGExtractPalette", {"image": IMAGE.repeat(2, 1, 1, 1)}, "one picture, got a batch of 2"),
        ("MGEditPalette", {"changes": "2=#ffffff", "palette": "#000000"}, "changes color 2 of a palette that has 1"),
        ("MGEditPalette", {"changes": "blue"}, "A change is .*got 'blue'"),
        ("MGEditPalette", {"changes": ""}, "has no colors. Write some"),
        ("MGRecolor", {"image": IMAGE}, "no colors: write a palette"),
        ("MGRecolor", {"image": "photo.png", "palette": "#ffffff"}, "must be an IMAGE.*got str.*Connect"),
        ("MGRecolor", {"image": IMAGE, "palette": "#ffffff", "mask": torch.zeros(1, 40, 48)}, "White is edited"),
        ("MGDenoise", {"image": IMAGE * torch.nan}, "NaN.*--fp32-vae"),
        ("MGDenoise", {"image": IMAGE, "mask": IMAGE}, "must be a MASK.*Convert Image to Mask"),
        ("MGDenoise", {"image": IMAGE, "mask": torch.full((1, 40, 48), 2.0)}, "from 2 to 2. Bring them to 0..1"),
        ("MGEnlarge", {"image": (255 * IMAGE).byte()}, "floating point.*torch.uint8"),
        ("MGViews", {"image": IMAGE, "view": "light"}, "must be one of color, texture.*got 'light'"),
        ("MGExactPaste", {"image": IMAGE, "edited": IMAGE[:, :32], "mask": torch.ones(1, 40, 48)}, "Resize the edit"),
        ("MGExactPaste", {"image": IMAGE, "edited": IMAGE, "mask": torch.ones(1, 64, 64)}, "48 x 40.*64 x 64"),
        *(("MGExactPaste", {"image": IMAGE, "edited": IMAGE, "mask": torch.ones(1, 40, 48), "feather": feather},
           "`feather` is a number of pixels") for feather in (-1, -5, 5.5, float("nan"), None)),
        *((name, {**inputs, "palette": "#ffffff", "seed": seed}, "`seed` must be an integer from 0 to 18446744073709551615")
          for name, inputs in (("MGRecolor", {"image": IMAGE}), ("MGCompose", {})) for seed in (None, 0.5, -1, 2**64)),
        ("MGModel", {"folder": "nowhere"}, "'nowhere', which has no encoder"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_answered_in_words(name, inputs, words):
    with pytest.raises(ValueError, match=words):
        run(name, **inputs)
