"""The blocks make what `MGPipeline` makes, with its guidance in a guider."""

import pytest
import torch
from diffusers import ClassifierFreeGuidance, EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from mg_diffusion.pipelines.modular_mg import MGBlocks, MultiGranularityGuidance

from .tiny import SIZE, picture, references, seeded


STEPS = 3


@pytest.fixture
def make_pair(make):
    """An `MGPipeline`, and a modular pipeline with its components."""

    def build(**options):
        classic, modular = make(**options), MGBlocks().init_pipeline()
        modular.update_components(**classic.components)
        modular.set_progress_bar_config(disable=True)
        return classic, modular

    return build


def run(modular, **options):
    options = {"num_inference_steps": STEPS, "output_type": "latent", "generator": seeded(), **options}
    return modular(output="images", **options)


def run_classic(classic, **options):
    options = {"num_inference_steps": STEPS, "output_type": "latent", "generator": seeded(), **options}
    return classic(**options).images


def guide(modular, **config):
    modular.update_components(guider=modular.guider.new(**config))


def close(a, b):
    """Several small runs of the UNet instead of one of several rows: the last bits differ."""
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def count_runs(modular):
    """A list that grows by the number of samples at each run of the UNet."""
    runs = []
    modular.unet.register_forward_hook(lambda module, args, output: runs.append(len(args[0])))
    return runs


@pytest.mark.parametrize(
    "options",
    [{}, {"text": False}, {"is_inpainting": True}, {"is_inpainting": True, "vae": "haar", "text": False}],
    ids=str,
)
def test_latents_are_those_of_the_pipeline(make_pair, options):
    classic, modular = make_pair(**options)
    given = {"reference_image": references()} | ({} if "text" in options else {"prompt": "a"})
    guide(modular, guidance_scale=1.0)
    assert torch.equal(run(modular, **given), run_classic(classic, **given, guidance_scale=1.0))
    guide(modular, guidance_scale=1.5)
    guided = run(modular, **given)
    close(guided, run_classic(classic, **given, guidance_scale=1.5))
    assert not torch.allclose(guided, run_classic(classic, **given, guidance_scale=1.0), atol=1e-2)


HALF = (0, 0, 0.5, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"granularity_scale": {"color": 0.5, "shape": 1.3}, "fusion_scale": 0.3},
        {"prompt": ["a", "b"], "negative_prompt": "c", "granularity_scale": {"shape": [0.5, 1.0]}},
        {"prompt": "a", "num_images_per_prompt": 2, "seeds": [1, 2]},
        {"reference_image": {"texture": [[picture(1)], [picture(2)]], "color": None}, "num_images_per_prompt": 2},
        {"height": SIZE * 2, "width": SIZE},
        {"reference_image": {"color": {"image": picture(3), "region": HALF}, "shape": picture(4)}},
        {"granularity_scale": 0.0},
        {"reference_image": None, "prompt": "a"},
    ],
    ids=lambda options: ", ".join(options),
)
def test_arguments_mean_what_they_mean_there(make_pair, options):
    classic, modular = make_pair(is_inpainting=True)
    options = {"reference_image": references(), **options}
    seeds = options.pop("seeds", [0])
    ours, theirs = ([seeded(seed) for seed in seeds] if len(seeds) > 1 else seeded() for _ in range(2))
    close(run(modular, **options, generator=ours), run_classic(classic, **options, generator=theirs))


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_guidance_by_granularities_is_that_of_the_pipeline(make_pair, guidance_scale):
    classic, modular = make_pair()
    scales, options = {"shape": 0.5, "texture": 0.0, "color": 2.0}, {"reference_image": references(), "prompt": "a"}
    guide(modular, guidance_scale=guidance_scale, granularity_guidance=scales)
    runs = count_runs(modular)
    latents = run(modular, **options)
    assert len(runs) == STEPS * (3 + (guidance_scale > 1))  # a granularity of scale 0 costs nothing
    close(latents, run_classic(classic, **options, guidance_scale=guidance_scale, granularity_guidance=scales))
    assert not torch.allclose(latents, run_classic(classic, **options, guidance_scale=guidance_scale), atol=1e-2)


