"""What the views of all granularities stand on: CIELAB, blur, smoothing that keeps edges, gradient.

All of it is fixed, batched and differentiable. Sides are in pixels of the working size; constants were calibrated at
64 px with the procedural renderer.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


DETAIL_UNIT = 10.0  # Lab lightness, of texture's detail, tiles and canvases
SMOOTHED_AT_ONCE = 1 << 16  # pixels of a strip


def without_autocast(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a tensor or a method of a model, as it is outside of autocast: that would round colors to 8 bits and
    fewer, and with them the order of pixels that all else is made of."""

    @functools.wraps(function)
    def exact(first: Any, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *args, **kwargs)

    return exact


@without_autocast
def rgb_to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB (B, 3, H, W) in [0, 1] to CIELAB under D65: L in 0..100, a and b in about -110..110."""
    linear = torch.where(rgb > 0.04045, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    white = rgb.new_tensor([0.95047, 1.0, 1.08883])
    xyz = torch.einsum("ij,bjhw->bihw", rgb.new_tensor(to_xyz) / white[:, None], linear)
    delta = 6 / 29
    # The clamp keeps the unused side of `where` from sending NaN gradients through the cube root.
    f = torch.where(xyz > delta**3, xyz.clamp(min=delta**3) ** (1 / 3), xyz / (3 * delta**2) + 4 / 29)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


@without_autocast
def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """CIELAB (..., 3, H, W) to sRGB in [0, 1], clipped to the gamut."""
    lightness, a, b = lab.unbind(-3)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], -3)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz = xyz * lab.new_tensor([0.95047, 1.0, 1.08883])[:, None, None]
    to_linear = [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
    linear = torch.einsum("ij,...jhw->...ihw", lab.new_tensor(to_linear), xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055, 12.92 * linear)


@without_autocast
def gaussian_blur(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """Separable Gaussian blur of (B, C, H, W), reflected at the borders; `sigma` in pixels."""
    channels = x.shape[1]
    for axis, length in ((2, x.shape[2]), (3, x.shape[3])):
        radius = min(math.ceil(3 * sigma), length - 1)
        offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
        kernel = torch.exp(-(offset**2) / (2 * sigma**2))
        kernel = (kernel / kernel.sum()).expand(channels, 1, -1)
        padding = (0, 0, radius, radius) if axis == 2 else (radius, radius, 0, 0)
        x = F.pad(x, padding, mode="reflect")
        x = F.conv2d(x, kernel.unsqueeze(5 - axis), groups=channels)
    return x


def edge_preserving_smooth(
    lab: torch.Tensor, sigma: float = 2.5, steps: int = 4, color_sigma: float = 14.0, dilation: int = 2
) -> torch.Tensor:
    """Rolling guidance filter (Zhang et al., ECCV 2014): removes structure below a scale, keeps larger edges.

    Args:
        lab: (B, 3, H, W) CIELAB, H and W at least 5 * dilation.
        sigma: scale in pixels of what is removed by the first blur.
        steps: joint bilateral iterations that bring large edges back.
        color_sigma: range of the bilateral weight, in Delta-E.
        dilation: spacing of the 5x5 taps; 2 reaches 4 pixels far.
    """
    height, width = lab.shape[2:]
    offset = torch.arange(-2, 3, device=lab.device, dtype=lab.dtype)
    near = torch.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    # One strip after the other stays in a processor's cache. On other devices each costs launches.
    rows = max(1, SMOOTHED_AT_ONCE // max(1, len(lab) * width)) if lab.device.type == "cpu" else height

    def padded(x: torch.Tensor) -> torch.Tensor:
        return F.pad(x, (2 * dilation,) * 4, mode="reflect")

    def averaged(middle: torch.Tensor, around: torch.Tensor, top: int) -> torch.Tensor:
        """Rows from `top` on, averaged over the taps in which the padded guide `around` is like its `middle`."""
        total, weights = torch.zeros_like(middle), torch.zeros_like(middle[:, :1])
        for row, column in itertools.product(range(5), range(5)):
            place = slice(top + dilation * row, top + dilation * row + middle.shape[2])
            tap = slice(dilation * column, dilation * column + width)
            difference = (around[:, :, place, tap] - middle).square().sum(1, keepdim=True)
            weight = near[row, column] * torch.exp(difference / (-2 * color_sigma**2))
            total += weight * values[:, :, place, tap]
            weights += weight
        return total / weights

    values, guide = padded(lab), gaussian_blur(lab, sigma)
    for _ in range(steps):
        around = padded(guide)
        guide = torch.cat([averaged(guide[:, :, top : top + rows], around, top) for top in range(0, height, rows)], 2)
    return guide


def half_light(lab: torch.Tensor) -> torch.Tensor:
    """Lab (..., 3, h, w), lightness halved: a color in the shade is that color."""
    return lab * lab.new_tensor([0.5, 1, 1]).view(3, 1, 1)


def lit_alike(lab: torch.Tensor, lightness: torch.Tensor) -> torch.Tensor:
    """Lab (..., 3, h, w) brought out of the shade to a lightness in chroma, lightness halved: a color in the shade is that color.

    In the shade all of RGB is less by one factor, and a, b and L + 16, cube roots of it (CIE 1976), are less by one, too. In
    highlights there is other light, and they are left.
    """
    factor = ((lightness + 16) / (lab[..., :1, :, :].clamp(min=0) + 16)).clamp(min=1)
    return torch.cat([lab[..., :1, :, :] / 2, lab[..., 1:, :, :] * factor], -3)


def di_zenzo_gradient(lab: torch.Tensor) -> torch.Tensor:
    """Largest rate of change over directions and channels (Di Zenzo 1986): (B, 3, H, W) -> (B, 1, H, W), Delta-E/px."""
    padded = F.pad(lab, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    xx, yy, xy = dx.square().sum(1), dy.square().sum(1), (dx * dy).sum(1)
    largest = (xx + yy + torch.sqrt((xx - yy).square() + 4 * xy.square() + 1e-6)) / 2
    return torch.sqrt(largest + 1e-6).unsqueeze(1)
