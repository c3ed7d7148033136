"""Feature guidance as a model patch: each denoised prediction a step nearer to the features of references.

For any model of ComfyUI whose latents are pictures, and without diffusers: the patch asks ComfyUI's own objects (how noisy a
step is, how latents are scaled, what a VAE encodes), and the distances of `looking`.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .decoders import DECODERS
from .host import without_gradients
from .images import check_mask
from .models import CATEGORY
from .references import PALETTE, References, joined, one_reference


# As in mg_diffusion.pipelines.feature_guidance, which would bring diffusers along.
FEATURE_STEP = 0.1
FEATURE_WEIGHTS = {"texture": 2.0}


def unit_root_mean_square(gradient: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) with a root mean square of 1 for each sample; zeros stay zeros."""
    return gradient / gradient.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)


@dataclass
class Levels:
    """Noise levels, asked of a `model_sampling` by what it makes of a picture of ones and of noise of ones."""

    sampling: Any

    def shares(self, sigma: float) -> tuple[float, float]:
        """Of picture and of noise in what a sampler holds at this sigma."""
        at, one, none = torch.tensor([sigma]), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
        picture, noise = (
            self.sampling.noise_scaling(at, *pair) for pair in ((none.clone(), one), (one.clone(), none))
        )
        return float(picture), float(noise)

    def level(self, sigma: float) -> float:
        """The noise in 0..1: of flow matching sigma itself, else that of latents of unit variance."""
        picture, noise = self.shares(sigma)
        return noise if picture < 1 else noise / (1 + noise * noise) ** 0.5

    def is_inside(self, sigma: float, window: tuple[float, float]) -> bool:
        """Whether a sigma lies in a part of the run, (start, end) in 0..1."""
        highest, lowest = (float(self.sampling.percent_to_sigma(percent)) for percent in window)
        return lowest <= sigma <= highest

    def gain(self, sigma: float, schedule: torch.Tensor | None) -> float:
        """How much of a move has to be made in the prediction so that it is whole after an Euler step.

        A step goes from sigma to the next one, and takes 1 - next / sigma of the prediction; the pipelines of diffusers,
        where this guidance comes from, move what is left after the step.
        """
        if schedule is None:
            return 1.0
        lower = [one for one in schedule.flatten().tolist() if one < sigma * (1 - 1e-5)]
        after = max(lower, default=0.0)
        return self.shares(after)[0] / (1 - after / sigma)


class FeatureMove:
    """What ComfyUI calls with every prediction, after classifier-free guidance.

    Args:
        look: the references.
        scales: by granularity.
        decoder: of `DECODERS`.
        window: the part of the run in which it works, (start, end) in 0..1.
        mask: (1, 1, h, w), where the picture counts, of any size.
    """

    def __init__(
        self,
        look: Any,
        scales: dict[str, float],
        decoder: Any,
        window: tuple[float, float] = (0.0, 1.0),
        mask: torch.Tensor | None = None,
    ):
        self.look, self.scales, self.decoder, self.window, self.mask = look, scales, decoder, window, mask

    def __deepcopy__(self, memo: dict[int, Any]) -> "FeatureMove":
        """Itself: clones of a model copy what is patched in, in inference mode, where copies of tensors lose gradients."""
        return self

    def __call__(self, arguments: dict[str, Any]) -> torch.Tensor:
        denoised, sigma, model = arguments["denoised"], float(arguments["sigma"].max()), arguments["model"]
        # Asked in each step: nodes that come later may change how a model is sampled.
        levels = Levels(model.model_sampling)
        if sigma <= 0 or not levels.is_inside(sigma, self.window):
            return denoised
        schedule = arguments.get("model_options", {}).get("transformer_options", {}).get("sample_sigmas")
        # Samplers run in inference mode, whose tensors have no gradients: all that has one is made outside of it.
        with torch.inference_mode(False), torch.enable_grad():
            place = denoised.device if denoised.device.type in ("cpu", "cuda") else torch.device("cpu")
            update = self.update(denoised.detach().to(place, torch.float32, copy=True), model.latent_format)
        return denoised + (update * levels.level(sigma) * levels.gain(sigma, schedule)).to(denoised)

    def update(self, latents: torch.Tensor, latent_format: Any) -> torch.Tensor:
        """The move of latents (B, C, h, w) of a picture at full noise: down the distances (`guide_by_features`).

        Args:
            latent_format: the model's, which says what a VAE reads.
        """
        source = latents.requires_grad_(True)
        image = self.decoder(latent_format.process_out(source))
        pixels = image.detach().requires_grad_(True)
        mask = self.mask
        if mask is not None:
            mask = F.interpolate(mask.to(pixels), size=pixels.shape[2:], mode="area")
        found = self.look.distances(pixels, mask)
        descent = torch.zeros_like(pixels)
        for name, scale in self.scales.items():
            (gradient,) = torch.autograd.grad(found[name].sum(), pixels, retain_graph=True)
            descent = descent + FEATURE_WEIGHTS.get(name, 1.0) * scale * unit_root_mean_square(gradient)
        (update,) = torch.autograd.grad(image, source, descent)
        if mask is not None:  # of where the gradient is, not of the whole picture
            descent = descent * mask.mean((1, 2, 3), keepdim=True).sqrt()
        length = descent.square().mean((1, 2, 3), keepdim=True).sqrt()
        return -unit_root_mean_square(update) * length * FEATURE_STEP