def test_guidance_in_regions_is_that_of_the_pipeline(make_pair):
    classic, modular = make_pair()
    color = [{"image": picture(3), "region": HALF}, {"image": ["#123456"], "region": (0.5, 0, 1, 1)}]
    given = {"color": color, "texture": {"image": picture(5), "region": HALF}, "shape": picture(4)}
    guide(modular, granularity_guidance={"color": 1.0, "texture": 1.0})
    latents = run(modular, reference_image=given)
    close(latents, run_classic(classic, reference_image=given, granularity_guidance={"color": 1.0, "texture": 1.0}))


@pytest.mark.parametrize("kind", [EulerAncestralDiscreteScheduler, FlowMatchEulerDiscreteScheduler])
def test_schedulers_that_scale_draw_or_do_neither(make_pair, kind):
    classic, modular = make_pair()
    classic.scheduler = kind()
    modular.update_components(scheduler=kind())
    close(run(modular, reference_image=references()), run_classic(classic, reference_image=references()))


def test_guiders_of_diffusers_guide_too(make_pair):
    classic, modular = make_pair()
    modular.update_components(guider=ClassifierFreeGuidance(guidance_scale=3.0))
    options = {"reference_image": references(), "prompt": "a", "negative_prompt": "b"}
    close(run(modular, **options), run_classic(classic, **options, guidance_scale=3.0))


def test_a_guider_guides_between_start_and_stop_and_while_it_is_enabled(make_pair):
    classic, modular = make_pair()
    guide(modular, granularity_guidance={"color": 1.0}, start=0.25, stop=0.75)
    runs = count_runs(modular)
    run(modular, reference_image=references(), num_inference_steps=4)
    assert len(runs) == 1 + 3 + 3 + 1
    modular.guider.disable()
    latents = run(modular, reference_image=references())
    assert torch.equal(latents, run_classic(classic, reference_image=references(), guidance_scale=1.0))


def test_a_guider_knows_its_predictions():
    guider = MultiGranularityGuidance(guidance_scale=2.0, granularity_guidance={"color": 3.0})
    texts = tuple(torch.full((1,), value) for value in (1.0, 2.0, 3.0))
    batches = guider.prepare_inputs({"text": texts, "latents": torch.zeros(1)})
    assert [batch.text.item() for batch in batches] == [1.0, 2.0, 3.0] and guider.num_conditions == 3
    is_conditional = []
    for batch in batches:
        guider.prepare_models(torch.nn.Identity())
        is_conditional.append(guider.is_conditional)
        batch.noise_pred = batch.text
    assert is_conditional == [True, False, True]
    assert guider(batches).pred.item() == 2.0 + 2.0 * (1.0 - 2.0) + 3.0 * (1.0 - 3.0)
    named = guider.prepare_inputs_from_block_state(batches[0], {"a": "text", "b": ("text", "latents", "text")})
    assert [(batch.a.item(), batch.b.item()) for batch in named] == [(1.0, 1.0), (1.0, 0.0), (1.0, 1.0)]


def test_a_guider_is_saved_and_changed_by_its_configuration(tmp_path):
    guider = MultiGranularityGuidance(guidance_scale=2.0, granularity_guidance={"shape": 0.5})
    guider.save_pretrained(tmp_path)
    again = MultiGranularityGuidance.from_pretrained(tmp_path)
    assert (again.guidance_scale, again.contrasts) == (2.0, {"shape": 0.5})
    changed = again.new(granularity_guidance={"color": 1.0})
    assert (changed.guidance_scale, changed.contrasts) == (2.0, {"color": 1.0})
    assert again.contrasts == {"shape": 0.5}


def test_the_unet_is_as_before_after_a_call_and_after_an_error(make_pair):
    _, modular = make_pair()
    before = dict(modular.unet.attn_processors)
    run(modular, reference_image=references())
    assert modular.unet.attn_processors == before
    seen = []

    def stop(module, args, output):
        seen.append(module.attn_processors != before)
        if len(seen) == 2:
            raise KeyboardInterrupt

    handle = modular.unet.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        run(modular, reference_image=references())
    handle.remove()
    assert seen == [True, True] and modular.unet.attn_processors == before


