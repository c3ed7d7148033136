"""MGXLPipeline: what it computes, against the stock pipeline of SDXL where there is one."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DiffusionPipeline, HeunDiscreteScheduler, StableDiffusionXLPipeline
from diffusers.callbacks import SDXLCFGCutoffCallback
from loading.worker import edit, sample

from mg_diffusion import MGPipeline, MGXLInpaintPipeline, MGXLPipeline, modeling_mg_adapter
from mg_diffusion.adapter.layers import down_block_sizes

from .fresh import fresh_process
from .tiny import SIZE, picture, references, seeded, tiny_unet, tiny_vae
from .tiny_xl import POOLED, TIME_DIM, tiny_components_xl, tiny_unet_xl


NAMES = ["color", "texture", "shape"]


def run(pipeline, prompt="a red flower", seed=0, **options):
    """Latents of two steps; pictures where `output_type` asks for them."""
    options = {"num_inference_steps": 2, "generator": seeded(seed), "output_type": "latent", **options}
    return pipeline(prompt, **options).images


def stock(pipeline: MGXLPipeline) -> StableDiffusionXLPipeline:
    parts = {name: part for name, part in pipeline.components.items() if not name.startswith("mg_")}
    force = pipeline.config.force_zeros_for_empty_prompt
    pipe = StableDiffusionXLPipeline(**parts, force_zeros_for_empty_prompt=force, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def make_xl(tmp_path):
    """make_xl(text=..., force_zeros=..., is_inpainting=..., vae=...) builds an `MGXLPipeline`."""

    def build(text: bool = True, force_zeros: bool = True, **options) -> MGXLPipeline:
        components = tiny_components_xl(tmp_path if text else None, **options)
        pipeline = MGXLPipeline(**components, force_zeros_for_empty_prompt=force_zeros)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return build


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """By `force_zeros_for_empty_prompt`; for tests that leave them as they are."""
    folder, built = tmp_path_factory.mktemp("tokenizer"), {}
    for force in (True, False):
        built[force] = MGXLPipeline(**tiny_components_xl(folder), force_zeros_for_empty_prompt=force)
        built[force].set_progress_bar_config(disable=True)
    return built


@pytest.fixture
def pipeline(pipelines):
    return pipelines[True]


def test_call_signature():
    ours = inspect.signature(MGXLPipeline.__call__).parameters
    theirs = inspect.signature(StableDiffusionXLPipeline.__call__).parameters
    left_out = {"guidance_rescale", "denoising_end", "kwargs"}
    assert set(theirs) - set(ours) == left_out
    assert ours["guidance_scale"].default == theirs["guidance_scale"].default
    assert ours["num_inference_steps"].default == "auto"
    assert MGXLPipeline.default_steps == theirs["num_inference_steps"].default
    of_sd = list(inspect.signature(MGPipeline.__call__).parameters)
    assert [name for name in ours if name in of_sd] == of_sd


# -- exactly the base -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reference_image": {"color": None}},
        {"reference_image": references(), "granularity_scale": 0},
    ],
    ids=["none", "only None", "all at zero"],
)
def test_without_references_or_strength_it_is_the_stock_pipeline(pipeline, guidance_scale, options):
    expected = run(stock(pipeline), guidance_scale=guidance_scale, output_type="pt")
    assert torch.equal(run(pipeline, guidance_scale=guidance_scale, output_type="pt", **options), expected)


SMALL = {"original_size": (8, 12), "crops_coords_top_left": (3, 1), "target_size": (20, 16)}
NEGATIVE = {
    "negative_original_size": (40, 41),
    "negative_crops_coords_top_left": (5, 6),
    "negative_target_size": (64, 32),
}


@pytest.mark.parametrize(
    "options",
    [
        {"prompt": ["a", "b"], "prompt_2": ["c", "d"], "num_images_per_prompt": 2},
        {"prompt_2": "c"},
        {"prompt_2": ""},
        {"negative_prompt": "c"},
        {"negative_prompt": "c", "negative_prompt_2": "d"},
        {"negative_prompt": ""},
        {"negative_prompt": ["c", "d"], "negative_prompt_2": ["e", "f"], "prompt": ["a", "b"]},
        {"clip_skip": 1},
        {"clip_skip": 0},
        SMALL,
        {**SMALL, **NEGATIVE},
        {"height": 24, "width": 32},
        {"timesteps": [801, 401, 1]},
    ],
    ids=lambda options: "-".join(options),
)
@pytest.mark.parametrize("force_zeros", [True, False], ids=["zeros", "empty"])
def test_other_arguments_do_what_they_do_in_the_stock_pipeline(pipelines, options, force_zeros):
    pipeline = pipelines[force_zeros]
    assert torch.equal(run(pipeline, **options), run(stock(pipeline), **options))


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_other_schedulers(make_xl, scheduler):
    pipeline = make_xl()
    pipeline.scheduler = scheduler(steps_offset=1)
    assert torch.equal(run(pipeline, eta=0.7), run(stock(pipeline), eta=0.7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_it_is_the_stock_pipeline_too(make_xl, dtype):
    """In float16 the VAE decodes in float32, and is what it was afterwards."""
    pipeline, seen = make_xl().to(dtype), []
    assert pipeline.vae.config.force_upcast
    expected = run(stock(pipeline), output_type="pt")
    pipeline.vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype))
    assert torch.equal(run(pipeline, output_type="pt"), expected)
    assert seen == [torch.float32 if dtype == torch.float16 else dtype] and pipeline.vae.dtype == dtype


def test_the_vae_comes_back_to_its_type_after_an_error(make_xl):
    pipeline = make_xl(text=False).to(torch.float16)
    pipeline.vae.decoder.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(pipeline, None, output_type="pt")
    assert pipeline.vae.dtype == torch.float16


def test_lora_is_that_of_the_stock_pipeline(make_xl):
    peft = pytest.importorskip("peft")
    pipeline, results = make_xl(), []
    targets = {"unet": ["to_q", "to_k"], "text_encoder": ["q_proj"], "text_encoder_2": ["q_proj"]}
    for name, modules in targets.items():
        config = peft.LoraConfig(r=2, target_modules=modules, init_lora_weights=False)
        getattr(pipeline, name).add_adapter(config)
    for scale in (1.0, 0.5):
        options = {"cross_attention_kwargs": {"scale": scale}}
        results.append(run(pipeline, **options))
        assert torch.equal(results[-1], run(stock(pipeline), **options))
    assert not torch.equal(*results)


# -- text and sizes -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_embeds_are_used_in_place_of_prompts(make_xl, guidance_scale):
    pipeline = make_xl()
    names = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
    values = pipeline.encode_prompt(["a red flower"], None, "cpu", 1, True, ["b"])
    embeds = dict(zip(names, values, strict=True))
    expected = run(pipeline, negative_prompt="b", guidance_scale=guidance_scale)
    assert torch.equal(run(pipeline, None, guidance_scale=guidance_scale, **embeds), expected)
    assert torch.equal(run(stock(pipeline), None, guidance_scale=guidance_scale, **embeds), expected)
    for name in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        setattr(pipeline, name, None)
    assert torch.equal(run(pipeline, None, guidance_scale=guidance_scale, **embeds), expected)


def test_without_negative_embeds_there_are_zeros(make_xl):
    pipeline = make_xl()
    positive, _, pooled, _ = pipeline.encode_prompt(["a"], None, "cpu", 1, False)
    pipeline.text_encoder = pipeline.text_encoder_2 = None
    embeds = {"prompt_embeds": positive, "pooled_prompt_embeds": pooled}
    zeros = {f"negative_{name}": torch.zeros_like(value) for name, value in embeds.items()}
    assert torch.equal(run(pipeline, None, **embeds), run(pipeline, None, **embeds, **zeros))
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    with pytest.raises(ValueError, match="no text encoder needs `negative_prompt_embeds`"):
        run(pipeline, None, **embeds)


def test_prompts_reach_both_text_encoders_and_pooled_text_counts(pipeline):
    plain = run(pipeline)
    assert not torch.equal(run(pipeline, prompt_2="other"), plain)
    assert not torch.equal(run(pipeline, "other", prompt_2="a red flower"), plain)
    positive, _, pooled, _ = pipeline.encode_prompt(["a red flower"], None, "cpu", 1, False)
    embeds = {"prompt_embeds": positive, "guidance_scale": 1.0}
    one, other = (run(pipeline, None, pooled_prompt_embeds=p, **embeds) for p in (pooled, pooled + 1))
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", [*SMALL, "negative sizes"])
def test_sizes_have_an_effect(pipeline, name):
    options = NEGATIVE if name == "negative sizes" else {name: SMALL[name]}
    assert not torch.equal(run(pipeline, **options), run(pipeline))
    if name == "negative sizes":
        assert torch.equal(run(pipeline, guidance_scale=1.0, **options), run(pipeline, guidance_scale=1.0))


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_without_text_references_set_the_batch(make_xl, guidance_scale):
    pipeline = make_xl(text=False)
    both = {"color": [[["#ff0000"]], [["#0000ff"]]]}
    latents = run(pipeline, None, reference_image=both, guidance_scale=guidance_scale)
    assert latents.shape[0] == 2 and torch.isfinite(latents).all() and not torch.equal(*latents)


def test_no_prompt_is_the_empty_prompt(pipeline):
    assert torch.equal(run(pipeline, None), run(pipeline, ""))


# -- references -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", NAMES)
def test_every_granularity_has_an_effect_in_proportion_to_its_strength(pipeline, name):
    reference, base = {name: references()[name]}, run(pipeline)
    change = [
        (run(pipeline, reference_image=reference, granularity_scale=strength) - base).abs().mean().item()
        for strength in (0.0, 0.1, 1.0)
    ]
    assert change[0] == 0 < change[1] < change[2]


def test_a_batch_is_its_samples_one_by_one(pipeline):
    """Sizes of negative rows included, which the stock pipeline mixes up where there are several pictures."""
    shapes = [[picture(1)], [picture(2)]]
    shared = {"texture": picture(3), "color": ["#c1121f"]}
    sizes = {**SMALL, **NEGATIVE}
    generators = list(map(seeded, range(4)))
    options = {"num_images_per_prompt": 2, "prompt_2": ["c", "d"], "negative_prompt": ["e", "f"], **sizes}
    reference = {"shape": shapes, **shared}
    batch = run(pipeline, ["a", "b"], reference_image=reference, generator=generators, **options)
    for index in range(4):
        place = index // 2
        own = {"prompt_2": "cd"[place], "negative_prompt": "ef"[place], **sizes}
        reference = {"shape": shapes[place], **shared}
        single = run(pipeline, "ab"[place], seed=index, reference_image=reference, **own)
        torch.testing.assert_close(batch[index : index + 1], single, atol=1e-3, rtol=1e-3)


def test_unconditional_rows_are_those_of_the_base_and_every_step_gets_all_residuals(make_xl):
    pipeline, rows, counts = make_xl(), [], []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: rows.append(output[0]))
    pipeline.unet.register_forward_pre_hook(
        lambda module, args, kwargs: counts.append(len(kwargs["down_intrablock_additional_residuals"] or [])),
        with_kwargs=True,
    )
    run(pipeline)
    run(pipeline, reference_image=references())
    assert torch.equal(rows[0][0], rows[2][0]) and not torch.equal(rows[0][1], rows[2][1])
    assert counts == [0, 0, 3, 3]


@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_guidance_of_a_granularity_goes_beyond_the_prediction_without_it(make_xl, guidance_scale):
    """One step: what the scheduler gets is guided + scale * (conditional - without); sizes are those of the picture."""
    pipeline, given, seen = make_xl(), references(), []
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda noise, *a, **k: (seen.append(noise.clone()), step(noise, *a, **k))[1]
    options = {"num_inference_steps": 1, "reference_image": given, **SMALL, **NEGATIVE}
    run(pipeline, guidance_scale=guidance_scale, **options)
    run(pipeline, guidance_scale=1.0, **options)
    run(pipeline, granularity_scale={"shape": 0.0}, guidance_scale=1.0, **options)
    run(pipeline, guidance_scale=guidance_scale, granularity_guidance={"shape": 0.7}, **options)
    guided, conditional, missing, found = seen
    torch.testing.assert_close(found, guided + 0.7 * (conditional - missing), atol=1e-3, rtol=1e-3)
    assert (found - guided).abs().max() > 1e-2


@pytest.mark.parametrize(
    "options",
    [
        {"granularity_schedule": {"color": (0.5, 1.0), "texture": [0.5, 1.0]}},
        {"negative_reference_image": {"color": ["#2a9d8f"]}},
        {"fusion_scale": 0.0},
        {"reference_image": {**references(), "color": {"image": ["#00ff00"], "region": (0, 0, 0.5, 1)}}},
        {"feature_guidance_scale": 1.0},
        {"feature_guidance_scale": {"color": 1.0}, "feature_guidance_decoder": "vae", "feature_guidance_full": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_controls_have_an_effect(make_xl, options):
    pipeline = make_xl(text=False, is_inpainting=True)
    plain = run(pipeline, None, reference_image=references())
    changed = run(pipeline, None, **{"reference_image": references(), **options})
    assert torch.isfinite(changed).all() and not torch.allclose(changed, plain, atol=1e-3)


@pytest.mark.parametrize("decoder", ["linear", "vae"])
def test_feature_guidance_in_half_precision(make_xl, decoder):
    pipeline = make_xl(text=False).to(torch.float16)
    options = {"reference_image": {"color": ["#c1121f"]}, "granularity_scale": 0}
    guidance = {"feature_guidance_scale": 5.0, "feature_guidance_decoder": decoder}
    guided = run(pipeline, None, **options, **guidance)
    assert torch.isfinite(guided).all() and not torch.equal(guided, run(pipeline, None, **options))
    assert pipeline.vae.dtype == torch.float16


def test_attribution_changes_nothing(pipeline):
    options = {"num_inference_steps": 3, "output_type": "pt", "reference_image": references()}
    result = pipeline("a", **options, generator=seeded(), return_attribution=True)
    assert set(result.attribution) == set(NAMES)
    assert all(one["map"].shape == (1, 8, 8) and one["curve"].shape == (1, 3) for one in result.attribution.values())
    assert all(one["curve"].min() > 0 for one in result.attribution.values())
    plain = pipeline("a", **options, generator=seeded()).images
    torch.testing.assert_close(result.images, plain, atol=1e-3, rtol=1e-3)


def test_the_leak_guard_looks_at_the_output(pipeline, monkeypatch):
    seen = []
    monkeypatch.setattr(pipeline, "warn_of_leaks", lambda *arguments: seen.append(arguments), raising=False)
    images = run(pipeline, reference_image=references(), leak_guard=True, output_type="pt")
    ((image, compared, *counts),) = seen
    assert torch.equal(image.clamp(0, 1), images) and set(compared) == {"texture", "shape"} and counts == [1, 1]
    with pytest.raises(ValueError, match="`leak_guard` looks at pictures"):
        run(pipeline, reference_image=references(), leak_guard=True)


# -- the adapter in a UNet of these blocks ----------------------------------------------------------------------------------
def test_each_residual_is_added_where_its_block_leaves_off(make_xl):
    """A DownBlock2D takes it after it has made the picture smaller, a CrossAttnDownBlock2D before."""
    pipeline, seen = make_xl(text=False), [[], [], []]
    unet, strides = pipeline.unet, pipeline.mg_adapter.config.block_strides
    watched = unet.down_blocks[1].resnets[0], unet.down_blocks[1].downsamplers[0], unet.mid_block.resnets[0]
    for inputs, module in zip(seen, watched, strict=True):
        module.register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
    conditions = {"text_embeds": torch.zeros(1, POOLED), "time_ids": torch.zeros(1, 6)}
    given = (torch.randn(1, 4, 8, 12, generator=seeded()), 500, torch.zeros(1, 1, 48))
    sizes = zip(unet.config.block_out_channels, down_block_sizes(strides, 8, 12), strict=True)
    zeros = [torch.zeros(1, width, *size) for width, size in sizes]
    for block in (None, 0, 1, 2):
        residuals = [residual + (place == block) for place, residual in enumerate(zeros)]
        with torch.no_grad():
            unet(*given, added_cond_kwargs=conditions, down_intrablock_additional_residuals=residuals)
        assert residuals == []
    for block, inputs in enumerate(seen):
        torch.testing.assert_close(inputs[1 + block], inputs[0] + 1)


@pytest.mark.parametrize("size", [(8, 8), (12, 20), (9, 15)])
def test_every_layer_gets_the_shares_of_its_own_resolution(make_xl, monkeypatch, size):
    pipeline, positions, joined = make_xl(text=False), {}, []
    for name, module in pipeline.unet.named_modules():
        if name.endswith("attn2"):
            module.register_forward_pre_hook(lambda _, args, name=name: positions.update({name: args[0].shape[1]}))
    original = modeling_mg_adapter.join_regions
    monkeypatch.setattr(modeling_mg_adapter, "join_regions", lambda *a: (joined.append(original(*a)), joined[-1])[1])
    halves = [
        {"image": ["#ff0000"], "region": (0, 0, 0.5, 1)},
        {"image": ["#0000ff"], "region": (0.5, 0, 1, 1)},
    ]
    height, width = 2 * size[0], 2 * size[1]
    options = {"height": height, "width": width, "guidance_scale": 1.0}
    assert run(pipeline, None, reference_image={"color": halves}, **options).shape[2:] == size
    assert len(positions) == 18
    left = (torch.arange(width) < width // 2).float().expand(1, 1, height, -1)
    for name, count in positions.items():
        shares = joined[0].attention[name][2]
        assert shares.shape == (1, count, 2)
        stride = 2 if name.startswith(("down_blocks.1", "up_blocks.1")) else 4
        expected = F.adaptive_avg_pool2d(left, down_block_sizes([stride], *size)[0])
        torch.testing.assert_close(shares[0, :, 0], expected.flatten())


def test_canvas_and_sketch_keep_the_detail_of_each_block(pipeline):
    """No level is made smaller and blown up again, though two blocks have the same size."""
    adapter, sizes = pipeline.mg_adapter, []
    assert tuple(adapter.config.block_strides) == (2, 2, 4)
    for branch in (adapter.texture_residuals, adapter.sketch_residuals):
        hooks = [
            stem.register_forward_hook(lambda module, args, output: sizes.append(tuple(output.shape[2:])))
            for stem in branch.stems
        ]
        assert branch.stride == 2 * adapter.config.map_stride  # of the latents, which the first block halves
        channels = branch.stems[0].in_channels // branch.stride**2
        branch(torch.zeros(1, channels, 8 * branch.stride, 12 * branch.stride), [(8, 12), (8, 12), (4, 6)])
        for hook in hooks:
            hook.remove()
    assert sizes == [(8, 12), (8, 12), (4, 6)] * 2


# -- callbacks, and what is left as it was ------------------------------------------------------------------------------------
def test_callback_sees_and_replaces_tensors(pipeline):
    seen = {}

    def callback(pipe, step, timestep, tensors):
        seen.update(tensors)
        return {"add_time_ids": 3 * tensors["add_time_ids"]}

    names = ["latents", "prompt_embeds", "negative_prompt_embeds", "add_text_embeds", "add_time_ids"]
    options = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": names}
    assert not torch.equal(run(pipeline, **options), run(pipeline))
    assert seen["add_text_embeds"].shape == (2, POOLED) and seen["add_time_ids"].shape == (2, 6)

    def other_text(pipe, step, timestep, tensors):
        return {"add_text_embeds": tensors["add_text_embeds"] + 1}

    assert not torch.equal(run(pipeline, **{**options, "callback_on_step_end": other_text}), run(pipeline))


def test_the_official_callback_may_switch_guidance_off(make_xl):
    pipeline, rows = make_xl(is_inpainting=True), []
    pipeline.unet.register_forward_hook(lambda module, inputs, output: rows.append(output[0]))
    callback = SDXLCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=0)
    options = {"reference_image": references(), **SMALL, **NEGATIVE}
    run(pipeline, callback_on_step_end=callback, **options)
    run(pipeline, **options)
    assert [len(row) for row in rows] == [2, 1, 2, 2]
    torch.testing.assert_close(rows[1][0], rows[3][1], atol=1e-3, rtol=1e-3)  # what is left is the conditional row


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_processors_are_restored_whatever_happens(make_xl, error):
    def fail(pipe, step, timestep, tensors):
        assert type(pipe.unet.attn_processors[names[0]]).__name__ == "MGAttnProcessor"
        raise error

    pipeline = make_xl()
    names = [name for name in pipeline.unet.attn_processors if "attn2" in name]
    before, state = pipeline.unet.attn_processors, list(pipeline.unet.state_dict())
    run(pipeline, reference_image=references())
    assert pipeline.unet.attn_processors == before
    with pytest.raises(error):
        run(pipeline, reference_image=references(), callback_on_step_end=fail)
    assert pipeline.unet.attn_processors == before and list(pipeline.unet.state_dict()) == state


def test_sequentially_offloaded_in_half_precision(make_xl):
    """The VAE's weights are there only during its calls, and are brought to float32 then."""
    from accelerate import cpu_offload

    pipeline = make_xl().to(torch.float16)
    guidance = {"feature_guidance_scale": 1.0, "feature_guidance_decoder": "vae"}
    options = {"reference_image": references(), "output_type": "pt", **guidance}
    expected = run(pipeline, **options)
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        cpu_offload(getattr(pipeline, name), execution_device=torch.device("cpu"))
    assert next(pipeline.vae.parameters()).is_meta
    torch.testing.assert_close(run(pipeline, **options), expected, atol=0.02, rtol=0)


