"""Feature guidance: the training-free engine, with real schedulers, with and without an adapter."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny

from mg_diffusion import MGPipeline
from mg_diffusion.cli import main
from mg_diffusion.evaluation.metrics import describe, distances
from mg_diffusion.pipelines.feature_guidance import unit_root_mean_square
from mg_diffusion.recipe import read_recipe

from .tiny import SIZE, picture, references, seeded


def generate(pipeline, reference_image=None, **options):
    options = {"num_inference_steps": 3, "output_type": "np", "generator": seeded(0), **options}
    return pipeline("a", reference_image=reference_image or references(), **options).images


# -- distances ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def encoder(shipped):
    return shipped.mg_encoder


def stripes(seed: int, vertical: bool = False) -> torch.Tensor:
    """Two colors in bars with fine noise, (1, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    colors = torch.rand(2, 3, generator=generator)
    place = (torch.arange(64) // 16 % 2).expand(64, -1)
    image = colors[place if vertical else place.T].permute(2, 0, 1)
    return (image + 0.1 * torch.randn(1, 64, 64, generator=generator)).clamp(0, 1).unsqueeze(0)


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_a_picture_is_nearest_to_its_own_features(encoder, name):
    own, other = stripes(0), stripes(1, vertical=True)
    targets = encoder.guidance_targets(encoder.encode({name: own[0]}, (64, 64)), (64, 64))
    mine, foreign = (encoder.feature_distances(image, targets)[name].item() for image in (own, other))
    assert 0 <= mine < foreign


def test_each_distance_is_blind_to_what_the_others_measure(encoder):
    image = stripes(0)
    targets = encoder.guidance_targets(
        encoder.encode({name: image[0] for name in ("color", "texture", "shape")}, (64, 64)), (64, 64)
    )
    recolored, mirrored = image.flip(1), image[:, :, :, torch.randperm(64, generator=seeded(0))]
    before, after = (encoder.feature_distances(one, targets) for one in (image, recolored))
    assert abs(after["shape"] - before["shape"]) < 0.02 and after["color"] > 3 * before["color"]
    shuffled = encoder.feature_distances(mirrored, targets)
    assert abs(shuffled["color"] - before["color"]) < 0.2 * after["color"]


def test_only_what_is_in_the_mask_counts(encoder):
    image, mask = stripes(0), torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1
    targets = encoder.guidance_targets(encoder.encode({"color": image[0]}, (64, 64)), (64, 64))
    changed = torch.cat([image[..., :32], torch.rand(1, 3, 64, 32)], 3).requires_grad_(True)
    distance = encoder.feature_distances(changed, targets, mask)["color"]
    (gradient,) = torch.autograd.grad(distance.sum(), changed)
    assert gradient[..., 32:].abs().max() < 1e-4 * gradient[..., :32].abs().max()
    torch.testing.assert_close(distance, encoder.feature_distances(image, targets, mask)["color"])


# -- noise levels -------------------------------------------------------------------------------------------------------
SCHEDULERS = [
    (diffusers.DDIMScheduler, {}),
    (diffusers.DDIMScheduler, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
    (diffusers.DDIMScheduler, {"prediction_type": "sample"}),
    (diffusers.EulerDiscreteScheduler, {}),
    (diffusers.EulerDiscreteScheduler, {"use_karras_sigmas": True}),
    (diffusers.EulerAncestralDiscreteScheduler, {}),
    (diffusers.HeunDiscreteScheduler, {}),
    (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
    (diffusers.DPMSolverMultistepScheduler, {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}),
    (diffusers.UniPCMultistepScheduler, {}),
    (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    (diffusers.LCMScheduler, {}),
    (diffusers.FlowMatchEulerDiscreteScheduler, {}),
]


def names(value):
    return getattr(value, "__name__", "-".join(map(str, value.values())) if isinstance(value, dict) else str(value))


@pytest.mark.parametrize(("kind", "options"), SCHEDULERS, ids=names)
def test_guidance_works_with_the_scheduler(make, kind, options):
    pipeline = make()
    pipeline.scheduler = kind(**options)
    plain, guided = (generate(pipeline, feature_guidance_scale=scale) for scale in (0.0, 1.0))
    assert np.isfinite(guided).all() and not np.array_equal(plain, guided)


@pytest.mark.parametrize(("kind", "options"), SCHEDULERS, ids=names)
def test_x0_is_read_from_the_prediction(make, kind, options):
    """A UNet that knows the picture: what it predicts is read as that picture in every step."""
    pipeline = make()
    pipeline.scheduler = kind(**options)
    pipeline.scheduler.set_timesteps(5)
    x0, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    for t in pipeline.scheduler.timesteps[1:]:
        alpha, sigma = pipeline.noise_level(t)
        noised = alpha * x0 + sigma * noise
        if not pipeline.is_flow_matching and t == int(t):  # against diffusers' own, where it tells
            known = ("beta_start", "beta_end", "beta_schedule", "rescale_betas_zero_snr")
            config = pipeline.scheduler.config
            plain = diffusers.DDPMScheduler(**{key: config[key] for key in known if key in config})
            torch.testing.assert_close(noised, plain.add_noise(x0, noise, t.long().reshape(1)), atol=1e-3, rtol=1e-3)
        kind_of = options.get("prediction_type", "epsilon")
        predicted = {"epsilon": noise, "v_prediction": alpha * noise - sigma * x0, "sample": x0}.get(kind_of)
        if pipeline.is_flow_matching:
            predicted = noise - x0
        torch.testing.assert_close(pipeline.predicted_original(noised, t, predicted), x0, atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.EDMEulerScheduler(),
        diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"),
    ],
    ids=["EDM", "continuous"],
)
def test_a_scheduler_that_does_not_tell_its_noise_is_refused(make, scheduler):
    pipeline = make()
    pipeline.scheduler = scheduler
    with pytest.raises(ValueError, match="does not tell by its timesteps. Use for example DDIMScheduler"):
        generate(pipeline, feature_guidance_scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_gradient_is_no_move(dtype):
    assert unit_root_mean_square(torch.zeros(2, 4, 8, 8, dtype=dtype)).eq(0).all()
    size = unit_root_mean_square(1e-6 * torch.ones(1, 4, 8, 8, dtype=dtype)).square().mean()
    torch.testing.assert_close(size.item(), 1.0)


# -- decoders -----------------------------------------------------------------------------------------------------------
def test_the_linear_decoder_is_the_linear_vae(make):
    pipeline = make(vae="haar")
    latents = torch.randn(2, 12, 8, 8)
    decoded = pipeline.decode_for_guidance(latents, "linear")
    torch.testing.assert_close(decoded, pipeline.decode_for_guidance(latents, "vae"), atol=1e-3, rtol=1e-3)
    assert pipeline.fit_linear_decoder() is pipeline.fit_linear_decoder()


def test_the_linear_decoder_is_fitted_anew_for_another_vae(make):
    pipeline = make()
    first = pipeline.fit_linear_decoder()
    pipeline.vae = make(vae="kl").vae
    assert pipeline.fit_linear_decoder() is not first


@pytest.mark.parametrize("decoder", ["linear", "vae", "tiny"])
@pytest.mark.parametrize("is_full", [False, True])
def test_every_decoder_and_both_gradients_guide(make, decoder, is_full):
    pipeline = make(vae="kl")
    if decoder == "tiny":
        sizes = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
        blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
        decoder = AutoencoderTiny(**sizes, **blocks).eval()
    options = {"feature_guidance_decoder": decoder, "feature_guidance_full": is_full}
    guided = generate(pipeline, feature_guidance_scale={"color": 1.0}, **options)
    assert np.isfinite(guided).all() and not np.array_equal(guided, generate(pipeline))
    assert all(parameter.grad is None for parameter in pipeline.unet.parameters())


# -- calls --------------------------------------------------------------------------------------------------------------
def test_scale_0_is_no_guidance(make):
    pipeline = make()
    np.testing.assert_array_equal(generate(pipeline), generate(pipeline, feature_guidance_scale=0.0))
    np.testing.assert_array_equal(generate(pipeline), generate(pipeline, feature_guidance_scale={"color": 0}))


def test_a_window_guides_some_steps_only(make):
    pipeline = make()
    early, late, always = (
        generate(pipeline, feature_guidance_scale=1.0, feature_guidance_window=window, num_inference_steps=4)
        for window in ((0.0, 0.5), (0.5, 1.0), (0.0, 1.0))
    )
    assert not np.array_equal(early, late) and not np.array_equal(early, always)


@pytest.mark.parametrize("name", ["color", "texture", "shape"])
def test_without_an_adapter_references_guide_alone(make, name):
    pipeline = make()
    pipeline.mg_adapter = None
    reference = {name: references()[name]}
    plain = pipeline("a", num_inference_steps=3, output_type="np", generator=seeded(0)).images
    assert not np.array_equal(plain, generate(pipeline, reference, feature_guidance_scale=1.0))
    with pytest.raises(ValueError, match="needs the components .*feature guidance and a composed start still work"):
        generate(pipeline, reference, feature_guidance_scale=0, composed_start=0)


def test_batches_embeds_and_several_pictures(make):
    pipeline = make()
    lists = {"color": [[picture(1)], [picture(2)]], "shape": picture(3)}
    options = {
        "num_inference_steps": 2,
        "output_type": "np",
        "num_images_per_prompt": 2,
        "feature_guidance_scale": 1.0,
    }
    given = pipeline(["a", "b"], reference_image=lists, generator=seeded(0), **options).images
    embeds = pipeline.encode_reference(lists, batch_size=2)
    np.testing.assert_array_equal(
        given, pipeline(["a", "b"], reference_embeds=embeds, generator=seeded(0), **options).images
    )


def test_an_edit_is_guided_inside_the_mask(make_inpaint):
    pipeline = make_inpaint(is_inpainting=True)
    image = np.asarray(picture(5, height=SIZE, width=SIZE)).astype(np.float32) / 255
    mask = np.zeros((SIZE, SIZE), bool)
    mask[4:12, 4:12] = True

    def edit(scale):
        options = {"num_inference_steps": 3, "output_type": "np", "generator": seeded(0)}
        given = {"image": image, "mask_image": mask, "reference_image": references()}
        return pipeline("a", feature_guidance_scale=scale, **given, **options).images[0]

    plain, guided = edit(0.0), edit(1.0)
    np.testing.assert_array_equal(guided[~mask], image[~mask])
    assert not np.array_equal(plain[mask], guided[mask])


@pytest.mark.parametrize("side", [2, 4, 8])
def test_a_small_mask_is_guided_as_gently_as_a_large_one(make_inpaint, side):
    pipeline = make_inpaint(is_inpainting=True, vae="haar")
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., :side, :side] = 1
    features = pipeline.encode_reference({"color": ["#ff0000"]})
    guidance = pipeline.prepare_feature_guidance({"color": 1.0}, features, (SIZE, SIZE), 1, "linear", False, mask)
    latents = torch.randn(1, 12, SIZE // 2, SIZE // 2, generator=seeded(0))
    pipeline.scheduler.set_timesteps(4)
    t = pipeline.scheduler.timesteps[0]
    _, move = pipeline.guide_by_features(lambda x: torch.zeros_like(x), latents, t, guidance)
    inside = move[..., : side // 2, : side // 2].square().mean().sqrt()
    assert inside < 1.5 * 0.1 * pipeline.noise_level(t)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"feature_guidance_scale": -1}, "finite number of at least 0"),
        (
            {"feature_guidance_scale": {"color": "much"}},
            r"feature_guidance_scale\['color'\]` must be a finite number of at least 0 .0 is off., at most 100; got 'much'",
        ),
        ({"feature_guidance_scale": 1e30}, "`feature_guidance_scale` must be .* at most 100; got 1e.30"),
        ({"feature_guidance_scale": {"shape": 1e30}}, r"feature_guidance_scale\['shape'\]` must be .* at most 100"),
        ({"feature_guidance_scale": {"light": 1}}, r"names \['light'\], of which there is no reference"),
        ({"feature_guidance_scale": 1, "feature_guidance_window": (0.5, 0.5)}, "0 <= start < end <= 1"),
        ({"feature_guidance_scale": 1, "feature_guidance_window": (0.0, 0.1)}, "no step of 3 lies as a whole in"),
        ({"feature_guidance_scale": 1, "feature_guidance_window": 0.5}, "0 <= start < end <= 1"),
        ({"feature_guidance_scale": 1, "feature_guidance_decoder": "best"}, '"linear", "vae" or a model'),
        (
            {
                "feature_guidance_scale": 1,
                "reference_image": {"color": {"image": picture(1), "region": (0, 0, 0.5, 1)}},
            },
            "compares whole pictures; the color reference has a region",
        ),
    ],
)
def test_what_cannot_guide_is_refused(make, options, message):
    with pytest.raises(ValueError, match=message):
        generate(make(), **options)


def test_guidance_needs_an_encoder(make):
    pipeline = make()
    embeds = pipeline.encode_reference(references())
    pipeline.mg_encoder = None
    with pytest.raises(ValueError, match="Feature guidance needs the component `mg_encoder`"):
        pipeline("a", reference_embeds=embeds, feature_guidance_scale=1.0)


def test_the_command_line_guides(model, tmp_path, capsys):
    picture(1).save(tmp_path / "one.png")
    output = tmp_path / "out.png"
    flags = [
        "generate",
        "--color",
        str(tmp_path / "one.png"),
        "--model",
        str(model),
        "--steps",
        "2",
        "-o",
        str(output),
    ]
    guidance = ["--feature-guidance", "color=1.5", "--feature-window", "0:0.5", "--feature-decoder", "vae"]
    assert main([*flags, *guidance]) == 0
    recipe = read_recipe(output)
    assert recipe["feature_guidance_scale"] == {"color": 1.5} and recipe["feature_guidance_decoder"] == "vae"
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main([*flags, "--feature-window", "0.5"])
    assert "must be START:END" in capsys.readouterr().err


# -- the effect, with the model that is shipped ---------------------------------------------------------------------------
def test_guidance_alone_brings_the_picture_nearer_to_each_reference(shipped):
    pipeline = MGPipeline(**{**shipped.components, "mg_adapter": None})
    pipeline.set_progress_bar_config(disable=True)
    lent = [stripes(seed, vertical=seed % 2 > 0)[0].permute(1, 2, 0).numpy() for seed in range(4)]
    lists = {
        name: [[lent[(index + shift) % 4]] for index in range(4)] for shift, name in enumerate(("color", "shape"))
    }

    def apart(scale):
        options = {"num_inference_steps": 8, "output_type": "np", "generator": seeded(0)}
        images = pipeline([""] * 4, reference_image=lists, feature_guidance_scale=scale, **options).images
        return {
            name: np.mean(
                [distances(describe(image), describe(row[0]))[name] for image, row in zip(images, rows, strict=True)]
            )
            for name, rows in lists.items()
        }

    weak, strong = apart(0.01), apart(1.0)
    assert strong["color"] < 0.7 * weak["color"] and strong["shape"] < 0.9 * weak["shape"]