def test_blocks_work_apart(make_pair):
    """Features read once, by the first blocks alone, serve a pipeline without the block that reads."""
    classic, modular = make_pair()
    reader = MGBlocks()
    for name in ("text_encoder", "latents", "conditioning", "start", "denoise", "decode"):
        reader.sub_blocks.pop(name)
    reader = reader.init_pipeline()
    reader.update_components(**{name: classic.components[name] for name in reader.component_names})
    features = reader(reference_image=references(), output="reference_embeds")
    assert set(features) == {"color", "texture", "shape"}
    rest = MGBlocks()
    rest.sub_blocks.pop("references")
    rest = rest.init_pipeline()
    rest.update_components(**classic.components, guider=modular.guider.new(granularity_guidance={"color": 1.0}))
    close(
        run(rest, reference_embeds=features),
        run_classic(classic, reference_image=references(), granularity_guidance={"color": 1.0}),
    )


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_pictures_are_those_of_the_pipeline(make_pair, output_type):
    classic, modular = make_pair(vae="haar")
    ours, theirs = (
        call(pipe, reference_image=references(), output_type=output_type)
        for call, pipe in ((run, modular), (run_classic, classic))
    )
    if output_type == "pil":
        assert ours[0].size == theirs[0].size == (SIZE, SIZE)
    else:
        assert type(ours) is type(theirs)
        close(torch.as_tensor(ours), torch.as_tensor(theirs))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"height": 15}, "`height` must be a positive multiple of 2, got 15"),
        ({"width": 0}, "`width` must be a positive multiple of 2, got 0"),
        ({"num_images_per_prompt": 0}, "`num_images_per_prompt` must be a positive integer, got 0"),
        ({"generator": [seeded()] * 3}, "one for each of the 1 images, got 3"),
        ({"output_type": "jpg"}, "`output_type` must be"),
        ({"prompt": 3}, "`prompt` must be a string or a list of strings, got 3"),
        ({"prompt": []}, "`prompt` must be a string or a list of strings"),
        ({"negative_prompt": "a \ud800"}, "`negative_prompt` holds what is no character in UTF-8"),
        ({"negative_prompt": ["a", "b"]}, "`negative_prompt` is given for 2 samples, but this call has 1"),
        ({"reference_image": picture()}, "`reference_image` is a dict such as"),
        ({"reference_image": {"colour": picture()}}, "Unknown granularity 'colour'"),
        ({"granularity_scale": -1.0}, "granularity_scale"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_cannot_work_is_refused(make_pair, options, message):
    _, modular = make_pair()
    with pytest.raises(ValueError, match=message):
        run(modular, **options)


def test_components_that_are_not_there_are_named(make_pair):
    with pytest.raises(ValueError, match=r"\['unet', 'vae', 'scheduler'\] are not loaded. Call `load_components"):
        run(MGBlocks().init_pipeline())
    _, modular = make_pair(text=False)
    with pytest.raises(ValueError, match="`prompt` needs the component `text_encoder`"):
        run(modular, prompt="a")
    modular.mg_encoder = None
    with pytest.raises(ValueError, match=r"`reference_image` needs the components \['mg_encoder'\]"):
        run(modular, reference_image=references())


def test_components_of_other_models_are_refused(make_pair):
    _, modular = make_pair()
    _, other = make_pair(vae="haar")
    with pytest.raises(ValueError, match="The UNet must take 12 input channels .* or 25 .* this one takes 4"):
        modular.update_components(vae=other.vae)
        run(modular)


@pytest.mark.parametrize("name", ["color", "colour"])
def test_guidance_by_what_is_not_given_is_refused(make_pair, name):
    _, modular = make_pair()
    guide(modular, granularity_guidance={name: 1.0})
    with pytest.raises(ValueError, match=rf"granularity_guidance\['{name}'\]` .* given are \['shape'\]"):
        run(modular, reference_image={"shape": picture()})


@pytest.mark.parametrize(
    "config, message",
    [
        ({"granularity_guidance": 1.0}, "`granularity_guidance` is a dict .*got float"),
        ({"granularity_guidance": {"color": -1.0}}, r"`granularity_guidance\['color'\]` must be a finite number"),
        (
            {"granularity_guidance": {"color": "1"}},
            "must be a finite number of at least 0 .0 is off., at most 100; got '1'",
        ),
        (
            {"guidance_scale": float("nan")},
            "`guidance_scale` must be a finite number of at least 0 .1 is off., at most 100; got nan",
        ),
        ({"guidance_scale": True}, "`guidance_scale` must be a finite number of at least 0 .*; got True"),
        ({"guidance_scale": 1e30}, "at most 100; got 1e.30"),
        ({"granularity_guidance": {"color": 101}}, "at most 100; got 101"),
    ],
    ids=str,
)
def test_scales_that_are_none_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        MultiGranularityGuidance(**config)


@pytest.mark.parametrize("is_adapted", [True, False])
def test_a_composed_start_is_that_of_the_pipeline(make_pair, is_adapted):
    classic, modular = make_pair()
    if not is_adapted:
        modular.update_components(mg_adapter=None)
        classic.mg_adapter = None
    options = {"reference_image": references(), "composed_start": 0.5, "num_inference_steps": 4}
    close(run(modular, **options), run_classic(classic, **options, feature_guidance_scale=0))
    assert not torch.equal(run(modular, **options), run(modular, **{**options, "composed_start": 0.9}))


def test_a_composed_start_in_regions_is_that_of_the_pipeline(make_pair):
    classic, modular = make_pair()
    given = {**references(), "color": {"image": ["#c1121f"], "region": (0, 0, 0.5, 1)}}
    options = {"reference_image": given, "composed_start": 0.5, "num_inference_steps": 4}
    close(run(modular, **options), run_classic(classic, **options, feature_guidance_scale=0))


def test_a_composed_start_that_cannot_be_is_refused(make_pair):
    _, modular = make_pair()
    with pytest.raises(ValueError, match="prompts \\[0\\] have references of strength 0"):
        scale = {"color": [0.0, 1.0]}
        given = {"color": references()["color"]}
        run(modular, prompt=["a", "b"], reference_image=given, granularity_scale=scale, composed_start=0.5)
    with pytest.raises(ValueError, match="`composed_start` must be a number in"):
        run(modular, reference_image=references(), composed_start=2)
    with pytest.raises(ValueError, match="`composed_start` needs references"):
        run(modular, composed_start=0.5)
    modular.update_components(mg_adapter=None)
    with pytest.raises(ValueError, match="Without an adapter, `composed_start` still works"):
        run(modular, reference_image=references())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_inference_steps", 0, "positive integer"),
        ("num_inference_steps", -1, "positive integer"),
        ("num_inference_steps", 4.0, "positive integer"),
        ("num_inference_steps", "many", "positive integer"),
        ("height", 16.0, "integer, in pixels"),
        ("width", "16", "integer, in pixels"),
        ("fusion_scale", float("nan"), "finite number"),
        ("generator", 42, "manual_seed"),
        ("generator", (seeded(),), "manual_seed"),
        ("num_images_per_prompt", 0, "positive integer"),
        ("granularity_scale", float("nan"), "granularity_scale"),
    ],
)
def test_numbers_are_checked_before_anything_is_computed(make_pair, monkeypatch, name, value, said):
    _, modular = make_pair()
    monkeypatch.setattr(modular.mg_encoder, "forward", None)
    monkeypatch.setattr(modular.text_encoder, "forward", None)
    with pytest.raises(ValueError, match=f"`?{name}`?.*{said}|{said}"):
        run(modular, reference_image=references(), **{name: value})


def test_guidance_of_any_guider_is_a_number(make_pair):
    _, modular = make_pair(text=False)
    modular.update_components(guider=ClassifierFreeGuidance(guidance_scale=float("nan")))
    with pytest.raises(
        ValueError,
        match="`guider.guidance_scale` must be a finite number of at least 0 .1 is off., at most 100; got nan",
    ):
        run(modular)
    with pytest.raises(ValueError, match="must be a finite number of at least 0 .*; got nan"):
        MultiGranularityGuidance(guidance_scale=float("nan"))


def test_steps_are_as_many_as_the_unet_wants(make_pair):
    _, modular = make_pair(text=False)
    made = [run(modular, num_inference_steps=steps) for steps in (None, "auto", 20)]
    assert torch.equal(made[0], made[1]) and torch.equal(made[0], made[2])
