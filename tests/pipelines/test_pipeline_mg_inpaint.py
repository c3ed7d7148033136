"""MGInpaintPipeline: what comes back outside the mask, and what is computed inside, against the stock pipeline."""

import inspect
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline

from mg_diffusion.pipelines import MGInpaintPipeline
from mg_diffusion.pipelines.pictures import feathered, list_masks

from .tiny import SIZE, picture, references, seeded


IMAGE = picture(5, height=30, width=44)
MASK = np.zeros((30, 44), dtype=bool)
MASK[7:21, 11:24] = True
INSIDE = np.zeros((SIZE, SIZE), dtype=np.uint8)
INSIDE[4:12, 6:14] = 255  # on the latent grid


def edit(pipeline, image=IMAGE, mask_image=MASK, prompt="a red flower", seed=0, **options):
    options = {"num_inference_steps": 2, "generator": seeded(seed), "output_type": "np", **options}
    return pipeline(prompt, image=image, mask_image=mask_image, **options).images


def as_floats(image) -> np.ndarray:
    """(H, W, 3) float32 of whatever a pipeline returns for one picture, or takes."""
    if isinstance(image, torch.Tensor):
        return image.permute(1, 2, 0).numpy()
    array = np.asarray(image)
    return array.astype(np.float32) / 255 if array.dtype == np.uint8 else array


def native(image: PIL.Image.Image = IMAGE) -> PIL.Image.Image:
    return image.resize((SIZE, SIZE))


def test_call_signature():
    ours = list(inspect.signature(MGInpaintPipeline.__call__).parameters)
    assert ours[1:6] == ["prompt", "image", "mask_image", "reference_image", "granularity_scale"]
    shared = set(inspect.signature(StableDiffusionInpaintPipeline.__call__).parameters)
    assert shared - set(ours) == {"masked_image_latents", "kwargs"}


# -- outside the mask -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize("vae", ["kl", "haar"])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding_mask_crop": 3}, {"mask_feather": 3}, {"strength": 0.6}, {"padding_mask_crop": 0, "height": 24}],
    ids=str,
)
def test_outside_the_mask_every_bit_stays(make_inpaint, is_inpainting, output_type, vae, options):
    pipeline = make_inpaint(is_inpainting=is_inpainting, vae=vae)
    (image,) = edit(pipeline, reference_image=references(), output_type=output_type, num_inference_steps=3, **options)
    changed = (as_floats(image) != as_floats(IMAGE)).any(-1)
    assert not changed[~MASK].any()
    assert changed[MASK].mean() > 0.9


@pytest.mark.parametrize("kind", ["pil", "path", "uint8", "float", "tensor", "batch", "list"])
def test_every_form_of_the_same_picture_and_mask_gives_the_same(make_inpaint, tmp_path, kind):
    IMAGE.save(tmp_path / "image.png")
    PIL.Image.fromarray(MASK).save(tmp_path / "mask.png")
    array, floats = np.asarray(IMAGE), as_floats(IMAGE)
    tensor = torch.from_numpy(floats).permute(2, 0, 1)
    image, mask = {
        "pil": (IMAGE, PIL.Image.fromarray(MASK)),
        "path": (tmp_path / "image.png", str(tmp_path / "mask.png")),
        "uint8": (array, 255 * MASK.astype(np.uint8)),
        "float": (floats, MASK.astype(np.float32)[..., None]),
        "tensor": (tensor, torch.from_numpy(MASK)),
        "batch": (tensor[None], torch.from_numpy(MASK)[None, None]),
        "list": ([IMAGE], [PIL.Image.fromarray(MASK).convert("RGB")]),
    }[kind]
    pipeline = make_inpaint()
    np.testing.assert_array_equal(edit(pipeline, image, mask), edit(pipeline))


@pytest.mark.parametrize("is_path", [False, True], ids=["pil", "path"])
def test_pictures_and_masks_are_turned_upright(make_inpaint, tmp_path, is_path):
    """Each lies on its side in its own way, and says so."""
    turned = []
    for image, orientation, turn in (
        (IMAGE, 6, PIL.Image.Transpose.ROTATE_90),
        (PIL.Image.fromarray(MASK), 8, PIL.Image.Transpose.ROTATE_270),
    ):
        path, exif = tmp_path / f"{orientation}.png", PIL.Image.Exif()
        exif[0x0112] = orientation
        image.transpose(turn).save(path, exif=exif)
        turned.append(path if is_path else PIL.Image.open(path))
    pipeline = make_inpaint()
    np.testing.assert_array_equal(edit(pipeline, *turned), edit(pipeline))


