"""Granularity cards: what one granularity of a reference is to an encoder, in a file without the picture."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from .reading import read_image
from .references import is_palette


CARD = ".safetensors"  # ending of granularity cards, see `MGEncoder.save_card`
CARD_FORMAT = "mg_diffusion granularity card 1"


def is_card(image: Any) -> bool:
    """Whether a reference is the path of a granularity card, by its ending."""
    return isinstance(image, (str, os.PathLike)) and os.fspath(image).lower().endswith(CARD)


def read_card(path: str | os.PathLike) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata ("granularity", "encoder", "source") and tensors of a granularity card.

    Raises:
        ValueError: if there is no such file, or it is no card.
    """
    name = repr(os.fspath(path))
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"There is no readable granularity card at {name}: {error}.") from error
    if metadata.get("format") != CARD_FORMAT:
        raise ValueError(f"{name} is no granularity card. `MGEncoder.save_card` or `mg-diffusion encode` writes them.")
    return metadata, tensors


def hash_of(reference: Any) -> str:
    """SHA-256 of a reference: of a file its bytes, of anything else its pixels or colors."""
    image = reference["image"] if isinstance(reference, dict) else reference
    if isinstance(image, (str, os.PathLike)):
        content = Path(image).read_bytes()
    else:
        content = repr(list(image)).encode() if is_palette(image) else read_image(image).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()
