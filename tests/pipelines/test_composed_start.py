"""A composed start, with and without an adapter, along with what else steers; and a Stable Diffusion as it is."""

import warnings

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import ControlNetModel, StableDiffusionPipeline

from mg_diffusion import MGAdapter, MGInpaintPipeline, MGPipeline, MGXLInpaintPipeline, MGXLPipeline

from .tiny import SIZE, picture, references, seeded
from .tiny_xl import tiny_components_xl


def generate(pipeline, **options):
    given = {"num_inference_steps": 4, "output_type": "np", "generator": seeded(0), "reference_image": references()}
    return pipeline("a", **{**given, **options}).images


def without_adapter(pipeline):
    pipeline.mg_adapter = None
    return pipeline


def composed(pipeline) -> np.ndarray:
    """What the references ask for at the size of the pipeline, (1, 3, H, W)."""
    embeds = pipeline.encode_reference(references(), is_composed=True)
    return pipeline.mg_encoder.compose(embeds, (SIZE, SIZE))


def test_the_start_is_the_composition_under_the_noise_of_its_step(make):
    pipeline, seen = without_adapter(make(vae="haar")), {}

    def look(pipe, step, timestep, tensors):
        seen.setdefault("timesteps", []).append(int(timestep))
        return {}

    start = {}
    original = pipeline.start_composed

    def spy(call):
        original(call)
        start.update(latents=call.latents, noise=call.noise, timestep=call.timesteps[:1])

    pipeline.start_composed = spy
    generate(pipeline, composed_start=0.5, feature_guidance_scale=0, callback_on_step_end=look)
    assert len(seen["timesteps"]) == 2  # of four
    latents = pipeline.encode_vae_image(composed(pipeline), 1, None)
    expected = pipeline.scheduler.add_noise(latents, start["noise"], start["timestep"])
    torch.testing.assert_close(start["latents"], expected, atol=0.02, rtol=0.02)


def test_the_more_survives_the_nearer_the_output_is(make):
    pipeline = without_adapter(make(vae="haar"))
    wanted = (composed(pipeline) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    far = [
        np.abs(
            generate(pipeline, composed_start=start, feature_guidance_scale=0, num_inference_steps=8) - wanted
        ).mean()
        for start in (0.25, 0.5, 0.75, 1.0)
    ]
    assert far == sorted(far, reverse=True) and far[-1] < 0.5 * far[0]


def test_zero_is_off_and_no_strength_is_the_base_bit_for_bit(make):
    pipeline = make()
    np.testing.assert_array_equal(generate(pipeline), generate(pipeline, composed_start=0))
    bare = generate(pipeline, reference_image=None)
    np.testing.assert_array_equal(bare, generate(pipeline, granularity_scale=0, composed_start=0.5))
    alone = without_adapter(pipeline)
    options = {"granularity_scale": 0, "composed_start": 0.5, "feature_guidance_scale": 0}
    np.testing.assert_array_equal(bare, generate(alone, **options))


@pytest.mark.parametrize("is_adapted", [True, False])
@pytest.mark.parametrize("kind", [MGPipeline, MGInpaintPipeline, MGXLPipeline, MGXLInpaintPipeline])
@pytest.mark.parametrize("is_inpainting", [False, True], ids=["4 channels", "9 channels"])
def test_every_pipeline_starts_composed_and_leaves_nothing_behind(make, tmp_path, kind, is_inpainting, is_adapted):
    if kind in (MGXLPipeline, MGXLInpaintPipeline):
        pipeline = kind(**tiny_components_xl(tmp_path, is_inpainting=is_inpainting))
        pipeline.set_progress_bar_config(disable=True)
    else:
        pipeline = make(kind=kind, is_inpainting=is_inpainting)
    pipeline = pipeline if is_adapted else without_adapter(pipeline)
    edit, mask = {}, np.zeros((SIZE, SIZE), np.uint8)
    if kind in (MGInpaintPipeline, MGXLInpaintPipeline):
        mask[4:12, 4:12] = 255
        edit = {"image": picture(5, SIZE, SIZE), "mask_image": mask}
    before = dict(pipeline.unet.attn_processors)
    options = {**edit, "feature_guidance_scale": 0}
    plain = generate(pipeline, **edit, reference_image=references() if is_adapted else None)
    started = generate(pipeline, composed_start=0.5, **options)
    assert not np.array_equal(plain, started)
    np.testing.assert_array_equal(started, generate(pipeline, composed_start=0.5, **options))
    if edit:
        kept = np.asarray(edit["image"])[mask == 0]
        np.testing.assert_array_equal((255 * started[0][mask == 0]).round(), kept)
    assert pipeline.unet.attn_processors == before
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in pipeline.unet.modules())


