"""Labeled sheets of small pictures."""

from collections.abc import Sequence

import PIL.Image

from demo import layout


SIDE = 128


def grid(
    images: Sequence[PIL.Image.Image],
    across: str,
    columns: Sequence[float],
    down: str | None = None,
    rows: Sequence[float | None] = (None,),
) -> PIL.Image.Image:
    """Pictures, row by row, under the strengths of `across` and, in a grid, beside those of `down`."""
    margin = layout.label(f"{down} {max(rows):.2f}", 14).width + 8 if down else 0
    header = [layout.label(f"{across} {value:g}", 14, layout.INK, SIDE) for value in columns]
    parts = [layout.beside(([layout.space(margin, 1)] if down else []) + header)]
    for index, value in enumerate(rows):
        row = [layout.scaled(image, SIDE) for image in images[index * len(columns) : (index + 1) * len(columns)]]
        side = [layout.label(f"{down} {value:g}", 14, layout.INK, margin)] if down else []
        parts.append(layout.beside(side + row))
    return layout.framed(layout.below(parts), 12)
