"""What references add to a UNet: made once for all steps of a call, asked for step by step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .attention import FoldedAttention
from .layers import Residuals
from .layout import Layout
from .strengths import joint_strength


@dataclass
class Fused:
    """One set of features, fused: what it adds to the UNet.

    Args:
        attention: folded keys and values by layer, for `cross_attention_kwargs={"ip_hidden_states": ...}`.
        residuals: of the down blocks, by the granularities they come from.
    """

    attention: FoldedAttention
    residuals: dict[tuple[str, ...], Residuals]

    def total(self) -> Residuals | None:
        """The sum of the residuals, block by block; `None` where there are none."""
        return [sum(block) for block in zip(*self.residuals.values(), strict=True)] or None


@dataclass
class Conditioning:
    """What the UNet gets beside the text, from `MGAdapter.assemble_conditioning`; rows as in its input.

    Args:
        granularities: in the order of strengths and factors.
        num_tokens: tokens of each granularity.
        fused: by which granularities are on: what a factor of 0 takes out has no part in the fusion either.
        factors: (steps, G) of the strengths; `None` where these stay as they are.
        layout: of the larger picture that octaves make of what the UNet paints, if there is one; start: the same with the
            strengths of the first step, for a composed start.
    """

    granularities: Sequence[str]
    num_tokens: int
    fused: dict[tuple[bool, ...], Fused]
    factors: torch.Tensor | None = None
    layout: Layout | None = None
    start: Layout | None = None

    def __post_init__(self) -> None:
        self._constant = None
        if self.factors is None:
            (only,) = self.fused.values()
            self._constant = only.attention, only.total()
            self.fused = {}  # the residuals by where they come from are not needed again

    def at_step(self, step: int = 0) -> tuple[FoldedAttention, Residuals | None]:
        """Attention and residuals of a step. A UNet call empties the list of residuals it gets: give it a copy."""
        if self._constant is not None:
            return self._constant
        factors = self.factors[step]
        fused = self.fused[tuple((factors > 0).tolist())]
        return scaled(fused, self.granularities, self.num_tokens, factors)

    def split(self, count: int) -> list[tuple[FoldedAttention, Residuals | None]]:
        """Attention and residuals of the first step, `count` rows at a time."""
        attention, residuals = self.at_step()
        rows = len(next(iter(attention.values()))[0])
        places = [slice(start, start + count) for start in range(0, rows, count)]
        return [
            (
                {layer: tuple(part[place] for part in parts) for layer, parts in attention.items()},
                None if residuals is None else [residual[place] for residual in residuals],
            )
            for place in places
        ]


def scaled(
    fused: Fused, granularities: Sequence[str], num_tokens: int, factors: torch.Tensor
) -> tuple[FoldedAttention, Residuals | None]:
    """Attention and residuals where every strength is multiplied by its factor (G,)."""
    attention = {}
    for layer, (key, value, *shares) in fused.attention.items():
        gains = factors.to(value).repeat_interleave(num_tokens)
        gains = gains.repeat(value.shape[1] // len(gains))  # alike for all heads and regions
        attention[layer] = (key, value * gains.unsqueeze(1), *shares)
    gains = {used: float(joint_strength(factors.unsqueeze(0), granularities, used)) for used in fused.residuals}
    residuals = {used: [r * gains[used] for r in residuals] for used, residuals in fused.residuals.items()}
    return attention, Fused(attention, residuals).total()


def stack_rows(fused: Sequence[Fused], is_unconditional: bool, dtype: torch.dtype) -> Fused:
    """Several conditionings as the rows of one, behind unconditional ones of zeros, which are those of the base model.

    What one lacks and another has adds nothing to it. Residuals are brought to the `dtype` of the UNet.
    """
    parts = {used: blocks for one in fused for used, blocks in one.residuals.items()}

    def rows(tensors: list[torch.Tensor]) -> torch.Tensor:
        blank = [torch.zeros_like(tensors[-1])] if is_unconditional else []
        return torch.cat(blank + tensors)

    attention = {
        layer: tuple(rows(list(same)) for same in zip(*(one.attention[layer] for one in fused), strict=True))
        for layer in fused[-1].attention
    }
    residuals = {}
    for used, blocks in parts.items():
        given = [one.residuals.get(used) or [torch.zeros_like(block) for block in blocks] for one in fused]
        residuals[used] = [rows(list(same)).to(dtype) for same in zip(*given, strict=True)]
    return Fused(attention, residuals)
