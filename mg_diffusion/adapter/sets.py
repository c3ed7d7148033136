"""References that count in a part of the output only, as sets of features of which each is for the whole picture."""

import math
from itertools import product

import torch
import torch.nn.functional as F

from ..features import Features, FeatureSet


def split_regions(features: Features) -> tuple[list[FeatureSet], torch.Tensor | None]:
    """Features in which references have regions, as sets without, and how much of each place is each set's.

    Every combination of a region of one granularity with one of another is a set, as if all the picture were
    conditioned by it; what no region of a granularity covers lacks that granularity. Of color, each set has an
    `area`, so that a palette is laid into its region with all its colors.

    Returns:
        the sets, and their shares (B, sets, H, W) in [0, 1] that sum to 1; `None` where there are no regions.
    """
    common = {name: parts[0] for name, parts in features.items() if "region" not in parts[0]}
    choices = [_choices(name, parts) for name, parts in features.items() if name not in common]
    if not choices:
        return [common], None
    sets, shares = [], []
    for chosen in product(*choices):
        share = math.prod(region for _, _, region in chosen)
        if not share.any():
            continue
        own = common | {name: parts for name, parts, _ in chosen if parts is not None}
        if {"color", "shape"} <= set(own):
            painted = [region for name, _, region in chosen if name in ("color", "shape")]
            area = math.prod(painted, start=torch.ones_like(share))
            given = own["color"].get("area")
            if given is not None:
                area = area * F.adaptive_avg_pool2d(given.to(area), area.shape[2:])
            own["color"] = {**own["color"], "area": area + 1e-6}  # not 0 for any sample
        sets.append(own)
        shares.append(share)
    return sets, torch.cat(torch.broadcast_tensors(*shares), 1)


def _choices(
    name: str, parts: list[dict[str, torch.Tensor]]
) -> list[tuple[str, dict[str, torch.Tensor] | None, torch.Tensor]]:
    """What one granularity can be at a place, and where: each of its regional features, or nothing."""
    chosen = [(name, {k: v for k, v in part.items() if k != "region"}, part["region"]) for part in parts]
    rest = (1 - sum(part["region"] for part in parts)).clamp(min=0)
    return chosen + ([(name, None, rest)] if rest.max() > 1e-4 else [])