# -- saving and loading -------------------------------------------------------------------------------------------------------
ROUND_TRIP = """
folder, again, result = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
assert type(pipe).__name__ == "MGXLPipeline" and "mg_diffusion" not in sys.modules
assert pipe.config.force_zeros_for_empty_prompt is False
pipe.save_pretrained(again)
second = DiffusionPipeline.from_pretrained(again, trust_remote_code=True)
editing = DiffusionPipeline.from_pretrained(again, custom_pipeline="pipeline_mg_xl_inpaint", trust_remote_code=True)
assert type(editing).__name__ == "MGXLInpaintPipeline"
editing.save_pretrained(again + "_inpaint")
last = DiffusionPipeline.from_pretrained(again + "_inpaint", trust_remote_code=True)
assert type(last).__name__ == "MGXLInpaintPipeline"
torch.save([sample(pipe), sample(second), edit(editing), edit(last)], result)
"""


def test_round_trips_as_remote_code_without_the_package(make_xl, tmp_path):
    make_xl(is_inpainting=True, vae="haar", force_zeros=False).save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").glob("*.py")} == {
        "pipeline.py",
        "pipeline_mg_xl.py",
        "pipeline_mg_xl_inpaint.py",
    }
    fresh_process(ROUND_TRIP, tmp_path, *(str(tmp_path / name) for name in ("saved", "again", "result.pt")))
    generating, editing = (kind.from_pretrained(tmp_path / "saved") for kind in (MGXLPipeline, MGXLInpaintPipeline))
    expected = [sample(generating)] * 2 + [edit(editing)] * 2
    assert all(map(torch.equal, torch.load(tmp_path / "result.pt"), expected))
    files = [
        {path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("saved", "again", "again_inpaint")
    ]
    assert files[0] == files[1] == files[2]


@pytest.mark.parametrize("force_zeros", [True, False])
def test_a_stock_folder_with_encoder_and_adapter_passed_in(make_xl, tmp_path, force_zeros):
    pipeline = make_xl(force_zeros=force_zeros)
    stock(pipeline).save_pretrained(tmp_path / "base")
    ours = {"mg_encoder": pipeline.mg_encoder, "mg_adapter": pipeline.mg_adapter}
    again = MGXLPipeline.from_pretrained(tmp_path / "base", **ours)
    assert again.config.force_zeros_for_empty_prompt is force_zeros
    torch.testing.assert_close(sample(again), sample(pipeline), atol=1e-3, rtol=1e-3)
    switched = MGXLPipeline.from_pipe(stock(pipeline), **ours)
    assert switched.config.force_zeros_for_empty_prompt is force_zeros and switched.mg_adapter is ours["mg_adapter"]
    bare = MGXLPipeline.from_pretrained(tmp_path / "base")
    assert bare.mg_encoder is not None and bare.mg_adapter is None and torch.isfinite(run(bare)).all()
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        pipeline.save_pretrained(tmp_path / "own")
        DiffusionPipeline.from_pretrained(tmp_path / "own")


# -- errors -------------------------------------------------------------------------------------------------------------------
EMBEDS, POOL = torch.zeros(1, 12, 48), torch.zeros(1, POOLED)
BOTH = {"prompt": None, "prompt_embeds": EMBEDS, "pooled_prompt_embeds": POOL}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_image": {"lighting": picture()}}, "Unknown granularity 'lighting'"),
        ({"granularity_scale": -1}, "at least 0"),
        ({"height": 15}, "multiples of 2"),
        ({"callback_on_step_end_tensor_inputs": ["noise"]}, "callback_on_step_end_tensor_inputs"),
        ({"prompt": 3}, "`prompt` must be a string or a list"),
        ({"prompt_2": 3}, "`prompt_2` must be a string or a list"),
        ({"prompt_2": ["a", "b"]}, "`prompt_2` is given for 2 samples, but this call has 1"),
        ({"prompt": None, "prompt_2": "a"}, "`prompt_2` needs a `prompt`"),
        ({"negative_prompt_2": "a"}, "`negative_prompt_2` needs a `negative_prompt`"),
        ({**BOTH, "prompt_2": "a"}, "Pass `prompt_2` or `prompt_embeds`, not both"),
        ({**BOTH, "prompt": "a"}, "Pass `prompt` or `prompt_embeds`, not both"),
        ({**BOTH, "pooled_prompt_embeds": None}, "`prompt_embeds` and `pooled_prompt_embeds` go together"),
        ({"pooled_prompt_embeds": POOL}, "`prompt_embeds` and `pooled_prompt_embeds` go together"),
        (
            {"negative_prompt_embeds": EMBEDS},
            "`negative_prompt_embeds` and `negative_pooled_prompt_embeds` go together",
        ),
        ({**BOTH, "pooled_prompt_embeds": torch.zeros(1, 7)}, r"of the shape \(1, 24\) .* got \(1, 7\)"),
        ({**BOTH, "pooled_prompt_embeds": POOL * torch.nan}, "`pooled_prompt_embeds`.*finite numbers"),
        ({**BOTH, "prompt_embeds": EMBEDS[..., :5]}, r"\(batch, tokens, 48\).* got \(1, 12, 5\)"),
        ({**BOTH, "pooled_prompt_embeds": [0.0]}, r"of the shape \(1, 24\) .* got list"),
        ({**BOTH, "prompt_embeds": EMBEDS[0]}, r"`prompt_embeds` must be a tensor .* got \(12, 48\)"),
        (
            {**BOTH, "negative_prompt_embeds": EMBEDS[:, :5], "negative_pooled_prompt_embeds": POOL},
            "must have the same shape",
        ),
        ({"original_size": 1024}, "`original_size` is a pair of integers, .* got 1024"),
        ({"target_size": (1.5, 2)}, r"`target_size` is a pair of integers, .* got \(1.5, 2\)"),
        ({"crops_coords_top_left": None}, "`crops_coords_top_left` is a pair of integers, .* got None"),
        ({"negative_original_size": (8, 8)}, "go together"),
        ({"negative_target_size": (8, 8)}, "go together"),
        ({"negative_crops_coords_top_left": (8, 8)}, "goes with them"),
    ],
)
def test_errors_come_before_anything_is_computed(pipeline, monkeypatch, options, message):
    for name in ("encode_prompt", "encode_reference"):
        monkeypatch.setattr(pipeline, name, None, raising=False)
    with pytest.raises(ValueError, match=message):
        pipeline(**{"prompt": "a", **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "a"}, "no text encoder, so `prompt`"),
        ({"prompt": "a", "prompt_2": "a"}, "no text encoder"),
        ({"negative_prompt": "a"}, "no text encoder, so `negative_prompt`"),
        ({"negative_prompt_embeds": EMBEDS, "negative_pooled_prompt_embeds": POOL}, "need `prompt_embeds`"),
    ],
)
def test_errors_without_text_encoders(make_xl, options, message):
    with pytest.raises(ValueError, match=message):
        make_xl(text=False)(**options)


