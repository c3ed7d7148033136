"""Put pictures and labels together: every function takes pictures and returns a larger one."""

from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFilter
import PIL.ImageFont


PAPER, INK, FAINT = "#ffffff", "#1a1a1a", "#6b6b6b"


def scaled(image: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """A square picture at another size."""
    return image.convert("RGB").resize((side, side), PIL.Image.Resampling.LANCZOS)


def label(text: str, size: int = 16, color: str = INK, width: int | None = None) -> PIL.Image.Image:
    """A line of text; with a `width`, centered in it."""
    font = PIL.ImageFont.load_default(size=size)
    long, height = round(font.getlength(text)) + 2, round(1.4 * size)
    image = PIL.Image.new("RGB", (width or long, height), PAPER)
    x = 0 if width is None else (width - long) // 2
    PIL.ImageDraw.Draw(image).text((x, height // 2), text, fill=color, font=font, anchor="lm")
    return image


def space(width: int, height: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (width, height), PAPER)


def beside(images: Sequence[PIL.Image.Image], gap: int = 8, align: float = 0.5) -> PIL.Image.Image:
    """From left to right; `align` 0 is top, 1 is bottom."""
    height = max(image.height for image in images)
    result = space(sum(image.width for image in images) + gap * (len(images) - 1), height)
    x = 0
    for image in images:
        result.paste(image, (x, round(align * (height - image.height))))
        x += image.width + gap
    return result


def below(images: Sequence[PIL.Image.Image], gap: int = 8, align: float = 0.0) -> PIL.Image.Image:
    """From top to bottom; `align` 0 is left, 0.5 is centered."""
    width = max(image.width for image in images)
    result = space(width, sum(image.height for image in images) + gap * (len(images) - 1))
    y = 0
    for image in images:
        result.paste(image, (round(align * (width - image.width)), y))
        y += image.height + gap
    return result


def framed(image: PIL.Image.Image, margin: int) -> PIL.Image.Image:
    result = space(image.width + 2 * margin, image.height + 2 * margin)
    result.paste(image, (margin, margin))
    return result


def with_mask(image: PIL.Image.Image, mask: PIL.Image.Image) -> PIL.Image.Image:
    """A picture with its mask, of any size, outlined and hatched."""
    pixels, large = np.array(image), mask.resize(image.size, PIL.Image.Resampling.NEAREST)
    white = np.asarray(large) > 0
    y, x = np.mgrid[: image.height, : image.width]
    hatch = white & ((x + y) % 12 < 2)
    edge = white & (np.asarray(large.filter(PIL.ImageFilter.MinFilter(5))) == 0)
    pixels[white] = (0.6 * pixels[white] + 0.4 * 255).astype(np.uint8)
    pixels[hatch | edge] = 20
    return PIL.Image.fromarray(pixels)
