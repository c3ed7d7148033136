"""Edits of whole photographs by the detail network: less noise, sharper, larger.

All take a `callback`, called with the share that is done, in [0, 1]; what it raises stops the work.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image

from ..arrays import whole_number
from ..noise_level import MOST_NOISE, estimate_noise, has_blocks
from ..sizes import check_pixels
from .inputs import (
    Picture,
    Pictures,
    check_side,
    check_strength,
    check_unplaced,
    copies,
    generators_of,
    named,
    strength_of,
)
from .native import canvas_of, check_laid_texture, recolor
from .progress import progress
from .sources import Edited, Source, as_gray, opened


logger = logging.getLogger(__name__)

Callback = Callable[[float], None] | None
FACTORS = (2, 4)  # by which pictures are enlarged
MOST_ENLARGED = 64_000_000  # pixels of a result
SHARPER = 0.8  # deviation in pixels of the blur that `enhance` takes away at full strength
OVERSHOOT = 0.2  # of what goes beyond the pixels around: `enhance` is used on pictures that are sharp, too
NOISE_BESIDE_BLUR = (1.5, 1.0)  # times what is estimated, and more: less is sharpened as if it were detail
TRACES = 3.0  # of 255; of a picture with blocks of JPEG, less noise is traces of compression
TONE = 0.6  # how far `enhance` goes toward the colors of a reference


@named
def denoise(
    pipe: Any,
    image: Picture,
    mask_image: Any = None,
    *,
    strength: float = 1.0,
    noise_level: float | None = None,
    mask_feather: int = 0,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """The picture without noise, and with about half of the blocks of JPEG, at its own size.

    Args:
        pipe: a pipeline with a detail network (`mg_detail`); nothing else of it is used.
        mask_image: white is denoised, gray in part; if not given, all but what is wholly transparent.
        strength: how much of what was found goes; 0 is the picture, bit for bit.
        noise_level: deviation of the noise, of 255; estimated if not given. 0 is for blocks of JPEG alone, and told where
            these show and there is little noise.
        mask_feather: width in pixels of the soft edge inside the mask.
        generator: not needed, nothing is drawn; taken so that all edits are called alike.

    Raises:
        ValueError: for anything out of range, or a pipeline without a detail network.
    """
    image, unet = _checked(pipe, "denoise", image, num_images_per_prompt, generator)
    strength, noise_level, feather = check_denoise(image, strength, noise_level, mask_feather)
    area = image.area(mask_image, feather)
    made = _restored(pipe, unet, image, area, noise_level, 0.0, strength, callback)
    return copies(image.finish(made, area), num_images_per_prompt)


@named
def enhance(
    pipe: Any,
    image: Picture,
    color: Any = None,
    mask_image: Any = None,
    *,
    strength: float = 1.0,
    noise_level: float | None = None,
    mask_feather: int = 0,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """The picture without noise, sharper, and toned toward a color reference if there is one.

    Args:
        pipe: a pipeline with a detail network (`mg_detail`) and, for a color reference, an `MGEncoder`.
        color: a color reference; colors go 0.6 of the way that `recolor` goes.
        mask_image: white is enhanced, gray in part; if not given, all but what is wholly transparent.
        strength: of all of it; 0 is the picture, bit for bit.
        noise_level: as of `denoise`. Where it is not given, blocks of JPEG go first.
        mask_feather: as of `denoise`.
        generator: not needed, nothing is drawn; taken so that all edits are called alike.

    Raises:
        ValueError: for anything out of range, or a pipeline without a detail network.
    """
    source, unet = _checked(pipe, "enhance", image, num_images_per_prompt, generator)
    strength, noise_level, feather = check_enhance(source, color, strength, noise_level, mask_feather)
    area = source.area(mask_image, feather)
    if color is not None:
        (toned,) = recolor(pipe, image, color, area, granularity_scale=TONE * strength)
        source = opened(toned)
    made = _restored(
        pipe, unet, source, area, noise_level, SHARPER * strength, min(1.0, 2 * strength), callback, OVERSHOOT
    )
    return copies(source.finish(made, area), num_images_per_prompt)


@named
def enlarge(
    pipe: Any,
    image: Picture,
    factor: int = 2,
    texture: Any = None,
    *,
    strength: float = 1.0,
    texture_scale: float = 1.0,
    granularity_scale: Any = 0.5,
    num_images_per_prompt: int = 1,
    generator: Any = None,
    callback: Callback = None,
) -> Pictures:
    """The picture at 2 or 4 times its size, its edges sharp; its alpha is enlarged by bicubic interpolation.

    Args:
        pipe: a pipeline with a detail network (`mg_detail`) and, for a texture reference, an `MGEncoder`.
        factor: 2 or 4.
        texture: a texture reference that lends what no smaller picture has, as `retexture` does.
        strength: 0 is bicubic interpolation, 1 the network.
        texture_scale, granularity_scale: of the texture reference.
        generator: not needed, nothing is drawn; taken so that all edits are called alike.

    Raises:
        ValueError: for anything out of range, a result beyond memory, or a pipeline without a detail network.
    """
    from .. import restoring

    image, unet = _checked(pipe, "enlarge", image, num_images_per_prompt, generator)
    size, strength, weight = check_enlarge(image, factor, texture, strength, granularity_scale)
    canvas = None if texture is None else canvas_of(pipe, texture, size, texture_scale, "enlarge")
    octaves, pixels = (size[0] // image.size[0]).bit_length() - 1, image.pixels
    with progress(pipe, octaves if strength else 1, callback) as step:
        for _ in range(octaves if strength else 0):
            pixels = restoring.enlarge(unet, pixels, step)
    if strength < 1:
        plain = _bicubic(image.pixels, size)
        pixels = _between(plain, pixels, strength) if strength else plain
    alpha = None if image.alpha is None else _bicubic(image.alpha[..., None], size)[..., 0]
    enlarged = image.packed(as_gray(pixels) if image.own.shape[2] == 1 else pixels, alpha)
    if canvas is not None:
        enlarged = _retextured(opened(enlarged), canvas, weight)
    return copies(enlarged, num_images_per_prompt)


def _retextured(image: Source, canvas: Any, strength: float) -> Edited:
    """As `retexture`, all that can be seen of a picture."""
    from ..retexturing import retextured

    area = image.area(None)
    return image.finish(retextured(image.pixels, canvas, area, strength), area)


def _restored(
    pipe: Any,
    unet: Any,
    image: Source,
    area: np.ndarray | None,
    noise_level: float | None,
    blur: float,
    strength: float,
    callback: Callback,
    overshoot: float = 1.0,
) -> np.ndarray:
    """The pixels (H, W, 3) of a picture restored, by `strength` and, where it is given, by the area (H, W)."""
    from ..restoring import restore

    if strength == 0:
        return image.pixels
    pixels, estimated, has_traces = image.pixels, None, False
    if noise_level is None:
        estimated = estimate_noise(pixels, image.visible)
        has_traces = estimated < TRACES and has_blocks(pixels, image.visible)
    if has_traces:
        logger.info("blocks of JPEG show, and are cleared (`noise_level`, `--noise-level` say otherwise)")
    is_cleared = has_traces and blur > 0  # sharpened, blocks would show more than before
    with progress(pipe, 1 + is_cleared, callback) as step:
        if is_cleared:
            pixels = restore(unet, pixels, 0.0, step=step)
            estimated = estimate_noise(pixels, image.visible)
        if noise_level is None:
            noise_level = 0.0 if has_traces and not is_cleared else _level_beside(blur, estimated)
        made = restore(unet, pixels, noise_level, blur, step, overshoot)
    if area is not None:
        return _between(image.pixels, made, strength * area[..., None] / np.float32(255))
    return made if strength == 1 else _between(image.pixels, made, strength)


def _level_beside(blur: float, estimated: float) -> float:
    """The level that the network is told of noise as it is estimated."""
    logger.info("the noise is estimated at %.1f of 255 (`noise_level`, `--noise-level` say otherwise)", estimated)
    times, more = NOISE_BESIDE_BLUR if blur else (1.0, 0.0)
    return min(MOST_NOISE, times * estimated + more)


def _between(before: np.ndarray, after: np.ndarray, share: Any) -> np.ndarray:
    """Pixels, this share of the way from some to others."""
    start = before.astype(np.float32)
    return (start + np.asarray(share, np.float32) * (after - start)).round().astype(before.dtype)


def _bicubic(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels (H, W, C) at another size, (width, height); of 16 bits channel by channel, as Pillow has it."""
    if pixels.dtype == np.uint8:
        image = PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return np.asarray(image.resize(size, PIL.Image.Resampling.BICUBIC)).reshape(*size[::-1], -1)
    channels = [PIL.Image.fromarray(one.astype(np.float32)) for one in np.moveaxis(pixels, 2, 0)]
    made = np.stack([np.asarray(one.resize(size, PIL.Image.Resampling.BICUBIC)) for one in channels], 2)
    return made.round().clip(0, np.iinfo(pixels.dtype).max).astype(pixels.dtype)


