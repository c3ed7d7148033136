"""What training draws for a sample: noise, timestep and the like, a function of (seed, i) alone as the sample is.

So it does not matter how many processes share a batch, how samples are grouped, or where a run was interrupted.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


def seed_of(seed: int, index: int) -> int:
    """The seed of all that is drawn for sample `index` of a run."""
    return int(np.random.default_rng([11, seed, index]).integers(2**63))


class Drawn(Dataset):
    """Samples of a run with `draw`, the seed of what is drawn for each."""

    def __init__(self, samples: Any, seed: int):
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.samples[index], "draw": seed_of(self.seed, index)}


def generators_of(batch: dict[str, Any]) -> list[torch.Generator]:
    """One generator for each sample of a batch, on the CPU: devices of all kinds then see the same numbers."""
    return [torch.Generator().manual_seed(seed) for seed in batch["draw"].tolist()]


def draw_each(draw: Any, generators: list[torch.Generator], device: torch.device) -> torch.Tensor:
    """`draw(generator)` of each generator, stacked, on the device."""
    return torch.stack([draw(generator) for generator in generators]).to(device)
