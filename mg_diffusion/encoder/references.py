"""The forms of a reference beside pictures: palettes, weights, regions."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..hex_colors import is_palette, read_palette
from ..reference_pictures import Box, check_fields, check_seen, read_place, read_weight
from .reading import read_cut_out, read_mask


def parse_palette(palette: str | Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """`["#ff8800:3", "#224466"]` -> RGB (N, 3) in [0, 1] and weights (N,) that sum to 1.

    Raises:
        ValueError: for an entry that is not `#rrggbb` or `#rrggbb:weight` with a positive weight.
    """
    colors, weights = read_palette(palette)
    weights = torch.tensor(weights, dtype=torch.float32)
    return torch.tensor(colors, dtype=torch.float32), weights / weights.sum()


def read_reference(reference: Any) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Picture (1, 3, H, W) in [0, 1], mask (1, 1, H, W) of zeros and ones, and weight of a reference.

    Args:
        reference: what `read_image` takes, or `{"image": ..., "mask": ..., "weight": ..., "region": ..., "scale": ...}`.
            Of a picture with transparent parts only what can be seen is read, in the mask if there is one.
    """
    fields = reference if isinstance(reference, dict) else {"image": reference}
    check_fields(fields)
    weight = read_weight(fields)
    rgb, visible = read_cut_out(fields["image"])
    mask = fields.get("mask")
    mask = torch.ones_like(rgb[:1]) if mask is None else read_mask(mask, *rgb.shape[1:])
    if visible is not None:
        mask = mask * visible
        check_seen(mask)
    return rgb[None], mask[None], weight


def read_region(region: Any, size: tuple[int, int]) -> torch.Tensor:
    """Where in the output a reference counts, and how much: (1, 1, *size) in [0, 1].

    Args:
        region: a box (left, top, right, bottom) in fractions of the output, or a mask of any size, laid over the
            output: PIL image, path, or array of numpy or torch, (H, W) or with 1, 3 or 4 channels that are the
            same; bool, floating point in [0, 1], or integers up to 1, 255 or, of 16 bits, 65535. What is gray counts in part.
        size: (height, width).

    Raises:
        ValueError: for another type, other values, or a region without any area.
    """
    place = read_place(region)
    mask = box_mask(place, size) if isinstance(place, tuple) else torch.from_numpy(place)
    return F.interpolate(mask[None, None], size=size, mode="area")


def box_mask(box: Box, size: tuple[int, int]) -> torch.Tensor:
    """A box in fractions as a mask of `size`; pixels that it cuts count in part."""
    left, top, right, bottom = box
    down, across = (
        (end * side - torch.arange(side, dtype=torch.float32)).clamp(0, 1)
        - (start * side - torch.arange(side, dtype=torch.float32)).clamp(0, 1)
        for start, end, side in ((top, bottom, size[0]), (left, right, size[1]))
    )
    return down[:, None] * across


def lay_into(x: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """A map (1, C, h, w), resized to the bounding box of a region (1, 1, H, W) and zero around it: (1, C, H, W)."""
    rows, columns = (region[0, 0].amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    size = (bottom - top, right - left)
    laid = F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    height, width = region.shape[2:]
    return F.pad(laid, (left, width - right, top, height - bottom))


def sort_by_sample(name: str, reference: Any, batch_size: int) -> list[list[Any]]:
    """Normalise the accepted forms to one list of references per row of the features of a granularity.

    Raises:
        ValueError: for an empty list, or a wrong number of lists.
    """
    if not isinstance(reference, (list, tuple)) or is_palette(reference):
        return [[reference]]
    if len(reference) == 0:
        raise ValueError(f"The list of {name} references is empty. Leave the granularity out instead.")
    nested = [isinstance(entry, (list, tuple)) and not is_palette(entry) for entry in reference]
    if not any(nested):
        return [list(reference)]
    if not all(nested) or len(reference) != batch_size or not all(len(entry) for entry in reference):
        raise ValueError(
            f"{name} references given as a list of lists need one non-empty list for each of the {batch_size} "
            f"prompts, got {len(reference)} entries of which {sum(nested)} are lists."
        )
    return [list(entry) for entry in reference]


def merge(
    encoded: Sequence[tuple[dict[str, torch.Tensor], float, torch.Tensor | None]], shared_out: Sequence[str]
) -> list[dict[str, torch.Tensor]]:
    """The average of what one sample has for the whole picture, or one entry for each of its regions.

    Args:
        encoded: features, weight and region (1, 1, H, W) of each reference; `shared_out`: see `Branch`.
    """
    rest = [(parts, weight) for parts, weight, region in encoded if region is None]
    if len(rest) == len(encoded):
        return [average(rest, shared_out)]
    regional = [one for one in encoded if one[2] is not None]
    parts = [parts for parts, _, _ in regional]
    covered = sum(region for _, _, region in regional)
    # Where regions overlap they share the place out by weight.
    weighted = [weight * region for _, weight, region in regional]
    total = sum(weighted).clamp(min=1e-8)
    shares = [one / total * covered.clamp(max=1) for one in weighted]
    if rest:
        parts, shares = [*parts, average(rest, shared_out)], [*shares, (1 - covered).clamp(min=0)]
    return [{**part, "region": share.to(part["vector"].device)} for part, share in zip(parts, shares, strict=True)]


def average(
    encoded: Sequence[tuple[dict[str, torch.Tensor], float]], shared_out: Sequence[str]
) -> dict[str, torch.Tensor]:
    """Weighted mean of the features of several references; those `shared_out` are shared out by weight."""
    if len(encoded) == 1:
        return encoded[0][0]
    total = sum(weight for _, weight in encoded)
    merged = {}
    for key in encoded[0][0]:
        values, weights = [features[key] for features, _ in encoded], [weight / total for _, weight in encoded]
        if key in shared_out:
            merged[key] = share_out(cropped_alike(values), weights)
        else:
            merged[key] = sum(value * weight for value, weight in zip(values, weights, strict=True))
    return merged


def cropped_alike(values: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tiles (B, K, p, p) of several sizes, the middle of the larger ones; all else as it is."""
    if values[0].ndim != 4 or len({one.shape[3] for one in values}) == 1:
        return values
    size = min(one.shape[3] for one in values)
    starts = [(one.shape[3] - size) // 2 for one in values]
    return [one[..., start : start + size, start : start + size] for one, start in zip(values, starts, strict=True)]


def share_out(values: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Fill the places of (1, K, ...) from several such tensors, each its share: a mean of tiles would be a blur."""
    count = values[0].shape[1]
    reached = torch.tensor(weights, dtype=torch.float32).cumsum(0) * count
    owner = torch.searchsorted(reached, torch.arange(count, dtype=torch.float32) + 0.5).clamp(max=len(values) - 1)
    return torch.stack(values)[owner, :, torch.arange(count)].transpose(0, 1)
