"""Which files are pictures to train on, and for what reason the others are skipped."""

import warnings
from typing import BinaryIO

import PIL.Image

from .pictures import UnreadablePicture, read_upright
from .unread_form import UnreadForm


# EPS, WMF and the like are programs that draw, not pictures; nobody photographs in the rest.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# Those that PIL turns into RGB without a color profile or a guess at the range.
MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
MAX_PIXELS = 89_478_485  # where PIL begins to suspect a decompression bomb
READABLE_PIXELS = 2 * MAX_PIXELS  # where PIL refuses to read on
DOCUMENTS = ("readme", "licence", "license", "credits", "notice")  # how names of files begin that belong to any folder
MAX_SKIPPED_SHARE = 0.1  # of the files of a split, unless --max_skipped_share says otherwise


class Unusable(Exception):
    """A file that is not trained on, and why: `reason` to count by, `detail` for whoever looks for the cause."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def decode(file: BinaryIO, min_side: int, max_pixels: int = MAX_PIXELS) -> PIL.Image.Image:
    """The picture of a file: RGB, upright, what is transparent over white.

    Args:
        file: open for reading, seekable.
        min_side: least length in pixels of the shorter side.
        max_pixels: most pixels, at most `READABLE_PIXELS`; judged by the header, before anything is decoded.

    Raises:
        Unusable: empty, not an image, damaged, too small, too many pixels, color mode, animated.
    """
    if not file.read(1):
        raise Unusable("empty", "0 bytes")
    file.seek(0)
    with warnings.catch_warnings(action="ignore"):  # of PIL, about what is judged here
        PIL.Image.init()
        try:
            formats = [name for name in FORMATS if name in PIL.Image.OPEN]
            return _to_rgb(read_upright(file, lambda image: _check_header(image, min_side, max_pixels), formats))
        except (Unusable, MemoryError):
            raise
        except Exception as error:  # PIL's readers raise whatever a damaged file makes them stumble over
            cause = error.__cause__ if isinstance(error, UnreadablePicture) else error
            if isinstance(cause, MemoryError):
                raise cause from None
            raise _why(cause) from cause


def _why(error: BaseException) -> Unusable:
    if isinstance(error, PIL.UnidentifiedImageError):
        return Unusable("not an image", f"none of {', '.join(FORMATS)}")
    if isinstance(error, PIL.Image.DecompressionBombError):
        return Unusable("too many pixels", str(error))
    if isinstance(error, UnreadForm):
        return Unusable("color mode", f"{error.form} {error.obstacle}.")
    return Unusable("damaged", f"{type(error).__name__}: {error}")


def _check_header(image: PIL.Image.Image, min_side: int, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise Unusable("too many pixels", f"{width} x {height}, more than {max_pixels} in all")
    if min(width, height) < min_side:
        raise Unusable("too small", f"{width} x {height}, the shorter side less than {min_side}")
    if image.mode not in MODES:
        raise Unusable("color mode", f"{image.mode}, none of {', '.join(MODES)}")
    # Phones put a second picture behind the photograph of a JPEG (format MPO); the photograph is the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise Unusable("animated", f"a {image.format} of several pictures")


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image).convert("RGB")
