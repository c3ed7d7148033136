"""MGPipeline: what it computes, against the stock pipeline where there is one."""

import inspect
import re

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, HeunDiscreteScheduler, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback

from mg_diffusion import MGAdapter, MGEncoder
from mg_diffusion.pipelines import MGInpaintPipeline, MGPipeline, MGXLInpaintPipeline, MGXLPipeline

from .tiny import SIZE, picture, references, seeded


def run(pipeline, prompt="a red flower", seed=0, **options):
    """Latents of two steps; pictures where `output_type` asks for them."""
    options = {"num_inference_steps": 2, "generator": seeded(seed), "output_type": "latent", **options}
    return pipeline(prompt, **options).images


def stock(pipeline: MGPipeline) -> StableDiffusionPipeline:
    names = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
    parts = {name: pipeline.components[name] for name in names}
    pipe = StableDiffusionPipeline(**parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_call_signature():
    parameters = inspect.signature(MGPipeline.__call__).parameters
    assert list(parameters)[1:6] == ["prompt", "reference_image", "granularity_scale", "height", "width"]
    shared = set(inspect.signature(StableDiffusionPipeline.__call__).parameters)
    assert shared - set(parameters) == {"guidance_rescale", "kwargs"}
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert (defaults["guidance_scale"], defaults["num_inference_steps"], defaults["granularity_scale"]) == (
        1.5,
        "auto",
        1.0,
    )
    assert MGPipeline.default_steps == 20


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reference_image": {}},
        {"reference_image": {"color": None}},
        {"reference_image": references(), "granularity_scale": 0},
        {"reference_image": {"color": ["#ff0000"]}, "granularity_scale": {"color": 0}},
    ],
    ids=["none", "empty", "only None", "all at zero", "the only one at zero"],
)
def test_without_references_or_strength_it_is_the_stock_pipeline(make, guidance_scale, options):
    pipeline = make()
    pipeline.mg_adapter.attach = None  # nothing is attached
    expected = run(stock(pipeline), guidance_scale=guidance_scale, output_type="np")
    np.testing.assert_array_equal(run(pipeline, guidance_scale=guidance_scale, output_type="np", **options), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": ["a", "b"], "negative_prompt": ["c", "d"], "num_images_per_prompt": 2},
        {"eta": 0.7},
        {"timesteps": [801, 401, 1]},
        {"height": 24, "width": 32},
    ],
    ids=lambda options: next(iter(options)),
)
def test_other_arguments_do_what_they_do_in_the_stock_pipeline(make, options):
    pipeline = make()
    if "timesteps" in options:
        pipeline.scheduler = EulerDiscreteScheduler(steps_offset=1)
    options = {"guidance_scale": 3.0, **options}
    assert torch.equal(run(pipeline, **options), run(stock(pipeline), **options))


