"""SqueezeNet 1.1 as a judge: features of pictures, and a perceptual distance between pictures.

The weights are never shipped: a path to them is given. They were trained on ImageNet by others, and nothing that
generates pictures may use them, or it would judge itself. Figures from these features compare only with each other, not
with published FID or LPIPS.

Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size".
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2lab
from torch import nn

from .metrics import _checked


BATCH_SIZE = 32
UPSCALED_SIDE = 128  # a shorter side below it leaves too few positions in the late stages
MEAN_BGR = (104.0, 117.0, 123.0)
# name: (channels in, squeezed channels, channels of each of the two expansions)
FIRES = {
    "fire2": (64, 16, 64),
    "fire3": (128, 16, 64),
    "fire4": (128, 32, 128),
    "fire5": (256, 32, 128),
    "fire6": (256, 48, 192),
    "fire7": (384, 48, 192),
    "fire8": (384, 64, 256),
    "fire9": (512, 64, 256),
}
POOLED_BEFORE = ("fire2", "fire4", "fire6")
STAGES = ("conv1", "fire3", "fire5", "fire6", "fire7", "fire8", "fire9")
# What `pooled_features` takes. Kernel distance between 400 photographs at 64 px and 400 others that were blurred by half a
# pixel, given noise of 0.02, compressed (JPEG, 50), had quarters exchanged, or kept 85 % of their contrast, in deviations
# of the distance between untouched ones: 5, 17, 42, 64 and 1. From fire9 alone: 3, 11, 54, 108 and 1. Without scaling to
# one length at each position: 3, 3, 8, 2 and 22, and values so large that nothing but its cube is left of the kernel.
POOLED_STAGES = ("fire3", "fire5", "fire9")
# Of 32 materials at 128 px, quilted over one gray, this stage finds .97 again, local binary patterns .63.
GRAM_STAGE = "fire3"
LOCAL_MEAN, LOCAL_DEVIATION = 8, 16  # pixels, of what is taken out of lightness before Gram matrices are


class Fire(nn.Module):
    """1x1 convolution to few channels, then a 1x1 and a 3x3 one side by side."""

    def __init__(self, channels: int, squeezed: int, expanded: int):
        super().__init__()
        self.squeeze1x1 = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W) -> (N, 2 * expanded, H, W)."""
        x = F.relu(self.squeeze1x1(x))
        return F.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(nn.Module):
    """SqueezeNet 1.1 as released for Caffe. Input: RGB in [0, 1], (N, 3, H, W), sides of at least 64 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, stride=2)
        for name, channels in FIRES.items():
            self.add_module(name, Fire(*channels))
        self.conv10 = nn.Conv2d(512, 1000, 1)

    def stages(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Features of STAGES by name, (N, C, h, w); for 128 by 128 pixels conv1 has h = 63 and fire9 has h = 7."""
        x = 255 * pixels.flip(1) - pixels.new_tensor(MEAN_BGR)[:, None, None]
        x = F.relu(self.conv1(x))
        found = {"conv1": x}
        for name in FIRES:
            if name in POOLED_BEFORE:
                x = F.max_pool2d(x, 3, stride=2, ceil_mode=True)
            x = found[name] = self.get_submodule(name)(x)
        return {name: found[name] for name in STAGES}

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """ImageNet logits (N, 1000)."""
        return F.relu(self.conv10(self.stages(pixels)["fire9"])).mean((2, 3))


