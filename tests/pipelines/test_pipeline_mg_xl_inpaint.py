"""MGXLInpaintPipeline: what comes back outside the mask, and what is computed inside, against the stock pipeline."""

import inspect

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import StableDiffusionXLInpaintPipeline

from mg_diffusion import MGInpaintPipeline, MGXLInpaintPipeline, MGXLPipeline

from .test_pipeline_mg_inpaint import IMAGE, INSIDE, MASK, as_floats, edit, native
from .tiny import SIZE, picture, references, seeded
from .tiny_xl import POOLED, tiny_components_xl


SMALL = {"original_size": (8, 12), "crops_coords_top_left": (3, 1), "target_size": (20, 16)}
NEGATIVE = {"negative_original_size": (40, 41), "negative_target_size": (64, 32)}
EMBEDS, POOL = torch.zeros(1, 12, 48), torch.zeros(1, POOLED)


def quiet(pipeline):
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """By whether the UNet is one for inpainting; for tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("tokenizer")
    return {own: quiet(MGXLInpaintPipeline(**tiny_components_xl(folder, own))) for own in (False, True)}


@pytest.fixture
def make_xl_inpaint(tmp_path):
    def build(text: bool = True, **options) -> MGXLInpaintPipeline:
        return quiet(MGXLInpaintPipeline(**tiny_components_xl(tmp_path if text else None, **options)))

    return build


def stock(pipeline: MGXLInpaintPipeline) -> StableDiffusionXLInpaintPipeline:
    parts = {name: part for name, part in pipeline.components.items() if not name.startswith("mg_")}
    return quiet(StableDiffusionXLInpaintPipeline(**parts, add_watermarker=False))


def both(pipeline, **options) -> list[torch.Tensor]:
    """Latents of our pipeline and of the stock one."""
    options = {"num_inference_steps": 4, "output_type": "latent", **options}
    mask = PIL.Image.fromarray(INSIDE)
    ours = edit(pipeline, native(), mask, **{"context_scale": 0, **options})
    no_own = {name: value for name, value in options.items() if name not in ("reference_image", "granularity_scale")}
    return [ours, edit(stock(pipeline), native(), mask, height=SIZE, width=SIZE, **{"strength": 1.0, **no_own})]


def test_call_signature():
    ours = inspect.signature(MGXLInpaintPipeline.__call__).parameters
    theirs = inspect.signature(StableDiffusionXLInpaintPipeline.__call__).parameters
    left_out = {"guidance_rescale", "masked_image_latents", "kwargs"}
    left_out |= {"denoising_start", "denoising_end", "aesthetic_score", "negative_aesthetic_score"}
    assert set(theirs) - set(ours) == left_out
    assert ours["guidance_scale"].default == theirs["guidance_scale"].default
    assert ours["num_inference_steps"].default == "auto"
    assert MGXLInpaintPipeline.default_steps == theirs["num_inference_steps"].default
    of_sd = list(inspect.signature(MGInpaintPipeline.__call__).parameters)
    assert [name for name in ours if name in of_sd] == of_sd


# -- exactly the base -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("reference", [{}, {"reference_image": references(), "granularity_scale": 0}], ids=len)
def test_without_references_or_strength_it_is_the_stock_pipeline(pipelines, is_inpainting, strength, reference):
    assert torch.equal(*both(pipelines[is_inpainting], strength=strength, **reference))


@pytest.mark.parametrize(
    "options",
    [
        {"guidance_scale": 1.0},
        {"prompt_2": "c", "negative_prompt": "d", "negative_prompt_2": "e"},
        {"prompt": ["a", "b"], "num_images_per_prompt": 2, "strength": 0.6},
        {"clip_skip": 1},
        SMALL,
        {
            **SMALL,
            **NEGATIVE,
            "negative_crops_coords_top_left": (3, 1),
        },  # the stock pipeline takes that of the picture
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("is_inpainting", [False, True])
def test_other_arguments_do_what_they_do_in_the_stock_pipeline(pipelines, is_inpainting, options):
    assert torch.equal(*both(pipelines[is_inpainting], **options))


@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_is_the_stock_pipeline_too(make_xl_inpaint, is_inpainting, dtype):
    """The VAE encodes in float32, and is what it was afterwards."""
    pipeline, seen = make_xl_inpaint(is_inpainting=is_inpainting).to(dtype), []
    pipeline.vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    assert torch.equal(*both(pipeline, strength=0.6))
    assert set(seen) == {torch.float32} and pipeline.vae.dtype == dtype


# -- outside the mask -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("is_inpainting", [False, True])
@pytest.mark.parametrize(
    "options",
    [{}, {"padding_mask_crop": 3, "output_type": "pil"}, {"mask_feather": 3}, {"strength": 0.6, "output_type": "pt"}],
    ids=str,
)
def test_outside_the_mask_every_bit_stays(pipelines, is_inpainting, options):
    (image,) = edit(pipelines[is_inpainting], reference_image=references(), num_inference_steps=3, **options)
    changed = (as_floats(image) != as_floats(IMAGE)).any(-1)
    assert not changed[~MASK].any() and changed[MASK].mean() > 0.9


def test_half_precision_keeps_the_outside_too(make_xl_inpaint):
    pipeline = make_xl_inpaint(is_inpainting=True).to(torch.float16)
    (image,) = edit(pipeline, reference_image=references())
    np.testing.assert_array_equal(image[~MASK], as_floats(IMAGE)[~MASK])


# -- inside the mask ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_every_granularity_has_an_effect(pipelines, name):
    options = {"context_scale": 0, "output_type": "latent"}
    plain, steered = (edit(pipelines[True], reference_image=r, **options) for r in ({}, {name: references()[name]}))
    assert (plain - steered).abs().mean() > 1e-3


def test_the_surroundings_lend_what_no_reference_gives(pipelines):
    alone, half, off = (edit(pipelines[True], context_scale=scale) for scale in (1.0, 0.5, 0))
    assert not np.array_equal(alone, off) and not np.array_equal(alone, half) and not np.array_equal(half, off)


@pytest.mark.parametrize("is_inpainting", [False, True])
def test_a_batch_is_its_samples_one_by_one(pipelines, is_inpainting):
    pipeline, images, masks = pipelines[is_inpainting], [IMAGE, picture(6, 30, 44)], [MASK, MASK[::-1].copy()]
    shared = {"reference_image": references(), "strength": 0.7, "num_inference_steps": 3, **SMALL, **NEGATIVE}
    generators = [seeded(0), seeded(1)]
    batch = edit(pipeline, images, masks, ["a", "b"], prompt_2=["c", "d"], generator=generators, **shared)
    for place in range(2):
        options = {"prompt_2": "cd"[place], "seed": place, **shared}
        (single,) = edit(pipeline, images[place], masks[place], "ab"[place], **options)
        np.testing.assert_allclose(batch[place], single, atol=1e-3)


@pytest.mark.parametrize("is_inpainting", [False, True])
def test_a_full_mask_is_generation(make_xl_inpaint, is_inpainting):
    pipeline = make_xl_inpaint(vae="haar", is_inpainting=is_inpainting)  # a codec that draws no random numbers
    options = {"reference_image": references(), "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "np"}
    generating = quiet(MGXLPipeline(**pipeline.components))
    generated = generating("a red flower", generator=seeded(), **options).images
    full = np.full((SIZE, SIZE), 255, dtype=np.uint8)
    np.testing.assert_allclose(edit(pipeline, native(), full, **options), generated, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"granularity_schedule": {"color": (0.5, 1.0)}},
        {"granularity_guidance": {"texture": 1.0}},
        {"feature_guidance_scale": 5.0},
        SMALL,
        NEGATIVE,
        {"prompt_2": "other"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_controls_have_an_effect(pipelines, options):
    given = {"reference_image": references(), "output_type": "latent"}
    assert (edit(pipelines[True], **given, **options) - edit(pipelines[True], **given)).abs().max() > 1e-3


def test_callback_sees_and_replaces_sizes_and_mask(pipelines):
    seen = {}

    def callback(pipe, step, timestep, tensors):
        seen.update(tensors)
        return {"add_time_ids": 3 * tensors["add_time_ids"], "mask": tensors["mask"]}

    names = ["latents", "add_text_embeds", "add_time_ids", "mask", "masked_image_latents"]
    options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names, "output_type": "latent"}
    assert not torch.equal(edit(pipelines[True], **options), edit(pipelines[True], output_type="latent"))
    assert seen["add_time_ids"].shape == (2, 6) and seen["add_text_embeds"].shape == (2, POOLED)
    assert seen["mask"].shape == (1, 1, 8, 8) and seen["masked_image_latents"].shape == (1, 4, 8, 8)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_processors_are_restored_whatever_happens(make_xl_inpaint, error):
    def fail(*arguments):
        raise error

    pipeline = make_xl_inpaint()
    before = pipeline.unet.attn_processors
    with pytest.raises(error):
        edit(pipeline, reference_image=references(), callback_on_step_end=fail)
    assert pipeline.unet.attn_processors == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": None}, "`image` must be"),
        ({"mask_image": np.zeros((30, 44), dtype=bool)}, "all black"),
        ({"strength": 0.1}, "no step is left"),
        ({"prompt_2": ["a", "b"]}, "`prompt_2` is given for 2 samples"),
        ({"negative_prompt_2": "a"}, "`negative_prompt_2` needs a `negative_prompt`"),
        ({"prompt": None, "prompt_embeds": EMBEDS}, "`prompt_embeds` and `pooled_prompt_embeds` go together"),
        (
            {"prompt": None, "prompt_embeds": EMBEDS, "pooled_prompt_embeds": POOL[:, :3]},
            r"must be a tensor of the shape \(1, 24\) .* got \(1, 3\)",
        ),
        ({"target_size": 16}, "`target_size` is a pair of integers"),
        ({"negative_target_size": (8, 8)}, "go together"),
        ({"reference_image": picture()}, "`reference_image` is a dict .* got Image"),
    ],
)
def test_errors_come_before_anything_is_computed(pipelines, monkeypatch, options, message):
    for name in ("encode_prompt", "encode_reference"):
        monkeypatch.setattr(pipelines[False], name, None, raising=False)
    with pytest.raises(ValueError, match=message):
        edit(pipelines[False], **options)


def test_a_unet_of_stable_diffusion_is_refused(make_xl_inpaint):
    from .tiny import tiny_unet

    parts = {**make_xl_inpaint().components, "unet": tiny_unet(4, True), "mg_adapter": None}
    with pytest.raises(ValueError, match="The UNet must be one of SDXL.*MGInpaintPipeline"):
        MGXLInpaintPipeline(**parts)
