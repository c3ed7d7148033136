"""The seed of each sample, from which all that training draws for it comes: noise, timestep and the like.

As the sample itself, it is a function of (seed, i) alone. So it does not matter how many processes share a batch, how
samples are grouped, or where a run was interrupted.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset


class SeededSamples(Dataset):
    """Samples of a run, each with its `seed`."""

    def __init__(self, samples: Any, seed: int):
        self.samples, self.seed = samples, seed

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        seed = np.random.default_rng([11, self.seed, index]).integers(2**63)
        return {**self.samples[index], "seed": int(seed)}


def generators_of(batch: dict[str, Any]) -> list[torch.Generator]:
    """One generator for each sample of a batch, on the CPU: devices of all kinds then see the same numbers."""
    return [torch.Generator().manual_seed(seed) for seed in batch["seed"].tolist()]


def per_sample(
    draw: Callable[[torch.Generator], torch.Tensor], generators: list[torch.Generator], device: torch.device
) -> torch.Tensor:
    """`draw(generator)` of each generator, stacked, on the device."""
    return torch.stack([draw(generator) for generator in generators]).to(device)