def load_squeezenet(path: str | Path) -> SqueezeNet:
    """The network in float32 from a safetensors file with tensors `conv1.weight`, `fire2/squeeze1x1.weight`, ...

    Raises:
        ValueError: if there is no such file, it is not a safetensors file, or it does not hold exactly the 52 tensors.
    """
    remedy = "Give the path of SqueezeNet 1.1 in safetensors, tensors named as in the Caffe release."
    if not Path(path).is_file():
        raise ValueError(f"expected a file of SqueezeNet weights, got {str(path)!r}, where there is none. {remedy}")
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"expected a safetensors file, got {str(path)!r}: {error}. {remedy}") from error
    net = SqueezeNet()
    shapes = {_released_name(name): tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    _check_tensors({name: tuple(tensor.shape) for name, tensor in tensors.items()}, shapes, path, remedy)
    net.load_state_dict({name: tensors[_released_name(name)].float() for name in net.state_dict()})
    return net.eval().requires_grad_(False)


@torch.no_grad()
def pooled_features(net: SqueezeNet, pictures: Sequence[np.ndarray], *, batch_size: int = BATCH_SIZE) -> np.ndarray:
    """Pooled features (N, 128 + 256 + 512) float32 in [0, sqrt(channels)] for distances between sets of pictures.

    The channels of fire3, fire5 and fire9 are scaled at each position to a root mean square of 1 and averaged over the
    picture. They hardly notice contrast.

    Args:
        pictures: (H, W, 3) in [0, 1], all of one size. If the shorter side has fewer than 128 pixels, they are scaled up
            to that bilinearly before they enter the network.
    """
    rows = []
    for pixels in pixel_batches(pictures, batch_size):
        stages = net.stages(_upscaled(pixels.to(net.conv1.weight.device)))
        rows.append(torch.cat([_pooled(stages[name]) for name in POOLED_STAGES], 1).cpu().numpy())
    return np.concatenate(rows)


@torch.no_grad()
def texture_grams(net: SqueezeNet, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Which filters respond together, wherever that is: unit vectors (N, 128 * 128), for distances between textures.

    The Gram matrix of Gatys et al. 2015, of lightness less its local mean, over its local deviation: colors, brightness
    and contrast count for little. Pictures are (H, W, 3) in [0, 1], at one resolution.
    """
    rows = []
    for picture in pictures:
        lightness = rgb2lab(_checked(picture))[..., 0]
        lightness = lightness - gaussian_filter(lightness, LOCAL_MEAN)
        deviation = np.sqrt(gaussian_filter(lightness**2, LOCAL_DEVIATION)).clip(2)
        pixels = torch.from_numpy((0.5 + 0.12 * lightness / deviation).clip(0, 1)).float().expand(1, 3, -1, -1)
        responses = net.stages(pixels.to(net.conv1.weight.device))[GRAM_STAGE].flatten(2)[0]
        rows.append(F.normalize((responses @ responses.T).flatten(), dim=0).cpu().numpy())
    return np.stack(rows)


@torch.no_grad()
def perceptual_distance(
    net: SqueezeNet, a: Sequence[np.ndarray], b: Sequence[np.ndarray], *, batch_size: int = BATCH_SIZE
) -> np.ndarray:
    """How different each picture of `a` looks from the one at the same place in `b`: (N,), 0 for equal, at most 2.

    The channels at each position are scaled to length 1; their squared differences are summed over channels and averaged
    over positions, then over all 7 stages. That is LPIPS with equal weights in place of the learned ones: Zhang et al.
    2018, "The unreasonable effectiveness of deep features as a perceptual metric". Small pictures are scaled up as in
    `pooled_features`.
    """
    if len(a) != len(b):
        counts = f"{len(b)} and {len(a)}"
        raise ValueError(f"expected as many pictures in b as in a, got {counts}: they are compared in pairs.")
    rows = []
    for pair in zip(pixel_batches(a, batch_size), pixel_batches(b, batch_size), strict=True):
        if pair[0].shape != pair[1].shape:
            sizes = " and ".join(str(tuple(pixels.shape[2:])) for pixels in pair)
            raise ValueError(f"expected pairs of one size, got {sizes}: resize one first.")
        first, second = (net.stages(_upscaled(pixels.to(net.conv1.weight.device))) for pixels in pair)
        each = [_between(first[name], second[name]) for name in STAGES]
        rows.append(torch.stack(each).mean(0).cpu().numpy())
    return np.concatenate(rows)


def pixel_batches(pictures: Sequence[np.ndarray], batch_size: int) -> Iterator[torch.Tensor]:
    """Pictures (H, W, 3) in [0, 1] as float32 tensors (at most batch_size, 3, H, W), or a ValueError naming what is wrong."""
    if not len(pictures):
        raise ValueError("expected at least one picture, got none.")
    for start in range(0, len(pictures), batch_size):
        batch = [_checked(pictures[place]) for place in range(start, min(start + batch_size, len(pictures)))]
        shapes = {picture.shape for picture in batch}
        if len(shapes) > 1:
            raise ValueError(f"expected pictures of one size, got {sorted(shapes)}: resize or crop them first.")
        yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).float()


def _upscaled(pixels: torch.Tensor) -> torch.Tensor:
    factor = UPSCALED_SIDE / min(pixels.shape[2:])
    if factor <= 1:
        return pixels
    size = [round(factor * side) for side in pixels.shape[2:]]
    return F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)


def _pooled(features: torch.Tensor) -> torch.Tensor:
    """Unit vectors at each position, times the root of their number of channels, averaged: (N, C, h, w) -> (N, C)."""
    return features.shape[1] ** 0.5 * F.normalize(features, dim=1).mean((2, 3))


def _between(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Squared distance of unit vectors, averaged over positions: (N, C, h, w) twice -> (N,)."""
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean((1, 2))


def _released_name(name: str) -> str:
    """fire2.squeeze1x1.weight -> fire2/squeeze1x1.weight, as in the released file."""
    return name.replace(".", "/", 1) if name.startswith("fire") else name


def _check_tensors(got: dict[str, tuple], expected: dict[str, tuple], path: str | Path, remedy: str) -> None:
    lacking, foreign = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if lacking or foreign:
        raise ValueError(
            f"expected the {len(expected)} tensors of SqueezeNet 1.1 in {str(path)!r}, got {len(got)}: "
            f"{_some(lacking)} lacking, {_some(foreign)} foreign. {remedy}"
        )
    for name, shape in expected.items():
        if got[name] != shape:
            raise ValueError(f"expected {name} of shape {shape} in {str(path)!r}, got {got[name]}. {remedy}")


def _some(names: list[str]) -> str:
    return ", ".join([*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]) or "none"