def _checked(pipe: Any, name: str, image: Picture, count: int, generator: Any) -> tuple[Source, Any]:
    """The picture, opened, and the detail network, or a ValueError for what cannot be."""
    image, unet = opened(image), _detail_of(pipe, name)
    generators_of(count, generator)
    return image, unet


def check_denoise(
    image: Source,
    strength: float = 1.0,
    noise_level: float | None = None,
    mask_feather: int = 0,
    name: str = "denoise",
) -> tuple[float, float | None, int]:
    """Strength, level of noise (none: it is to be estimated) and feather, or a ValueError for what this edit refuses.

    Whatever the pipeline is.
    """
    check_side(image, name)
    level = None if noise_level is None else check_strength(noise_level, "`noise_level`", MOST_NOISE)
    return check_strength(strength, "`strength`"), level, check_pixels(mask_feather, "mask_feather")


def check_enhance(
    image: Source,
    color: Any = None,
    strength: float = 1.0,
    noise_level: float | None = None,
    mask_feather: int = 0,
) -> tuple[float, float | None, int]:
    """The same."""
    if color is not None:
        image.check_colors("enhance")
        check_unplaced(color, "`enhance` tones all that is edited")
    return check_denoise(image, strength, noise_level, mask_feather, "enhance")


def check_enlarge(
    image: Source, factor: int = 2, texture: Any = None, strength: float = 1.0, granularity_scale: Any = 0.5
) -> tuple[tuple[int, int], float, float]:
    """(width, height) of the result, strength, and that of texture; or such a ValueError."""
    if texture is not None:
        check_laid_texture(texture, "enlarge")
    strength, _, _ = check_denoise(image, strength, name="enlarge")
    times = whole_number(factor)
    if times not in FACTORS:
        raise ValueError(f"`factor` must be {' or '.join(map(str, FACTORS))}, got {factor!r}.")
    size = (times * image.size[0], times * image.size[1])
    if size[0] * size[1] > MOST_ENLARGED:
        raise ValueError(
            f"{times} times the size is {size[0]} x {size[1]}, and more than {MOST_ENLARGED:,} pixels do not fit into "
            f"memory with what they need. Enlarge by less, or crop the picture."
        )
    return size, strength, strength_of("texture", granularity_scale)


def _detail_of(pipe: Any, name: str) -> Any:
    if getattr(pipe, "mg_detail", None) is None:
        raise ValueError(
            f"`{name}` needs a detail network; this pipeline has no `mg_detail`. The model that comes with the package has."
        )
    return pipe.mg_detail
