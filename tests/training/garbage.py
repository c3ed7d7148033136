"""Folders in which most files are no pictures to train on."""

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image


SIDE = 40


def encode(image: PIL.Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(seed: int, side: int = SIDE) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8))


def png(width: int, height: int, bits: int, pixels: bytes) -> bytes:
    """A PNG of RGB as it says it is, whatever is in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_header(width: int, height: int) -> bytes:
    """One with next to nothing in it."""
    return png(width, height, 8, bytes(100))


def animation() -> bytes:
    return encode(noise(0), "GIF", save_all=True, append_images=[noise(1)])


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "a")
    return file.getvalue()


def contents(seed: int) -> dict[str, tuple[bytes, str]]:
    """Content and expected reason by name."""
    jpeg, whole = encode(noise(seed), "JPEG"), encode(noise(seed), "PNG")
    webp, deep = encode(noise(seed), "WEBP"), np.full((SIDE, SIDE), 40_000, np.uint16)
    cases = {
        "random.jpg": (np.random.default_rng(seed).bytes(999), "not an image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged"),
        "cut.png": (whole[: len(whole) // 2], "damaged"),
        "cut.webp": (webp[: len(webp) // 2], "damaged"),
        "empty.png": (b"", "empty"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "not an image"),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image"),
        "archive.jpg": (zipped(), "not an image"),
        "header.gif": (b"GIF89a", "not an image"),
        "press.jpg": (encode(noise(seed).convert("CMYK"), "JPEG"), "color mode"),
        "dot.png": (encode(noise(seed, 3), "PNG"), "too small"),
        "bomb.png": (png_header(50_000, 50_000), "too many pixels"),
        "moving.gif": (animation(), "animated"),
        "deep.png": (encode(PIL.Image.fromarray(deep), "PNG"), "color mode"),
        "program.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 40\n", "not an image"),
        "notes.txt": (b"notes", "not a picture file"),
        "broken.zip": (b"PK no archive", "not a picture file"),
    }
    return {f"{seed:02d}-{name}": case for name, case in cases.items()}


def write_garbage(folder: Path) -> dict[str, str]:
    """200 entries of 20 kinds, none of them a picture to train on; returns the reason to expect of each."""
    reasons = {}
    for seed in range(10):
        for name, (content, reason) in contents(seed).items():
            (folder / name).write_bytes(content)
            reasons[name] = reason
        (folder / f"{seed:02d}-folder.jpg").mkdir()
        (folder / f"{seed:02d}-link.jpg").symlink_to(folder / "nowhere.jpg")
        locked, reason = folder / f"{seed:02d}-locked.jpg", "unreadable"
        if os.geteuid():
            locked.write_bytes(encode(noise(seed), "JPEG"))
            locked.chmod(0)
        else:  # root may read everything
            os.mkfifo(locked)
            reason = "not a file"
        reasons |= {f"{seed:02d}-folder.jpg": "not a file", f"{seed:02d}-link.jpg": "not a file", locked.name: reason}
    return reasons


def write_good(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        noise(1000 + seed).save(folder / f"good-{seed:03d}.png")
