"""Pictures of more bits than Pillow reads of them, which it does not say: told by the file, and read right or refused."""

import numpy as np
import PIL.Image

from .unread_form import UnreadForm


PLANES, RAW = 2, 1  # of TIFF's PlanarConfiguration, one color after the other, and of its Compression
WHITE_IS_ZERO = 0  # of TIFF's PhotometricInterpretation
SEARCHED = 1 << 20  # bytes of a file, in which stands how deep it is
DEEP = 65535


def check_read(image: PIL.Image.Image) -> None:
    """Raise a ValueError where Pillow would read another picture than the file holds; nothing is decoded yet.

    The way to read it that the sentence names is one for this file. What has been decoded already is not always known.
    """
    if _is_cut(image) and _is_wrong(image):
        raise _unread(
            image,
            f"Read it with another library{_reading(image)}, as an array of uint16, and pass "
            f"`PIL.Image.fromarray((array / 257).round().astype(np.uint8))`.",
        )


def check_depth(image: PIL.Image.Image) -> None:
    """As `check_read`, and where Pillow would cut a picture to 8 bits, for who reads arrays of 16."""
    if not _is_cut(image):
        return
    eight = "(array / 257).round().astype(np.uint8)"
    if not _is_wrong(image):
        # Only after that package was told to does Pillow open these files.
        opened = "pillow_heif.open_heif(path).to_pillow()" if image.format == "HEIF" else "PIL.Image.open(path)"
        eight = f"{opened}.convert('{'L' if image.mode == 'L' else 'RGBA' if image.has_transparency_data else 'RGB'}')"
    raise _unread(
        image,
        f"Read it with another library and pass an array of uint16, {_form(image)}{_reading(image)}; or, if 8 bits will do, "
        f"pass `{eight}`.",
    )


def as_meant(image: PIL.Image.Image) -> PIL.Image.Image:
    """A picture that somebody else opened, as its file means it, or the ValueError of `check_read`."""
    check_read(image)
    return with_known_white(image, image)


def with_known_white(image: PIL.Image.Image, opened: PIL.Image.Image) -> PIL.Image.Image:
    """A decoded picture whose gray of 16 bits is that of its file; Pillow gives some as 32 bits, of 12 bits, or inverted.

    Args:
        opened: the picture as Pillow opened it, which it forgets when it is turned.
    """
    is_inverted, most = False, DEEP
    if opened.format == "TIFF" and image.mode.startswith("I;16"):
        is_inverted, most = opened.tag_v2.get(262) == WHITE_IS_ZERO, _most_stored(opened)
    if (is_inverted, most) == (False, DEEP) and not (image.mode == "I" and opened.format == "PPM"):
        return image
    levels = np.asarray(image).astype(np.float32) * (DEEP / most)
    levels = DEEP - levels if is_inverted else levels
    made = PIL.Image.fromarray(levels.round().astype(np.uint16))
    made.info = image.info
    return made


def _is_cut(image: PIL.Image.Image) -> bool:
    """Whether Pillow reads less of it; other modes than those of 8 bits are read as they are, or refused."""
    return not image.mode.startswith(("I", "F")) and _most_stored(image) > 255


def _is_wrong(image: PIL.Image.Image) -> bool:
    """Whether what Pillow reads of a deep picture is not even the upper bits: of JPEG 2000, it reads the lightest as black."""
    is_raw = image.format == "TIFF" and image.tag_v2.get(259, RAW) == RAW
    return image.format == "JPEG2000" or is_raw and _has_planes(image)


def _has_planes(image: PIL.Image.Image) -> bool:
    return image.format == "TIFF" and image.tag_v2.get(284) == PLANES


def _most_stored(image: PIL.Image.Image) -> int:
    """The highest sample that a file may hold."""
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":
        return max((tile[3][1] for tile in tiles if isinstance(tile[3], tuple)), default=255)
    if image.format == "TIFF":
        return 2 ** max(image.tag_v2.get(258, (8,))) - 1  # BitsPerSample
    if image.format == "HEIF":
        return 2 ** image.info.get("bit_depth", 8) - 1
    if image.format == "JPEG2000":
        # Of its first color in the SIZ marker: behind two markers, two lengths and eight sides, and the number of colors.
        return 2 ** ((_stored(image, b"\xff\x4f\xff\x51", 42, otherwise=7) & 0x7F) + 1) - 1
    if image.format == "AVIF":
        flags = _stored(image, b"av1C", 6, otherwise=0)  # of its codec: high bit depth, and twelve bits
        return 2 ** (12 if flags & 0x20 else 10 if flags & 0x40 else 8) - 1
    stored = str([(tile[0], tile[3]) for tile in tiles])
    return DEEP if ";16" in stored or "SGI16" in stored else 255


def _stored(image: PIL.Image.Image, marker: bytes, behind: int, otherwise: int) -> int:
    """The byte so far behind the beginning of a marker; `otherwise` where there is none, or the file is closed."""
    file = getattr(image, "fp", None)
    if file is None or file.closed:
        return otherwise
    place = file.tell()
    file.seek(0)
    head = file.read(SEARCHED)
    file.seek(place)
    found = head.find(marker)
    return head[found + behind] if 0 <= found < len(head) - behind else otherwise


def _unread(image: PIL.Image.Image, remedy: str) -> UnreadForm:
    kind = "gray" if image.mode == "L" else "colors"
    form = f"The picture has {kind} of {_most_stored(image).bit_length()} bits, of which Pillow reads 8."
    return UnreadForm(form, remedy, "It reads them wrong in files of this kind" if _is_wrong(image) else None)


def _form(image: PIL.Image.Image) -> str:
    return "gray" if image.mode == "L" else "RGB and alpha" if image.has_transparency_data else "RGB"


def _reading(image: PIL.Image.Image) -> str:
    """An example of how to read a file of this kind."""
    most = _most_stored(image)
    if image.format == "HEIF":
        read = "np.asarray(pillow_heif.open_heif(path, convert_hdr_to_8bit=False))"
        most *= 2 ** (16 - most.bit_length())  # which it shifts up
    elif _has_planes(image):
        read = "np.moveaxis(tifffile.imread(path), 0, -1)"
    elif image.format in ("PNG", "TIFF", "PPM", "JPEG2000", "AVIF"):
        order = {"RGB": "[..., ::-1]", "RGB and alpha": "[..., [2, 1, 0, 3]]", "gray": ""}[_form(image)]
        read = f"cv2.imread(path, cv2.IMREAD_UNCHANGED){order}"
    else:
        return ""
    scaled = read if most == DEEP else f"({DEEP} / {most} * {read}).round().astype(np.uint16)"
    return f", for example `{scaled}`"
