"""A folder like that of the embedded default, with a very small untrained model of the same classes in it."""

from pathlib import Path

import numpy as np
import PIL.Image
import torch

from mg_diffusion import MGPipeline
from mg_diffusion.training.models import build_components


SIZE = 32  # pixels


def save_tiny_repository(folder: Path) -> Path:
    torch.manual_seed(0)
    components = build_components(["a red flower", "a green apple", "knitted wool"], SIZE, [16, 32], 32)
    for parameter in components["mg_adapter"].parameters():
        if not parameter.any():  # a new adapter does nothing; here the references have to matter
            torch.nn.init.normal_(parameter, std=0.2)
    MGPipeline(**components).save_pretrained(folder)
    return folder


def draw(path: Path, seed: int, width: int = 48, height: int = 40) -> Path:
    """A picture with a ramp, a rectangle and noise, all of them by seed."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, width)[None, :, None] * rng.uniform(0, 200, 3)
    pixels = ramp + rng.normal(0, 12, (height, width, 3)) + 30
    left, top = rng.integers(2, width // 2), rng.integers(2, height // 2)
    pixels[top : top + height // 3, left : left + width // 3] = rng.uniform(0, 255, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path
