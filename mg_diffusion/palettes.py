"""The palette of a picture as hex colors, to be edited and handed back as a color reference."""

from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image

from .arrays import whole_number


if TYPE_CHECKING:
    from . import MGEncoder


def extract_palette(encoder: "MGEncoder", reference: Any, count: int = 5) -> list[str]:
    """The colors of a reference with their shares in percent, `["#c8a27c:42", ...]`, largest share first.

    Median cut (Heckbert, SIGGRAPH 1982) refined by k-means, both of Pillow, on the pixels that the encoder reads.

    Args:
        reference: as for `MGEncoder.load`: a picture, or `{"image": ..., "mask": ...}` to read a part of it.
        count: the most colors to give, 1 to 256; a picture of fewer has fewer.

    Raises:
        ValueError: for another count, or a reference that cannot be read.
    """
    most = whole_number(count)
    if most is None or not 1 <= most <= 256:
        raise ValueError(f"A palette has 1 to 256 colors, a whole number of them; got count={count!r}.")
    loaded = encoder.load(reference)
    mask = loaded["mask"][0, 0]
    chosen = mask >= 0.5 * mask.max()  # of its most: a thin mask fills no pixel of the working size
    pixels = loaded["rgb"][0].permute(1, 2, 0)[chosen]
    return reduced_palette((pixels.cpu().numpy() * 255).round().astype(np.uint8), most)


def reduced_palette(pixels: np.ndarray, count: int) -> list[str]:
    """At most `count` colors of pixels (N, 3) of 8 bits, as hex with their shares in percent, largest first."""
    reduced = PIL.Image.fromarray(pixels[None]).quantize(
        count, PIL.Image.Quantize.MEDIANCUT, kmeans=count, dither=PIL.Image.Dither.NONE
    )
    shades = np.reshape(reduced.getpalette(), (-1, 3))
    found = sorted(reduced.getcolors(), key=lambda entry: -entry[0])
    return ["#{:02x}{:02x}{:02x}:{}".format(*shades[at], max(1, round(100 * n / len(pixels)))) for n, at in found]
