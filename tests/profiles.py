"""Small ICC profiles whose answers are known."""

import functools
import struct

import PIL.Image
import PIL.ImageCms


@functools.cache  # it holds the time
def srgb() -> bytes:
    return PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


def swapped_rgb() -> bytes:
    """sRGB with red and green in each other's place."""
    profile = srgb()
    for one, other in ((b"rXYZ", b"\0one"), (b"gXYZ", b"rXYZ"), (b"\0one", b"gXYZ")):
        profile = profile.replace(one, other, 1)
    return profile


def cmyk() -> bytes:
    """Inks of which cyan alone is a light green, and all others are as dark as one would think."""
    grid = bytearray()
    for number in range(16):  # cyan is the slowest
        cyan, magenta, yellow, black = ((number >> place) & 1 for place in (3, 2, 1, 0))
        light = (1 - black) * (100 - 15 * cyan - 45 * magenta - 5 * yellow)
        grid += bytes([max(0, round(2.55 * light)), 128 - 60 * cyan * (1 - black), 128 + 40 * cyan * (1 - black)])
    return _table_profile(b"prtr", b"CMYK", 4, bytes(grid))


def scanner_rgb() -> bytes:
    """A profile that says what its colors are, and not how they are made."""
    return _table_profile(b"scnr", b"RGB ", 3, b"".join(bytes([36 * number, 128, 150]) for number in range(8)))


def _table_profile(kind: bytes, space: bytes, channels: int, grid: bytes) -> bytes:
    """Of a grid of 2 points a channel, in Lab."""
    straight = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * (place in (0, 4, 8)) for place in range(9)))
    table = b"mft1" + bytes(4) + bytes([channels, 3, 2, 0]) + matrix + channels * straight + grid + 3 * straight
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags, body = b"", b""
    start = 128 + 4 + 12 * 2
    for name, data in ((b"A2B0", table), (b"wtpt", white)):
        data += bytes(-len(data) % 4)
        tags += name + struct.pack(">2I", start + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", start + len(body), bytes(4), 0x02400000, kind, space, b"Lab ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header + bytes(128 - len(header)) + struct.pack(">I", 2) + tags + body
