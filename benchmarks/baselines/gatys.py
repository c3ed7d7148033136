"""Texture optimisation as a baseline: nothing is trained, every picture is found by gradient descent on its pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from skimage.color import rgb2gray
from skimage.exposure import match_histograms
from tqdm.auto import tqdm

from mg_diffusion.evaluation.squeezenet import SqueezeNet
from mg_diffusion.mg_bench.methods import Pictures, References


STEPS = 80
LEARNING_RATE = 0.03
STYLE_WEIGHT = 3e3  # the best of 3e2, 3e3, 3e4 and 3e5 on training pictures, docs/training.md
CONTENT, STYLE = "fire5", ("conv1", "fire3", "fire5")
SIDE = 128  # SqueezeNet needs as much; larger pictures are read as they are


class GatysMethod:
    """Style transfer in luminance that keeps colors (Gatys et al., arXiv 1508.06576 and 1606.05897).

    The shape reference is recolored by histogram matching (scikit-image), then its luminance is optimised to have the
    Gram matrices of the texture reference's and the deeper features of its own.
    """

    def __init__(self, net: SqueezeNet):
        self.net = net
        self.settings, self.scales = {"steps": STEPS, "style_weight": STYLE_WEIGHT}, {}
        self.progress = tqdm(desc="pictures", unit="", delay=1)  # an error that comes first has its line to itself

    def generate(
        self, *, seeds: Sequence[int], scales: Mapping[str, float] | None = None, **references: Pictures
    ) -> list[np.ndarray]:
        if scales or set(references) != {"color", "texture", "shape"}:
            raise ValueError("Gatys' method takes all three references and has no strengths; leave out `response`.")
        pairs = zip(references["shape"], references["color"], strict=True)
        recolored = [match_histograms(shape, color, channel_axis=-1).clip(0, 1) for shape, color in pairs]
        luminance, wanted = (_luminance(pictures) for pictures in (recolored, references["texture"]))
        wanted = _with_moments_of(luminance, wanted)
        change = self._stylised(luminance, wanted) - luminance
        self.progress.update(len(seeds))
        moved = zip(recolored, change.permute(0, 2, 3, 1).numpy(), strict=True)
        return [(picture + difference).clip(0, 1) for picture, difference in moved]

    def edit(
        self, images: Pictures, masks: Pictures, references: References, seeds: Sequence[int]
    ) -> list[np.ndarray]:
        raise ValueError("Gatys' method does not edit; leave out the sections `editing_...`.")

    def _stylised(self, luminance: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            content = self._features(luminance)[CONTENT]
            style = {name: gram(value) for name, value in self._features(wanted).items()}
        pixels = luminance.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([pixels], lr=LEARNING_RATE)
        for _ in range(STEPS):
            found = self._features(pixels)
            style_loss = sum((gram(found[name]) - style[name]).square().sum((1, 2)).mean() for name in STYLE)
            loss = (found[CONTENT] - content).square().mean() + STYLE_WEIGHT * style_loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return pixels.detach().clamp(0, 1)

    def _features(self, luminance: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of luminance (B, 1, H, W) in [0, 1], on the scale of unit variance that the losses are weighed for."""
        size = [max(SIDE, side) for side in luminance.shape[2:]]
        pixels = F.interpolate(luminance, size=size, mode="bilinear").expand(-1, 3, -1, -1)
        return {name: value / 100 for name, value in self.net.stages(pixels).items()}


def gram(features: torch.Tensor) -> torch.Tensor:
    """(B, C, h, w) -> (B, C, C), of mean products."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def _with_moments_of(target: torch.Tensor, luminance: torch.Tensor) -> torch.Tensor:
    """Luminance with mean and deviation of the target's, or the Gram matrices would ask for its brightness too."""
    mean, other = luminance.mean((1, 2, 3), keepdim=True), target.mean((1, 2, 3), keepdim=True)
    deviation, wanted = luminance.std((1, 2, 3), keepdim=True), target.std((1, 2, 3), keepdim=True)
    return (luminance - mean) / deviation.clamp(min=1e-3) * wanted + other


def _luminance(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(np.stack([rgb2gray(picture) for picture in pictures])).float().unsqueeze(1)