@pytest.mark.parametrize("scheduler", [EulerDiscreteScheduler, HeunDiscreteScheduler])
def test_other_schedulers(make, scheduler):
    pipeline = make()
    pipeline.scheduler = scheduler(steps_offset=1)
    assert torch.equal(run(pipeline), run(stock(pipeline), guidance_scale=1.5))


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_every_granularity_has_an_effect_in_proportion_to_its_strength(make, name):
    pipeline, base = make(), run(make())
    reference = {name: references()[name]}
    change = [
        (run(pipeline, reference_image=reference, granularity_scale=strength) - base).abs().mean().item()
        for strength in (0.0, 0.1, 1.0)
    ]
    assert change[0] == 0 < change[1] < change[2]


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_a_window_limits_a_granularity_to_its_steps(make, name):
    """Per step the distance to a run without that granularity: none while the window is shut, then some."""
    pipeline, given, traces = make(), references(), []
    for schedule, strength in (({name: (0.5, 1.0)}, 1.0), (None, 0.0)):
        trace = []
        run(
            pipeline,
            reference_image=given,
            granularity_scale={name: strength},
            granularity_schedule=schedule,
            num_inference_steps=4,
            callback_on_step_end=lambda p, i, t, k, trace=trace: (trace.append(k["latents"].clone()), k)[1],
        )
        traces.append(trace)
    apart = [(one - other).abs().max().item() for one, other in zip(*traces, strict=True)]
    assert max(apart[:2]) < 1e-5 and min(apart[2:]) > 1e-4


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_a_schedule_of_ones_changes_nothing_and_one_of_halves_is_half_the_strength(make, guidance_scale):
    pipeline, options = make(), {"reference_image": references(), "guidance_scale": guidance_scale}
    plain = run(pipeline, **options)
    names = ["color", "texture", "shape"]
    assert torch.equal(run(pipeline, granularity_schedule=dict.fromkeys(names, [1.0]), **options), plain)
    halves = run(pipeline, granularity_schedule=dict.fromkeys(names, lambda fraction: 0.5), **options)
    torch.testing.assert_close(halves, run(pipeline, granularity_scale=0.5, **options), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(halves, plain, atol=1e-3)


def without(given, *names):
    return {name: reference for name, reference in given.items() if name not in names}


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_guidance_of_a_granularity_goes_beyond_the_prediction_without_it(make, name, guidance_scale):
    """One step: what the scheduler gets is guided + scale * (conditional - without)."""
    pipeline, given, seen = make(), references(), []
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda noise, *a, **k: (seen.append(noise.clone()), step(noise, *a, **k))[1]
    options = {"num_inference_steps": 1, "fusion_scale": 1.0}
    run(pipeline, reference_image=given, guidance_scale=guidance_scale, **options)
    run(pipeline, reference_image=given, guidance_scale=1.0, **options)
    run(pipeline, reference_image=given, granularity_scale={name: 0.0}, guidance_scale=1.0, **options)
    guidance = {name: 0.7}
    run(pipeline, reference_image=given, guidance_scale=guidance_scale, granularity_guidance=guidance, **options)
    guided, conditional, missing, found = seen
    torch.testing.assert_close(found, guided + 0.7 * (conditional - missing), atol=1e-4, rtol=1e-4)
    assert (found - guided).abs().max() > 1e-3


def test_a_negative_color_is_what_a_run_moves_away_from(make):
    pipeline, given = make(), references()
    other = ["#2a9d8f", "#e9c46a"]
    plain, opposed = run(pipeline, reference_image=given), run(pipeline, reference_image={**given, "color": other})
    avoiding = [
        run(pipeline, reference_image=given, negative_reference_image={"color": other}, granularity_guidance=guidance)
        for guidance in (None, {"color": 1.0}, {"color": 0.2}, {"color": 0.0})
    ]
    assert torch.equal(avoiding[0], avoiding[1]) and torch.equal(avoiding[3], plain)
    along = [((moved - plain) * (opposed - plain)).sum().item() for moved in avoiding]
    assert along[0] < along[2] < 0


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_nothing_is_moved_away_from_the_reference_itself(make, name):
    """A negative reference has the place of the positive one, the assignment of its colors and the order of its tiles."""
    pipeline, given = make(), references()
    negative = {"negative_reference_image": {name: given[name]}, "granularity_guidance": {name: 3.0}}
    options = {"reference_image": given, "num_images_per_prompt": 2}
    torch.testing.assert_close(run(pipeline, **options, **negative), run(pipeline, **options), atol=1e-4, rtol=1e-3)


def test_guidance_works_without_references_for_all_and_in_batches(make):
    pipeline, given = make(), references()
    two = {name: [[reference], [reference]] for name, reference in given.items()}
    options = {"granularity_guidance": {"color": 1.0, "shape": 0.5}, "granularity_schedule": {"texture": [1, 0]}}
    batch = run(pipeline, ["a", "b"], reference_image=two, **{**options, "generator": [seeded(0), seeded(1)]})
    one = run(pipeline, "b", reference_image=given, seed=1, **options)
    torch.testing.assert_close(batch[1:], one, atol=1e-4, rtol=1e-3)
    only = run(pipeline, negative_reference_image={"shape": given["shape"]})
    assert (only - run(pipeline)).abs().max() > 1e-3
    cut = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)
    assert torch.isfinite(run(pipeline, reference_image=given, callback_on_step_end=cut, **options)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"granularity_guidance": {"texture": 1.0}}, "needs a texture reference, or a negative one.*given are"),
        ({"granularity_guidance": {"color": -1.0}}, "finite number of at least 0"),
        ({"granularity_guidance": {"color": "much"}}, "must be a finite number"),
        ({"granularity_guidance": {"color": 1e30}}, r"granularity_guidance\['color'\].*at most 100; got 1e.30"),
        ({"granularity_guidance": {"hue": 1}}, "Unknown granularity 'hue' in `granularity_guidance`"),
        ({"granularity_guidance": 2.0}, "`granularity_guidance` is a dict"),
        ({"negative_reference_image": "a.png"}, "`negative_reference_image` is a dict"),
        ({"negative_reference_image": {"hue": "a.png"}}, "Unknown granularity 'hue' in `negative_reference_image`"),
    ],
)
def test_guidance_that_cannot_be_is_refused(make, options, message):
    pipeline = make()
    pipeline.encode_prompt = None
    with pytest.raises(ValueError, match=message):
        run(pipeline, reference_image=without(references(), "texture"), **options)


