"""Latents to pictures with a gradient: by a linear map fitted to ComfyUI's VAE, or by the VAE itself."""

import weakref
from typing import Any

import torch
import torch.nn.functional as F


DECODER_GRID = 2**16  # as in mg_diffusion.pipelines.feature_guidance, which would bring diffusers along


def latents_of(vae: Any, image: torch.Tensor) -> torch.Tensor:
    """The latents (B, C, h, w) of an IMAGE (B, H, W, 3), as the VAE gives them.

    Raises:
        ValueError: for a VAE of videos or of anything but pictures.
    """
    with torch.inference_mode():  # as ComfyUI does: it may move weights that were loaded so
        latents = vae.encode(image)
    latents = latents.clone()
    if latents.ndim != 4:
        raise ValueError(
            f"Feature guidance reads VAEs of pictures, whose latents have the shape (batch, channels, height, width); this "
            f"one gives {tuple(latents.shape)}. Models of videos and of sound are not supported."
        )
    return latents


class LinearDecoder:
    """The linear map from a latent cell to its block of pixels that comes nearest to a VAE, by least squares.

    Fitted as `FeatureGuided.fit_linear_decoder` does, over clouds of random colors.
    """

    kept: "weakref.WeakKeyDictionary[Any, LinearDecoder]" = weakref.WeakKeyDictionary()  # fitted once for each VAE

    def __init__(self, vae: Any):
        factor = int(vae.spacial_compression_encode()) if hasattr(vae, "spacial_compression_encode") else 8
        image = clouds(factor)
        cells = F.pad(
            latents_of(vae, image.movedim(1, 3) / 2 + 0.5).float().cpu().movedim(1, 3).flatten(0, 2), (0, 1), value=1.0
        )
        blocks = F.pixel_unshuffle(image, factor).movedim(1, 3).flatten(0, 2)
        self.factor = factor
        # Rounded, because the last bits of a solution differ from process to process.
        weight = torch.linalg.lstsq(cells.double(), blocks.double()).solution.T  # (3 * factor * factor, C + 1)
        self.weight = (weight * DECODER_GRID).round().div(DECODER_GRID).float().contiguous()

    @classmethod
    def of(cls, vae: Any) -> "LinearDecoder":
        if vae not in cls.kept:
            cls.kept[vae] = cls(vae)
        return cls.kept[vae]

    @property
    def channels(self) -> int:
        return self.weight.shape[1] - 1

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) to pictures (B, 3, H, W) in about [0, 1]."""
        self.weight = self.weight.to(latents.device)
        blocks = F.conv2d(latents.float(), self.weight[:, :-1, None, None], self.weight[:, -1])
        return F.pixel_shuffle(blocks, self.factor) / 2 + 0.5


def clouds(factor: int) -> torch.Tensor:
    """Eight pictures (8, 3, 16 * factor, 16 * factor) of smooth random colors in [-1, 1], always the same."""
    generator, side = torch.Generator().manual_seed(0), 16 * factor
    made = torch.zeros(8, 3, side, side)
    for cells in (1, 2, 4, 8, 16, side):
        noise = torch.randn(8, 3, cells, cells, generator=generator)
        made += F.interpolate(noise, size=(side, side), mode="bilinear") / (1 + cells / 8)
    return torch.tanh(made / 2)


class _Decode(torch.nn.Module):
    """`decode` of a model as a forward, which `functional_call` calls."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.model.decode(latents)


class VAEDecoder:
    """The whole VAE, through copies of its weights: those that ComfyUI loads in inference mode have no gradients.

    The copies are in float32 and lie beside ComfyUI's memory management as long as the patched model does.
    """

    def __init__(self, vae: Any):
        if not isinstance(getattr(vae, "first_stage_model", None), torch.nn.Module):
            raise ValueError(
                "The decoder `vae` needs the model inside of the VAE, which this one does not show. Use `linear`."
            )
        self.decode = _Decode(vae.first_stage_model)
        self.channels = latents_of(vae, torch.full((1, 64, 64, 3), 0.5)).shape[1]
        self.weights: dict[str, torch.Tensor] = {}

    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        if not self.weights or next(iter(self.weights.values())).device != latents.device:
            own = {**dict(self.decode.named_parameters()), **dict(self.decode.named_buffers())}
            self.weights = {name: one.detach().to(latents.device, _float(one), copy=True) for name, one in own.items()}
        return torch.func.functional_call(self.decode, self.weights, (latents.float(),)).float() / 2 + 0.5


def _float(one: torch.Tensor) -> torch.dtype:
    return torch.float32 if one.is_floating_point() else one.dtype


DECODERS = {"linear": LinearDecoder.of, "vae": VAEDecoder}
