"""A correction whose differences are as near as can be to given ones: Poisson's equation on a hole, zero around it.

(Seamless cloning: Perez, Gangnet and Blake, SIGGRAPH 2003.) Solved by conjugate gradients, preconditioned by one cycle through
smaller and smaller grids.
"""

import torch
import torch.nn.functional as F


ROUNDS = 30  # of conjugate gradients, at most
ACCURACY = 3e-3  # of the residual, relative
SWEEPS, DAMPING = 2, 0.8  # of Jacobi's method, before and after the smaller grid
SMALLEST = 4  # side of a grid in cells


def corrected(across: torch.Tensor, along: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """What is to be added in a hole (H, W) bool, (C, H, W), zero elsewhere.

    Args:
        across: (C, H, W - 1), by how much more is to be added to the right of two neighbors; along: (C, H - 1, W), below.
    """
    wanted = _to_each(across, along) * hole
    found, residual, direction, before = torch.zeros_like(wanted), wanted, torch.zeros_like(wanted), 1.0
    for _ in range(ROUNDS):
        if residual.norm() <= ACCURACY * wanted.norm():
            break
        better = _cycle(residual, hole)
        product = (residual * better).sum()
        direction = better + product / before * direction
        step = _laplacian(direction, hole)
        share = product / (direction * step).sum()
        found, residual, before = found + share * direction, residual - share * step, product
    return found


def _cycle(residual: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """About the solution for a residual: a few sweeps, that of a grid of half the size, as many sweeps."""
    degree = _degree(hole)
    found = torch.zeros_like(residual)
    for _ in range(SWEEPS):
        found = found + DAMPING * (residual - _laplacian(found, hole)) / degree * hole
    height, width = hole.shape
    if min(height, width) >= 2 * SMALLEST:
        odd = (0, width % 2, 0, height % 2)
        left = F.pad(residual - _laplacian(found, hole), odd)
        coarse = F.avg_pool2d(F.pad(hole.to(residual)[None], odd), 2)[0] > 0.5
        left = 2 * F.avg_pool2d(left, 2) * coarse
        smaller = _cycle(left, coarse)
        smaller = smaller + _cycle(left - _laplacian(smaller, coarse), coarse)
        found = found + F.interpolate(smaller[None], scale_factor=2)[0][:, :height, :width] * hole
    for _ in range(SWEEPS):
        found = found + DAMPING * (residual - _laplacian(found, hole)) / degree * hole
    return found


def _laplacian(values: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Sum of the differences to the neighbors, in the hole."""
    return _to_each(values.diff(dim=2), values.diff(dim=1)) * hole


def _to_each(across: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """What differences between neighbors say at each place: those to the left and above less those to the right and below."""
    return F.pad(across, (1, 0)) - F.pad(across, (0, 1)) + F.pad(along, (0, 0, 1, 0)) - F.pad(along, (0, 0, 0, 1))


def _degree(hole: torch.Tensor) -> torch.Tensor:
    """How many neighbors each place has, (H, W)."""
    count = torch.full(hole.shape, 4.0, dtype=torch.float32)
    for edge in (count[0], count[-1], count[:, 0], count[:, -1]):
        edge -= 1
    return count
