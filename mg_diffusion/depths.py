"""Pictures of more bits than Pillow reads of them, which it does not say: told by the file, with the way to read it."""

import numpy as np
import PIL.Image

from ..pictures import UnreadForm, has_alpha


PLANES = 2  # of TIFF's PlanarConfiguration: one color after the other
SEARCHED = 1 << 20  # bytes of a JPEG 2000 file, in which its codestream begins
DEEP = 65535


def check_depth(image: PIL.Image.Image) -> None:
    """Raise a ValueError where Pillow would cut a picture to 8 bits, or would not know that it has 16; nothing is decoded yet.

    The way to read it that the sentence names is one for this file.
    """
    if image.mode == "I" and image.format == "PPM":
        raise UnreadForm(
            "The picture is gray of 16 bits, which Pillow reads as 32.",
            "Pass `PIL.Image.fromarray(np.asarray(PIL.Image.open(path)).astype('uint16'))`.",
        )
    if image.mode.startswith(("I", "F")):  # read as they are, or refused
        return
    most = _most_stored(image)
    if most <= 255:
        return
    kind, is_clear = ("gray", False) if image.mode == "L" else ("colors", has_alpha(image))
    form = "gray" if kind == "gray" else "RGB and alpha" if is_clear else "RGB"
    shown = "L" if kind == "gray" else "RGBA" if is_clear else "RGB"
    # Pillow reads other samples of planes, and of JPEG 2000 the lightest as black.
    is_wrong = _has_planes(image) or image.format == "JPEG2000"
    eight = "(array / 257).round().astype(np.uint8)" if is_wrong else f"PIL.Image.open(path).convert('{shown}')"
    raise UnreadForm(
        f"The picture has {kind} of {most.bit_length()} bits, of which Pillow reads 8.",
        f"Read it with another library and pass an array of uint16, {form}{_reading(image, most, form)}; or, if 8 bits will do, "
        f"pass `{eight}`.",
        "It reads them wrong in files of this kind" if is_wrong else None,
    )


def without_depth(image: PIL.Image.Image) -> PIL.Image.Image:
    """A decoded picture that `check_depth` refuses, in a form that tells what white is: of gray that Pillow reads as 32 bits."""
    return PIL.Image.fromarray(np.asarray(image).astype(np.uint16)) if image.mode == "I" else image


def _most_stored(image: PIL.Image.Image) -> int:
    """The highest sample that a file may hold."""
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        return max((tile[3][1] for tile in tiles if isinstance(tile[3], tuple)), default=255)
    if image.format == "TIFF":
        return 2 ** max(image.tag_v2.get(258, (8,))) - 1  # BitsPerSample
    if image.format == "JPEG2000":
        return 2 ** _bits_of_jpeg_2000(image) - 1
    stored = str([(tile[0], tile[3]) for tile in tiles])
    return DEEP if ";16" in stored or "SGI16" in stored else 255


def _bits_of_jpeg_2000(image: PIL.Image.Image) -> int:
    """Of its first color, as the SIZ marker of its codestream says; 8 of a picture whose file is closed."""
    file = getattr(image, "fp", None)
    if file is None or file.closed:
        return 8
    place = file.tell()
    file.seek(0)
    head = file.read(SEARCHED)
    file.seek(place)
    found = head.find(b"\xff\x4f\xff\x51")
    sizes = head[found + 42 : found + 43]  # behind two markers, two lengths and eight sides, and the number of colors
    return 8 if found < 0 or not sizes else (sizes[0] & 0x7F) + 1


def _has_planes(image: PIL.Image.Image) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(284) == PLANES


def _reading(image: PIL.Image.Image, most: int, form: str) -> str:
    """An example of how to read a file of this kind."""
    if _has_planes(image):
        read = "np.moveaxis(tifffile.imread(path), 0, -1)"
    elif image.format in ("PNG", "TIFF", "PPM", "JPEG2000"):
        order = {"RGB": "[..., ::-1]", "RGB and alpha": "[..., [2, 1, 0, 3]]", "gray": ""}[form]
        read = f"cv2.imread(path, cv2.IMREAD_UNCHANGED){order}"
    else:
        return ""
    scaled = read if most == DEEP else f"({DEEP} / {most} * {read}).round().astype(np.uint16)"
    return f", for example `{scaled}`"
