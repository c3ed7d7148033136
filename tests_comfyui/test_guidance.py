"""The model patch on a model of ComfyUI, sampled by ComfyUI, beside the feature guidance of the pipelines."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler
from running import GIVEN, TAKEN
from test_nodes import COLOR, SHAPE, TEXTURE, chw

from mg_diffusion.comfyui import models
from mg_diffusion.pipelines.feature_guidance import FeatureGuidance, FeatureGuided


SCALES = {"color": 1.5, "texture": 1.0, "shape": 0.5}
STEPS, SIZE = 4, (64, 64)
KINDS = {  # the node that makes a model of it
    "eps": ("ModelSamplingDiscrete", {"sampling": "eps", "zsnr": False}),
    "v": ("ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": False}),
    "flow": ("ModelSamplingSD3", {"shift": 3.0}),
}


@pytest.fixture(scope="module")
def loaded(comfy, checkpoint):
    """MODEL and VAE of the tiny checkpoint, as its loader gives them."""
    for output, name in ((0, "model"), (2, "vae")):
        comfy.run(
            {
                "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
                "take": {"class_type": "TestTake", "inputs": {"value": ["load", output], "name": name}},
            }
        )
    return TAKEN["model"], TAKEN["vae"]


def sample(
    comfy, checkpoint, patch=True, steps=STEPS, cfg=1.0, sampler="euler", kind="eps", **options
) -> torch.Tensor:
    """Latents of a whole run; without `patch` those of the model alone. The kind of model is chosen after our patch."""
    generator = torch.Generator().manual_seed(0)
    GIVEN["positive"] = [[torch.randn(1, 77, 768, generator=generator), {}]]
    GIVEN["negative"] = [[torch.randn(1, 77, 768, generator=generator), {}]]
    GIVEN.update(color=COLOR, texture=TEXTURE, shape=SHAPE)
    scales = {f"{name}_scale": scale for name, scale in SCALES.items()}
    window = {"start_percent": 0.0, "end_percent": 1.0, "decoder": "linear"}
    graph = {
        name: {"class_type": "TestGive", "inputs": {"name": name}}
        for name in ("positive", "negative", "color", "texture", "shape")
    }
    graph |= {
        "load": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "empty": {"class_type": "EmptyLatentImage", "inputs": {"width": SIZE[1], "height": SIZE[0], "batch_size": 1}},
        "patch": {
            "class_type": "MGFeatureGuidance",
            "inputs": {
                "model": ["load", 0], "vae": ["load", 2], "color": ["color", 0], "texture": ["texture", 0],
                "shape": ["shape", 0], **scales, **window, **options,
            },
        },
        "sampler": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["kind", 0], "positive": ["positive", 0], "negative": ["negative", 0],
                "latent_image": ["empty", 0], "seed": 3, "steps": steps, "cfg": cfg, "sampler_name": sampler,
                "scheduler": "simple", "denoise": 1.0,
            },
        },
        "take": {"class_type": "TestTake", "inputs": {"value": ["sampler", 0], "name": "latents"}},
    }  # fmt: skip
    source = {"model": ["patch" if patch else "load", 0]}
    graph["kind"] = {"class_type": KINDS[kind][0], "inputs": {**source, **KINDS[kind][1]}}
    graph["kept"] = {"class_type": "TestTake", "inputs": {"value": ["kind", 0], "name": "patched"}}
    comfy.run(graph)
    return TAKEN["latents"].clone()


class LibraryVAE:
    """ComfyUI's VAE as diffusers has one."""

    dtype = torch.float32

    def __init__(self, vae, scaling_factor):
        self.vae, self.config = vae, SimpleNamespace(scaling_factor=scaling_factor)

    def encode(self, image):
        with torch.inference_mode():
            latents = self.vae.encode(image.movedim(1, 3) / 2 + 0.5)
        return SimpleNamespace(latents=latents.clone())


def library_scheduler(kind, sampling):
    """diffusers' own, at the noise levels that KSampler has."""
    from comfy.samplers import calculate_sigmas

    sigmas = calculate_sigmas(sampling, "simple", STEPS)
    if kind == "flow":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
        scheduler.set_timesteps(sigmas=sigmas[:-1].tolist())
        scheduler.scale_model_input = lambda x, t: x
    else:  # of what it predicts only the noise is handed over
        scheduler = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        scheduler.set_timesteps(timesteps=[999 - int(step * 1000 / STEPS) for step in range(STEPS)])
    assert torch.allclose(scheduler.sigmas, sigmas, rtol=1e-3)
    return scheduler


