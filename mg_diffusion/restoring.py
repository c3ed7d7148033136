"""Restoring by the detail network: what lies under noise, blur and the blocks of JPEG, in one evaluation.

The network reads a picture with faults where it otherwise reads a sketch; the strength `FAULTY`, which no sketch has, says so.
In place of the strength of a canvas it is told how far the picture is blurred, and noise is told as that of a smaller picture
is. It begins from nothing at the first, noisiest step, and gives what is to be added to the faulty picture (residual
learning: Zhang et al., DnCNN, arXiv 1608.03981; at half the size, told the level: FFDNet, arXiv 1710.04026).
"""

import torch
import torch.nn.functional as F

from .octaves import HAAR_CHANNELS, build_scheduler, condition, predict_cells, to_cells


FAULTY = -1.0  # in place of a sketch's strength
AVERAGES = 3  # channels of Haar cells; all others are details


def faulty_condition(picture: torch.Tensor, blur: torch.Tensor) -> torch.Tensor:
    """What the network reads of a picture (B, 3, H, W) in [-1, 1] with faults, blurred by `blur` (B, 1, 1, 1) pixels."""
    smaller = F.avg_pool2d(picture, 2)
    blank = torch.zeros_like(picture[:, :1])
    return condition(smaller, blank, blur, FAULTY * picture, torch.full_like(blur, FAULTY))


def details_of(conditions: torch.Tensor) -> torch.Tensor:
    """Haar cells (B, 12, h, w) that the prediction is added to besides the smaller picture: those of faulty pictures."""
    sketch, scale = conditions[:, 8:20], conditions[:, 20:21]
    cells = to_cells(F.pixel_shuffle(sketch, 2))
    cells[:, :AVERAGES] = 0  # these are the smaller picture
    return cells * (scale < 0)


def restored_cells(unet: torch.nn.Module, conditions: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """The clean cells (B, 12, h, w) in one evaluation; `levels` (B,) as of `predict_cells`."""
    nothing = conditions.new_zeros(len(conditions), HAAR_CHANNELS, *conditions.shape[2:])
    noisiest = torch.full((len(conditions),), len(build_scheduler().alphas_cumprod) - 1, device=conditions.device)
    return predict_cells(unet, nothing, noisiest, conditions, levels) + details_of(conditions)
