"""Strength by block of the UNet, in the form of diffusers' `set_ip_adapter_scale`: what is not named is 0."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch

from ..granularities import MOST_STRENGTH


PARTS = ("down", "mid", "up")


@dataclass
class BlockScales:
    """Factors of strengths, by granularity in the order of an adapter's.

    Args:
        layers: by name of a cross-attention layer, (G,).
        down_blocks: of what is added to the down blocks, (blocks, G).
    """

    layers: dict[str, torch.Tensor]
    down_blocks: torch.Tensor


def parse_blocks(
    scale: Any, granularities: Sequence[str], layers: Sequence[dict[str, Any]], num_down_blocks: int
) -> BlockScales | None:
    """The dicts of blocks in `granularity_scale`; `None` where there are none.

    A granularity's are for example {"up": 1.0}, {"down": {"block_1": 0.5, "block_2": [0.0, 1.0]}, "mid": 1.0}: a number is of
    all that a part or a block has, a list of the transformers of a block, one by one. What is added to a down block without
    attention is named in the same way; what is added to one with some has the mean of its list.

    Args:
        layers: the adapter's `attention_layers`.

    Raises:
        ValueError: for parts, blocks and numbers of transformers that the UNet does not have, and for factors below 0.
    """
    given = {name: one for name, one in scale.items() if isinstance(one, dict)} if isinstance(scale, dict) else {}
    if not any(name in given for name in granularities):
        return None
    known = _transformers(layers)
    by_layer = {layer["name"]: torch.ones(len(granularities), dtype=torch.float32) for layer in layers}
    down_blocks = torch.ones(num_down_blocks, len(granularities), dtype=torch.float32)
    for column, name in enumerate(granularities):
        if name not in given:
            continue
        _check(name, given[name], known, num_down_blocks)
        for layer in by_layer:
            by_layer[layer][column] = _block_factor(given[name], *_place(layer))
        for block in range(num_down_blocks):
            down_blocks[block, column] = _of_block(given[name].get("down", 0.0), block)
    return BlockScales(by_layer, down_blocks)


def _place(layer: str) -> tuple[str, int, int]:
    """Part, block and transformer of the name of a layer: down_blocks.1.attentions.0.transformer_blocks.0.attn2."""
    words = layer.split(".")
    if words[0] == "mid_block":
        return "mid", 0, int(words[2])
    return words[0].removesuffix("_blocks"), int(words[1]), int(words[3])


def _transformers(layers: Sequence[dict[str, Any]]) -> dict[tuple[str, int], int]:
    """How many transformers each block has, by part and block."""
    places = {_place(layer["name"]) for layer in layers}
    return {(part, block): sum(one[:2] == (part, block) for one in places) for part, block, _ in places}


def _check(name: str, given: dict[str, Any], known: dict[tuple[str, int], int], num_down_blocks: int) -> None:
    where = f"granularity_scale[{name!r}]"
    for part, value in given.items():
        if part not in PARTS:
            raise ValueError(f"{where} names parts of the UNet, some of {PARTS}; got {part!r}.")
        if not isinstance(value, dict):
            _check_factors(f"{where}[{part!r}]", value, known.get(("mid", 0), 1) if part == "mid" else 0)
            continue
        blocks = sorted(
            {block for kind, block in known if kind == part} | set(range(num_down_blocks if part == "down" else 0))
        )
        if part == "mid":
            raise ValueError(f"{where}['mid'] is a number: there is one block in the middle. Got {value!r}.")
        for block, factors in value.items():
            if block not in {f"block_{index}" for index in blocks}:
                raise ValueError(
                    f"{where}[{part!r}] names some of {[f'block_{index}' for index in blocks]}; got {block!r}."
                )
            _check_factors(f"{where}[{part!r}][{block!r}]", factors, known.get((part, int(block[6:])), 0))


def _check_factors(where: str, value: Any, count: int) -> None:
    """A number, or a list with one for each of `count` transformers."""
    factors = value if isinstance(value, (list, tuple)) else [value]
    if isinstance(value, (list, tuple)) and len(value) != count:
        wanted = f"{count} numbers, one for each of its transformers" if count else "a single number"
        raise ValueError(f"{where} must be {wanted}; got {value!r}.")
    for one in factors:
        if isinstance(one, (bool, str)) or not isinstance(one, Real) or not 0 <= one <= MOST_STRENGTH:
            raise ValueError(
                f"{where} must be finite and at least 0 (0 is off, 1 is as trained), at most {MOST_STRENGTH:g}; got {one!r}."
            )


def _block_factor(given: dict[str, Any], part: str, block: int, transformer: int) -> float:
    value = given.get(part, 0.0)
    value = value.get(f"block_{block}", 0.0) if isinstance(value, dict) else value
    return float(value[transformer] if isinstance(value, (list, tuple)) else value)


def _of_block(down: Any, block: int) -> float:
    value = down.get(f"block_{block}", 0.0) if isinstance(down, dict) else down
    return sum(value) / len(value) if isinstance(value, (list, tuple)) else float(value)