@pytest.mark.parametrize(
    "name",
    [
        "DDIMScheduler",
        "PNDMScheduler",
        "LCMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "FlowMatchEulerDiscreteScheduler",
    ],
)
def test_schedulers(make, name):
    pipeline = without_adapter(make(vae="haar"))
    kind = getattr(diffusers, name)
    config = {} if name.startswith("FlowMatch") else pipeline.scheduler.config
    pipeline.scheduler = kind.from_config(config)
    wanted = (composed(pipeline) / 2 + 0.5).permute(0, 2, 3, 1).numpy()
    options = {"num_inference_steps": 10, "feature_guidance_scale": 0}
    nearly, half = (generate(pipeline, composed_start=start, **options) for start in (0.9, 0.4))
    assert np.isfinite(nearly).all()
    assert np.abs(nearly - wanted).mean() < np.abs(half - wanted).mean()


def test_along_with_guidance_controlnet_and_octaves(make, shipped):
    pipeline = without_adapter(make())
    torch.manual_seed(1)
    net = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(4, 8)).eval()
    torch.nn.init.normal_(net.controlnet_down_blocks[0].weight, std=0.3)
    options = {"controlnet": net, "control_image": picture(6, SIZE, SIZE)}
    assert not np.array_equal(generate(pipeline), generate(pipeline, **options))
    started = shipped(
        reference_image=references(), composed_start=0.5, num_inference_steps=4, generator=seeded()
    ).images[0]
    plain = shipped(reference_image=references(), num_inference_steps=4, generator=seeded()).images[0]
    assert started.size == plain.size and started.tobytes() != plain.tobytes()


def test_batches_embeds_and_several_pictures(make):
    pipeline = without_adapter(make())
    lists = {"color": [[picture(1)], [picture(2)]], "shape": picture(3)}
    options = {"num_inference_steps": 2, "output_type": "np", "num_images_per_prompt": 2}
    given = pipeline(["a", "b"], reference_image=lists, generator=seeded(0), **options).images
    embeds = pipeline.encode_reference(lists, batch_size=2)
    np.testing.assert_array_equal(
        given, pipeline(["a", "b"], reference_embeds=embeds, generator=seeded(0), **options).images
    )
    generators = [seeded(seed) for seed in range(4)]
    many = pipeline(["a", "b"], reference_image=lists, generator=generators, **options).images
    one = pipeline(
        "b", reference_image={"color": picture(2), "shape": picture(3)}, **{**options, "num_images_per_prompt": 1},
        generator=seeded(3),
    ).images  # fmt: skip
    np.testing.assert_allclose(many[3], one[0], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"composed_start": 1.5}, "`composed_start` must be a number in"),
        ({"composed_start": -0.1}, "`composed_start` must be a number in"),
        ({"composed_start": float("nan")}, "`composed_start` must be a number in"),
        ({"composed_start": "much"}, "`composed_start` must be a number in"),
        ({"composed_start": True}, "`composed_start` must be a number in"),
        ({"composed_start": None}, "`composed_start` must be a number in"),
        ({"composed_start": 0.5, "reference_image": None}, "`composed_start` needs references"),
        ({"reference_image": {"hue": picture()}}, "Unknown granularity 'hue'"),
        ({"reference_image": {"color": 5}}, "color"),
    ],
)
def test_what_cannot_be_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        generate(without_adapter(make()), **options)


def test_what_is_kept_of_a_picture_and_what_is_composed_exclude_each_other(make_inpaint):
    pipeline = make_inpaint()
    edit = {"image": picture(5, SIZE, SIZE), "mask_image": np.full((SIZE, SIZE), 255, np.uint8), "strength": 0.5}
    with pytest.raises(ValueError, match="`strength=1`, or `composed_start=0`"):
        generate(pipeline, composed_start=0.5, **edit)
    assert np.isfinite(generate(without_adapter(pipeline), **edit)).all()  # "auto" stands back


