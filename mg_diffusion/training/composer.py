"""Exact triples from photographs: the color of A, the texture of B and the shape of C in one picture.

The renderer knows its factors; a photograph does not tell them. But the three views can be put together again: the
colors of A are laid into the regions of C (`lay_palette`, as the adapter does for its sketch), cleaned, and B's
shuffled texture tiles are laid over them. The result is a training target for crossed references.
"""

import torch

from mg_diffusion.encoder.views import edge_preserving_smooth


def flatten_regions(lab: torch.Tensor) -> torch.Tensor:
    """Remove the grain that the transfer amplifies in flat areas; (B, 3, H, W) Lab."""
    lab = edge_preserving_smooth(lab, sigma=1.0, steps=1, color_sigma=10.0, dilation=1)
    for _ in range(6):
        lab = edge_preserving_smooth(lab, sigma=0.6, steps=1, color_sigma=8.0, dilation=1)
    for _ in range(4):  # nearly one color per region: a slope under a texture is a texture of its own
        lab = edge_preserving_smooth(lab, sigma=0.6, steps=1, color_sigma=8.0, dilation=2)
    return lab


def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """CIELAB (..., 3, H, W) to sRGB in [0, 1], clipped to the gamut."""
    lightness, a, b = lab.unbind(-3)
    fy = (lightness + 16) / 116
    f = torch.stack([fy + a / 500, fy, fy - b / 200], -3)
    xyz = torch.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    xyz = xyz * lab.new_tensor([0.95047, 1.0, 1.08883])[:, None, None]
    to_linear = lab.new_tensor(
        [[3.2404542, -1.5371385, -0.4985314], [-0.9692660, 1.8760108, 0.0415560], [0.0556434, -0.2040259, 1.0572252]]
    )
    linear = torch.einsum("ij,...jhw->...ihw", to_linear, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=1e-6) ** (1 / 2.4) - 0.055, 12.92 * linear)


def add_texture(base: torch.Tensor, canvas: torch.Tensor) -> torch.Tensor:
    """Lay a texture canvas (1, H, W; lightness over 10, as the texture view gives it) over a base (3, H, W) in Lab."""
    painted = base.clone()
    painted[0] = (painted[0] + 10.0 * canvas[0]).clamp(0, 100)
    return lab_to_rgb(painted)
