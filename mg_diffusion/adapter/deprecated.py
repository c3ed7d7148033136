"""Methods of `MGAdapter` by the names they had before; they warn, and go with the next version."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ..features import FeatureSet
from .conditioning import Fused, scaled
from .layers import Residuals, down_block_sizes
from .regions import join_regions, split_regions
from .variation import apply_variation, draw_variation


def _warn(old: str, new: str) -> None:
    warnings.warn(f"`MGAdapter.{old}` goes with the next version; use {new}.", FutureWarning, stacklevel=3)


class DeprecatedNames:
    """`draw`, `vary`, `condition_apart`, `at_step`, `in_regions`, `join_regions` and `add_residuals`."""

    def draw(self, features: Any, batch_size: int, generator: Any = None) -> dict[str, torch.Tensor]:
        _warn("draw", "`draw_variation`")
        return draw_variation(_one_of_each(features), batch_size, generator)

    def vary(self, features: Any, batch_size: int, generator: Any = None, drawn: Any = None) -> FeatureSet:
        _warn("vary", "`draw_variation` and `apply_variation`")
        own = _one_of_each(features)
        return apply_variation(own, batch_size, drawn or draw_variation(own, batch_size, generator))

    def condition_apart(self, unet: Any, features: Any, strengths: torch.Tensor, *args: Any, **kwargs: Any) -> tuple:
        _warn("condition_apart", "`assemble_conditioning`")
        conditioning = self.assemble_conditioning(unet, features, strengths, *args, is_settled=True, **kwargs)
        (fused,) = conditioning.fused.values()
        return fused.attention, fused.residuals

    def at_step(self, folded: Any, apart: Any, factors: torch.Tensor) -> tuple:
        _warn("at_step", "`Conditioning.at_step`")
        return scaled(Fused(folded, apart), self.config.granularities, self.config.num_tokens, factors)

    def in_regions(self, features: Any) -> tuple:
        _warn("in_regions", "`assemble_conditioning`, which sees to regions")
        return split_regions(features)

    def join_regions(self, fused: Sequence[tuple], shares: Any, latent_size: tuple[int, int]) -> tuple:
        _warn("join_regions", "`assemble_conditioning`, which sees to regions")
        sizes = down_block_sizes(self.config.block_strides, *latent_size)
        joined = join_regions([Fused(*one) for one in fused], shares, self.config.attention_layers, sizes)
        return joined.attention, joined.residuals

    @staticmethod
    def add_residuals(apart: dict[tuple[str, ...], Residuals]) -> Residuals | None:
        _warn("add_residuals", "`Conditioning.at_step`")
        return Fused({}, apart).total()


def _one_of_each(features: Any) -> FeatureSet:
    return {name: parts[0] if isinstance(parts, list) else parts for name, parts in features.items()}