def test_components_that_are_not_those_of_the_base_model_are_refused(make_xl):
    parts = make_xl().components
    refiner = tiny_unet_xl(projection_class_embeddings_input_dim=5 * TIME_DIM + POOLED)
    mean = tiny_vae("kl")
    mean.register_to_config(latents_mean=[0.0] * 4)
    for changed, message in (
        ({"unet": refiner, "mg_adapter": None}, r"pooled text of 16 numbers, but `text_encoder_2` gives 24.*refiner"),
        (
            {"unet": tiny_unet(4, False), "mg_adapter": None},
            '"text_time", got None. For Stable Diffusion .*`MGPipeline`',
        ),
        ({"text_encoder": None}, "go together: pass both"),
        ({"text_encoder_2": None}, "go together: pass both"),
        ({"vae": mean}, "`latents_mean`"),
        ({"unet": tiny_unet_xl(in_channels=5), "mg_adapter": None}, "input channels"),
        ({"unet": tiny_unet_xl(transformer_layers_per_block=1)}, "does not fit the UNet"),
    ):
        with pytest.raises(ValueError, match=message):
            MGXLPipeline(**{**parts, **changed})


def test_output_sizes_and_types(pipeline):
    images = run(pipeline, reference_image=references(), height=20, width=28, output_type="pil")
    assert images[0].size == (28, 20)
    assert run(pipeline, output_type="np").shape == (1, SIZE, SIZE, 3)