SCALE = {"default": 1.0, "min": 0.0, "max": 20.0, "step": 0.1, "tooltip": "0 is off."}
PERCENT = {"min": 0.0, "max": 1.0, "step": 0.01}


class MGFeatureGuidance:
    """A model that is led toward the color, texture and shape of references, whatever it was trained on."""

    CATEGORY = CATEGORY
    DESCRIPTION = (
        "Leads what a model paints toward the color, texture and shape of pictures, without any training: in each step the "
        "predicted picture is moved toward their features."
    )
    FUNCTION = "patch"
    RETURN_TYPES = ("MODEL",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "Through what predictions are seen: a linear map fitted to the VAE (fast), or all of the VAE."
        return {
            "required": {
                "model": ("MODEL",),
                "vae": ("VAE", {"tooltip": "That of the model."}),
                "color_scale": ("FLOAT", SCALE),
                "texture_scale": ("FLOAT", SCALE),
                "shape_scale": ("FLOAT", SCALE),
                "start_percent": ("FLOAT", {"default": 0.0, **PERCENT}),
                "end_percent": ("FLOAT", {"default": 1.0, **PERCENT}),
                "decoder": (list(DECODERS), {"tooltip": tip}),
            },
            "optional": {
                "color": ("IMAGE",),
                "texture": ("IMAGE",),
                "shape": ("IMAGE",),
                "palette": ("STRING", PALETTE),
                "mask": ("MASK", {"tooltip": "Where the picture counts; of any size."}),
                "references": ("MG_REFERENCES",),
            },
        }

    @without_gradients
    def patch(
        self,
        model: Any,
        vae: Any,
        color_scale: float = 1.0,
        texture_scale: float = 1.0,
        shape_scale: float = 1.0,
        start_percent: float = 0.0,
        end_percent: float = 1.0,
        decoder: str = "linear",
        color: Any = None,
        texture: Any = None,
        shape: Any = None,
        palette: str = "",
        mask: Any = None,
        references: References | None = None,
    ) -> tuple[Any]:
        if decoder not in DECODERS:
            raise ValueError(f"`decoder` must be {' or '.join(DECODERS)}, got {decoder!r}.")
        if not 0 <= start_percent < end_percent <= 1:
            raise ValueError(
                f"`start_percent` must be below `end_percent`, both in 0..1; got {start_percent} and {end_percent}."
            )
        several = joined(
            one_reference("color", color, palette),
            one_reference("texture", texture),
            one_reference("shape", shape),
            references,
        )
        if not several:
            raise ValueError(
                "There is nothing to be guided by: connect a color, a texture or a shape IMAGE, or write a palette."
            )
        scales = {"color": color_scale, "texture": texture_scale, "shape": shape_scale}
        scales = {name: float(scales[name]) for name in several if scales[name] > 0}
        if mask is not None and len(check_mask("mask", mask)) > 1:
            raise ValueError(
                f"`mask` must be one mask for all pictures, got a batch of {len(mask)}. Pick one of them."
            )
        region = None if mask is None else mask[:, None]
        if region is not None and not region.any():
            raise ValueError("`mask` is all black, so the picture would count nowhere. White is where it counts.")
        patched = model.clone()
        if scales:
            from .looking import Look  # with it comes a part of transformers

            seen = _decoder_for(decoder, vae, patched.get_model_object("latent_format"))
            look = Look({name: several[name] for name in scales})
            move = FeatureMove(look, scales, seen, (start_percent, end_percent), region)
            patched.set_model_sampler_post_cfg_function(move)
        return (patched,)


def _decoder_for(name: str, vae: Any, latent_format: Any) -> Any:
    """The decoder of that name, if the VAE is that of the model."""
    decoder = DECODERS[name](vae)
    expected = getattr(latent_format, "latent_channels", decoder.channels)
    if getattr(latent_format, "latent_dimensions", 2) != 2 or decoder.channels != expected:
        raise ValueError(
            f"The VAE makes latents of {decoder.channels} channels, the model reads latents of {expected} in "
            f"{getattr(latent_format, 'latent_dimensions', 2)} dimensions. Connect the VAE of the model; models of videos and "
            f"of sound are not supported."
        )
    return decoder
