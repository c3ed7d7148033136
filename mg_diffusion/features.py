"""The form of features: what `MGEncoder` gives and `MGAdapter` takes."""

import warnings
from typing import Any

import torch


FeatureSet = dict[str, dict[str, torch.Tensor]]  # of each granularity one entry, without a region
Features = dict[str, list[dict[str, torch.Tensor]]]  # of each granularity one entry, or one for each of its regions


def as_lists(features: dict[str, Any], stacklevel: int = 3) -> Features:
    """Features as a list for each granularity; a bare dict, the form they had before, is one entry, and warns."""
    bare = [name for name, one in features.items() if isinstance(one, dict)]
    if bare:
        warnings.warn(
            f"Features hold a list for each granularity, such as `encode_reference` returns; a dict, as for {bare}, will be "
            f"refused by the next version.",
            FutureWarning,
            stacklevel=stacklevel,
        )
    return {name: [one] if isinstance(one, dict) else one for name, one in features.items()}
