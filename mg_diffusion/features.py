"""The form of features: what `MGEncoder` gives and `MGAdapter` takes."""

import warnings
from typing import Any

import torch


FeatureSet = dict[str, dict[str, torch.Tensor]]  # of each granularity one entry, without a region
Features = dict[str, list[dict[str, torch.Tensor]]]  # of each granularity one entry, or one for each of its regions


LAID_OF = {"texture": "layout_tiles", "shape": "layout_structure"}  # what canvas and sketch of the output's size need


def has_layout(name: str, part: dict[str, torch.Tensor], size: tuple[int, int] | None = None) -> bool:
    """Whether one entry of a granularity's features was made to be laid out, at (height, width) if that is given."""
    laid = part.get(LAID_OF.get(name, "vector"))
    if laid is None or size is None or name != "shape":
        return laid is not None
    return tuple(laid.shape[2:]) == tuple(size)


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


def match_rows(
    parts: dict[str, torch.Tensor], count: int, device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Features of one entry with one row for each of `count` samples, or a single row for all."""
    matched = {}
    for name, value in parts.items():
        value = value.to(device, value.dtype if value.dtype == torch.bool else dtype)
        repeats = 1 if len(value) == 1 else count // len(value)
        matched[name] = value.repeat_interleave(repeats, dim=0)
    return matched
