"""What surrounds a hole, grown into it."""

import torch
import torch.nn.functional as F


def grow_into(picture: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
    """Fill a hole (B, 1, H, W; 1 is unknown) of a picture (B, C, H, W) smoothly from what surrounds it.

    (Pull-push: Gortler et al., "The Lumigraph", SIGGRAPH 1996. Halve the picture, counting known pixels only, until
    all is known; go back, taking from the smaller picture what is unknown.)
    """
    known = 1 - hole
    shares = F.avg_pool2d(known, 2, ceil_mode=True)
    small = F.avg_pool2d(picture * known, 2, ceil_mode=True) / shares.clamp(min=1e-6)
    unknown = (shares == 0).to(picture)
    if unknown.any() and max(small.shape[2:]) > 1:
        small = grow_into(small, unknown)
    grown = F.interpolate(small, size=picture.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(hole > 0, grown, picture)
