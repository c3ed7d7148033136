"""One file of a data set: whether training can use it, and what a report says of it."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import PIL.Image

from mg_diffusion.decoding import Unusable, decode
from mg_diffusion.pictures import read_upright, upright_size

from .faces import FaceDetector
from .fingerprints import Fingerprint, fingerprint


# Those that the imagefolder loader of `datasets` reads, as far as training takes their formats.
SUFFIXES = tuple(
    ".apng .bmp .gif .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf .jpg .jpx .pbm .pgm .png .pnm .ppm .tif .tiff .webp".split()
)
MIN_SIDE = 32  # pixels; half of the resolution of the embedded default, as training has it
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
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would wait for what comes through it
        return "not a file: no regular one"
    try:
        with open(path, "rb") as file:
            decode(file, MIN_SIDE)
    except Unusable as error:
        return f"{error.reason}: {error.detail}"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    return None


def mode_of(image: PIL.Image.Image) -> str:
    """What a user knows the mode as: RGB, gray, alpha, palette, or Pillow's own name."""
    if "A" in image.getbands() or "transparency" in image.info:
        return "alpha"
    return {"L": "gray", "1": "gray", "P": "palette"}.get(image.mode, image.mode)


def look(path: str, detector: FaceDetector | None = None) -> Picture:
    """Read what a report needs of a file for which `why_skipped` finds no reason."""
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    header = {}

    def note(image: PIL.Image.Image) -> None:
        header.update(mode=mode_of(image), size=upright_size(image))
        image.draft("RGB", DRAFT)

    image = read_upright(path, note).convert("RGB")
    faces = None if detector is None else detector.count(image)
    return Picture(**header, sha256=digest, fingerprint=fingerprint(image), faces=faces)
