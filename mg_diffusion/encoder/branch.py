"""What a granularity is to `MGEncoder`: one class of these, in a file of its own, named in `MGEncoder`'s table."""

from typing import Any

import torch
from torch import nn


class Branch(nn.Module):
    """A view, the CNN that reads it, and the distance that feature guidance follows down.

    Attributes:
        is_laid_out: whether features are maps over the picture to be made. Of such references the view is kept, and
            brought to the size of that picture, or into a region of it, before the CNN reads it.
        shared_out: names of features that are sets, (B, K, ...): those of several references are not averaged, each
            gives a share of its elements.
        out_features: length of the pooled "vector" that every granularity has.
    """

    is_laid_out = False
    shared_out: tuple[str, ...] = ()
    out_features: int

    @classmethod
    def from_encoder_config(cls, config: Any) -> "Branch":
        """A fresh branch with what the encoder's configuration says of it."""
        return cls()

    def view(
        self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """What of pictures (B, 3, H, W) in Lab, and smoothed, this granularity may know; mask (B, 1, H, W)."""
        raise NotImplementedError

    def features(self, view: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The "vector" (B, out_features) of views, and whatever else the adapter reads of this granularity."""
        raise NotImplementedError

    def doubt(self, features: dict[str, torch.Tensor]) -> str | None:
        """Why what was read of one reference may serve badly, as half a sentence; `None` where it will do."""
        return None

    def layout(self, lab: torch.Tensor, smooth: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        """What a canvas or a sketch at the size of the output is laid of; pictures are read at about that size."""
        return {}

    @property
    def card_shapes(self) -> dict[str, tuple[int | str, ...]]:
        """Shapes, by name, of what a granularity card keeps; a word stands for sides that depend on the picture."""
        raise NotImplementedError

    def target(self, features: dict[str, torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """What `distance` compares pictures of `size` (height, width) with."""
        raise NotImplementedError

    def distance(self, lab: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """How far pictures (B, 3, H, W) in Lab are from a target where the mask (1 or B, 1, H, W) counts: (B,)."""
        raise NotImplementedError
