"""Methods of `MGAdapter` by the names they had before; they warn, and go with the next version."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch

from ..features import FeatureSet
from .conditioning import Fused, scaled
from .layers import Residuals, down_block_sizes
from .regions import join_regions
from .sets import split_regions
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
        drawn = draw_variation(own, batch_size, generator) if drawn is None else drawn
        return apply_variation(own, batch_size, drawn)

    def condition_apart(
        self, unet: Any, features: Any, strengths: torch.Tensor, latent_size: Any, fusion_scale: Any = 1.0
    ) -> tuple:
        _warn("condition_apart", "`assemble_conditioning`")
        tokens, residuals = self._fuse(_one_of_each(features), strengths, latent_size, fusion_scale)
        return self.fold(unet, tokens, strengths), residuals

    def at_step(self, folded: Any, apart: Any, factors: torch.Tensor) -> tuple:
        _warn("at_step", "`Conditioning.at_step`")
        return scaled(Fused(folded, apart), self.config.granularities, self.config.num_tokens, factors)

    def in_regions(self, features: Any) -> tuple:
        _warn("in_regions", "`assemble_conditioning`, which sees to regions")
        return split_regions({name: [one] if isinstance(one, dict) else one for name, one in features.items()})

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
