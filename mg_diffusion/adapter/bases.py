"""Which base an adapter, or a UNet, belongs to, in words: a wrong pair is told by its names, not by its numbers alone."""

from collections.abc import Sequence
from typing import Any


def base_in_words(layers: Sequence[dict[str, Any]], blocks: Sequence[int], cross_attention_dim: Any = None) -> str:
    """The base, as far as its form tells, and that form.

    Args:
        layers: cross-attention layers as of `attention_layers_of`; blocks: channels of the down blocks.
        cross_attention_dim: of a UNet; an adapter brings tokens of its own and does not know it.
    """
    width = "" if cross_attention_dim is None else f"cross_attention_dim {cross_attention_dim}, "
    form = f"{width}{len(layers)} cross-attention layers, down blocks {tuple(blocks)}"
    name = _name_of(layers, tuple(blocks))
    return f"{name} ({form})" if name else f"a UNet of {form}"


def _name_of(layers: Sequence[dict[str, Any]], blocks: tuple[int, ...]) -> str | None:
    if (len(layers), blocks) == (70, (320, 640, 1280)):
        return "Stable Diffusion XL"
    if (len(layers), blocks) == (16, (320, 640, 1280, 1280)):
        return "Stable Diffusion 1" if {layer["heads"] for layer in layers} == {8} else "Stable Diffusion 2"
    return None


def first_difference(expected: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> str:
    """Where as many layers differ first, in words; nothing where they are the same, or not as many."""
    if len(expected) != len(found):
        return ""
    for one, other in zip(expected, found, strict=True):
        for key in one:
            if one[key] != other.get(key):
                return f"; the first difference is {key} of {one['name']}, {one[key]} against {other.get(key)}"
    return ""
