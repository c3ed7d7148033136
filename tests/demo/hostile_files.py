"""Files that nobody would give by chance: fuzzed pictures, bombs, foreign formats, cards. Seeded: the same every time."""

import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
import PIL.PngImagePlugin


Files = Iterator[tuple[str, bytes]]
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCRIPT = "<script>hostile()</script>"
SVG = (
    f'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><image href="file:///etc/passwd"/>{SCRIPT}</svg>'
)


def as_file(image: PIL.Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(side: int = 64, mode: str = "RGB") -> PIL.Image.Image:
    pixels = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def good_picture() -> bytes:
    return as_file(picture())


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", extra: bytes = b"") -> bytes:
    """A PNG file of any parts; `extra` are chunks before the pixels, `data` the pixels as they are compressed."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return SIGNATURE + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    """So many zero bytes, compressed; the many are never in memory."""
    packer, parts = zlib.compressobj(9), []
    while count > 0:
        parts.append(packer.compress(b"\0" * min(count, 2**20)))
        count -= 2**20
    return b"".join([*parts, packer.flush()])


def with_text(text: str | bytes, key: bytes = b"mg_diffusion", image: bytes | None = None) -> bytes:
    """A PNG file with a text chunk, which may hold anything."""
    text = text.encode("latin-1") if isinstance(text, str) else text
    image = image or good_picture()
    return image[:33] + chunk(b"tEXt", key + b"\0" + text) + image[33:]


def with_recipe(recipe: Any, image: bytes | None = None) -> bytes:
    return with_text(json.dumps(recipe), image=image)


# -- pictures that were tampered with ---------------------------------------------------------------------------------
def fuzzed(chance: random.Random) -> Files:
    """Ordinary pictures with a few bytes changed, cut, with each other's beginnings, with chunks put between."""
    base = {
        "png": as_file(picture()),
        "palette": as_file(picture(mode="P")),
        "jpeg": as_file(picture(), "JPEG"),
        "progressive": as_file(picture(), "JPEG", progressive=True),
        "webp": as_file(picture(), "WEBP"),
        "lossless": as_file(picture(32), "WEBP", lossless=True),
    }
    for kind, content in base.items():
        for number in range(4):
            changed = bytearray(content)
            for _ in range(2**number):
                changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            yield f"{kind} with {2**number} bits flipped", bytes(changed)
        for part in (0.02, 0.95):
            yield f"{kind} cut at {part:.0%}", content[: int(part * len(content))]
        other = chance.choice([one for one in base if one != kind])
        yield f"{kind} with the beginning of {other}", base[other][:24] + content[24:]
        at = chance.randrange(8, len(content))
        yield f"{kind} with noise inside", content[:at] + chance.randbytes(64) + content[at:]
    for name in (b"IHDR", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"IDAT", b"acTL", b"fcTL", b"gAMA", b"\0\0\0\0"):
        yield (
            f"png with a chunk {name!r} of noise",
            base["png"][:33] + chunk(name, chance.randbytes(40)) + base["png"][33:],
        )


def bombs() -> Files:
    """Small files that become large, or say so."""
    for width, height in (
        (2**31 - 1, 2**31 - 1),
        (60_000, 60_000),
        (5_000, 4_000),
        (1, 2**30),
        (0, 0),
        (2**32 - 1, 8),
    ):
        yield f"png that claims {width} x {height}", png(width, height, data=zeros(64))
    for depth, color in ((1, 0), (8, 0), (16, 0), (8, 3), (8, 2), (16, 2), (8, 6)):
        bits = depth * {0: 1, 2: 3, 3: 1, 6: 4}[color]
        data = zeros(4000 * (4000 * bits // 8 + 1))
        palette = chunk(b"PLTE", bytes(768)) if color == 3 else b""
        yield f"png of 16 million pixels of type {color}, {depth} bits", png(4000, 4000, depth, color, data, palette)
    yield "png of 16 pixels and 100 MB", png(16, 16, data=zeros(100 * 2**20))
    yield "png of 16 pixels without an end", png(16, 16, data=zeros(800))[:-30]
    bomb = zeros(50 * 2**20)
    for name, head in ((b"zTXt", b"mg_diffusion\0\0"), (b"iTXt", b"mg_diffusion\0\1\0\0\0"), (b"iCCP", b"icc\0\0")):
        yield f"png with 50 MB in {name!r}", good_picture()[:33] + chunk(name, head + bomb) + good_picture()[33:]
    many = b"".join(chunk(b"zTXt", b"k%d\0\0" % number + zeros(2**20 - 1)) for number in range(80))
    yield "png with 80 texts of 1 MB", good_picture()[:33] + many + good_picture()[33:]
    large = PIL.Image.new("RGB", (4500, 4500))
    yield "jpeg of 20 million pixels", as_file(large, "JPEG", quality=1)
    yield "webp of 20 million pixels", as_file(large, "WEBP", quality=1, method=0)
    yield (
        "webp that claims 16383 x 16383",
        b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\xfe\x3f\0\xfe\x3f\0" + bytes(40),
    )
    small = [PIL.Image.new("RGB", (64, 64), (number, 0, 0)) for number in range(40)]
    for kind in ("PNG", "WEBP", "GIF"):
        yield f"animated {kind}", as_file(small[0], kind, save_all=True, append_images=small[1:])
    yield "jpeg with 200 comments", good_jpeg()[:2] + (b"\xff\xfe\xff\xff" + bytes(65533)) * 200 + good_jpeg()[2:]


def film(frames: int = 12, side: int = 3000) -> bytes:
    """An animated PNG file with a recipe: to read its text, Pillow decodes all frames."""
    text = PIL.PngImagePlugin.PngInfo()
    text.add_text("mg_diffusion", json.dumps({"seed": 0, "num_inference_steps": 1}))
    images = [PIL.Image.new("L", (side, side), number) for number in range(frames)]
    return as_file(images[0], save_all=True, append_images=images[1:], pnginfo=text, compress_level=1)


def good_jpeg() -> bytes:
    return as_file(picture(), "JPEG")


# -- what is no picture, or an unusual one ----------------------------------------------------------------------------
def foreign() -> Files:
    """Other formats under the name of a picture, several at once, and pictures of unusual kinds."""
    for kind in ("GIF", "TIFF", "BMP", "ICO", "EPS", "PDF", "PPM", "TGA", "PCX", "SGI", "DDS", "IM", "MSP", "XBM"):
        mode = "1" if kind in ("MSP", "XBM") else "RGB"
        yield f"{kind} as png", as_file(picture(mode=mode), kind)
    texts = {
        "svg": SVG,
        "svg with entities": f'<!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>{SVG}&a;',
        "html": f"<html><body>{SCRIPT}</body></html>",
        "javascript": "hostile()",
        "python": "import os; os.system('id')",
        "shell": "#!/bin/sh\ntouch /tmp/hostile\n",
        "postscript": "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n(/etc/passwd) (r) file\n",
        "imagemagick": "push graphic-context\nimage over 0,0 0,0 'https://example.invalid/x'\n",
        "xpm": "/* XPM */ static char *x[] = {",
    }
    yield from ((name, text.encode()) for name, text in texts.items())
    yield from (("empty", b""), ("one byte", b"\x89"), ("only a signature", SIGNATURE), ("zero bytes", bytes(5000)))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("../../hostile.py", "hostile()")
    yield "zip", packed.getvalue()
    yield "png and zip", good_picture() + packed.getvalue()
    yield "png and html", good_picture() + SCRIPT.encode()
    yield "jpeg and html", good_jpeg()[:2] + b"\xff\xfe\0\x20" + SCRIPT.encode().ljust(30) + good_jpeg()[2:]
    yield "gif and javascript", b"GIF89a/*" + bytes(20) + b"*/=hostile()"
    yield (
        "pickle",
        b"\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94.",
    )
    for mode in ("I;16", "CMYK", "LA", "RGBA", "1", "L"):
        yield f"picture in {mode}", as_file(PIL.Image.new(mode, (64, 64)), "JPEG" if mode == "CMYK" else "PNG")
    for size in ((1, 1), (4, 4), (900, 20), (8, 64), (20, 900)):
        yield f"picture of {size[0]} x {size[1]}", as_file(PIL.Image.new("RGB", size))


# -- cards ------------------------------------------------------------------------------------------------------------
def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LENGTHS = (("claims 2^60 bytes", 2**60), ("claims 2^64 - 1", 2**64 - 1), ("claims nothing", 0))
METADATA = (
    ("format", "x"),
    ("format", "mg_diffusion granularity card 2"),
    ("granularity", "shape"),
    ("granularity", SCRIPT),
    ("granularity", ""),
    ("granularity", "../../etc"),
    ("encoder", ""),
    ("encoder", "0" * 64),
)
DTYPES = ("F64", "I32", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "C64", "F4", "U64", "X9")


def cards(good: bytes) -> Files:
    """Files in the place of a card; `good` is a texture card of the server."""
    (length,) = struct.unpack("<Q", good[:8])
    header, data = json.loads(good[8 : 8 + length]), good[8 + length :]
    metadata, names = header["__metadata__"], [name for name in header if name != "__metadata__"]
    for name, value in LENGTHS:
        yield f"card whose header {name}", safetensors(header, data, value)
    yield from ((f"card cut at {part:.0%}", good[: int(part * len(good))]) for part in (0.0001, 0.01, 0.5, 0.999))
    yield "card that holds more", good + b"more"
    yield "card in zip", b"PK\x03\x04" + good
    yield "card without tensors", safetensors({"__metadata__": metadata})
    yield "card without metadata", safetensors({name: header[name] for name in names}, data)
    yield "card whose header is no JSON", safetensors(b"{" * 50)
    yield "card whose header is deep", safetensors(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
    yield "card whose metadata are a list", safetensors({**header, "__metadata__": [1]}, data)
    for key, value in METADATA:
        yield f"card of {key} {value!r}", safetensors({**header, "__metadata__": {**metadata, key: value}}, data)
    for dtype in DTYPES:
        yield f"card of type {dtype}", with_dtype(header, data, dtype)
    for name, value in (("NaN", np.nan), ("infinity", np.inf), ("large numbers", 1e30)):
        yield f"card of {name}", safetensors(header, np.full(len(data) // 4, value, np.float32).tobytes())
    for name in names:
        shaped = {**header, name: {**header[name], "shape": [1, *header[name]["shape"]]}}
        yield f"card with {name} of another shape", safetensors(shaped, data)
        yield f"card without {name}", safetensors({key: header[key] for key in header if key != name}, data)
    outside = {**header, names[0]: {**header[names[0]], "data_offsets": [0, 2**62]}}
    yield "card with tensors outside of it", safetensors(outside, data)
    yield "card with a path as a name", safetensors({**header, "../../etc/passwd": header[names[0]]}, data)
    more = {"dtype": "U8", "shape": [5 * 2**20], "data_offsets": [len(data), len(data) + 5 * 2**20]}
    yield "card of 5 MB", safetensors({**header, "more": more}, data + bytes(5 * 2**20))


def with_dtype(header: dict[str, Any], data: bytes, dtype: str) -> bytes:
    """A card with as many numbers as it should have, of another type."""
    bits = {"F64": 64, "U64": 64, "C64": 64, "I32": 32, "F4": 4}.get(dtype, 8)
    changed, at = {"__metadata__": header["__metadata__"]}, 0
    for name, entry in header.items():
        if name != "__metadata__":
            size = int(np.prod(entry["shape"])) * bits // 8
            changed[name] = {"dtype": dtype, "shape": entry["shape"], "data_offsets": [at, at + size]}
            at += size
    return safetensors(changed, bytes(at))
