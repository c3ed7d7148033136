"""Exact triples from photographs: the color of A, the texture of B and the shape of C in one picture.

The renderer knows its factors; a photograph does not tell them. But the three views can be put together again: the
smoothed picture of C is given exactly the color distribution of A (so that where C had a border there still is one),
and B's shuffled texture tiles are laid over it. The result is a training target for crossed references.
"""

import numpy as np
import torch

from mg_diffusion.modeling_mg_encoder import edge_preserving_smooth, region_fields


def layout_axes(edges: torch.Tensor) -> np.ndarray:
    """Three fields of a picture's regions: center against border, above against below, sides against poles.

    They depend on the edges alone, so the shape view knows them, and a mirrored picture has mirrored ones, so that
    flipped samples agree with the others.

    Args:
        edges: (B, 1, S, S).

    Returns:
        (B, S * S, 3).
    """
    fields = region_fields(edges, 5)
    axes = torch.stack([-(fields[:, 3] + fields[:, 4]), fields[:, 1], fields[:, 3] - fields[:, 4]], 1)
    axes = torch.nn.functional.interpolate(axes, size=edges.shape[2:], mode="bilinear")
    return axes.flatten(2).transpose(1, 2).double().numpy()


def turn_to_layout(source: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Turn a color cloud so that it agrees with the layout as well as a rotation can (orthogonal Procrustes).

    The shape view does not know which region was bright. With a random turn every assignment of colors to regions is
    equally right, nothing about it can be predicted from the references, and a small denoiser learns the shape very
    slowly. Turned to the layout, the assignment follows from the edges as far as the picture allows.

    Args:
        source: (N, 3) Lab pixels; axes: (N, 3) from `layout_axes`.

    Returns:
        (N, 3), zero mean, the first axis meant for lightness.
    """
    centered = source - source.mean(0)
    wanted = (axes - axes.mean(0)) / (axes.std(0) + 1e-3)
    u, _, vt = np.linalg.svd(centered.T @ wanted)
    return centered @ u @ vt


def turn_at_random(source: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn a color cloud by a random rotation, (N, 3) -> (N, 3) of zero mean."""
    return (source - source.mean(0)) @ np.linalg.qr(rng.standard_normal((3, 3)))[0]


def transfer_colors(source: np.ndarray, target: np.ndarray, steps: int = 6) -> np.ndarray:
    """Give the points of `source` the color distribution of `target`, in the order of `source`.

    Iterative distribution transfer (Pitie et al., "N-dimensional probability density function transfer", ICCV 2005):
    sort along axes until all marginals agree; the first axes are those of Lab itself. The axes are the same in every
    call, so that the result is a function of its arguments.

    Args:
        source: (N, 3) turned colors; target: (N, 3) Lab pixels.

    Returns:
        (N, 3) Lab.
    """
    rng = np.random.default_rng(0)
    result = source
    for step in range(steps):
        axes = np.linalg.qr(rng.standard_normal((3, 3)))[0] if step else np.eye(3)
        moved, wanted = result @ axes, target @ axes
        for axis in range(3):
            moved[np.argsort(moved[:, axis], kind="stable"), axis] = np.sort(wanted[:, axis])
        result = moved @ axes.T
    return result


def flatten_regions(lab: torch.Tensor) -> torch.Tensor:
    """Remove the grain that the transfer amplifies in flat areas; (B, 3, H, W) Lab."""
    lab = edge_preserving_smooth(lab, sigma=1.0, steps=1, color_sigma=10.0, dilation=1)
    for _ in range(6):
        lab = edge_preserving_smooth(lab, sigma=0.6, steps=1, color_sigma=8.0, dilation=1)
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
