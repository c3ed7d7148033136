"""Strengths of granularities: how much of each, for which sample, in which step."""

import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import torch

from ..granularities import MOST_STRENGTH


Curve = tuple[float, float] | list[float] | Callable[[float], float]


def parse_strengths(scale: Any, granularities: Sequence[str], batch_size: int) -> torch.Tensor:
    """`granularity_scale` to a tensor (batch_size, number of granularities).

    Args:
        scale: a float for all granularities, or {granularity: float or list of `batch_size` floats}; a granularity
            that is not named keeps 1.0, and one with a dict of blocks (see `parse_blocks`) has 1.0, or 0 where all of them are. 0 is off, 1 as trained,
            above 1 extrapolates.

    Raises:
        ValueError: for an unknown granularity, a negative or non-finite strength, a list of another length, or
            something that is not a number.
    """
    per_name = dict(scale) if isinstance(scale, dict) else dict.fromkeys(granularities, scale)
    per_name = {name: _of_blocks(value) if isinstance(value, dict) else value for name, value in per_name.items()}
    unknown = [name for name in per_name if name not in granularities]
    if unknown:
        raise ValueError(f"Unknown granularity {unknown[0]!r} in granularity_scale; known are {tuple(granularities)}.")
    columns = []
    for name in granularities:
        try:
            _refuse_booleans(per_name.get(name, 1.0))
            value = torch.as_tensor(per_name.get(name, 1.0), dtype=torch.float32).reshape(-1)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"granularity_scale[{name!r}] must be a number or a list of numbers, got {per_name[name]!r}."
            ) from error
        if value.numel() not in (1, batch_size):
            raise ValueError(
                f"granularity_scale[{name!r}] must be one number or one for each of the {batch_size} samples, got "
                f"{value.numel()} numbers."
            )
        if not ((value >= 0) & (value <= MOST_STRENGTH)).all():  # NaN is neither
            raise ValueError(
                f"granularity_scale[{name!r}] must be finite and at least 0 (0 is off, 1 is as trained), at most {MOST_STRENGTH:g}; got "
                f"{value.tolist()}."
            )
        columns.append(value.expand(batch_size))
    return torch.stack(columns, 1)


def _refuse_booleans(scale: Any) -> None:
    """Raise a TypeError for true and false, of Python, numpy or torch: torch takes them for 1 and 0."""
    entries = scale if isinstance(scale, (list, tuple)) else [scale]
    if any(isinstance(one, bool) or str(getattr(one, "dtype", "")).endswith("bool") for one in entries):
        raise TypeError("true and false are no numbers")


def _of_blocks(blocks: Any) -> float:
    """1 where any block of a granularity counts; without one it is off as a whole, in fusion and layout, too."""
    if isinstance(blocks, dict):
        return max(map(_of_blocks, blocks.values()), default=0.0)
    if isinstance(blocks, (list, tuple)):
        return max(map(_of_blocks, blocks), default=0.0)
    return 0.0 if isinstance(blocks, Real) and blocks == 0 else 1.0  # what is no number is refused by `parse_blocks`


def parse_schedule(schedule: dict[str, Curve], granularities: Sequence[str], steps: int) -> torch.Tensor:
    """`granularity_schedule` to factors of the strengths, (steps, number of granularities).

    Args:
        schedule: by granularity a window (start, end) in fractions of the run, a list of values from the first step to
            the last with straight lines between them, or a callable of the fraction, 0 at the first step and 1 at the
            last. A granularity that is not named keeps 1.

    Raises:
        ValueError: for an unknown granularity, a window that is none, or factors that are not finite and at least 0.
    """
    if not isinstance(schedule, dict) or any(name not in granularities for name in schedule):
        raise ValueError(
            f"granularity_schedule is a dict with some of the keys {tuple(granularities)}, got "
            f"{list(schedule) if isinstance(schedule, dict) else type(schedule).__name__}."
        )
    factors = torch.ones(steps, len(granularities), dtype=torch.float32)
    for name, curve in schedule.items():
        try:
            values = torch.tensor([_factor(curve, index, steps) for index in range(steps)], dtype=torch.float32)
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise ValueError(
                f"granularity_schedule[{name!r}] must be a window (start, end) with 0 <= start < end <= 1, a list of "
                f"numbers, or a callable of the fraction of the run; got {curve!r} ({error})."
            ) from error
        if isinstance(curve, tuple) and not values.any():
            raise ValueError(
                f"granularity_schedule[{name!r}]: no step of {steps} lies as a whole in the window {curve}. Widen it, "
                f"or run more steps."
            )
        if not ((values >= 0) & (values <= MOST_STRENGTH)).all():
            raise ValueError(
                f"granularity_schedule[{name!r}] must be finite and at least 0 in every step, at most {MOST_STRENGTH:g}, got {values.tolist()}."
            )
        factors[:, list(granularities).index(name)] = values
    return factors


def _factor(curve: Curve, index: int, steps: int) -> float:
    """What one curve of `parse_schedule` multiplies the strength of step `index` with."""
    fraction = index / max(steps - 1, 1)
    if callable(curve):
        return float(curve(fraction))
    if isinstance(curve, tuple):
        start, end = (float(value) for value in curve)
        if not 0 <= start < end <= 1:
            raise ValueError(f"a window from {start:g} to {end:g}")
        # A step counts if it lies in the window as a whole, as diffusers counts those of a ControlNet.
        return float(start <= index / steps and (index + 1) / steps <= end)
    place = fraction * (len(curve) - 1)
    below, above = curve[math.floor(place)], curve[math.ceil(place)]
    return float(below) + (place - math.floor(place)) * (float(above) - float(below))


def joint_strength(strengths: torch.Tensor, granularities: Sequence[str], used: Sequence[str]) -> torch.Tensor:
    """Strength (B,) of what comes from several granularities: the geometric mean, which is 0 when one of them is."""
    columns = [strengths[:, list(granularities).index(name)] for name in used]
    return torch.stack(columns).prod(0) ** (1 / len(columns))
