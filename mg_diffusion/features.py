"""The form of features: what `MGEncoder` gives and `MGAdapter` takes."""

import warnings
from typing import Any

import torch

from .arrays import check_tensor


FeatureSet = dict[str, dict[str, torch.Tensor]]  # of each granularity one entry, without a region
Features = dict[str, list[dict[str, torch.Tensor]]]  # of each granularity one entry, or one for each of its regions


LAID_OF = {"texture": "layout_tiles", "shape": "layout_structure"}  # what canvas and sketch of the output's size need


HELD = {
    "color": {"palette": ("colors", 3)},
    "texture": {"tiles": ("tiles", "height", "width")},
    "shape": {"structure": (3, "height", "width"), "map_0": ("channels", "height", "width")},
}  # what is read of each granularity beside its vector, without the batch


def check_features(granularity: str, given: Any, name: str) -> None:
    """Raise a ValueError unless these are features of a granularity: of one batch, whole, and of finite numbers.

    Args:
        given: a list of entries, or one; name: what it is, for messages.
    """
    entries = given if isinstance(given, list) else [given]
    remedy = "Make them with `encode_reference`; pictures are passed as `reference_image`."
    for parts in entries or [None]:
        needed = ["vector", *HELD.get(granularity, {})]
        if not isinstance(parts, dict) or not set(needed) <= set(parts):
            found = list(parts) if isinstance(parts, dict) else type(given if parts is None else parts).__name__
            raise ValueError(f"`{name}` must be a list of dicts of tensors, each with {needed}; got {found}. {remedy}")
        check_tensor(parts["vector"], f"{name}['vector']", ("batch", "numbers"), "encode_reference")
        batch = len(parts["vector"])
        for key, value in parts.items():
            sides = HELD.get(granularity, {}).get(key, ("numbers",) * (getattr(value, "ndim", 1) - 1))
            check_tensor(value, f"{name}[{key!r}]", (batch, *sides), "encode_reference")
    if len({len(parts["vector"]) for parts in entries}) > 1:
        raise ValueError(f"`{name}` must be of one batch, got several. {remedy}")


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
