"""The model patch: the same move as `guide_by_features` of the pipelines, on stand-ins for ComfyUI's objects."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from mg_diffusion.comfyui import decoders, guidance, looking, models
from mg_diffusion.comfyui.decoders import LinearDecoder, VAEDecoder
from mg_diffusion.comfyui.references import one_reference
from mg_diffusion.pipelines import feature_guidance
from mg_diffusion.pipelines.feature_guidance import FeatureGuidance, FeatureGuided

from .stand_ins import VAE, EpsSampling, FlowSampling, LatentFormat, ModelPatcher
from .test_nodes import image_of


SIZE = (64, 96)
SCALES = {"color": 1.5, "texture": 1.0, "shape": 0.5}


@pytest.fixture(scope="module")
def encoder():
    return models.embedded().mg_encoder


@pytest.fixture(scope="module")
def images():
    return {"color": image_of(1), "texture": image_of(2, 5), "shape": image_of(3)}


def patched(images, sampling=None, vae=None, **options):
    scales = {f"{name}_scale": scale for name, scale in SCALES.items()}
    node = guidance.MGFeatureGuidance()
    with torch.inference_mode():  # as ComfyUI runs this node, and those after it, which clone the model again
        return node.patch(ModelPatcher(sampling=sampling), vae or VAE(), **{**scales, **images, **options})[0].clone()


class LibraryVAE:
    """The VAE of the stand-ins as diffusers has one."""

    dtype, config = torch.float32, SimpleNamespace(scaling_factor=LatentFormat.scale_factor)

    def __init__(self):
        self.codec = VAE().first_stage_model

    def encode(self, image):
        return SimpleNamespace(latents=self.codec.encode(image))

    def decode(self, latents, return_dict=False):
        return (self.codec.decode(latents),)


def library(encoder, scheduler):
    """The part of a pipeline that guides by features."""
    guided = FeatureGuided()
    guided.__dict__.update(
        mg_encoder=encoder, scheduler=scheduler, vae=LibraryVAE(), vae_scale_factor=8,
        _execution_device=torch.device("cpu"), scale_input=scheduler.scale_model_input if hasattr(scheduler, "scale_model_input") else lambda x, t: x,
    )  # fmt: skip
    return guided


def targets_of(encoder, images):
    references = {name: list(image.permute(0, 3, 1, 2)) for name, image in images.items()}
    return encoder.guidance_targets(encoder.encode(references, SIZE), SIZE)


def test_constants_are_those_of_the_pipelines(encoder):
    assert guidance.FEATURE_STEP == feature_guidance.FEATURE_STEP
    assert decoders.DECODER_GRID == feature_guidance.DECODER_GRID
    assert guidance.FEATURE_WEIGHTS == feature_guidance.FEATURE_WEIGHTS
    assert (looking.SIDE, looking.TILES) == (encoder.config.sample_size, encoder.config.num_tiles)


@pytest.mark.filterwarnings("ignore:The texture reference")
def test_targets_and_distances_are_the_encoders(encoder, images):
    masked = torch.zeros(1, 40, 48)
    masked[:, 8:32, 8:40] = 1
    given = {
        **one_reference("color", images["color"], "#ff0000:2, #00ff00"),
        **one_reference("texture", images["texture"], weight=2.0, mask=masked),
        **one_reference("shape", images["shape"]),
    }
    targets = encoder.guidance_targets(encoder.encode(given, SIZE), SIZE)
    look = looking.Look(given)
    mine = look.targets(SIZE, torch.device("cpu"))
    assert set(mine) == set(targets) and all(torch.equal(mine[name], targets[name]) for name in targets)
    image, mask = 1.4 * torch.rand(2, 3, *SIZE) - 0.2, torch.rand(1, 1, *SIZE)
    for where in (None, mask):
        expected, found = encoder.feature_distances(image, targets, where), look.distances(image, where)
        assert list(found) == list(expected) and all(torch.equal(found[name], expected[name]) for name in found)


def test_the_linear_decoder_is_that_of_the_pipelines(encoder):
    guided = library(encoder, EulerDiscreteScheduler())
    latents = torch.randn(1, 4, 8, 12)
    expected = guided.decode_for_guidance(latents, "linear")
    assert torch.allclose(LinearDecoder(VAE())(LatentFormat().process_out(latents)), expected, atol=1e-4)


@pytest.mark.filterwarnings("ignore:The texture reference")
@pytest.mark.parametrize("decoder", ["linear", "vae"])
@pytest.mark.parametrize("kind", ["eps", "flow"])
def test_a_run_of_euler_steps_is_that_of_the_pipelines(encoder, images, kind, decoder):
    """The sampler as ComfyUI writes it beside the scheduler of diffusers with an update after each step."""
    torch.manual_seed(0)
    if kind == "eps":
        sampling, indices = EpsSampling(), [999, 600, 300, 50]
        schedule = torch.cat([sampling.sigmas[indices], torch.zeros(1)])
        scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        scheduler.set_timesteps(timesteps=indices)
    else:
        sampling, schedule = FlowSampling(), torch.tensor([1.0, 0.7, 0.4, 0.1, 0.0])
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        scheduler.set_timesteps(sigmas=schedule[:-1].tolist())
    assert torch.allclose(scheduler.sigmas, schedule, rtol=1e-4)
    start = schedule[0] * torch.randn(1, 4, SIZE[0] // 8, SIZE[1] // 8)
    wanted = 0.5 * torch.randn(start.shape)

    def noise_in(x, sigma):  # what a model would say whose picture is between its input and `wanted`
        return (x - (0.7 * wanted + 0.1 * torch.tanh(x))) / sigma

    def sampled(model):
        x = start
        for at, after in zip(schedule[:-1].tolist(), schedule[1:].tolist(), strict=True):
            with torch.inference_mode():
                denoised = model.after_guidance(x - at * noise_in(x, at), at, schedule)
                x = x + (x - denoised) / at * (after - at)
        return x

    made, plain = sampled(patched(images, sampling, decoder=decoder)), sampled(ModelPatcher(sampling=sampling))

    guided = library(encoder, scheduler)
    given = FeatureGuidance(SCALES, targets_of(encoder, images), decoder, False)
    latents = start
    for number, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number]
        prediction, update = guided.guide_by_features(lambda y, s=sigma: noise_in(y, s), latents, t, given)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
        latents = guided.update_latents(latents, update, scheduler.timesteps[number + 1 : number + 2])
    moved, difference = (made - plain).square().mean().sqrt(), (made - latents).abs().max()
    assert moved > 0.01 and difference < 0.02 * moved, (moved, difference)


def test_the_picture_comes_nearer_and_the_original_model_is_left_alone(images):
    vae, base = VAE(), ModelPatcher()
    (model,) = guidance.MGFeatureGuidance().patch(base, vae, color=images["color"], color_scale=1.0)
    assert "sampler_post_cfg_function" not in base.model_options
    look, decode = looking.Look(one_reference("color", images["color"])), LinearDecoder(vae)
    before = torch.randn(2, 4, 8, 8)
    after = before
    for _ in range(10):
        after = model.after_guidance(after, 14.6)
    near, far = (look.distances(decode(LatentFormat().process_out(one)))["color"] for one in (after, before))
    assert (near < 0.7 * far).all()


def test_scale_zero_and_what_lies_outside_of_the_window_is_the_model(images):
    before = torch.randn(1, 4, 8, 8)
    off = patched(images, color_scale=0.0, texture_scale=0.0, shape_scale=0.0)
    assert "sampler_post_cfg_function" not in off.model_options
    late = patched(images, start_percent=0.5)
    assert torch.equal(late.after_guidance(before, 14.0), before)
    assert not torch.equal(late.after_guidance(before, 0.5), before)
    early = patched(images, end_percent=0.5)
    assert torch.equal(early.after_guidance(before, 0.5), before)


def test_in_half_precision_and_with_a_mask(images):
    mask = torch.zeros(1, 32, 32)
    mask[..., 16:] = 1
    before = torch.randn(1, 4, 8, 8)
    after = patched(images, mask=mask).after_guidance(before, 5.0)
    moved = (after - before).abs().mean((0, 1))
    assert moved[:, 4:].mean() > 3 * moved[:, :4].mean()
    assert patched(images).after_guidance(before.half(), 5.0).dtype == torch.float16


def test_weights_of_inference_mode_have_gradients_in_the_vae(images):
    with torch.inference_mode():
        vae = VAE()
    latents = torch.randn(1, 4, 4, 4, requires_grad=True)
    VAEDecoder(vae)(latents).sum().backward()
    assert latents.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to be guided by: connect"),
        ({"color": image_of(1), "decoder": "fast"}, "must be linear or vae, got 'fast'"),
        ({"color": image_of(1), "start_percent": 0.6, "end_percent": 0.4}, "must be below `end_percent`"),
        ({"color": image_of(1), "mask": torch.zeros(1, 8, 8)}, "all black"),
        (
            {"references": {"color": [{"image": ["#ffffff"], "region": torch.ones(8, 8)}]}},
            "compares whole pictures; the color reference has a region",
        ),
    ],
)
def test_wrong_inputs_are_answered_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        guidance.MGFeatureGuidance().patch(ModelPatcher(), VAE(), **options)


def test_the_vae_of_another_model_is_refused():
    base = ModelPatcher(
        SimpleNamespace(model_sampling=EpsSampling(), latent_format=SimpleNamespace(latent_channels=16))
    )
    with pytest.raises(ValueError, match="4 channels, the model reads latents of 16"):
        guidance.MGFeatureGuidance().patch(base, VAE(), color=image_of(1))
    vae = VAE()
    vae.encode = lambda image: torch.zeros(1, 4, 1, 8, 8)
    with pytest.raises(ValueError, match="VAEs of pictures.*videos"):
        guidance.MGFeatureGuidance().patch(ModelPatcher(), vae, color=image_of(1))