def test_embeds_without_a_layout_are_refused_where_one_is_asked_for(make):
    pipeline = make()
    embeds = pipeline.encode_reference(references())
    with pytest.raises(ValueError, match="is_composed=True"):
        generate(pipeline, reference_image=None, reference_embeds=embeds, composed_start=0.5)
    embeds = pipeline.encode_reference(references(), is_composed=True)
    assert np.isfinite(generate(pipeline, reference_image=None, reference_embeds=embeds, composed_start=0.5)).all()


def test_no_strength_at_all_is_the_base_without_an_adapter_by_default(make):
    alone = without_adapter(make())
    bare = generate(alone, reference_image=None)
    np.testing.assert_array_equal(bare, generate(alone, granularity_scale=0))
    scale = {"texture": 0, "shape": 0}
    named = generate(alone, granularity_scale=scale, feature_guidance_scale={"color": 0.5})
    np.testing.assert_array_equal(generate(alone, granularity_scale=scale), named)


def test_pictures_of_a_batch_start_together_or_are_called_apart(make):
    for pipeline in (make(), without_adapter(make())):
        options = {"reference_image": {"color": references()["color"]}, "granularity_scale": {"color": [0.0, 1.0]}}
        with pytest.raises(ValueError, match="prompts \\[0\\] have references of strength 0"):
            pipeline(["a", "b"], composed_start=0.5, **options)


def test_an_edit_whose_references_have_no_strength_starts_as_without(make_inpaint):
    pipeline, mask = make_inpaint(), np.zeros((SIZE, SIZE), np.uint8)
    mask[4:12, 4:12] = 255
    edit = {"image": picture(5, SIZE, SIZE), "mask_image": mask, "granularity_scale": {"color": 0.0}}
    edit["reference_image"] = {"color": references()["color"]}
    np.testing.assert_array_equal(generate(pipeline, composed_start=0.5, **edit), generate(pipeline, **edit))


def test_an_edit_starts_in_the_colors_of_its_references_not_of_its_surroundings(make_inpaint):
    pipeline, mask, starts = make_inpaint(vae="haar"), np.zeros((SIZE, SIZE), np.uint8), []
    mask[4:12, 4:12] = 255
    original = pipeline.composed_image
    pipeline.composed_image = lambda call: starts.append(original(call)) or starts[-1]
    given = {"color": ["#c1121f", "#a00010"], "texture": picture(8)}
    generate(pipeline, reference_image=given, composed_start=0.5, image=picture(5, SIZE, SIZE), mask_image=mask)
    red, green, _ = starts[0][0].mean((1, 2)).tolist()
    assert red > green + 0.5


def test_a_start_has_the_strengths_of_the_first_step(make):
    pipeline, starts = make(vae="haar"), []
    original = pipeline.composed_image
    pipeline.composed_image = lambda call: starts.append(original(call)) or starts[-1]
    for schedule in (None, {"color": (0.0, 0.5)}):
        generate(pipeline, composed_start=0.5, granularity_schedule=schedule)
    torch.testing.assert_close(*starts)


