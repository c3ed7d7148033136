"""Reference pictures that need no download: photographs bundled with scikit-image, drawn shapes, palettes.

`python -m demo.references FOLDER` writes them, as pictures to play with.
"""

import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw


SIDE = 256  # of every reference picture
TABLES = tomllib.loads(Path(__file__).with_name("references.toml").read_text(encoding="utf-8"))
PALETTES, SHAPE_COLORS, PHOTO_CROPS = (TABLES[name] for name in ("palettes", "shapes", "photographs"))


def photograph(name: str) -> PIL.Image.Image:
    """A square part of a photograph that scikit-image bundles.

    Raises:
        ValueError: if scikit-image is not installed.
    """
    try:
        from skimage import data
    except ImportError as error:
        raise ValueError("The showcase needs scikit-image: pip install 'mg-diffusion[eval]'.") from error
    source, (left, top, side) = PHOTO_CROPS[name]
    image = PIL.Image.fromarray(getattr(data, source)()).convert("RGB")
    square = image.crop((left, top, left + side, top + side))
    return square.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)


def weave() -> PIL.Image.Image:
    """A coarse basket weave, in gray."""
    y, x = np.mgrid[:SIDE, :SIDE] / 26
    over = (np.floor(x) + np.floor(y)) % 2 == 0
    bulge = np.where(over, np.sin(math.pi * (y % 1)), np.sin(math.pi * (x % 1)))
    thread = np.where(over, np.sin(8 * math.pi * y), np.sin(8 * math.pi * x))
    gray = 70 + 130 * np.sqrt(np.abs(bulge)) + 20 * thread
    return PIL.Image.fromarray(gray.clip(0, 255).astype(np.uint8)).convert("RGB")


def stripes() -> PIL.Image.Image:
    """Slanted stripes, in gray."""
    y, x = np.mgrid[:SIDE, :SIDE] / 22
    gray = 128 + 90 * np.sin(2 * math.pi * (x + 0.35 * y))
    return PIL.Image.fromarray(gray.astype(np.uint8)).convert("RGB")


def bricks() -> PIL.Image.Image:
    """A wall of bricks with pale joints, in gray; the bricks differ a little."""
    y, x = np.mgrid[:SIDE, :SIDE]
    row = y // 32
    column = (x + 32 * (row % 2)) // 64
    joint = (y % 32 < 5) | ((x + 32 * (row % 2)) % 64 < 5)
    gray = 90 + 17 * ((5 * row + 3 * column) % 4) + 12 * np.sin(x / 3) * np.sin(y / 2)
    return PIL.Image.fromarray(np.where(joint, 215, gray).astype(np.uint8)).convert("RGB")


def dots() -> PIL.Image.Image:
    """Round studs in a hexagonal grid, lit from the upper left, in gray."""
    y, x = np.mgrid[:SIDE, :SIDE] / 32
    x = x + 0.5 * (np.floor(y) % 2)
    across, down = x % 1 - 0.5, y % 1 - 0.5
    height = np.sqrt(np.clip(0.16 - across**2 - down**2, 0, None))
    gray = 110 + np.where(height > 0, 220 * height - 160 * (across + down), 0)
    return PIL.Image.fromarray(gray.clip(0, 255).astype(np.uint8)).convert("RGB")


