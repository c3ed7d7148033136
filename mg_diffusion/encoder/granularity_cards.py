"""Granularity cards: what one granularity of a reference is to an encoder, in a file without the picture."""

import hashlib
import math
import os
import uuid
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..arrays import holds_numbers
from ..hex_colors import entries_of, is_palette
from ..reference_pictures import CARD, check_fields
from ..sizes import MOST_CARD_SIDE
from .reading import read_cut_out
from .texture import LAYOUT_SIDE, TILE


CARD_FORMAT = "mg_diffusion granularity card 1"
CARD_TYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_IN_CARD = 1e4  # of any number in one; far more than views of pictures give
OLDER_LACK = ("light", "layout_shading", "layout_light")  # what a card may do without


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
    if metadata.get("format") != CARD_FORMAT or not {"granularity", "encoder", "source"} <= set(metadata):
        raise ValueError(f"{name} is no granularity card. `MGEncoder.save_card` or `mg-diffusion encode` writes them.")
    return metadata, tensors


def write_card(path: Path, kept: dict[str, torch.Tensor], granularity: str, encoder: str, source: str) -> None:
    """Write what `read_card` returns, in one step.

    Args:
        encoder: fingerprint of the branch; source: SHA-256 of the reference.
    """
    metadata = {"format": CARD_FORMAT, "granularity": granularity, "encoder": encoder, "source": source}
    part = path.with_name(f".{uuid.uuid4().hex}.part")  # a name as long as its own might be too long
    try:
        # By Python, whose errors of a full disk are an OSError as of any other file.
        part.write_bytes(save({key: value.cpu().contiguous() for key, value in kept.items()}, metadata))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def check_held(tensors: dict[str, torch.Tensor], shapes: dict[str, tuple[int | str, ...]], what: str) -> None:
    """Raise a ValueError unless a granularity card holds what an encoder keeps, and nothing else.

    Args:
        shapes: of its tensors, see `Branch.card_shapes`; what: it is, for messages.
    """
    remedy = "Make it anew from its picture."
    has_layout = any(key.startswith("layout_") for key in tensors)
    for key, shape in shapes.items():
        if key not in tensors:
            if key in OLDER_LACK or key.startswith("layout_") and not has_layout:
                continue
            raise ValueError(f"{what} does not hold what a card of this model holds: `{key}` is missing. {remedy}")
        value = tensors[key]
        fits = value.ndim == len(shape) and all(
            side > 0 if isinstance(one, str) else side == one for side, one in zip(value.shape, shape, strict=True)
        )
        if not fits or value.dtype not in CARD_TYPES:
            raise ValueError(
                f"{what} does not hold what a card of this model holds: `{key}` must be ({', '.join(map(str, shape))}), floating "
                f"point of 16 or 32 bits, and is {tuple(value.shape)}, {value.dtype}. {remedy}"
            )
        if not holds_numbers(value) or value.float().abs().max() > MOST_IN_CARD:
            raise ValueError(f"{what} holds numbers that no picture gives, in `{key}`. {remedy}")
    if more := sorted(set(tensors) - set(shapes)):
        raise ValueError(f"{what} holds more than a card of this model holds: {more[0]!r:.40}. {remedy}")


def open_card(
    fields: dict[str, Any], name: str, encoder: str, shapes: dict[str, tuple[int | str, ...]], is_layout: bool = False
) -> dict[str, torch.Tensor]:
    """The tensors of the card that a reference names: those of the base, or those that a larger picture is laid of.

    Raises:
        ValueError: if there is none, it is not of the granularity `name`, not made by the encoder of this fingerprint, or does
            not hold what such a card does, of these `shapes`.
    """
    check_fields(fields)
    path = os.fspath(fields["image"])
    metadata, tensors = read_card(path)
    if metadata["granularity"] != name:
        raise ValueError(
            f"{path!r} is a {metadata['granularity']} card; it cannot lend its {name}. Give it as "
            f"{metadata['granularity']}, or make a {name} card of its picture."
        )
    if metadata["encoder"] != encoder:
        raise ValueError(
            f"The card {path!r} was made by another encoder, whose numbers mean something else to this one. Make "
            f"it anew from its picture (SHA-256 {metadata['source'][:12]}...) with `mg-diffusion encode`."
        )
    check_held(tensors, shapes, f"The card {path!r}")
    return {key: value for key, value in tensors.items() if key.startswith("layout_") == is_layout}


def served_side(laid: dict[str, torch.Tensor]) -> int:
    """Side of a square with the area of the largest picture that a card serves, by what it holds to be laid out."""
    if "layout_tiles" in laid:
        return (
            LAYOUT_SIDE * laid["layout_tiles"].shape[3] // TILE
        )  # as of `tile_size`, which has one for each side of a card
    return laid["layout_structure"].shape[3]


def refusal_of_size(path: str, name: str, served: int, size: tuple[int, int], scale: float) -> str:
    """What to say where a card serves less than a picture of `size`, (height, width), needs at this scale of textures."""
    needed = math.ceil(math.sqrt(size[0] * size[1]) * scale)
    coarser = f", its texture {scale:g} times as coarse" if scale != 1 else ""
    remedy = (
        f"Make a card that does from its picture (`mg-diffusion encode PICTURE -g {name} --size {needed} -o FILE{CARD}`, or "
        f"`save_card(..., side={needed})`), give"
        if needed <= MOST_CARD_SIDE
        else f"No card serves more than {MOST_CARD_SIDE} x {MOST_CARD_SIDE}: give"
    )
    return (
        f"The {name} card {path!r} serves pictures of up to {served} x {served} pixels or of that area. This one is to have "
        f"{size[1]} x {size[0]}{coarser}, which takes a card of {needed} x {needed}. {remedy} the picture itself, or ask for a "
        f"smaller picture."
    )


def hash_of(reference: Any) -> str:
    """SHA-256 of a reference: of a file its bytes, of anything else its pixels or colors."""
    image = reference["image"] if isinstance(reference, dict) else reference
    if is_palette(image):
        content = repr(entries_of(image)).encode()
    elif isinstance(image, (str, os.PathLike)):
        content = Path(image).read_bytes()
    else:
        content = read_cut_out(image)[0].numpy().tobytes()
    return hashlib.sha256(content).hexdigest()