@pytest.mark.parametrize("start", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
def test_no_noise_is_left_over(name, start):
    """With a prediction of exactly the noise that is there, what comes out is the picture."""
    from mg_diffusion.pipelines.composed_start import add_noise, skip_steps

    config = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    more = {"skip_prk_steps": True} if name == "PNDMScheduler" else {"clip_sample": False}
    scheduler = getattr(diffusers, name)(**config, **more, set_alpha_to_one=False)
    scheduler.set_timesteps(20)
    whole = leftover(scheduler, scheduler.timesteps, add_noise)
    scheduler.set_timesteps(20)
    timesteps, steps = skip_steps(scheduler, start, scheduler.timesteps)
    assert steps == 20 - round(20 * start)
    assert leftover(scheduler, timesteps, add_noise) < 1.1 * whole + 1e-3


def leftover(scheduler, timesteps, add_noise) -> float:
    noise = torch.randn(1, 1, 8, 8, generator=seeded(1))
    latents = add_noise(scheduler, torch.zeros_like(noise), noise, timesteps[:1])
    for t in timesteps:
        latents = scheduler.step(noise, t, latents).prev_sample
    return float(latents.std())


@pytest.mark.parametrize("start", [0.5, 0.7, 1.0])
def test_explicit_timesteps_of_a_scheduler_of_second_order(make, start):
    pipeline = without_adapter(make())
    pipeline.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    made = generate(
        pipeline,
        num_inference_steps=5,
        timesteps=[999, 800, 600, 400, 200],
        composed_start=start,
        feature_guidance_scale=0,
    )
    assert made.shape == (1, SIZE, SIZE, 3) and np.isfinite(made).all()


def test_embeds_of_another_size_are_refused_before_anything_is_computed(make):
    pipeline = make()
    embeds = pipeline.encode_reference(references(), is_composed=True)
    pipeline.text_encoder.forward = None
    options = {"reference_embeds": embeds, "reference_image": None, "height": 2 * SIZE, "width": 2 * SIZE}
    with pytest.raises(ValueError, match="made for pictures of another size"):
        generate(pipeline, composed_start=0.5, **options)


# -- a Stable Diffusion as it is ------------------------------------------------------------------------------------------
@pytest.fixture
def stock(make, tmp_path) -> StableDiffusionPipeline:
    parts = {name: one for name, one in make().components.items() if not name.startswith("mg_")}
    parts |= {"safety_checker": None, "feature_extractor": None}
    pipeline = StableDiffusionPipeline(
        **{n: one for n, one in parts.items() if n != "image_encoder"}, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_one_line_is_enough_for_a_stock_checkpoint(stock, tmp_path):
    stock.save_pretrained(tmp_path / "base")
    pipeline = MGPipeline.from_pretrained(tmp_path / "base")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.mg_adapter is None
    steered = generate(pipeline)
    off = {"composed_start": 0, "feature_guidance_scale": 0}
    bare = stock("a", num_inference_steps=4, output_type="np", generator=seeded(0), guidance_scale=1.5).images
    np.testing.assert_array_equal(bare, generate(pipeline, reference_image=None))
    assert not np.array_equal(steered, bare)
    with pytest.raises(ValueError, match="needs the components"):
        generate(pipeline, **off)
    assert MGPipeline.from_pretrained(tmp_path / "base", mg_encoder=None).mg_encoder is None
    assert MGInpaintPipeline.from_pipe(stock).mg_encoder is not None


def test_its_encoder_is_the_same_in_every_session_so_that_cards_serve(stock, tmp_path):
    stock.save_pretrained(tmp_path / "base")
    torch.manual_seed(1)
    first = MGPipeline.from_pretrained(tmp_path / "base").mg_encoder
    torch.manual_seed(2)
    second = MGPipeline.from_pretrained(tmp_path / "base").mg_encoder
    assert first.fingerprint("color") == second.fingerprint("color")


def test_an_untrained_adapter_warns_where_references_are_given(make):
    pipeline = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(pipeline, reference_image={"color": ["#c1121f"]})
    pipeline.mg_adapter = MGAdapter.from_unet(pipeline.unet, pipeline.mg_encoder)
    assert pipeline.mg_adapter.is_untrained
    with pytest.warns(UserWarning, match="adapter was never trained"):
        steered = generate(pipeline)
    np.testing.assert_array_equal(steered, generate(pipeline, reference_image=None))


def test_feature_guidance_is_on_by_itself_without_an_adapter_and_off_for_regions(make):
    pipeline = without_adapter(make())
    plain = generate(pipeline, composed_start=0.5, feature_guidance_scale=0)
    assert not np.array_equal(plain, generate(pipeline, composed_start=0.5))
    regional = {"color": {"image": ["#c1121f"], "region": (0, 0, 0.5, 1)}}
    options = {"reference_image": regional, "composed_start": 0.5}
    np.testing.assert_array_equal(
        generate(pipeline, **options), generate(pipeline, **options, feature_guidance_scale=0)
    )


def test_a_picture_of_the_composition_can_be_looked_at(make):
    pipeline = without_adapter(make(vae="haar"))
    assert isinstance(generate(pipeline, output_type="pil")[0], PIL.Image.Image)
