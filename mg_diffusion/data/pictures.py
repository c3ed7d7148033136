"""One file of a data set: whether training can use it, and what a report says of it."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import PIL.ImageOps

from .faces import FaceDetector
from .fingerprints import Fingerprint, fingerprint


SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
MIN_SIDE = 16  # pixels
MAX_PIXELS = 2 * PIL.Image.MAX_IMAGE_PIXELS  # beyond it Pillow refuses the file as a decompression bomb
DRAFT = (256, 256)  # JPEG files are decoded at the least size above it: all that fingerprints and detectors look at


@dataclass(frozen=True)
class Picture:
    """`size` is width and height as the picture is seen, `sha256` that of the file, `faces` `None` if not looked for."""

    size: tuple[int, int]
    mode: str
    sha256: str
    fingerprint: Fingerprint
    faces: int | None


def why_skipped(path: str) -> str | None:
    """Why training cannot use a file; `None` if it can."""
    try:
        with PIL.Image.open(path) as image:
            if image.mode == "CMYK":
                return "CMYK: its colors depend on an ink profile; convert it to RGB"
            if min(image.size) < MIN_SIDE:
                return f"tiny: {image.width} x {image.height}, the shorter side has less than {MIN_SIDE} pixels"
            image.load()
    except PIL.Image.DecompressionBombError:
        return f"huge: more than {MAX_PIXELS / 1e6:.0f} million pixels"
    except PIL.UnidentifiedImageError:
        return "not a picture, whatever its name says"
    except Exception as error:  # decoders of damaged files raise errors of any type
        return f"damaged: {error}"
    return None


def mode_of(image: PIL.Image.Image) -> str:
    """What a user knows the mode as: RGB, gray, alpha, 16 bit, CMYK, palette, or Pillow's own name."""
    if image.mode.startswith(("I", "F")):
        return "16 bit"
    if "A" in image.getbands() or "transparency" in image.info:
        return "alpha"
    return {"L": "gray", "1": "gray", "P": "palette"}.get(image.mode, image.mode)


def look(path: str, detector: FaceDetector | None = None) -> Picture:
    """Read what a report needs of a file for which `why_skipped` finds no reason."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    with PIL.Image.open(path) as image:
        mode, size = mode_of(image), image.size
        if image.getexif().get(0x0112, 1) >= 5:  # Orientation: the sensor lay on its side
            size = size[::-1]
        image.draft("RGB", DRAFT)
        image = PIL.ImageOps.exif_transpose(image)
        # Pillow clips 16 bits at 255; what is compared is the layout, so the high byte serves.
        image = image.convert("I").point(lambda value: value * (1 / 256)) if image.mode.startswith("I") else image
        image = image.convert("RGB")
    return Picture(size, mode, digest, fingerprint(image), None if detector is None else detector.count(image))