def test_guidance_of_zero_needs_nothing_and_takes_numbers_of_other_types(make):
    pipeline, given = make(), without(references(), "texture")
    plain = run(pipeline, reference_image=given)
    assert torch.equal(run(pipeline, reference_image=given, granularity_guidance={"texture": 0.0}), plain)
    one = run(pipeline, reference_image=given, granularity_guidance={"color": np.float32(0.5)})
    assert torch.equal(one, run(pipeline, reference_image=given, granularity_guidance={"color": torch.tensor(0.5)}))
    pipeline.mg_adapter = None
    with pytest.raises(ValueError, match="needs an adapter"):
        run(pipeline, granularity_guidance={"color": 1.0})


def test_what_is_avoided_is_so_where_nothing_is_wanted(make):
    pipeline, given = make(), references()
    off = {"reference_image": given, "granularity_scale": {"color": 0.0}}
    avoided = run(pipeline, **off, negative_reference_image={"color": ["#2a9d8f"]})
    assert (avoided - run(pipeline, **off)).abs().max() > 1e-3


def test_schedules_need_an_adapter_and_are_checked_before_anything_runs(make):
    pipeline = make()
    pipeline.encode_prompt = None
    with pytest.raises(ValueError, match="must be a window"):
        run(pipeline, granularity_schedule={"color": "late"})
    with pytest.raises(ValueError, match=r"needs a shape reference, whose strength it changes; given are \['color'"):
        run(pipeline, reference_image={"color": ["#ff0000"]}, granularity_schedule={"shape": (0, 0.5)})
    pipeline.mg_adapter = None
    with pytest.raises(ValueError, match="`granularity_schedule` needs an adapter"):
        run(pipeline, granularity_schedule={"color": (0, 0.5)})


def test_references_without_strength_draw_nothing(make):
    """What else the generator is for, here the noise of every step, goes on as without references."""
    pipeline, options = make(), {"eta": 0.7, "num_inference_steps": 3}
    off = run(pipeline, reference_image=references(), granularity_scale=0.0, **options)
    assert torch.equal(off, run(pipeline, **options))


def test_absent_is_the_same_as_strength_zero_and_as_none(make):
    pipeline, given = make(), references()
    only = run(pipeline, reference_image={"color": given["color"]})
    assert torch.equal(only, run(pipeline, reference_image={**given, "texture": None, "shape": None}))
    zero = {"texture": 0, "shape": 0}
    torch.testing.assert_close(only, run(pipeline, reference_image=given, granularity_scale=zero))


def test_unconditional_rows_are_those_of_the_base_model(make):
    pipeline, rows = make(), []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: rows.append(output[0]))
    run(pipeline)
    run(pipeline, reference_image=references())
    base, steered = rows[0], rows[2]
    assert torch.equal(base[0], steered[0])
    assert not torch.equal(base[1], steered[1])


def test_every_step_gets_all_residuals(make):
    """The UNet empties the list that it gets."""
    pipeline, counts = make(), []
    pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(len(kwargs["down_intrablock_additional_residuals"])),
        with_kwargs=True,
    )
    run(pipeline, reference_image=references(), num_inference_steps=3)
    assert counts == [2, 2, 2]


def test_strength_for_each_sample(make):
    pipeline, prompts, generators = make(), ["a", "a"], [seeded(), seeded()]
    scale = {"color": [1.0, 0.0], "texture": 0, "shape": 0}
    both = run(pipeline, prompts, reference_image=references(), granularity_scale=scale, generator=generators)
    color_only = run(pipeline, "a", reference_image={"color": references()["color"]})
    torch.testing.assert_close(both[:1], color_only, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1:], run(pipeline, "a"), atol=1e-4, rtol=1e-4)