def test_an_explicit_size_is_the_size_of_the_result(make_inpaint):
    pipeline = make_inpaint()
    (image,) = edit(pipeline, height=24, width=20, output_type="pil")
    resized = IMAGE.resize((20, 24), PIL.Image.Resampling.LANCZOS)
    assert image.size == (20, 24)
    # A pixel of the smaller mask is white if any pixel under it was.
    rows = [MASK[30 * y // 24 : -(-30 * (y + 1) // 24)] for y in range(24)]
    mask = np.array([[row[:, 44 * x // 20 : -(-44 * (x + 1) // 20)].any() for x in range(20)] for row in rows])
    changed = (np.asarray(image) != np.asarray(resized)).any(-1)
    assert not changed[~mask].any() and changed[mask].mean() > 0.9
    assert edit(pipeline, width=20).shape == (1, SIZE, 20, 3)


def test_a_crop_is_computed_alone(make_inpaint):
    """What lies outside the crop has no influence on the result."""
    pipeline = make_inpaint(is_inpainting=True)
    other = np.asarray(IMAGE).copy()
    other[:, 40:] = 0
    options = {"padding_mask_crop": 2, "output_type": "pil"}
    first, second = (np.asarray(edit(pipeline, image, **options)[0]) for image in (IMAGE, other))
    np.testing.assert_array_equal(first[MASK], second[MASK])


def test_outside_the_mask_not_even_nan_gets_through(make_inpaint):
    mask = torch.from_numpy(MASK)[None, None].float()
    original = torch.rand(1, 3, 30, 44)
    pasted = make_inpaint(text=False).paste(torch.full((2, 3, 8, 8), torch.nan), original, mask, (0, 0, 44, 30), 2)
    assert torch.equal(pasted[1, :, ~MASK], original[0, :, ~MASK]) and pasted[:, :, MASK].isnan().all()


def test_feather_is_a_ramp_inside_the_mask():
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 1:8, 0:9] = 1
    ramp = feathered(mask, 2)[0, 0, :, 4]
    torch.testing.assert_close(ramp, torch.tensor([0, 1, 2, 3, 3, 3, 2, 1, 0]) / 3)
    assert torch.equal(feathered(mask, 0), mask)
    assert (feathered(torch.ones(1, 1, 5, 5), 4) == 1).all()  # the border of the picture is no edge


def test_feather_blends_toward_the_original(make_inpaint):
    pipeline = make_inpaint()
    hard, soft = (edit(pipeline, mask_feather=pixels)[0] for pixels in (0, 4))
    center = (slice(12, 16), slice(16, 19))
    np.testing.assert_array_equal(hard[center], soft[center])
    edge = (slice(7, 8), slice(11, 24))
    original = as_floats(IMAGE)[edge]
    np.testing.assert_allclose(soft[edge] - original, (hard[edge] - original) / 5, atol=1e-6)


# -- inside the mask ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize(
    "reference",
    [{"context_scale": 0}, {"reference_image": references(), "granularity_scale": 0}, {"granularity_scale": 0}],
    ids=["none", "zero", "zero of the context"],
)
def test_without_references_or_strength_it_is_the_stock_pipeline(make_inpaint, is_inpainting, strength, reference):
    pipeline = make_inpaint(is_inpainting=is_inpainting)
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    stock = StableDiffusionInpaintPipeline(
        **{name: pipeline.components[name] for name in names},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    stock.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 4, "strength": strength, "guidance_scale": 2.5, "output_type": "latent"}
    mask = PIL.Image.fromarray(INSIDE)
    expected = edit(stock, native(), mask, height=SIZE, width=SIZE, **options)
    assert torch.equal(edit(pipeline, native(), mask, **options, **reference), expected)


@pytest.mark.parametrize("is_inpainting", [False, True])
def test_a_full_mask_is_generation(make, make_inpaint, is_inpainting):
    options = {"vae": "haar", "is_inpainting": is_inpainting}  # a codec that draws no random numbers
    generated = make(**options)(
        "a red flower",
        reference_image=references(),
        num_inference_steps=2,
        generator=seeded(),
        output_type="np",
    ).images
    full = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    edited = edit(make_inpaint(**options), native(), full, reference_image=references())
    np.testing.assert_allclose(edited, generated, atol=1e-6)


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_every_granularity_has_an_effect(make_inpaint, name):
    pipeline = make_inpaint(is_inpainting=True)
    assert not np.array_equal(edit(pipeline), edit(pipeline, reference_image={name: references()[name]}))


def test_strengths_may_change_over_the_steps(make_inpaint):
    pipeline, given = make_inpaint(is_inpainting=True), {"reference_image": references()}
    plain = edit(pipeline, **given)
    ones = edit(pipeline, granularity_schedule={"color": [1.0]}, **given)
    late = edit(pipeline, granularity_schedule={"color": (0.5, 1.0)}, **given)
    assert np.array_equal(ones, plain) and not np.array_equal(late, plain)


def test_a_granularity_guides_an_edit_beyond_its_reference_and_its_surroundings(make_inpaint):
    pipeline, given = make_inpaint(is_inpainting=True), {"reference_image": {"color": references()["color"]}}
    plain = edit(pipeline, **given)
    for options in (
        {"granularity_guidance": {"color": 1.0}},
        {"granularity_guidance": {"texture": 1.0}},  # lent by the surroundings
        {"negative_reference_image": {"color": ["#2a9d8f"]}},
    ):
        assert not np.array_equal(edit(pipeline, **given, **options), plain)
    sketches = []
    original = pipeline.mg_adapter.sketch_residuals.forward
    pipeline.mg_adapter.sketch_residuals.forward = lambda x, sizes: (sketches.append(x), original(x, sizes))[1]
    edit(pipeline, native(), INSIDE, negative_reference_image={"color": ["#2a9d8f"]})
    assert (sketches[0] - sketches[1]).abs().max() > 0.1  # of the negative palette, of the surroundings
    with pytest.raises(ValueError, match="needs a texture reference"):
        edit(pipeline, **given, granularity_guidance={"texture": 1.0}, context_scale=0)


def test_a_palette_is_laid_into_the_hole(make_inpaint, monkeypatch):
    pipeline, areas = make_inpaint(is_inpainting=True), []
    original = pipeline.mg_adapter.sketch
    monkeypatch.setattr(
        pipeline.mg_adapter,
        "sketch",
        lambda features, size: (areas.append(features["color"].get("area")), original(features, size))[1],
        raising=False,
    )
    edit(pipeline, native(), INSIDE, reference_image=references())
    assert len(areas) == 1 and 0 < areas[0].mean() < 1


# -- what surrounds the mask ----------------------------------------------------------------------------------------------
def test_the_surroundings_lend_what_no_reference_gives(make_inpaint, monkeypatch):
    pipeline, asked = make_inpaint(is_inpainting=True), []
    original = pipeline.mg_encoder.encode_context
    monkeypatch.setattr(
        pipeline.mg_encoder, "encode_context", lambda *a: (asked.append(a[2]), original(*a))[1], raising=False
    )
    alone, off = edit(pipeline), edit(pipeline, context_scale=0)
    half = edit(pipeline, context_scale=0.5)
    assert not np.array_equal(alone, off) and not np.array_equal(alone, half) and not np.array_equal(half, off)
    edit(pipeline, reference_image={"color": references()["color"]})
    edit(pipeline, reference_image=references())
    assert asked == [["color", "texture", "shape"]] * 2 + [["texture", "shape"]]


def test_the_edge_of_an_edit_that_goes_on_with_its_surroundings_is_soft(make_inpaint, monkeypatch):
    """Only there, only where color and shape are both lent, and for each picture of a call by itself."""
    pipeline, inside = make_inpaint(is_inpainting=True), INSIDE > 0
    whole = np.full_like(INSIDE, 255)
    pictures = {"image": [native(), native()], "mask_image": [INSIDE, whole], "prompt": ["a", "a"]}
    soft = edit(pipeline, generator=[seeded(0), seeded(1)], **pictures)
    with_shape = edit(pipeline, native(), INSIDE, reference_image={"shape": references()["shape"]})
    calls = []
    monkeypatch.setattr(pipeline, "soften_edge", lambda image, *rest: (calls.append(1), image)[1], raising=False)
    edit(pipeline, native(), INSIDE, strength=0.5)
    assert not calls  # what is under the mask is kept in part
    hard = edit(pipeline, generator=[seeded(0), seeded(1)], **pictures)
    assert np.array_equal(
        with_shape, edit(pipeline, native(), INSIDE, reference_image={"shape": references()["shape"]})
    )
    assert np.array_equal(soft[1], hard[1])
    apart = np.abs(soft[0] - hard[0]).max(-1)
    assert apart[~inside].max() == 0 and apart[inside].max() > 1e-3
    border = np.diff(inside, axis=0)
    jumps = [np.abs(np.diff(image, axis=0)).mean(-1)[border].mean() for image in (soft[0], hard[0])]
    assert jumps[0] < 0.8 * jumps[1]
    monkeypatch.undo()
    faded = [edit(pipeline, native(), INSIDE, context_scale=scale)[0] for scale in (1e-6, 0)]
    np.testing.assert_allclose(*faded, atol=1e-3)


def test_what_lies_under_the_mask_lends_nothing(make_inpaint):
    """The same surroundings give the same edit, whatever is repainted."""
    pipeline, image = make_inpaint(is_inpainting=True), np.array(native())
    other = image.copy()
    other[INSIDE > 0] = 255 - other[INSIDE > 0]
    assert np.array_equal(edit(pipeline, image, INSIDE), edit(pipeline, other, INSIDE))
    other = image.copy()
    other[0] = 255 - other[0]
    inside = INSIDE > 0
    assert not np.array_equal(edit(pipeline, image, INSIDE)[0][inside], edit(pipeline, other, INSIDE)[0][inside])


def test_each_picture_has_its_own_surroundings(make_inpaint):
    pipeline, images = make_inpaint(is_inpainting=True), [native(), native(picture(9))]
    options = {"prompt": ["a", "a"], "generator": [seeded(0), seeded(0)]}
    both = edit(pipeline, images, [INSIDE, np.full_like(INSIDE, 255)], **options)
    one = edit(pipeline, images[0], INSIDE, "a")
    nothing = edit(pipeline, images[1], np.full_like(INSIDE, 255), "a", context_scale=0)
    np.testing.assert_allclose(both[0], one[0], atol=1e-4)
    np.testing.assert_allclose(both[1], nothing[0], atol=1e-4)


def test_without_an_encoder_there_is_no_context(make_inpaint):
    pipeline = make_inpaint(is_inpainting=True)
    off = edit(pipeline, context_scale=0)
    pipeline.mg_encoder = None
    assert np.array_equal(edit(pipeline), off)


def test_one_masked_pixel_masks_its_latent_cell(make_inpaint):
    pipeline, inputs = make_inpaint(is_inpainting=True), []
    pipeline.unet.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[5, 8] = True
    edit(pipeline, native(), mask)
    expected = torch.zeros(SIZE // 2, SIZE // 2)
    expected[2, 4] = 1
    assert torch.equal(inputs[0][0, 4], expected)


def test_several_pictures_for_a_prompt(make_inpaint):
    pipeline = make_inpaint()
    options = {"reference_image": references(), "num_images_per_prompt": 2}
    first, second = edit(pipeline, generator=[seeded(0), seeded(1)], **options)
    assert not np.array_equal(first, second)
    for image in (first, second):
        np.testing.assert_array_equal(image[~MASK], as_floats(IMAGE)[~MASK])


@pytest.mark.parametrize("is_inpainting", [False, True])
def test_a_batch_is_its_samples_one_by_one(make_inpaint, is_inpainting):
    pipeline = make_inpaint(is_inpainting=is_inpainting)
    images, masks = [IMAGE, picture(6, 30, 44)], [MASK, MASK[::-1].copy()]
    shared = {"reference_image": references(), "strength": 0.7, "num_inference_steps": 3}
    generators = [seeded(index) for index in range(4)]
    batch = edit(pipeline, images, masks, ["a", "b"], num_images_per_prompt=2, generator=generators, **shared)
    assert batch.shape == (4, 30, 44, 3)
    for index in range(4):
        half = index // 2
        (single,) = edit(pipeline, images[half], masks[half], "ab"[half], seed=index, **shared)
        np.testing.assert_allclose(batch[index], single, atol=1e-4)
        np.testing.assert_array_equal(batch[index][~masks[half]], as_floats(images[half])[~masks[half]])


def test_without_a_prompt_pictures_and_masks_set_the_batch(make_inpaint):
    pipeline = make_inpaint(text=False)
    assert edit(pipeline, [IMAGE, IMAGE], prompt=None).shape == (2, 30, 44, 3)
    assert edit(pipeline, IMAGE, [MASK, MASK], prompt=None).shape == (2, 30, 44, 3)
    assert edit(pipeline, prompt=None, padding_mask_crop=2, reference_image=references()).shape == (1, 30, 44, 3)


def test_pictures_of_several_sizes_need_an_explicit_one(make_inpaint):
    pipeline = make_inpaint(text=False)
    images, masks = [IMAGE, IMAGE.resize((20, 20))], [MASK, np.ones((20, 20), dtype=bool)]
    assert edit(pipeline, images, masks, None, height=16, width=18).shape == (2, 16, 18, 3)
    with pytest.raises(ValueError, match="must have one size"):
        edit(pipeline, images, masks, None)


def test_callback_sees_mask_and_masked_image(make_inpaint):
    seen = {}

    def callback(pipe, step, timestep, tensors):
        seen.update(tensors)
        return {"mask": torch.ones_like(tensors["mask"])}

    names = ["latents", "mask", "masked_image_latents"]
    options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
    pipeline = make_inpaint(is_inpainting=True)
    assert not np.array_equal(edit(pipeline, **options), edit(pipeline))
    assert seen["mask"].shape == (1, 1, 8, 8) and seen["masked_image_latents"].shape == (1, 4, 8, 8)


def test_processors_are_restored_after_an_error(make_inpaint):
    def fail(*arguments):
        raise RuntimeError("from the callback")

    pipeline = make_inpaint()
    before = pipeline.unet.attn_processors
    with pytest.raises(RuntimeError, match="from the callback"):
        edit(pipeline, reference_image=references(), callback_on_step_end=fail)
    assert pipeline.unet.attn_processors == before


def test_own_latents_are_the_noise(make_inpaint):
    pipeline = make_inpaint(vae="haar")
    noise = torch.randn(1, 12, SIZE // 2, SIZE // 2, generator=seeded(3))
    for strength in (0.5, 1.0):
        options = {"strength": strength, "context_scale": 0}  # which would draw from the generator after the noise
        np.testing.assert_array_equal(edit(pipeline, latents=noise, **options), edit(pipeline, seed=3, **options))


def test_bfloat16_keeps_the_outside_too(make_inpaint):
    (image,) = edit(make_inpaint(is_inpainting=True).to(torch.bfloat16), reference_image=references())
    np.testing.assert_array_equal(image[~MASK], as_floats(IMAGE)[~MASK])


# -- errors -----------------------------------------------------------------------------------------------------------------
GRAY = np.where(MASK, 128, 0).astype(np.uint8)
TRANSPARENT = IMAGE.convert("RGBA")
TRANSPARENT.putalpha(100)
GUIDED = {"feature_guidance_scale": 1.0, "reference_image": {"color": ["#c1121f"]}}


@pytest.mark.parametrize("prompt", ["a", None], ids=["prompt", "no prompt"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "`image` must be"),
        ({"image": "no_such_picture.png"}, "cannot be read"),
        ({"image": TRANSPARENT}, "transparent"),
        ({"image": IMAGE.convert("CMYK")}, "mode CMYK"),
        ({"image": np.zeros((30, 44, 4), dtype=np.uint8)}, "must have the shape"),
        ({"image": torch.zeros(30, 44)}, "must have the shape"),
        ({"image": np.full((30, 44, 3), -1.0)}, "floating point in"),
        ({"image": np.full((30, 44, 3), np.nan)}, "without NaN"),
        ({"image": np.zeros((30, 44, 3), dtype=np.int64)}, "must be uint8"),
        ({"image": [IMAGE] * 3, "prompt": "a"}, "holds 3 pictures"),
        ({"image": []}, "`image` is an empty list"),
        ({"mask_image": []}, "`mask_image` is an empty list"),
        ({"height": 16, "width": 512}, r"lends its .*512 x 16, is too long and narrow .*`context_scale=0`"),
        ({"feature_guidance_full": "yes", **GUIDED}, "`feature_guidance_full` is true or false, got 'yes'"),
        ({"feature_guidance_full": None, **GUIDED}, "`feature_guidance_full` is true or false, got None"),
        ({"mask_image": None}, "`mask_image` must be"),
        ({"mask_image": "no_such_mask.png"}, "cannot be read"),
        ({"mask_image": TRANSPARENT}, "alpha channel"),
        (
            {"mask_image": np.ones((30, 44, 3), dtype=bool) & [True, False, True], "prompt": "a"},
            "channels that differ",
        ),
        ({"mask_image": torch.zeros(1, 2, 30, 44)}, "one channel"),
        ({"mask_image": GRAY}, "must be binary.*Threshold"),
        ({"mask_image": PIL.Image.fromarray(GRAY)}, "must be binary.*Threshold"),
        ({"mask_image": np.zeros((30, 44), dtype=bool)}, "all black"),
        ({"mask_image": MASK.T}, "must have the size of `image`"),
        ({"mask_image": [MASK] * 3, "prompt": "a"}, "holds 3 pictures"),
        ({"strength": 0}, "above 0 and at most 1"),
        ({"strength": 1.1}, "above 0 and at most 1"),
        ({"strength": 0.1}, "no step is left"),
        ({"padding_mask_crop": -1}, "padding_mask_crop"),
        ({"mask_feather": 1.5}, "mask_feather"),
        ({"context_scale": float("nan")}, "`context_scale` must be a finite number"),
        ({"context_scale": -1.0}, "`context_scale` must be a finite number"),
        ({"context_scale": 1e30}, "`context_scale` must be a finite number .* at most 100"),
        ({"height": 15}, "multiples of 2"),
        ({"height": 0}, "multiples of 2, got 0 and 16"),
        ({"reference_image": {"lighting": picture()}}, "Unknown granularity"),
        ({"reference_image": picture()}, "`reference_image` is a dict .* got Image"),
        ({"reference_embeds": {"color": picture()}}, "'color'.* must be a list of dicts of tensors.* got Image"),
        ({"prompt_embeds": [0.0]}, "`prompt_embeds` must be a tensor .* got list"),
        ({"granularity_scale": -1}, "at least 0"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "callback_on_step_end_tensor_inputs"),
    ],
)
def test_errors_come_before_anything_is_computed(make_inpaint, options, message, prompt):
    pipeline, calls = make_inpaint(), []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        edit(pipeline, **{"prompt": prompt, **options})
    assert not calls


def broken(path: Path, damage: str) -> Path:
    """A PNG file that cannot be decoded."""
    IMAGE.convert("L").save(path)
    content = path.read_bytes()
    start = content.index(b"IDAT")
    if damage == "chunk":  # the type of the next chunk is none: SyntaxError
        path.write_bytes(content[:start] + bytes(4) + content[start + 4 :])
    elif damage == "size":  # ten thousand million pixels: DecompressionBombError
        path.write_bytes(content[:16] + (100_000).to_bytes(4, "big") * 2 + content[24:])
    else:
        path.write_bytes(content[: start + 10])
    return path


@pytest.mark.parametrize("damage", ["chunk", "size", "end"])
@pytest.mark.parametrize("name", ["image", "mask_image"])
def test_damaged_files_are_refused(make_inpaint, tmp_path, name, damage):
    path = broken(tmp_path / "damaged.png", damage)
    with pytest.raises(ValueError, match=f"`{name}` cannot be read from .*damaged.png"):
        edit(make_inpaint(text=False), prompt=None, **{name: path})


@pytest.mark.parametrize("name", ["image", "mask_image"])
def test_a_picture_whose_file_breaks_off_is_refused(make_inpaint, tmp_path, name):
    """PIL decodes when the pixels are first asked for."""
    with PIL.Image.open(broken(tmp_path / "damaged.png", "end")) as opened:
        with pytest.raises(ValueError, match=f"`{name}` cannot be read: "):
            edit(make_inpaint(text=False), prompt=None, **{name: opened})


def test_masks_of_every_form():
    one = torch.from_numpy(MASK.astype(np.float32))[None]
    batch = np.stack([MASK, MASK])
    for form in (
        batch,
        batch[..., None],
        torch.from_numpy(batch),
        torch.from_numpy(batch)[:, None],
        [MASK, batch[:1]],
    ):
        masks = list_masks(form)
        assert len(masks) == 2 and all(torch.equal(mask, one) for mask in masks)


def test_what_is_too_long_to_lend_anything_is_painted_without(make_inpaint):
    given = {"image": IMAGE, "mask_image": MASK, "height": 16, "width": 512, "num_inference_steps": 1}
    assert make_inpaint()(**given, context_scale=0).images  # as the sentence says


def test_masks_of_torch_with_a_channel_behind_are_read():
    mask = torch.zeros(30, 44, 1)
    mask[5:9] = 1
    (found,) = list_masks(mask)
    assert torch.equal(found, mask.movedim(2, 0))