@pytest.mark.filterwarnings("ignore:The texture reference")
@pytest.mark.parametrize("kind", list(KINDS))
def test_a_run_is_that_of_the_pipelines(comfy, checkpoint, loaded, kind):
    """KSampler with Euler, beside diffusers' schedulers with an update after each step."""
    made, plain = (sample(comfy, checkpoint, patch, kind=kind) for patch in (True, False))
    patcher, vae = loaded
    model, factor = patcher.model, patcher.model.latent_format.scale_factor
    sampling = TAKEN["patched"].get_model_object("model_sampling")
    model.model_sampling = sampling
    scheduler = library_scheduler(kind, sampling)
    guided, encoder = FeatureGuided(), models.embedded().mg_encoder
    guided.__dict__.update(
        mg_encoder=encoder, scheduler=scheduler, vae=LibraryVAE(vae, factor), vae_scale_factor=8,
        _execution_device=torch.device("cpu"), scale_input=scheduler.scale_model_input,
    )  # fmt: skip
    references = {"color": chw(COLOR), "texture": chw(TEXTURE), "shape": chw(SHAPE)}
    targets = encoder.guidance_targets(encoder.encode(references, SIZE), SIZE)
    given = FeatureGuidance(SCALES, targets, "linear", False)

    def noise_in(x, sigma):
        with torch.inference_mode():
            picture = model.apply_model(x, sigma[None], c_crossattn=GIVEN["positive"][0][0])
        return (x - picture.clone()) / sigma

    noise = torch.randn((1, 4, 8, 8), generator=torch.manual_seed(3))  # as ComfyUI draws it
    with torch.inference_mode():
        latents = sampling.noise_scaling(scheduler.sigmas[:1].clone(), noise, torch.zeros_like(noise), kind != "flow")
    latents = latents.clone()
    for number, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[number]
        prediction, update = guided.guide_by_features(lambda x, s=sigma: noise_in(x, s), latents, t, given)
        latents = scheduler.step(prediction, t, latents, return_dict=False)[0]
        latents = guided.update_latents(latents, update, scheduler.timesteps[number + 1 : number + 2])
    expected = latents / factor
    moved, difference = (made - plain).square().mean().sqrt(), (made - expected).abs().max()
    print(f"{kind}: moved {moved:.4g}, difference {difference:.3g}")
    assert moved > 0.01 and difference < 0.02 * moved, (moved, difference)


@pytest.mark.parametrize("sampler", ["euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "uni_pc", "ddim", "lcm"])
def test_samplers(comfy, checkpoint, sampler):
    made, plain = (sample(comfy, checkpoint, patch, cfg=3.0, sampler=sampler) for patch in (True, False))
    assert torch.isfinite(made).all() and not torch.equal(made, plain)


def test_the_whole_vae_and_scale_zero(comfy, checkpoint):
    plain = sample(comfy, checkpoint, patch=False)
    whole = sample(comfy, checkpoint, decoder="vae")
    assert torch.isfinite(whole).all() and not torch.equal(whole, plain)
    assert not torch.equal(whole, sample(comfy, checkpoint))
    off = dict.fromkeys((f"{name}_scale" for name in SCALES), 0.0)
    assert torch.equal(sample(comfy, checkpoint, **off), plain)


def test_the_picture_comes_nearer(comfy, checkpoint, loaded):
    from mg_diffusion.comfyui.decoders import LinearDecoder
    from mg_diffusion.comfyui.looking import Look
    from mg_diffusion.comfyui.references import one_reference

    decode, look = LinearDecoder(loaded[1]), Look(one_reference("color", COLOR))
    options = {"color_scale": 4.0, "texture_scale": 0.0, "shape_scale": 0.0}
    found = [
        look.distances(decode(sample(comfy, checkpoint, patch, steps=12, **options)))["color"].item()
        for patch in (True, False)
    ]
    print("distance of color, guided and not:", found)
    assert found[0] < 0.7 * found[1]


@pytest.mark.parametrize("kind", ["kl", "tiny"])
def test_a_decoder_sees_what_comfyui_decodes_and_has_gradients(comfy, loaded, kind):
    """The VAE of Stable Diffusion at its full size, of random weights, and that of the tiny checkpoint."""
    from checkpoints import random_weights
    from comfy.ldm.models.autoencoder import AutoencoderKL
    from comfy.sd import VAE

    from mg_diffusion.comfyui.decoders import VAEDecoder

    with torch.inference_mode():  # as loaders run
        if kind == "kl":
            config = {
                "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128,
                "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
            }  # fmt: skip
            model = AutoencoderKL(ddconfig=config, embed_dim=4)
            vae = VAE(sd=random_weights(model, torch.Generator().manual_seed(0)))
        else:
            vae = loaded[1]
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    decoder = VAEDecoder(vae)
    made = decoder(latents)
    with torch.inference_mode():
        expected = vae.decode(latents.detach()).movedim(3, 1)
    assert torch.allclose(made.clamp(0, 1), expected, atol=1e-4) and expected.std() > 0.01
    (gradient,) = torch.autograd.grad(made.square().mean(), latents)
    assert torch.isfinite(gradient).all() and gradient.abs().max() > 0