def test_a_batch_is_its_samples_one_by_one(make):
    pipeline = make()
    colors, shapes = [[["#ff0000"]], [["#0000ff"]]], [[picture(1)], [picture(2)]]
    reference = {"color": colors, "shape": shapes, "texture": picture(3)}
    batch = run(
        pipeline, ["a", "b"], reference_image=reference, num_images_per_prompt=2, generator=list(map(seeded, range(4)))
    )
    assert batch.shape == (4, 4, SIZE // 2, SIZE // 2)
    for index in range(4):
        own = {"color": colors[index // 2], "shape": shapes[index // 2], "texture": picture(3)}
        single = run(pipeline, "ab"[index // 2], seed=index, reference_image=own)
        torch.testing.assert_close(batch[index : index + 1], single, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("text", [True, False])
def test_without_a_prompt_references_set_the_batch(make, text):
    pipeline = make(text=text)
    assert run(pipeline, None).shape[0] == 1
    assert run(pipeline, None, reference_image={"color": [[["#ff0000"]], [["#0000ff"]]]}).shape[0] == 2
    assert run(pipeline, None, reference_image={"color": [["#ff0000"], ["#0000ff"]]}).shape[0] == 1  # two palettes


def test_no_prompt_is_the_empty_prompt(make):
    pipeline = make()
    assert torch.equal(run(pipeline, None), run(pipeline, ""))


def test_reference_embeds_are_used_in_place_of_references(make):
    pipeline = make()
    features = pipeline.encode_reference(references())
    assert set(features) == {"color", "texture", "shape"}
    assert torch.equal(run(pipeline, reference_embeds=features), run(pipeline, reference_image=references()))
    pipeline.mg_encoder = None
    assert torch.isfinite(run(pipeline, ["a", "b"], reference_embeds=features, generator=[seeded(), seeded()])).all()


def test_what_references_leave_open_depends_on_the_seed_and_not_on_the_noise(make):
    """Same noise, other assignment of colors and order of tiles; and the same seed gives the same again."""
    pipeline = make()
    noise = torch.randn(1, 4, 8, 8, generator=seeded(7))
    one, again, other = (
        run(pipeline, reference_image=references(), latents=noise, generator=seeded(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_fusion_scale_changes_the_result_of_several_granularities(make):
    pipeline = make()
    apart, mixed = (run(pipeline, reference_image=references(), fusion_scale=scale) for scale in (0.0, 1.0))
    assert not torch.equal(apart, mixed)


def test_conditioning_is_computed_once_and_references_are_read_once(make, monkeypatch):
    pipeline, calls = make(), []
    for module, name in ((pipeline.mg_adapter, "fold"), (pipeline.mg_encoder, "encode")):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _f=original, _n=name, **k: (calls.append(_n), _f(*a, **k))[1], raising=False
        )
    run(pipeline, reference_image=references(), num_inference_steps=4)
    assert sorted(calls) == ["encode", "fold"]
    calls.clear()
    schedule = {"color": (0.0, 0.5), "shape": [1.0, 0.3]}
    run(pipeline, reference_image=references(), num_inference_steps=4, granularity_schedule=schedule)
    assert sorted(calls) == ["encode"] + ["fold"] * 2  # with color and without it


def test_prompt_embeds_are_used_in_place_of_prompts(make):
    pipeline = make()
    positive, negative = pipeline.encode_prompt(["a red flower"], "cpu", 1, True)
    embeds = {"prompt_embeds": positive, "negative_prompt_embeds": negative}
    assert torch.equal(run(pipeline, None, **embeds), run(pipeline))
    pipeline.text_encoder = pipeline.tokenizer = None
    assert torch.isfinite(run(pipeline, None, **embeds)).all()


def test_clip_skip_takes_an_earlier_layer(make):
    pipeline = make()
    assert torch.equal(run(pipeline, clip_skip=0), run(pipeline))
    assert not torch.equal(run(pipeline, clip_skip=1), run(pipeline))


def test_own_latents_are_the_noise(make):
    pipeline = make()
    noise = torch.randn(1, 4, SIZE // 2, SIZE // 2, generator=seeded(3))
    assert torch.equal(run(pipeline, latents=noise), run(pipeline, seed=3))


@pytest.mark.parametrize("vae", ["kl", "haar"])
@pytest.mark.parametrize("is_inpainting", [False, True])
def test_output_types(make, vae, is_inpainting):
    pipeline = make(vae=vae, is_inpainting=is_inpainting)
    pil, array, tensor = (run(pipeline, output_type=kind) for kind in ("pil", "np", "pt"))
    assert pil[0].size == (SIZE, SIZE) and array.shape == (1, SIZE, SIZE, 3) and tensor.shape == (1, 3, SIZE, SIZE)
    assert 0 <= array.min() and array.max() <= 1
    np.testing.assert_array_equal(np.asarray(pil[0]), (array[0] * 255).round().astype(np.uint8))
    np.testing.assert_array_equal(array, tensor.permute(0, 2, 3, 1).numpy())


def test_an_inpainting_unet_is_told_to_paint_everything(make):
    pipeline, inputs = make(is_inpainting=True, vae="haar"), []
    pipeline.unet.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    run(pipeline)
    mask, masked_image_latents = inputs[0][:, 12], inputs[0][:, 13:]
    assert (mask == 1).all() and (masked_image_latents == 0).all()


def test_tuple_and_dataclass_are_the_same(make):
    pipeline = make()
    options = {"num_inference_steps": 2, "output_type": "pt"}
    result = pipeline("a", generator=seeded(), **options)
    images, flags = pipeline("a", generator=seeded(), return_dict=False, **options)
    assert torch.equal(result.images, images) and flags is None and result.nsfw_content_detected is None


def test_other_sizes(make):
    pipeline = make()
    assert run(pipeline, reference_image=references(), height=22, width=34, output_type="pt").shape == (1, 3, 22, 34)


# -- callbacks ----------------------------------------------------------------------------------------------------------
def test_callback_sees_and_replaces_tensors(make):
    pipeline, seen = make(), []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, sorted(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    latents = run(pipeline, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
    assert seen == [(0, sorted(names)), (1, sorted(names))] and (latents == 0).all()
    assert pipeline.num_timesteps == 2


def test_callback_may_change_guidance_and_interrupt(make):
    def stronger(pipe, step, timestep, tensors):
        pipe._guidance_scale *= 3
        return tensors

    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = True
        return tensors

    pipeline, calls = make(), []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: calls.append(output[0].shape[0]))
    assert not torch.equal(run(pipeline, callback_on_step_end=stronger), run(pipeline))
    calls.clear()
    run(pipeline, num_inference_steps=5, callback_on_step_end=stop)
    assert calls == [2]


@pytest.mark.parametrize("official", [True, False])
def test_callback_may_switch_guidance_off(make, official):
    def off(pipe, step, timestep, tensors):
        pipe._guidance_scale = 1.0
        return tensors

    pipeline, rows = make(is_inpainting=True), []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: rows.append(output[0]))
    callback = SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0) if official else off
    run(pipeline, reference_image=references(), callback_on_step_end=callback)
    run(pipeline, reference_image=references())
    assert [len(row) for row in rows] == [2, 1, 2, 2]
    torch.testing.assert_close(rows[1][0], rows[3][1], atol=1e-4, rtol=1e-4)  # what is left is the conditional row


# -- nothing borrowed stays changed ---------------------------------------------------------------------------------------
def test_processors_are_restored_after_the_call_and_after_an_error(make):
    def fail(pipe, step, timestep, tensors):
        assert type(pipe.unet.attn_processors[names[0]]).__name__ == "MGAttnProcessor"
        raise RuntimeError("from the callback")

    pipeline = make()
    names = [name for name in pipeline.unet.attn_processors if "attn2" in name]
    before, state = pipeline.unet.attn_processors, list(pipeline.unet.state_dict())
    run(pipeline, reference_image=references())
    assert pipeline.unet.attn_processors == before
    with pytest.raises(RuntimeError, match="from the callback"):
        run(pipeline, reference_image=references(), callback_on_step_end=fail)
    assert pipeline.unet.attn_processors == before and list(pipeline.unet.state_dict()) == state


def test_user_kwargs_and_references_stay_as_they_are(make):
    pipeline, kwargs, given = make(), {"scale": 1.0}, references()
    run(pipeline, reference_image=given, cross_attention_kwargs=kwargs)
    assert kwargs == {"scale": 1.0} and given.keys() == references().keys()


# -- with the rest of the host --------------------------------------------------------------------------------------------
def test_lora_scale_reaches_the_folded_attention(make):
    peft = pytest.importorskip("peft")
    pipeline = make()
    options = {"reference_image": references()}
    base = run(pipeline, **options)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    pipeline.unet.add_adapter(peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    full = run(pipeline, **options)
    off = run(pipeline, cross_attention_kwargs={"scale": 0.0}, **options)
    torch.testing.assert_close(off, base, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(full, base, atol=1e-2)
    assert torch.equal(run(pipeline, **options), full)  # the scale did not stick
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="the strength of LoRAs, must be a finite number"):
            run(pipeline, cross_attention_kwargs={"scale": scale}, **options)
    assert torch.equal(run(pipeline, **options), full)


def test_sequentially_offloaded_unet(make):
    from accelerate import cpu_offload

    pipeline = make()
    expected = run(pipeline, reference_image=references())
    cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))
    assert next(pipeline.unet.parameters()).is_meta
    torch.testing.assert_close(run(pipeline, reference_image=references()), expected, atol=1e-4, rtol=1e-4)


STEERED = {
    "granularity_schedule": {"color": (0.0, 0.5), "texture": [1.0, 0.5]},
    "granularity_guidance": {"shape": 0.5},
    "negative_reference_image": {"color": ["#2a9d8f"]},
}


def test_schedules_and_guidance_on_an_offloaded_unet(make):
    from accelerate import cpu_offload

    pipeline = make()
    expected = run(pipeline, reference_image=references(), **STEERED)
    cpu_offload(pipeline.unet, execution_device=torch.device("cpu"))
    torch.testing.assert_close(run(pipeline, reference_image=references(), **STEERED), expected)


def test_schedules_and_guidance_in_bfloat16(make):
    latents = run(make(is_inpainting=True).to(torch.bfloat16), reference_image=references(), **STEERED)
    assert latents.dtype == torch.bfloat16 and torch.isfinite(latents).all()


def test_every_prompt_may_avoid_something_else(make):
    pipeline, given = make(), references()
    away = [["#2a9d8f"], ["#e9c46a"]]
    both = {name: [[reference], [reference]] for name, reference in given.items()}
    options = {"generator": [seeded(0), seeded(0), seeded(0), seeded(0)], "num_images_per_prompt": 2}
    negative = {"color": [[away[0]], [away[1]]]}
    batch = run(pipeline, ["a", "a"], reference_image=both, negative_reference_image=negative, **options)
    for place, other in enumerate(away):
        one = run(pipeline, "a", reference_image=given, negative_reference_image={"color": other})
        for row in batch[2 * place : 2 * place + 2]:
            torch.testing.assert_close(row, one[0], atol=1e-4, rtol=1e-3)
    assert not torch.allclose(batch[0], batch[2], atol=1e-3)


def test_bfloat16(make):
    pipeline = make(is_inpainting=True).to(torch.bfloat16)
    latents = run(pipeline, reference_image=references())
    assert latents.dtype == torch.bfloat16 and torch.isfinite(latents).all()
    assert run(pipeline, reference_image=references(), output_type="np").dtype == np.float32


def test_compiled_unet(make):
    pipeline = make()
    expected = run(pipeline, reference_image=references())
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    torch.testing.assert_close(run(pipeline, reference_image=references()), expected)


# -- errors -----------------------------------------------------------------------------------------------------------------
LATENT = SIZE // 2
EMBEDS = torch.zeros(1, 12, 32)
VECTOR, PALETTE = torch.zeros(1, 253), torch.zeros(1, 4, 3)
PARTS = {"vector": VECTOR, "palette": PALETTE}


def embeds_of(**changed) -> dict:
    """Features of color, as an argument, of which some are others."""
    return {"reference_embeds": {"color": [{**PARTS, **changed}]}}


@pytest.mark.parametrize("prompt", ["a", None], ids=["prompt", "no prompt"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_image": {"lighting": picture()}}, "Unknown granularity 'lighting'"),
        ({"reference_image": {"color": "no_such_file.png"}}, "no_such_file"),
        ({"reference_image": picture()}, "`reference_image` is a dict .* got Image"),
        ({"reference_image": [picture()]}, "`reference_image` is a dict .* got list"),
        ({"reference_embeds": torch.zeros(1, 253)}, "`reference_embeds` is a dict .* got Tensor"),
        ({"reference_embeds": {"color": picture()}}, "'color'.* must be a list of dicts of tensors.* got Image"),
        ({"reference_embeds": {"color": None}}, "'color'.* must be a list of dicts of tensors.* got NoneType"),
        (
            {"reference_embeds": {"color": {"palette": PALETTE}}},
            r"each with \['vector', 'palette'\]; got \['palette'\]",
        ),
        ({"reference_embeds": {"color": {"vector": VECTOR}}}, r"each with \['vector', 'palette'\]; got \['vector'\]"),
        ({"reference_embeds": {"color": []}}, "must be a list of dicts of tensors.*got list"),
        (embeds_of(vector=[0.0] * 253), r"'vector'.*of the shape \(batch, numbers\).*got list"),
        (embeds_of(vector=torch.zeros(253)), r"'vector'.*of the shape \(batch, numbers\).*got \(253,\)"),
        (embeds_of(vector=torch.zeros(0, 253)), r"'vector'.*got \(0, 253\)"),
        (embeds_of(vector=VECTOR * torch.nan), "'vector'.*of finite numbers"),
        (embeds_of(vector=VECTOR.to("meta")), "'vector'.*of finite numbers"),
        (embeds_of(palette=5), "'palette'.*must be a tensor.*got int"),
        (embeds_of(palette=torch.zeros(2, 4, 3)), r"'palette'.*of the shape \(1, colors, 3\).*got \(2, 4, 3\)"),
        (embeds_of(more=VECTOR * torch.inf), "'more'.*of finite numbers"),
        ({"reference_embeds": {"shape": {"vector": VECTOR}}}, "each with .*'structure'"),
        ({"reference_embeds": {"texture": {"vector": VECTOR}}}, "each with .*'tiles'"),
        ({"reference_embeds": {"color": [PARTS, {**PARTS, "vector": VECTOR[:, :7]}]}}, "another encoder"),
        ({"reference_image": {"color": [[picture()], [picture()]]}, "prompt": ["a", "b", "c"]}, "2 samples"),
        ({"reference_image": {}, "reference_embeds": {}}, "not both"),
        (embeds_of(vector=torch.zeros(1, 7)), "another encoder"),
        ({**embeds_of(vector=VECTOR.repeat(2, 1), palette=PALETTE.repeat(2, 1, 1)), "prompt": "a"}, "2 samples"),
        ({"granularity_scale": -1}, "at least 0"),
        ({"granularity_scale": float("nan")}, "finite"),
        ({"granularity_scale": {"lighting": 1}}, "Unknown granularity"),
        ({"granularity_scale": {"color": [1, 1, 1]}}, "one number or one for each"),
        ({"height": 15}, "multiples of 2"),
        ({"height": 0}, "multiples of 2, got 0 and 16"),
        ({"width": 0}, "multiples of 2, got 16 and 0"),
        ({"width": -2}, "multiples of 2"),
        ({"num_images_per_prompt": 0}, "positive integer"),
        ({"num_images_per_prompt": True}, "positive integer"),
        ({"sigmas": [float("inf"), 1.0]}, "`sigmas` must be finite numbers"),
        ({"timesteps": [float("nan")]}, "`timesteps` must be finite numbers"),
        ({"granularity_scale": 1e20}, "at most 100"),
        ({"granularity_scale": {"texture": {"down": 1e20}}}, "at most 100"),
        ({"generator": [torch.Generator()] * 2}, "one for each of the 1 images"),
        ({"latents": torch.zeros(1, 3, LATENT, LATENT)}, r"must be a tensor of the shape \(1, 4, 8, 8\)"),
        ({"output_type": "jpeg"}, "output_type"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "callback_on_step_end_tensor_inputs"),
        ({"prompt_embeds": EMBEDS, "prompt": "a"}, "not both"),
        ({"prompt_embeds": EMBEDS.tolist()}, "`prompt_embeds` must be a tensor .* got list"),
        ({"prompt_embeds": EMBEDS[0]}, r"`prompt_embeds` must be a tensor .* got \(12, 32\)"),
        ({"prompt_embeds": EMBEDS[..., :5]}, r"\(batch, tokens, 32\) from `encode_prompt`, got \(1, 12, 5\)"),
        ({"prompt_embeds": EMBEDS[:, :0]}, r"\(batch, tokens, 32\).*, got \(1, 0, 32\)"),
        ({"prompt_embeds": EMBEDS * torch.nan}, "`prompt_embeds`.*finite numbers"),
        ({"negative_prompt_embeds": EMBEDS * torch.inf}, "`negative_prompt_embeds`.*finite numbers"),
        ({"negative_prompt_embeds": "ugly"}, "`negative_prompt_embeds` must be a tensor .* got str"),
        ({"negative_prompt": "a", "negative_prompt_embeds": EMBEDS}, "not both"),
        ({"prompt": 3}, "string or a list"),
        ({"prompt": []}, "empty list"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a", "b", "c"]}, "3 samples"),
        ({"prompt": None, "prompt_embeds": EMBEDS, "negative_prompt_embeds": EMBEDS[:, :5]}, "same shape"),
        ({"timesteps": [1], "sigmas": [1.0]}, "Only one of `timesteps` or `sigmas`"),
        ({"sigmas": [1.0]}, "does not support"),
    ],
)
def test_errors_come_before_anything_is_computed(make, options, message, prompt):
    pipeline, calls = make(), []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    pipeline.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": prompt, **options})
    assert not calls


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a"}, "no text encoder"),
        ({"negative_prompt": "a"}, "no text encoder"),
        ({"prompt_embeds": EMBEDS}, "needs `negative_prompt_embeds`"),
        ({"negative_prompt_embeds": EMBEDS}, "need `prompt_embeds`"),
    ],
)
def test_errors_without_a_text_encoder(make, options, message):
    with pytest.raises(ValueError, match=message):
        make(text=False)(**options)


def test_errors_without_encoder_or_adapter(make):
    pipeline = make()
    pipeline.mg_encoder = None
    with pytest.raises(ValueError, match="mg_encoder"):
        pipeline("a", reference_image=references())
    pipeline.mg_adapter = None
    with pytest.raises(ValueError, match="mg_adapter"):
        pipeline("a", reference_embeds={})
    assert torch.isfinite(run(pipeline)).all()


def test_components_that_do_not_fit_are_refused(make):
    plain, inpainting, haar = make(), make(is_inpainting=True), make(vae="haar")
    with pytest.raises(ValueError, match="input channels"):
        MGPipeline(**{**plain.components, "unet": haar.unet})
    with pytest.raises(ValueError, match="does not fit the MGEncoder"):
        MGPipeline(**{**plain.components, "mg_encoder": MGEncoder()})
    other = MGAdapter.from_unet(plain.unet, plain.mg_encoder, block_channels=(32, 32))
    with pytest.raises(ValueError, match="does not fit the UNet"):
        MGPipeline(**{**plain.components, "mg_adapter": other})
    assert MGPipeline(**{**plain.components, "unet": inpainting.unet}) is not None


def test_components_in_each_others_places_are_refused(make):
    parts = make().components
    for wrong in (
        {"mg_encoder": parts["mg_adapter"], "mg_adapter": parts["mg_encoder"]},
        {"mg_adapter": parts["unet"]},
        {"mg_detail": parts["mg_encoder"]},
        {"unet": parts["mg_encoder"]},
        {"vae": parts["unet"]},
    ):
        name = next(iter(wrong))
        with pytest.raises(ValueError, match=f"`{name}` must be an? .* or `None`, got {type(wrong[name]).__name__}"):
            MGPipeline(**{**parts, **wrong})


@pytest.mark.parametrize("name", ["unet", "vae"])
def test_a_call_without_a_component_that_it_needs_is_refused(make, name):
    pipeline = MGPipeline(**{**make().components, name: None})
    with pytest.raises(ValueError, match=f"A call needs the component `{name}`"):
        run(pipeline)


def test_text_without_a_tokenizer_is_refused(make):
    pipeline = MGPipeline(**{**make().components, "tokenizer": None})
    for prompt in ("a", None):
        with pytest.raises(ValueError, match="`text_encoder` needs `tokenizer`"):
            run(pipeline, prompt)
    assert torch.isfinite(run(pipeline, None, prompt_embeds=EMBEDS, negative_prompt_embeds=EMBEDS)).all()
    without = MGPipeline(**{**pipeline.components, "text_encoder": None})
    assert torch.isfinite(run(without, None)).all()  # as it says


def test_a_unet_without_a_native_size_needs_one(make):
    pipeline = make()
    pipeline.unet.register_to_config(sample_size=None)
    with pytest.raises(ValueError, match="no `sample_size`.*Pass `height` and `width`"):
        run(pipeline)
    assert torch.isfinite(run(pipeline, height=SIZE, width=SIZE)).all()


def test_a_text_encoder_of_another_type_is_brought_to_the_unets(make):
    """So it comes from a repository of half-precision weights loaded without `dtype`."""
    pipeline = make()
    expected = run(pipeline, reference_image=references())
    pipeline.text_encoder.half()
    result = run(pipeline, reference_image=references())
    assert result.dtype == expected.dtype == torch.float32
    assert (result - expected).abs().max() < 0.05 * expected.abs().max()


def test_layerwise_casting_of_the_unet_reaches_what_is_folded(make):
    """The same as with weights rounded to eight bits: projections are read outside of the layers that cast them."""
    pipeline, rounded = make(), make()
    pipeline.unet.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in pipeline.unet.parameters()}
    rounded.unet.load_state_dict({name: value.float() for name, value in pipeline.unet.state_dict().items()})
    found, expected = (run(each, reference_image=references()) for each in (pipeline, rounded))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(expected, run(make(), reference_image=references()), atol=1e-2)


def test_layerwise_casting_of_the_adapter(make):
    pipeline, rounded = make(), make()
    pipeline.mg_adapter.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert torch.float8_e4m3fn in {parameter.dtype for parameter in pipeline.mg_adapter.parameters()}
    rounded.mg_adapter.load_state_dict(
        {name: value.float() for name, value in pipeline.mg_adapter.state_dict().items()}
    )
    found, expected = (run(each, reference_image=references()) for each in (pipeline, rounded))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_group_offloading_of_the_adapter_is_refused(make):
    with pytest.raises(ValueError, match="MGAdapter does not support group offloading"):
        make().mg_adapter.enable_group_offload(torch.device("cpu"))


@pytest.mark.parametrize("kind", [MGPipeline, MGInpaintPipeline])
def test_text_is_encoded_without_the_other_components(make, kind):
    pipeline = make(kind=kind)
    parts = {name: pipeline.components[name] for name in ("text_encoder", "tokenizer")}
    alone = kind(**{**dict.fromkeys(pipeline.components), **parts})
    arguments = ("a red flower", torch.device("cpu"), 1, True)
    for found, expected in zip(alone.encode_prompt(*arguments), pipeline.encode_prompt(*arguments), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_embeds_of_text_serve_without_its_encoder(make):
    pipeline = make()
    prompt, negative = pipeline.encode_prompt("a red flower", torch.device("cpu"), 1, True)
    without = MGPipeline(**{**pipeline.components, "text_encoder": None, "tokenizer": None})
    found = run(without, None, prompt_embeds=prompt, negative_prompt_embeds=negative, reference_image=references())
    torch.testing.assert_close(found, run(pipeline, reference_image=references()))


@pytest.mark.parametrize("kind", [MGPipeline, MGInpaintPipeline, MGXLPipeline, MGXLInpaintPipeline])
def test_every_argument_is_documented(kind):
    text = kind.__call__.__doc__
    entries = re.findall(
        r"^    ((?:\w+, )*\w+): ", text.partition("Args:\n")[2].partition("Examples:")[0], re.MULTILINE
    )
    documented = [name for entry in entries for name in entry.split(", ")]
    assert sorted(documented) == sorted(set(inspect.signature(kind.__call__).parameters) - {"self"})
    assert ">>> pipe(" in text.replace("= pipe(", ">>> pipe(") and "Returns:" in text and "Raises:" in text