def scene() -> PIL.Image.Image:
    """A drawn picture to edit: a low sun over hills, an apple on a table."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    sky = np.array([250, 214, 165]) * (1 - y[..., None]) + np.array([214, 110, 90]) * y[..., None]
    hills = y > 0.5 + 0.06 * np.sin(9 * x) + 0.04 * np.sin(23 * x + 1)
    sky[hills] = np.array([74, 96, 82]) + 14 * np.sin(60 * y[hills] + 20 * x[hills])[:, None]
    table = y > 0.72
    sky[table] = np.array([120, 82, 56]) + 16 * np.sin(140 * y[table] + 3 * np.sin(12 * x[table]))[:, None]
    image = PIL.Image.fromarray(sky.clip(0, 255).astype(np.uint8))
    draw = PIL.ImageDraw.Draw(image)
    draw.ellipse((175, 40, 225, 90), fill="#fff3d6")
    apple = [(128 + 52 * across, 172 + 46 * down) for across, down in outline("apple")]
    draw.polygon(apple, fill="#a4161a")
    draw.line((128, 150, 136, 118), fill="#4a3222", width=6)
    return image


def outline(name: str) -> list[tuple[float, float]]:
    """The outline of a silhouette in [-1, 1], y downwards."""
    turn = [2 * math.pi * step / 240 for step in range(240)]
    if name == "star":
        radii = [0.9 if corner % 2 == 0 else 0.38 for corner in range(10)]
        angles = [math.pi * corner / 5 - math.pi / 2 for corner in range(10)]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    if name == "heart":
        across = [16 * math.sin(t) ** 3 for t in turn]
        down = [-13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t) for t in turn]
        return [(x / 19, y / 19) for x, y in zip(across, down, strict=True)]
    if name == "leaf":  # two arcs that meet in tips, tilted
        arc = [(t / 50 - 1) * 0.95 for t in range(101)]
        points = [(x, 0.5 * math.cos(math.pi * x / 1.9)) for x in arc]
        points += [(x, -y) for x, y in reversed(points)]
        return [(0.8 * x + 0.6 * y, -0.6 * x + 0.8 * y) for x, y in points]
    if name == "flower":
        radii = [0.62 + 0.28 * math.cos(6 * t) for t in turn]
        return [(r * math.cos(t), r * math.sin(t)) for r, t in zip(radii, turn, strict=True)]
    if name == "shirt":
        right = [(0.22, -0.75), (0.5, -0.68), (0.92, -0.25), (0.66, -0.02), (0.5, -0.18), (0.5, 0.8)]
        return right + [(-x, y) for x, y in reversed(right)] + [(0, -0.58)]
    radii = [0.62 + 0.12 * math.sin(t) + 0.12 * math.cos(2 * t) for t in turn]  # an apple: dents above and below
    return [(1.05 * r * math.cos(t), 1.2 * r * math.sin(t)) for r, t in zip(radii, turn, strict=True)]


def silhouette(name: str) -> PIL.Image.Image:
    """A flat shape of one color on a ground of another."""
    figure, ground = SHAPE_COLORS[name]
    large = 4 * SIDE  # drawn larger and reduced: smooth edges
    image = PIL.Image.new("RGB", (large, large), ground)
    points = [((x + 1) * large / 2, (y + 1) * large / 2) for x, y in outline(name)]
    draw = PIL.ImageDraw.Draw(image)
    draw.polygon(points, fill=figure)
    if name == "flower":
        draw.ellipse((0.42 * large, 0.42 * large, 0.58 * large, 0.58 * large), fill=ground)
    if name == "apple":
        draw.line((0.5 * large, 0.3 * large, 0.58 * large, 0.1 * large), fill=figure, width=large // 24)
    return image.resize((SIDE, SIDE), PIL.Image.Resampling.LANCZOS)


def swatch(palette: list[str]) -> PIL.Image.Image:
    """What a palette of "#rrggbb" or "#rrggbb:weight" looks like: bars as wide as their weights."""
    entries = [(color, float(weight or 1)) for color, _, weight in (entry.partition(":") for entry in palette)]
    total, left = sum(weight for _, weight in entries), 0.0
    image = PIL.Image.new("RGB", (SIDE, SIDE))
    draw = PIL.ImageDraw.Draw(image)
    for color, weight in entries:
        draw.rectangle((left, 0, SIDE, SIDE), fill=color)
        left += SIDE * weight / total
    return image


DRAWN_TEXTURES = {"weave": weave, "stripes": stripes, "bricks": bricks, "dots": dots}


def reference(name: str) -> PIL.Image.Image | list[str]:
    """By name, what a pipeline takes as a reference: a picture or a palette."""
    if name in PALETTES:
        return PALETTES[name]
    if name in SHAPE_COLORS:
        return silhouette(name)
    if name in DRAWN_TEXTURES:
        return DRAWN_TEXTURES[name]()
    return photograph(name)


def picture(name: str) -> PIL.Image.Image:
    """By name, what to show of a reference."""
    found = reference(name)
    return swatch(found) if isinstance(found, list) else found


def write_pictures(folder: Path) -> list[Path]:
    """A PNG file of each picture.

    Raises:
        ValueError: if scikit-image is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in (*SHAPE_COLORS, *DRAWN_TEXTURES, *PHOTO_CROPS)]
    for path in paths:
        picture(path.stem).save(path)
    return paths


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m demo.references FOLDER")
    try:
        print(f"{len(write_pictures(Path(sys.argv[1])))} pictures in {sys.argv[1]}")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
